//! What becomes of certificates, with an authority that is made up, and time that goes as fast as it is asked to.

#[path = "../../tests/support/anybody.rs"]
mod anybody;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use super::schedule::Advice;
use super::*;
use crate::config::TlsOptions;
use crate::tls::Tls;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// When the tests begin: some day in 2026.
const START: Duration = Duration::from_secs(1_780_000_000);

/// Options with a directory of their own, which goes with them.
struct Setting {
    options: AcmeOptions,
    cache: PathBuf,
}

impl Setting {
    fn new(name: &str, domains: &[&str]) -> Self {
        let cache = std::env::temp_dir();
        let cache = cache.join(format!("tautline-acme-run-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&cache);
        let options = AcmeOptions {
            enabled: true,
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            terms_of_service_agreed: true,
            cache_directory: cache.display().to_string(),
            ..AcmeOptions::default()
        };
        assert_eq!(crate::config::check_acme(&options), Ok(()));
        Self { options, cache }
    }

    fn acme(&self) -> Acme {
        Acme::new(&self.options).expect("good options")
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.cache);
    }
}

/// Time that is at once whenever somebody waits for it, so many times.
struct Hurried {
    now: Mutex<Duration>,
    waits_left: AtomicUsize,
    over: Notify,
}

impl Hurried {
    fn new(now: Duration, waits: usize) -> Self {
        Self {
            now: Mutex::new(now),
            waits_left: AtomicUsize::new(waits),
            over: Notify::new(),
        }
    }
}

impl Clock for Hurried {
    fn now(&self) -> Duration {
        *self.now.lock().expect("nobody panics")
    }

    async fn sleep_until(&self, at: Duration) {
        if self.waits_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.over.notify_one();
            std::future::pending::<()>().await;
        }
        let mut now = self.now.lock().expect("nobody panics");
        *now = at.max(*now);
    }
}

/// What an authority has to say to one order.
enum Says {
    /// A certificate from now on, for so long.
    Yes(Duration),
    No,
    /// No, and not before so much time.
    Later(Duration),
    /// This text.
    Text(String),
}

/// One that says what it was told to say, and then always yes.
struct Puppet<'a> {
    clock: &'a Hurried,
    says: Mutex<VecDeque<Says>>,
    /// For which names there were orders, and when.
    asked: Mutex<Vec<(String, Duration)>>,
    is_busy: AtomicBool,
    /// What it says of when to renew; nothing at all if that is none.
    advice: Mutex<VecDeque<Result<Option<Advice>, ()>>>,
    /// Whether orders said what they replace.
    replaces: Mutex<Vec<bool>>,
}

impl<'a> Puppet<'a> {
    fn new(clock: &'a Hurried, says: impl IntoIterator<Item = Says>) -> Self {
        Self {
            clock,
            says: Mutex::new(says.into_iter().collect()),
            asked: Mutex::default(),
            is_busy: AtomicBool::new(false),
            advice: Mutex::default(),
            replaces: Mutex::default(),
        }
    }

    /// One that also says when it would like certificates to be renewed: that, one after the other, and then nothing.
    fn advising(self, advice: impl IntoIterator<Item = Result<Option<Advice>, ()>>) -> Self {
        *self.advice.lock().expect("nobody panics") = advice.into_iter().collect();
        self
    }

    /// On which day of the test there were orders, and for which names.
    fn asked(&self) -> Vec<(String, u64)> {
        let asked = self.asked.lock().expect("nobody panics");
        let days =
            |at: Duration| at.checked_sub(START).unwrap_or_default().as_secs() / DAY.as_secs();
        asked
            .iter()
            .map(|(domain, at)| (domain.clone(), days(*at)))
            .collect()
    }
}

