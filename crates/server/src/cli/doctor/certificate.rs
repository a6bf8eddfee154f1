//! For how long certificates are good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::parse_x509_certificate;

use super::finding::Finding;

/// Who sees to it that there is another one in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// Somebody else than the server, or nobody.
    Elsewhere,
    /// The server, when a third of its time is left.
    Here,
}

/// A finding about a certificate in DER.
pub(super) fn look(
    subject: &'static str,
    whose: &str,
    der: &[u8],
    renewed: Renewed,
    now: SystemTime,
) -> Finding {
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return Finding::bad(subject, format!("the certificate of {whose} can't be read"));
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or(0));
    let validity = certificate.validity();
    let (begin, end) = (
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    );
    if now < begin {
        let hours = (begin - now).as_secs() / 3600 + 1;
        return Finding::bad(
            subject,
            format!(
                "the certificate of {whose} is not good yet, but in {hours} h; is the clock right?"
            ),
        );
    }
    if now >= end {
        let text = format!("the certificate of {whose} has expired");
        return Finding::bad(subject, text).remedy(match renewed {
            Renewed::Elsewhere => "renew it: clients refuse to connect",
            Renewed::Here => FAILS,
        });
    }
    let left = end - now;
    let text = match left.as_secs() / 3600 {
        hours @ 0..48 => format!("the certificate of {whose} is good for {hours} more h"),
        hours => format!(
            "the certificate of {whose} is good for {} more days",
            hours / 24
        ),
    };
    let third = end.saturating_sub(begin) / 3;
    match renewed {
        Renewed::Here if left < third => {
            let text = format!("{text}, and should have been renewed by now");
            Finding::doubtful(subject, text).remedy(FAILS)
        }
        // Some are for a few days only.
        Renewed::Elsewhere if left < FEW_DAYS.min(third) => Finding::doubtful(subject, text)
            .remedy("renew it: the server takes new files over by itself"),
        _ => Finding::good(subject, text),
    }
}

/// Who renews by himself has done so by then.
const FEW_DAYS: Duration = Duration::from_secs(14 * 24 * 3600);

const FAILS: &str = "the server's log says what keeps it from a new one (journalctl --unit tautline), and \
                     tautline_tls_acme_orders_total counts its attempts";

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NEW_YEAR: u64 = 1_767_225_600;

    /// One for so many days of 2026, at most of January.
    fn until(days: u8) -> rcgen::Certificate {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 1 + days);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate")
    }

    fn at(certificate: &rcgen::Certificate, renewed: Renewed, seconds: u64) -> Finding {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        look("certificate", "a.example", certificate.der(), renewed, now)
    }

    #[test]
    fn certificates_are_good_for_a_time() {
        use Renewed::{Elsewhere, Here};
        let (month, week) = (until(30), until(6));
        for (certificate, renewed, seconds, grade, told) in [
            (&month, Elsewhere, NEW_YEAR - DAY, Grade::Bad, "in 25 h"),
            (
                &month,
                Elsewhere,
                NEW_YEAR + DAY,
                Grade::Good,
                "29 more days",
            ),
            (
                &month,
                Elsewhere,
                NEW_YEAR + 20 * DAY,
                Grade::Good,
                "10 more days",
            ),
            (
                &month,
                Elsewhere,
                NEW_YEAR + 20 * DAY + 1,
                Grade::Doubtful,
                "9 more days",
            ),
            (
                &month,
                Elsewhere,
                NEW_YEAR + 29 * DAY,
                Grade::Doubtful,
                "24 more h",
            ),
            (
                &month,
                Elsewhere,
                NEW_YEAR + 30 * DAY - 1,
                Grade::Doubtful,
                "0 more h",
            ),
            (
                &month,
                Elsewhere,
                NEW_YEAR + 30 * DAY,
                Grade::Bad,
                "has expired",
            ),
            (
                &week,
                Elsewhere,
                NEW_YEAR + 3 * DAY,
                Grade::Good,
                "3 more days",
            ),
            (&week, Here, NEW_YEAR + 4 * DAY, Grade::Good, "2 more days"),
            (
                &week,
                Here,
                NEW_YEAR + 4 * DAY + 1,
                Grade::Doubtful,
                "renewed by now",
            ),
            (&week, Here, NEW_YEAR + 6 * DAY, Grade::Bad, "has expired"),
        ] {
            let finding = at(certificate, renewed, seconds);
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert!(finding.text.contains(told), "{finding:?}");
            let of_log = finding.remedy.is_some_and(|remedy| remedy.contains("log"));
            assert_eq!(of_log, renewed == Here && grade != Grade::Good, "{told}");
        }
        let nonsense = look("certificate", "a.example", b"x", Elsewhere, UNIX_EPOCH);
        assert_eq!(nonsense.grade, Grade::Bad);
    }

    #[test]
    fn a_long_one_is_renewed_a_fortnight_before_its_end() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        for (day, grade) in [(350, Grade::Good), (352, Grade::Doubtful)] {
            let finding = at(&certificate, Renewed::Elsewhere, NEW_YEAR + day * DAY);
            assert_eq!(finding.grade, grade, "{finding:?}");
        }
    }
}
