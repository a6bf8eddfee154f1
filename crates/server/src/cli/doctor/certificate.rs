//! For how long certificates are good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::parse_x509_certificate;

use super::finding::Finding;

/// A finding about a certificate in DER.
pub(super) fn look(subject: &'static str, whose: &str, der: &[u8], now: SystemTime) -> Finding {
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
    let days = end.saturating_sub(now).as_secs() / (24 * 3600);
    if now >= end {
        let text = format!("the certificate of {whose} has expired");
        return Finding::bad(subject, text).remedy("renew it: clients refuse to connect");
    }
    let text = format!("the certificate of {whose} is good for {days} more days");
    if days < FEW_DAYS {
        return Finding::doubtful(subject, text)
            .remedy("renew it: the server takes new files over by itself");
    }
    Finding::good(subject, text)
}

/// Who renews by himself has done so by then.
const FEW_DAYS: u64 = 14;

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[test]
    fn certificates_are_good_for_a_time() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let day = 24 * 3600;
        let new_year = 1_767_225_600;
        for (at, grade) in [
            (new_year - day, Grade::Bad),
            (new_year + day, Grade::Good),
            (new_year + 80 * day, Grade::Doubtful),
            (new_year + 91 * day, Grade::Bad),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(at);
            let finding = look("certificate", "a.example", certificate.der(), now);
            assert_eq!(finding.grade, grade, "{finding:?}");
        }
        let nonsense = look("certificate", "a.example", b"x", UNIX_EPOCH);
        assert_eq!(nonsense.grade, Grade::Bad);
    }
}