impl Authority for Puppet<'_> {
    async fn advice(&self, _: &CertificateDer<'_>) -> Result<Option<Advice>, OrderError> {
        let says = self.advice.lock().expect("nobody panics").pop_front();
        let failed = |()| OrderError::Failed("it does not answer".to_owned());
        says.unwrap_or(Ok(None)).map_err(failed)
    }

    async fn order(
        &self,
        domain: &str,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<String, Failure> {
        let has_one = replaced.is_some();
        self.replaces.lock().expect("nobody panics").push(has_one);
        assert!(
            !self.is_busy.swap(true, Ordering::SeqCst),
            "two orders at once"
        );
        let now = self.clock.now();
        self.asked
            .lock()
            .expect("nobody panics")
            .push((domain.to_owned(), now));
        // Somebody else has time to do wrong.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.is_busy.store(false, Ordering::SeqCst);
        let says = self.says.lock().expect("nobody panics").pop_front();
        match says.unwrap_or(Says::Yes(90 * DAY)) {
            Says::Yes(life) => Ok(pem(domain, now, life)),
            Says::No => Err(OrderError::Failed("it is not in the mood".to_owned()).into()),
            Says::Later(again) => Err(Failure {
                error: OrderError::Failed("too many".to_owned()),
                again: Some(again),
            }),
            Says::Text(text) => Ok(text),
        }
    }
}

/// A certificate with its key.
fn pem(domain: &str, from: Duration, life: Duration) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([domain.to_owned()]).expect("a name");
    params.not_before = (UNIX_EPOCH + from).into();
    params.not_after = (UNIX_EPOCH + from + life).into();
    let certificate = params.self_signed(&key).expect("a certificate");
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

/// No jitter.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// Lets it run until the clock has enough.
async fn run(acme: &Acme, authority: &Puppet<'_>) {
    let mut entropy = Zeros;
    tokio::select! {
        never = acme.run_with(authority, authority.clock, &mut entropy) => match never {},
        () = authority.clock.over.notified() => {}
    }
}

fn counted(acme: &Acme) -> Vec<(u64, u64)> {
    let numbers = acme.numbers().into_iter();
    numbers.map(|one| (one.issued, one.failed)).collect()
}

#[tokio::test]
async fn each_name_gets_a_certificate_and_a_new_one_after_two_thirds_of_its_time() {
    let setting = Setting::new("each", &["a.example", "b.example"]);
    let acme = setting.acme();
    assert!(acme.certificate("a.example").is_none() && acme.first().is_none());
    let clock = Hurried::new(START, 4);
    let authority = Puppet::new(&clock, [Says::Yes(90 * DAY), Says::Yes(6 * DAY)]);
    run(&acme, &authority).await;
    let named = |domain: &str, day| (domain.to_owned(), day);
    let expected = [
        named("a.example", 0),
        named("b.example", 0),
        named("b.example", 4),
        named("a.example", 60),
    ];
    assert_eq!(authority.asked(), expected);
    assert_eq!(counted(&acme), [(2, 0), (2, 0)]);
    let shown = acme.certificate("A.example").expect("there is one");
    assert!(acme.certificate("c.example").is_none());

    // A process that is started later has the same, and orders nothing before it is time.
    let again = setting.acme();
    let kept = again.certificate("a.example").expect("it was kept");
    assert_eq!(kept.cert, shown.cert);
    let clock = Hurried::new(START + 61 * DAY, 2);
    let authority = Puppet::new(&clock, []);
    run(&again, &authority).await;
    // Of b, which had its last renewal on day 4 for 90 days, and of a on day 60.
    let expected = [named("b.example", 64), named("a.example", 120)];
    assert_eq!(authority.asked(), expected);
}

#[tokio::test]
async fn an_authority_that_wants_a_certificate_back_gets_another_one_ordered() {
    let setting = Setting::new("advice", &["a.example"]);
    let acme = setting.acme();
    let clock = Hurried::new(START, 1);
    run(&acme, &Puppet::new(&clock, [])).await;
    assert!(acme.certificate("a.example").is_some());
    let days = |from: u32, until: u32| Advice {
        from: START + from * DAY,
        until: START + until * DAY,
        again: DAY,
    };
    // On the tenth day it would have it on the twentieth, then it does not answer, and then it wants it at once.
    let acme = setting.acme();
    let clock = Hurried::new(START + 10 * DAY, 3);
    let says = [Ok(Some(days(20, 21))), Err(()), Ok(Some(days(5, 6)))];
    let authority = Puppet::new(&clock, []).advising(says);
    run(&acme, &authority).await;
    assert_eq!(authority.asked(), [("a.example".to_owned(), 11)]);
    assert_eq!(*authority.replaces.lock().expect("nobody panics"), [true]);
    // Of the new one it says nothing: that has its usual time.
    let acme = setting.acme();
    let clock = Hurried::new(START + 12 * DAY, 1);
    let authority = Puppet::new(&clock, []);
    run(&acme, &authority).await;
    assert_eq!(authority.asked(), [("a.example".to_owned(), 71)]);
    assert_eq!(*authority.replaces.lock().expect("nobody panics"), [false]);
}

