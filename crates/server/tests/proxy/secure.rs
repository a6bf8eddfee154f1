//! TLS to whoever is asked or told: the backend, which gets events, too, and the collector of traces. And HTTP/2 where
//! it is offered.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Version;
use serde_json::{Value, json};
use tautline::Node;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::backend::{Asked, Backend, Say};
use super::{run, start, url};
use crate::authority::{Authority, Signed};
use crate::directory::Directory;
use crate::peer::Peer;

const CERTIFICATE: &[u8] = include_bytes!("../../../websocket/tests/data/localhost.cert.der");
const KEY: &[u8] = include_bytes!("../../../websocket/tests/data/localhost.key.der");

pub(super) fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(CERTIFICATE)],
            PrivatePkcs8KeyDer::from(KEY).into(),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// The option of an endpoint that has its certificate trusted.
pub(super) fn trust() -> String {
    let pem = STANDARD.encode(CERTIFICATE);
    format!(
        "http.tls.server_ca_pem = '''-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n'''\n"
    )
}

fn config(backend: &Backend, more: &str) -> String {
    format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\ntimeout = \"5s\"\n{more}",
        backend.url
    )
}

#[test]
fn http2_is_spoken_where_the_backend_offers_it() {
    run(async {
        let trust = trust();
        for (offered, expected) in [
            (&[b"h2".as_slice(), b"http/1.1"][..], Version::HTTP_2),
            (&[b"http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            let say = |_: &Asked| Say::Json(json!({"result": {"user": "7"}}));
            let mut backend = Backend::start_with(Some(acceptor(offered)), say).await;
            let node = start(&config(&backend, &trust));
            Peer::connect(&url(&node)).await;
            assert_eq!(backend.next().await.version, expected);
        }
    });
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    run(async {
        let other = Authority::new();
        let its = |pem: &str| format!("http.tls.server_ca_pem = {pem:?}\n");
        for trust in ["".to_owned(), its(&other.pem())] {
            let tls = Authority::new().acceptor(None);
            let mut backend = Backend::start_with(Some(tls), user).await;
            let node = start(&config(&backend, &trust));
            assert_eq!(code(&node).await, json!(100));
            backend.parted().await;
            backend.assert_idle();
        }
    });
}

fn user(_: &Asked) -> Say {
    Say::Json(json!({"result": {"user": "7"}}))
}

/// The code of the error with which a connection comes to nothing; `null` if it doesn't.
async fn code(node: &Node) -> Value {
    let mut peer = Peer::open(&url(node), &[]).await;
    let reply = peer.ask("connect", json!({})).await;
    reply["error"]["code"].clone()
}

/// The options of a table `tls`: whom to trust, and what to show.
fn tls(before: &str, trusted: &Authority, own: Option<&Signed>) -> String {
    let mut options = format!("{before}server_ca_pem = {:?}\n", trusted.pem());
    if let Some(own) = own {
        options += &format!(
            "{before}cert_pem = {:?}\n{before}key_pem = {:?}\n",
            own.certificate_pem, own.key_pem
        );
    }
    options
}

#[test]
fn a_backend_that_asks_for_a_certificate_is_shown_the_one_of_the_options() {
    run(async {
        let (its, of_clients) = (Authority::new(), Authority::new());
        let mut backend = Backend::start_with(Some(its.acceptor(Some(&of_clients))), user).await;
        let (own, foreign) = (of_clients.sign("tautline"), its.sign("tautline"));
        for (shown, expected) in [
            (None, json!(100)),
            (Some(&foreign), json!(100)),
            (Some(&own), Value::Null),
        ] {
            let node = start(&config(&backend, &tls("http.tls.", &its, shown)));
            assert_eq!(code(&node).await, expected);
        }
        for _ in 0..2 {
            backend.parted().await;
        }
        assert_eq!(backend.next().await.certificate, Some(own.certificate));
        backend.assert_idle();
    });
}

#[test]
fn events_are_told_to_whom_the_options_trust_and_with_the_certificate_of_the_options() {
    run(async {
        let (its, of_clients) = (Authority::new(), Authority::new());
        let mut backend = Backend::start_with(Some(its.acceptor(Some(&of_clients))), user).await;
        let (own, foreign) = (of_clients.sign("tautline"), its.sign("tautline"));
        let directory = Directory::new("secure-events");
        let with = |tls: &str| {
            format!(
                "client.allow_anonymous_connect_without_token = true\n[events]\nenabled = true\n\
                 endpoint = \"{}/events\"\nretry_min = \"1ms\"\nretry_max = \"5ms\"\n\
                 kinds = [\"connected\"]\ndirectory = {:?}\n{tls}",
                backend.url,
                directory.path().display().to_string(),
            )
        };
        let told = [
            tls("http.tls.", &of_clients, Some(&own)),
            tls("http.tls.", &its, None),
            tls("http.tls.", &its, Some(&foreign)),
            tls("http.tls.", &its, Some(&own)),
        ]
        .map(|tls| with(&tls));
        let node = start(&told[0]);
        let _peer = Peer::connect(&url(&node)).await;
        // Each of them comes to nothing until the next is there.
        for next in &told[1..] {
            while backend.has_parted() {}
            // The first may have begun by the options before.
            backend.parted().await;
            backend.parted().await;
            backend.assert_idle();
            let config = super::config(next);
            node.handle().reconfigure(config).await.unwrap();
        }
        let asked = backend.next().await;
        assert_eq!(asked.body["events"][0]["type"], "connected");
        assert_eq!(asked.certificate, Some(own.certificate));
    });
}

#[test]
fn traces_go_to_the_collector_that_the_options_trust_and_to_no_other() {
    run(async {
        let its = Authority::new();
        let mut collector = Backend::start_with(Some(its.acceptor(None)), user).await;
        let backend = Backend::start(user).await;
        for (trusted, is_told) in [(Authority::new(), false), (its, true)] {
            let node = start(&format!(
                "shutdown.timeout = \"1s\"\n{}[telemetry.otlp]\nenabled = true\nsampling_percent = 100\n\
                 endpoint = \"{}/v1/traces\"\n{}",
                config(&backend, ""),
                collector.url,
                tls("", &trusted, None),
            ));
            Peer::connect(&url(&node)).await;
            if is_told {
                let asked = collector.next().await;
                let span = &asked.body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
                assert_eq!(span["name"], "ask connect");
            } else {
                collector.parted().await;
                node.shutdown().await;
                collector.assert_idle();
            }
        }
    });
}
