//! TLS to the backend, and HTTP/2 where it offers that.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Version;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::backend::{Asked, Backend, Say};
use super::{run, start, url};
use crate::peer::Peer;

const CERTIFICATE: &[u8] = include_bytes!("../../../websocket/tests/data/localhost.cert.der");
const KEY: &[u8] = include_bytes!("../../../websocket/tests/data/localhost.key.der");

fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
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

fn config(backend: &Backend, more: &str) -> String {
    format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\ntimeout = \"5s\"\n{more}",
        backend.url
    )
}

#[test]
fn http2_is_spoken_where_the_backend_offers_it() {
    run(async {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(CERTIFICATE)
        );
        let trust = format!("http.tls.server_ca_pem = '''{pem}'''\n");
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
        let say = |_: &Asked| Say::Json(json!({"result": {"user": "7"}}));
        let mut backend = Backend::start_with(Some(acceptor(&[])), say).await;
        let node = start(&config(&backend, ""));
        let mut peer = Peer::open(&url(&node), &[]).await;
        let reply = peer.ask("connect", json!({})).await;
        assert_eq!(reply["error"]["code"], json!(100), "{reply}");
        backend.assert_idle();
    });
}