#[tokio::test]
async fn a_failure_takes_nothing_away_and_is_tried_again() {
    let setting = Setting::new("failure", &["a.example"]);
    let acme = setting.acme();
    let clock = Hurried::new(START, 1);
    run(&acme, &Puppet::new(&clock, [])).await;
    let first = acme.certificate("a.example").expect("there is one");

    let other_name = pem("b.example", START, 900 * DAY);
    let expired = pem("a.example", START, DAY);
    let good = pem("a.example", START, 900 * DAY);
    let (key, _) = good.split_once("-----BEGIN CERTIFICATE").expect("both");
    let (_, chain) = expired.split_once("-----BEGIN CERTIFICATE").expect("both");
    let other_key = format!("{key}-----BEGIN CERTIFICATE{chain}");
    let bad = [
        Says::No,
        Says::Text(String::new()),
        Says::Text("<html>".to_owned()),
        Says::Text(other_name),
        Says::Text(expired),
        Says::Text(other_key),
        Says::No,
    ];
    let clock = Hurried::new(START, bad.len());
    let authority = Puppet::new(&clock, bad);
    run(&acme, &authority).await;
    assert_eq!(authority.asked().len(), 7);
    assert_eq!(authority.asked()[0].1, 60);
    assert_eq!(counted(&acme), [(1, 7)]);
    let now = acme.certificate("a.example").expect("there is one");
    assert_eq!(now.cert, first.cert, "the old one stays in use");
    let kept = setting.acme().certificate("a.example").expect("it is kept");
    assert_eq!(kept.cert, first.cert);

    // Within the same day: the pauses are 5 minutes, 10, 20 and so on.
    assert!(authority.asked()[6].1 <= 60, "{:?}", authority.asked());
    let clock = Hurried::new(START + 61 * DAY, 1);
    run(&acme, &Puppet::new(&clock, [])).await;
    let new = acme.certificate("a.example").expect("there is one");
    assert_ne!(new.cert, first.cert);
}

#[tokio::test]
async fn an_authority_that_wants_to_be_left_alone_is() {
    let setting = Setting::new("later", &["a.example", "b.example"]);
    let acme = setting.acme();
    let clock = Hurried::new(START, 3);
    let hours = |hours: u32| Duration::from_secs(3600) * hours;
    let authority = Puppet::new(&clock, [Says::Later(hours(7)), Says::Yes(90 * DAY)]);
    run(&acme, &authority).await;
    let asked = authority.asked.lock().expect("nobody panics").clone();
    let expected = [("a.example", 0), ("b.example", 0), ("a.example", 7)];
    let expected = expected.map(|(domain, after)| (domain.to_owned(), START + hours(after)));
    assert_eq!(asked, expected);
}

/// A clock that is years ahead, and is set right while it is waited for.
struct Corrected {
    by: Hurried,
    is_right: AtomicBool,
}

impl Clock for Corrected {
    fn now(&self) -> Duration {
        match self.is_right.load(Ordering::SeqCst) {
            true => self.by.now(),
            false => self.by.now() + 5000 * DAY,
        }
    }

