//! Certificates that the server orders by itself, from a real authority: Pebble, which looks for the proof over
//! loopback. `cargo xtask test acme` installs it and runs these; `PEBBLE` and `PEBBLE_CHALLTESTSRV` name the programs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/anybody.rs"]
mod anybody;
mod authority;
#[path = "../support/process.rs"]
mod process;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tautline_websocket::conn::{ConnectOptions, WebSocket, client};
use tautline_websocket::proto::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use self::authority::{Authority, Manner, PATIENCE};
use self::process::Server;

const MORE: &str = "[prometheus]\nenabled = true\n[client]\nallow_anonymous_connect_without_token = true\n\
     [channel.without_namespace]\nallow_publish_for_client = true\nallow_publish_for_anonymous = true\n";

fn config(authority: &Authority, domains: &[&str], more: &str) -> String {
    let listen = format!(
        "[http_server]\naddress = \"127.0.0.1\"\nport = {}\n",
        authority.tls
    );
    format!("{listen}{}{MORE}", authority.options(domains, more))
}

fn start(name: &str, authority: &Authority, domains: &[&str], more: &str) -> Server {
    Server::serve_file(&format!("pebble-{name}"), &config(authority, domains, more))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

async fn shake_hands(server: &Server, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    tls(server.address, name).await
}

async fn tls(address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = anybody::client();
    config.resumption = rustls::client::Resumption::disabled();
    let io = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    connector.connect(name, io).await
}

/// The chain that is shown for a name.
async fn shown(server: &Server, name: &str) -> Option<Vec<CertificateDer<'static>>> {
    let stream = shake_hands(server, name).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    Some(chain.iter().map(|one| one.clone().into_owned()).collect())
}