    async fn sleep_until(&self, at: Duration) {
        // What is to be at once is.
        if at <= self.now() || self.is_right.load(Ordering::SeqCst) {
            return self.by.sleep_until(at).await;
        }
        self.is_right.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_costs_no_more_than_a_day() {
    let setting = Setting::new("ahead", &["a.example"]);
    let acme = setting.acme();
    let clock = Corrected {
        by: Hurried::new(START, 2),
        is_right: AtomicBool::new(false),
    };
    // By that time, the first certificate has expired when it comes.
    let authority = Puppet::new(&clock.by, []);
    let mut entropy = Zeros;
    tokio::select! {
        never = acme.run_with(&authority, &clock, &mut entropy) => match never {},
        () = clock.by.over.notified() => {}
    }
    let asked = authority.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].1 <= 1, "{asked:?}");
    assert_eq!(counted(&acme), [(1, 1)]);
}

#[tokio::test]
async fn one_process_orders_and_the_others_take_over_what_it_got() {
    let setting = Setting::new("processes", &["a.example"]);
    let acme = setting.acme();
    let other = setting.acme();
    let lock = other.store.lock().expect("a lock").expect("nobody has it");
    let clock = Hurried::new(START, 3);
    let authority = Puppet::new(&clock, []);
    run(&acme, &authority).await;
    assert_eq!(authority.asked(), [], "it is somebody else's turn");
    assert!(acme.certificate("a.example").is_none());

    let text = pem("a.example", START, 90 * DAY);
    let store = &other.store;
    store
        .keep_certificate("a.example", text.as_bytes())
        .expect("room");
    drop(lock);
    let clock = Hurried::new(START + DAY, 2);
    let authority = Puppet::new(&clock, []);
    run(&acme, &authority).await;
    // The one of that process, and the next one at its time.
    assert_eq!(authority.asked(), [("a.example".to_owned(), 60)]);
    assert_eq!(counted(&acme), [(1, 0)]);
}

#[tokio::test]
async fn what_was_kept_and_is_no_good_is_ordered_anew() {
    let setting = Setting::new("spoilt", &["a.example"]);
    let store = setting.acme().store;
    drop(store.lock().expect("a lock"));
    let of_other = pem("b.example", START, 90 * DAY);
    for spoilt in ["", "no PEM", &of_other] {
        store
            .keep_certificate("a.example", spoilt.as_bytes())
            .expect("room");
        let acme = setting.acme();
        assert!(acme.certificate("a.example").is_none());
        let clock = Hurried::new(START, 1);
        run(&acme, &Puppet::new(&clock, [])).await;
        assert!(setting.acme().certificate("a.example").is_some());
    }
}

#[tokio::test]
async fn a_disk_without_room_costs_no_certificate() {
    let setting = Setting::new("disk", &["a.example"]);
    let acme = setting.acme();
    drop(acme.store.lock().expect("a lock"));
    // A directory is where the file would have to go.
    let in_the_way = acme.store.directory().join("a.example.pem.new");
    fs::create_dir_all(in_the_way.join("full")).expect("room");
    let clock = Hurried::new(START, 1);
    run(&acme, &Puppet::new(&clock, [])).await;
    assert!(acme.certificate("a.example").is_some());
    assert_eq!(counted(&acme), [(1, 0)]);
    assert!(setting.acme().certificate("a.example").is_none());
}

/// What a client that offers these protocols is shown, what is agreed on, and whether the connection is kept.
async fn visit(
    tls: &Arc<Tls>,
    name: &str,
    protocols: &[&[u8]],
) -> std::io::Result<(CertificateDer<'static>, Option<Vec<u8>>, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut config = anybody::client();
    config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
    let serve = async {
        let (io, _) = listener.accept().await?;
        tls.accept(io).await
    };
    let come = async {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let io = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, io)
            .await?;
        let connection = stream.get_ref().1;
        let agreed = connection.alpn_protocol().map(<[u8]>::to_vec);
        let shown = connection.peer_certificates().expect("one at least")[0]
            .clone()
            .into_owned();
        if agreed.as_deref() == Some(b"acme-tls/1") {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            assert!(rest.is_empty(), "nobody talks to an authority");
        }
        Ok((shown, agreed))
    };
    let (served, came) = tokio::join!(serve, come);
    let served: Result<_, crate::tls::NotAccepted> = served;
    came.map(|(shown, agreed)| (shown, agreed, served.is_ok()))
}

#[tokio::test]
async fn an_authority_is_shown_the_proof_and_everybody_else_the_certificate() {
    let setting = Setting::new("proof", &["a.example", "b.example"]);
    let store = setting.acme().store;
    drop(store.lock().expect("a lock"));
    for domain in ["a.example", "b.example"] {
        let text = pem(domain, START, 90 * DAY);
        store
            .keep_certificate(domain, text.as_bytes())
            .expect("room");
    }
    let options = |client_ca_pem| TlsOptions {
        enabled: true,
        client_ca_pem,
        acme: setting.options.clone(),
        ..TlsOptions::default()
    };
    // Where clients need certificates, the authority has none, and needs none.
    let some_authority = pem("ca.example", START, 90 * DAY);
    for needed in [None, Some(some_authority)] {
        let is_open = needed.is_none();
        let tls = Tls::new(&options(needed), true).expect("good options");
        let tls = Arc::new(tls.expect("it is on"));
        let acme = tls.acme().expect("it is on");
        let certificate = acme.certificate("a.example").expect("it was kept");
        let certificate = &certificate.cert[0];
        let normal = |shown: &CertificateDer<'static>, kept: bool| {
            assert_eq!(shown, certificate);
            assert_eq!(kept, is_open);
        };
        let refused = visit(&tls, "a.example", &[b"acme-tls/1"]).await;
        assert!(refused.is_err(), "nobody was asked to come: {refused:?}");

        let digest = [7; 32];
        let proof = acme
            .challenges
            .answer("a.example", &digest)
            .expect("a proof");
        let (shown, agreed, kept) = visit(&tls, "a.example", &[b"acme-tls/1"])
            .await
            .expect("a proof");
        assert_eq!(agreed.as_deref(), Some(&b"acme-tls/1"[..]));
        assert!(!kept);
        let (_, parsed) = x509_parser::parse_x509_certificate(&shown).expect("a certificate");
        // RFC 8737, section 3: critical, and the digest as an octet string.
        let extensions = parsed.extensions().iter();
        let mut found = extensions.filter(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let found = found.next().expect("the extension");
        assert!(found.critical);
        assert_eq!(found.value, [&[4, 32][..], &digest].concat());
        let names = parsed
            .subject_alternative_name()
            .expect("one")
            .expect("one");
        assert_eq!(names.value.general_names.len(), 1);

        // At the same time.
        let offers: [&[&[u8]]; 4] = [&[], &[b"h2"], &[b"http/1.1"], &[b"acme-tls/1", b"h2"]];
        for protocols in offers {
            let (shown, agreed, kept) = visit(&tls, "a.example", protocols).await.expect("TLS");
            normal(&shown, kept);
            assert_ne!(agreed.as_deref(), Some(&b"acme-tls/1"[..]));
        }
        let refused = visit(&tls, "b.example", &[b"acme-tls/1"]).await;
        assert!(
            refused.is_err(),
            "of that name nothing is asked: {refused:?}"
        );

        drop(proof);
        assert!(!acme.is_asked());
        let refused = visit(&tls, "a.example", &[b"acme-tls/1"]).await;
        assert!(refused.is_err(), "it is over: {refused:?}");
        let (shown, _, kept) = visit(&tls, "a.example", &[b"h2"]).await.expect("TLS");
        normal(&shown, kept);
        // Who names nobody gets the first.
        let (shown, _, _) = visit(&tls, "127.0.0.1", &[]).await.expect("TLS");
        assert_eq!(&shown, certificate);
    }
}

#[test]
fn keys_for_accounts_are_read_as_authorities_give_them() {
    let mut setting = Setting::new("external", &["a.example"]);
    setting.options.external_account_key_id = Some("kid".to_owned());
    for (text, expected) in [
        ("AQID-_8", Some(vec![1, 2, 3, 0xfb, 0xff])),
        (" AQID-_8= \n", Some(vec![1, 2, 3, 0xfb, 0xff])),
        ("AQID+/8", None),
    ] {
        setting.options.external_account_hmac_key = Some(text.into());
        let external = external(&setting.options).ok().flatten();
        assert_eq!(external.map(|(_, key)| key), expected, "{text}");
    }
}