/// What is shown for a name once there is something else than that.
async fn other_than(
    server: &Server,
    name: &str,
    old: Option<&CertificateDer<'_>>,
) -> Vec<CertificateDer<'static>> {
    let start = Instant::now();
    loop {
        match shown(server, name).await {
            Some(chain) if Some(&chain[0]) != old => return chain,
            _ => assert!(start.elapsed() < PATIENCE, "waited too long for {name}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Names, issuer, and for how many seconds.
fn read(leaf: &CertificateDer<'_>) -> (Vec<String>, String, i64) {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter().map(ToString::to_string);
    let validity = parsed.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp() + 1;
    (names.collect(), parsed.issuer().to_string(), seconds)
}

/// A number of the metrics, read over TLS by a name that there is a certificate for.
async fn number(server: &Server, name: &str, metric: &str) -> u64 {
    let mut stream = shake_hands(server, name).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let line = format!("tautline_{metric} ");
    let found = page.lines().find_map(|one| one.strip_prefix(&line));
    found
        .unwrap_or_else(|| panic!("no {metric}: {page}"))
        .parse()
        .unwrap()
}

async fn wait_for(server: &Server, name: &str, metric: &str, least: u64) {
    let start = Instant::now();
    while number(server, name, metric).await < least {
        assert!(start.elapsed() < PATIENCE, "waited too long for {metric}");
        tokio::task::yield_now().await;
    }
}

fn orders(domain: &str, outcome: &str) -> String {
    format!("tls_acme_orders_total{{domain=\"{domain}\",outcome=\"{outcome}\"}}")
}

#[test]
fn each_name_gets_a_certificate_that_outlives_the_server_and_the_authority() {
    run(async {
        let domains = ["live.example.test", "other.example.test"];
        let mut authority = Authority::new("first", Manner::default());
        let contact = "contact = [\"ops@example.test\"]";
        let server = start("first", &authority, &domains, contact);
        let mut chains = Vec::new();
        let mut before: Option<CertificateDer<'_>> = None;
        for domain in domains {
            // Until it has one of its own, it is shown the other's.
            let chain = other_than(&server, domain, before.as_ref()).await;
            before = Some(chain[0].clone());
            let (names, issuer, seconds) = read(&chain[0]);
            assert_eq!(names, [format!("DNSName({domain})")]);
            assert!(issuer.contains("Pebble"), "{issuer}");
            assert_eq!(seconds, 90 * 24 * 3600);
            assert!(chain.len() > 1, "with what is between it and the root");
            assert_eq!(number(&server, domain, &orders(domain, "issued")).await, 1);
            assert_eq!(number(&server, domain, &orders(domain, "failed")).await, 0);
            let expiry =
                format!("tls_certificate_expiry_timestamp_seconds{{certificate=\"{domain}\"}}");
            let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
            let until = u64::try_from(parsed.validity().not_after.timestamp()).unwrap();
            assert_eq!(number(&server, domain, &expiry).await, until);
            chains.push(chain);
        }
        // Whoever names nobody, is shown the first.
        let chain = shown(&server, "127.0.0.1").await.unwrap();
        assert_eq!(chain, chains[0]);
        let names: Vec<_> = authority.kept();
        let names: Vec<_> = names
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        let expected = [
            "account.json",
            "live.example.test.pem",
            "lock",
            "other.example.test.pem",
        ];
        assert_eq!(names, expected);
        #[cfg(unix)]
        for file in authority.kept() {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        let (text, is_well) = doctor(&server);
        assert!(is_well, "{text}");
        for expected in [
            "live.example.test) is good for 89 more days",
            "/dir answers",
            "look for the server on port 443",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        drop(server);
        authority.stop();
        let server = start("again", &authority, &domains, contact);
        for (domain, chain) in domains.iter().zip(&chains) {
            assert_eq!(shown(&server, domain).await.as_ref(), Some(chain));
            assert_eq!(number(&server, domain, &orders(domain, "issued")).await, 0);
        }
        let (text, is_well) = doctor(&server);
        assert!(!is_well && text.contains("it can't be reached"), "{text}");
    });
}

/// What the doctor says of a server's configuration, and whether all is well.
fn doctor(server: &Server) -> (String, bool) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["doctor", "--config"])
        .arg(server.config_path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.success())
}

type Socket = WebSocket<TlsStream<TcpStream>>;

async fn open(server: &Server, name: &str) -> Socket {
    let stream = shake_hands(server, name).await.unwrap();
    let url = format!("wss://{name}/connection/websocket");
    let opened = client(stream, &url, &ConnectOptions::default()).await;
    let mut socket = opened.unwrap().websocket;
    socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    assert!(hear(&mut socket).await.starts_with(r#"{"id":1,"connect":"#));
    socket
}

/// The next message that is no ping; pings are answered.
async fn hear(socket: &mut Socket) -> String {
    loop {
        let text = match socket.recv().await.unwrap() {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        };
        if text != "{}" {
            return text;
        }
        socket.send("{}").await.unwrap();
    }
}

#[test]
fn a_short_lived_certificate_is_renewed_again_and_again_and_no_connection_is_lost() {
    run(async {
        let domain = "live.example.test";
        let manner = Manner {
            profiles: &[("shortlived", 12)],
            ..Manner::default()
        };
        let authority = Authority::new("renewal", manner);
        let server = start("renewal", &authority, &[domain], "");
        let mut current = other_than(&server, domain, None).await;
        let mut sockets = Vec::new();
        for _ in 0..100 {
            sockets.push(open(&server, domain).await);
        }
        for _ in 0..2 {
            let next = other_than(&server, domain, Some(&current[0])).await;
            // Nobody is ever shown anything in between: that would be another one again.
            assert_eq!(read(&next[0]).2, 12);
            for socket in &mut sockets {
                socket
                    .send(r#"{"id":2,"publish":{"channel":"c","data":{}}}"#)
                    .await
                    .unwrap();
                assert_eq!(hear(socket).await, r#"{"id":2,"publish":{}}"#);
            }
            current = next;
        }
        assert_eq!(number(&server, domain, "node_num_clients").await, 100);
        assert_eq!(number(&server, domain, &orders(domain, "failed")).await, 0);
    });
}

#[test]
fn a_certificate_that_the_authority_wants_back_is_replaced_at_once() {
    run(async {
        let domain = "live.example.test";
        let authority = Authority::new("advice", Manner::default());
        let server = start("advice", &authority, &[domain], "");
        let first = other_than(&server, domain, None).await;
        drop(server);
        let kept = std::fs::read_to_string(&authority.kept()[1]).unwrap();
        let (_, chain) = kept.split_once("-----BEGIN CERTIFICATE").unwrap();
        let (leaf, _) = chain.split_once("-----END CERTIFICATE").unwrap();
        let leaf = format!("-----BEGIN CERTIFICATE{leaf}-----END CERTIFICATE-----\n");
        let (from, until) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        authority.advise(&leaf, from, until).await;
        let mut server = start("advised", &authority, &[domain], "");
        server.wait_for_output("wants the certificate to be replaced at once");
        other_than(&server, domain, Some(&first[0])).await;
        assert_eq!(number(&server, domain, &orders(domain, "issued")).await, 1);
        assert_eq!(number(&server, domain, &orders(domain, "failed")).await, 0);
    });
}

#[test]
fn a_name_that_cannot_be_proved_keeps_no_other_from_its_certificate() {
    run(async {
        let authority = Authority::new("astray", Manner::default());
        let (good, astray, blocked) = (
            "good.example.test",
            "astray.example.test",
            "blocked.example",
        );
        authority.point(astray, false);
        let domains = [astray, blocked, good];
        let mut server = start("astray", &authority, &domains, "");
        server.wait_for_output("could not see that the name is this server's");
        server.wait_for_output("blocked.example");
        let chain = other_than(&server, good, None).await;
        wait_for(&server, good, &orders(good, "issued"), 1).await;
        for domain in [astray, blocked] {
            assert_eq!(number(&server, good, &orders(domain, "failed")).await, 1);
            assert_eq!(number(&server, good, &orders(domain, "issued")).await, 0);
            let expiry =
                format!("tls_certificate_expiry_timestamp_seconds{{certificate=\"{domain}\"}}");
            assert_eq!(number(&server, good, &expiry).await, 0);
            // Whose clients get at least to see that something is wrong.
            assert_eq!(shown(&server, domain).await, Some(chain.clone()));
        }
        // Once the name points here, a restart is one way not to wait for the next attempt.
        drop(server);
        authority.point(astray, true);
        let server = start("astray", &authority, &domains, "");
        let chain = other_than(&server, astray, Some(&chain[0])).await;
        assert_eq!(read(&chain[0]).0, [format!("DNSName({astray})")]);
    });
}

#[test]
fn nonces_that_are_refused_cost_no_more_than_another_attempt() {
    run(async {
        let domain = "live.example.test";
        let manner = Manner {
            nonces_refused: 15,
            ..Manner::default()
        };
        let authority = Authority::new("nonces", manner);
        // Each request has three attempts, so one in 300 of them fails for good: then an order does, and a new server
        // tries anew at once.
        for attempt in 0.. {
            let mut server = start("nonces", &authority, &[domain], "");
            let start = Instant::now();
            while shown(&server, domain).await.is_none() && start.elapsed() < PATIENCE / 4 {
                tokio::task::yield_now().await;
            }
            if shown(&server, domain).await.is_some() {
                break;
            }
            assert!(attempt < 4, "again and again");
            server.wait_for_output("badNonce");
        }
    });
}

#[test]
fn an_authority_that_knows_its_subscribers_is_told_who_asks() {
    run(async {
        let domain = "live.example.test";
        let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
        let manner = Manner {
            external: Some(("kid-1", key)),
            profiles: &[("default", 90 * 24 * 3600), ("weekly", 7 * 24 * 3600)],
            ..Manner::default()
        };
        let authority = Authority::new("external", manner);
        let mut server = start("stranger", &authority, &[domain], "");
        server.wait_for_output("externalAccountRequired");
        let (text, is_well) = doctor(&server);
        assert!(
            !is_well && text.contains("external_account_key_id"),
            "{text}"
        );
        drop(server);
        let more = format!(
            "external_account_key_id = \"kid-1\"\nexternal_account_hmac_key = \"{key}\"\nprofile = \"weekly\""
        );
        let server = start("external", &authority, &[domain], &more);
        let chain = other_than(&server, domain, None).await;
        assert_eq!(read(&chain[0]).2, 7 * 24 * 3600);
    });
}

#[test]
fn an_authority_that_has_forgotten_the_account_gets_a_new_one() {
    run(async {
        let (one, other) = ("one.example.test", "other.example.test");
        let mut authority = Authority::new("forgotten", Manner::default());
        let server = start(
            "before",
            &authority,
            &[one],
            "contact = [\"a@example.test\"]",
        );
        let first = other_than(&server, one, None).await;
        let account = || std::fs::read_to_string(&authority.kept()[0]).unwrap();
        let before = account();
        drop(server);
        // The same account, with other addresses.
        let server = start(
            "moved",
            &authority,
            &[one, other],
            "contact = [\"b@example.test\"]",
        );
        other_than(&server, other, Some(&first[0])).await;
        let moved = account();
        assert_ne!(before, moved);
        assert_eq!(before.replace("a@example", "b@example"), moved);
        drop(server);
        authority.stop();
        authority.start();
        let third = "third.example.test";
        let server = start(
            "after",
            &authority,
            &[one, third],
            "contact = [\"b@example.test\"]",
        );
        other_than(&server, third, Some(&first[0])).await;
        assert_ne!(
            std::fs::read_to_string(&authority.kept()[0]).unwrap(),
            moved
        );
        assert_eq!(
            shown(&server, one).await,
            Some(first),
            "that is still the old one"
        );
    });
}

#[test]
fn a_reload_orders_for_new_names_and_keeps_what_there_is() {
    run(async {
        let (one, other) = ("one.example.test", "other.example.test");
        let authority = Authority::new("reload", Manner::default());
        let server = start("reload", &authority, &[one], "");
        let first = other_than(&server, one, None).await;
        let mut socket = open(&server, one).await;
        server.write_config(&config(&authority, &[one, other], ""));
        server.signal("-HUP");
        other_than(&server, other, Some(&first[0])).await;
        assert_eq!(shown(&server, one).await, Some(first));
        socket
            .send(r#"{"id":2,"publish":{"channel":"c","data":{}}}"#)
            .await
            .unwrap();
        assert_eq!(hear(&mut socket).await, r#"{"id":2,"publish":{}}"#);
    });
}
