//! TLS for those who connect, with the whole server as a process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;
#[path = "support/vanish.rs"]
mod vanish;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{ConnectOptions, WebSocket, client};
use tautline_websocket::proto::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use self::process::Server;
use self::run::run;

/// An authority, and the files of what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = std::env::temp_dir();
        let directory = directory.join(format!("tautline-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }

    /// Signs a certificate. Key and certificate come into place at once, like those of a careful tool.
    fn sign(
        &self,
        file: &str,
        name: &str,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.sign_until(file, name, 4096)
    }

    /// The same, for a certificate that is good until the end of a year.
    fn sign_until(
        &self,
        file: &str,
        name: &str,
        year: i32,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let both = format!("{}{}", certificate.pem(), key.serialize_pem());
        let beside = self.path("beside.pem");
        std::fs::write(&beside, both).unwrap();
        std::fs::rename(beside, self.path(file)).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }

    fn connector(&self) -> TlsConnector {
        self.connector_with(None)
    }

    /// One that offers these protocols by ALPN.
    fn connector_offering(&self, protocols: &[&str]) -> TlsConnector {
        let connector = self.connector();
        let mut config = ClientConfig::clone(connector.config());
        let names = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = names.collect();
        TlsConnector::from(Arc::new(config))
    }

    fn connector_with(
        &self,
        own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        // Each connection is to be shown the certificate anew.
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn start(name: &str, authority: &Authority, more: &str) -> Server {
    start_with(name, authority, "", more)
}

/// The same with something in `[http_server]`.
fn start_with(name: &str, authority: &Authority, http_server: &str, more: &str) -> Server {
    let pem = authority.path("server.pem");
    let config = format!(
        "{http_server}\n[http_server.tls]\nenabled = true\ncert_pem = \"{pem}\"\nkey_pem = \"{pem}\"\n\
         check_interval = \"100ms\"\n{more}\n\
         [client]\nallow_anonymous_connect_without_token = true\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
         allow_publish_for_client = true\nallow_publish_for_anonymous = true\nhistory_size = 200\n\
         history_ttl = \"1m\"\n"
    );
    Server::serve(&format!("tls-{name}"), &config)
}

async fn shake_hands(
    server: &Server,
    connector: &TlsConnector,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let io = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    connector.connect(name, io).await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    certificates[0].clone().into_owned()
}

async fn get(stream: TlsStream<TcpStream>, path: &str) -> String {
    ask(stream, path).await.unwrap()
}

async fn ask(mut stream: TlsStream<TcpStream>, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

type Socket = WebSocket<TlsStream<TcpStream>>;

/// A session of an SDK.
async fn open(server: &Server, connector: &TlsConnector) -> Socket {
    begin(shake_hands(server, connector, "localhost").await.unwrap()).await
}

async fn begin(stream: TlsStream<TcpStream>) -> Socket {
    let url = "wss://localhost/connection/websocket";
    let options = ConnectOptions::default();
    let mut socket = client(stream, url, &options).await.unwrap().websocket;
    socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    let reply = hear(&mut socket).await;
    assert!(reply.starts_with(r#"{"id":1,"connect":"#), "{reply}");
    socket
}

async fn hear(socket: &mut Socket) -> String {
    match socket.recv().await.unwrap() {
        Some(Message::Text(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn http2_is_negotiated() {
    run(async {
        let authority = Authority::new("http2");
        authority.sign("server.pem", "localhost");
        for (number, (more, offered, expected)) in [
            ("", &["h2", "http/1.1"][..], Some("h2")),
            ("", &["http/1.1", "h2"], Some("h2")),
            ("", &["http/1.1"], Some("http/1.1")),
            ("", &[], None),
            (
                "[http_server.http2]\nenabled = false",
                &["h2", "http/1.1"],
                Some("http/1.1"),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let server = start(&format!("http2-{number}"), &authority, more);
            let connector = authority.connector_offering(offered);
            let stream = shake_hands(&server, &connector, "localhost").await.unwrap();
            let agreed = stream.get_ref().1.alpn_protocol();
            assert_eq!(agreed, expected.map(str::as_bytes), "{offered:?} {more}");
            if expected != Some("h2") {
                let answer = get(stream, "/health").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                continue;
            }
            let (client, connection) = Http2Client::over(stream, &Http2Options::default())
                .await
                .unwrap();
            tokio::spawn(connection);
            let url = "wss://localhost/connection/websocket";
            let opened = client.open(url, &ConnectOptions::default()).await.unwrap();
            let mut socket = opened.websocket;
            socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
            let Some(Message::Text(reply)) = socket.recv().await.unwrap() else {
                panic!("no reply");
            };
            assert!(reply.starts_with(r#"{"id":1,"connect":"#), "{reply}");
        }
    });
}

#[test]
fn sessions_and_plain_http_go_over_tls() {
    run(async {
        let authority = Authority::new("sessions");
        authority.sign("server.pem", "localhost");
        let server = start("sessions", &authority, "");
        let connector = authority.connector();
        let health = shake_hands(&server, &connector, "localhost").await.unwrap();
        assert!(get(health, "/health").await.starts_with("HTTP/1.1 200"));
        let mut socket = open(&server, &connector).await;
        socket
            .send(r#"{"id":2,"subscribe":{"channel":"c"}}"#)
            .await
            .unwrap();
        assert!(
            hear(&mut socket)
                .await
                .starts_with(r#"{"id":2,"subscribe":"#)
        );
        // More than any buffer on the way holds, read when all of it has been written.
        let filling = "x".repeat(60_000);
        let mut sender = open(&server, &connector).await;
        for number in 0..100 {
            let command = format!(
                r#"{{"id":{},"publish":{{"channel":"c","data":{{"n":{number},"f":"{filling}"}}}}}}"#,
                number + 2
            );
            sender.send(command.as_str()).await.unwrap();
            hear(&mut sender).await;
        }
        for number in 0..100 {
            let heard = hear(&mut socket).await;
            assert!(
                heard.contains(&format!(r#""data":{{"n":{number},"f":"x"#)),
                "{}",
                &heard[..100]
            );
        }
    });
}

/// What a socket has no room for waits in the TLS library's buffer as well as in the queue, and the
/// last of it must leave without anything coming after it.
#[cfg(target_os = "linux")]
#[test]
fn who_vanished_is_gone() {
    let authority = Authority::new("vanished");
    authority.sign("server.pem", "localhost");
    let server = start_with(
        "vanished",
        &authority,
        "write_timeout = \"1s\"",
        "[prometheus]\nenabled = true",
    );
    let connector = authority.connector();
    run(async {
        let shake = async || shake_hands(&server, &connector, "localhost").await.unwrap();
        let mut lines = shake().await;
        let request = b"GET /lines?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
        lines.write_all(request).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}\n\r\n") {
            said.push(lines.read_u8().await.unwrap());
        }
        vanish::vanish(lines.get_ref().0);
        let publish =
            b"POST /publish?channel=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\
            Connection: close\r\n\r\n1";
        let mut publishing = shake().await;
        publishing.write_all(publish).await.unwrap();
        let mut answer = String::new();
        publishing.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let wait = process::Wait::new("the client is gone");
        while !get(shake().await, "/metrics")
            .await
            .contains("\ntautline_node_num_clients 0\n")
        {
            wait.go_on();
        }
    });
}

#[test]
fn the_last_message_leaves_whenever_the_socket_fills_up() {
    run(async {
        let authority = Authority::new("last");
        authority.sign("server.pem", "localhost");
        let server = start("last", &authority, "");
        let connector = authority.connector();
        let mut sender = open(&server, &connector).await;
        let filling = "x".repeat(60_000);
        for count in 1..=40 {
            let io = TcpSocket::new_v4().unwrap();
            io.set_recv_buffer_size(8 * 1024).unwrap();
            let io = io.connect(server.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, io).await.unwrap();
            let mut socket = begin(stream).await;
            let command = format!(r#"{{"id":2,"subscribe":{{"channel":"c{count}"}}}}"#);
            socket.send(command.as_str()).await.unwrap();
            hear(&mut socket).await;
            for number in 0..count {
                let command = format!(
                    r#"{{"id":{},"publish":{{"channel":"c{count}","data":{{"n":{number},"f":"{filling}"}}}}}}"#,
                    count * 100 + number
                );
                sender.send(command.as_str()).await.unwrap();
                hear(&mut sender).await;
            }
            for number in 0..count {
                let heard = hear(&mut socket).await;
                assert!(heard.contains(&format!(r#""data":{{"n":{number},"#)));
            }
        }
    });
}

/// The number behind a name in `/metrics`.
async fn number(server: &Server, connector: &TlsConnector, name: &str) -> usize {
    let stream = shake_hands(server, connector, "localhost").await;
    let page = get(stream.unwrap(), "/metrics").await;
    let name = format!("tautline_{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&name));
    found.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

/// What TLS keeps of an answer that goes on counts for the node, as does what waits for its client, and too much of it is cut
/// off.
#[test]
fn what_tls_keeps_of_a_stream_counts_and_may_be_too_much() {
    run(async {
        for (most, is_cut) in [(1 << 30, false), (QUEUE, true)] {
            let authority = Authority::new("held");
            authority.sign("server.pem", "localhost");
            let pem = authority.path("server.pem");
            let config = format!(
                "write_timeout = \"10m\"\n[http_server.tls]\nenabled = true\ncert_pem = \"{pem}\"\nkey_pem = \"{pem}\"\n\
                 [prometheus]\nenabled = true\n[limits.memory]\nmax_queued_bytes = {most}\n\
                 [client]\nallow_anonymous_connect_without_token = true\nqueue_max_size = {QUEUE}\n\
                 [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                 allow_publish_for_client = true\nallow_publish_for_anonymous = true\nhistory_size = 20000\n\
                 history_ttl = \"10m\"\n"
            );
            let server = Server::serve("tls-held", &config);
            let connector = authority.connector();
            let mut publisher = open(&server, &connector).await;
            // Takes the head of an answer, and no more.
            let io = TcpSocket::new_v4().unwrap();
            io.set_recv_buffer_size(8 * 1024).unwrap();
            let io = io.connect(server.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, io).await.unwrap();
            let request = b"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).await.unwrap();
            assert_eq!(stream.read(&mut [0; 12]).await.unwrap(), 12);
            let data = "x".repeat(1000);
            let refused = "limits_refused_total{limit=\"queues\",mode=\"enforced\"}";
            // The system has room for some megabytes.
            let mut id = 2;
            loop {
                for _ in 0..100 {
                    let publish =
                        format!(r#"{{"id":{id},"publish":{{"channel":"a","data":"{data}"}}}}"#);
                    publisher.send(publish.as_str()).await.unwrap();
                    hear(&mut publisher).await;
                    id += 1;
                }
                assert!(id < 20_000, "it does not count");
                if is_cut && number(&server, &connector, refused).await > 0 {
                    break;
                }
                // More than waits anywhere else.
                let held = number(&server, &connector, "client_queues_memory_bytes").await;
                if held > 2 * QUEUE && !is_cut {
                    break;
                }
            }
            if !is_cut {
                drop(stream);
            }
            let wait = process::Wait::new("nothing is held any more");
            while number(&server, &connector, "client_queues_memory_bytes").await > 0 {
                wait.go_on();
            }
            let clients = number(&server, &connector, "node_num_clients").await;
            assert_eq!(clients, 1, "the one who publishes");
        }
    });
}

/// As small as it may be.
const QUEUE: usize = 16 * 1024;

#[test]
fn the_name_that_is_asked_for_decides_on_the_certificate() {
    run(async {
        let authority = Authority::new("names");
        authority.sign("server.pem", "localhost");
        authority.sign("other.pem", "*.example.com");
        let other = authority.path("other.pem");
        let more = format!(
            "[[http_server.tls.certificates]]\ncert_pem = \"{other}\"\nkey_pem = \"{other}\"\n"
        );
        let server = start("names", &authority, &more);
        let connector = authority.connector();
        // The client checks that the certificate is good for the name.
        for name in ["localhost", "chat.example.com"] {
            shake_hands(&server, &connector, name).await.unwrap();
        }
        let refused = shake_hands(&server, &connector, "example.org").await;
        assert!(refused.is_err(), "no certificate is good for that");
    });
}

#[test]
fn a_certificate_can_stand_in_the_configuration_as_text_or_in_base64() {
    run(async {
        let authority = Authority::new("inline");
        authority.sign("server.pem", "localhost");
        let text = |name: &str| {
            authority.sign("inline.pem", name);
            std::fs::read_to_string(authority.path("inline.pem")).unwrap()
        };
        let (plain, coded) = (text("plain.example.com"), text("coded.example.com"));
        let coded = BASE64_STANDARD.encode(coded);
        let more = format!(
            "[[http_server.tls.certificates]]\ncert_pem = \"\"\"{plain}\"\"\"\nkey_pem = \"\"\"{plain}\"\"\"\n\
             [[http_server.tls.certificates]]\ncert_pem = \"{coded}\"\nkey_pem = \"{coded}\"\n"
        );
        let server = start("inline", &authority, &more);
        let connector = authority.connector();
        for name in ["plain.example.com", "coded.example.com"] {
            shake_hands(&server, &connector, name).await.unwrap();
        }
    });
}

#[test]
fn new_certificates_are_taken_over_and_no_connection_is_lost() {
    run(async {
        let authority = Authority::new("rolling");
        let (mut current, _) = authority.sign("server.pem", "localhost");
        let mut server = start("rolling", &authority, "");
        let connector = authority.connector();
        let mut sockets = Vec::new();
        for _ in 0..1000 {
            sockets.push(open(&server, &connector).await);
        }
        for _ in 0..3 {
            let (next, _) = authority.sign("server.pem", "localhost");
            loop {
                let stream = shake_hands(&server, &connector, "localhost").await.unwrap();
                let shown = shown(&stream);
                if shown == next[0] {
                    break;
                }
                assert_eq!(shown, current[0], "neither the old nor the new one");
            }
            current = next;
        }
        // What makes no sense is not taken over.
        std::fs::write(authority.path("server.pem"), "nothing").unwrap();
        server.wait_for_output("the certificates from before stay in use");
        let stream = shake_hands(&server, &connector, "localhost").await.unwrap();
        assert_eq!(shown(&stream), current[0]);
        for socket in &mut sockets {
            let command = r#"{"id":2,"publish":{"channel":"d","data":{}}}"#;
            socket.send(command).await.unwrap();
            assert_eq!(hear(socket).await, r#"{"id":2,"publish":{}}"#);
        }
    });
}

#[test]
fn a_certificate_that_has_expired_is_warned_of() {
    let authority = Authority::new("expired");
    authority.sign("server.pem", "localhost");
    let mut server = start("expired", &authority, "");
    authority.sign_until("server.pem", "localhost", 2021);
    let warning = "http_server.tls.cert_pem has expired: clients will refuse to connect";
    server.wait_for_output(warning);
    let check = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["config", "check"])
        .arg(server.config_path())
        .output()
        .unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    assert!(
        told.contains(&format!("warning: {warning} (line ")),
        "{told}"
    );
    server.signal("-HUP");
    // A reload says so, too.
    server.wait_for_output(warning);
}

#[test]
fn a_reload_tells_that_certificates_are_new() {
    let authority = Authority::new("told");
    authority.sign("server.pem", "localhost");
    let pem = authority.path("server.pem");
    // The files aren't looked at by themselves in as long as this takes.
    let mut server = Server::serve(
        "tls-told",
        &format!(
            "[http_server.tls]\nenabled = true\ncert_pem = \"{pem}\"\nkey_pem = \"{pem}\"\ncheck_interval = \"24h\"\n"
        ),
    );
    for times in [0, 1] {
        server.signal("-HUP");
        let said = server.read_until("the configuration was reloaded");
        let told = said
            .iter()
            .filter(|line| line.contains("new certificates are in use"));
        assert_eq!(told.count(), times, "{said:?}");
        authority.sign("server.pem", "localhost");
    }
}

#[test]
fn clients_need_a_certificate_where_that_is_asked_for() {
    run(async {
        let authority = Authority::new("clients");
        authority.sign("server.pem", "localhost");
        let more = format!("client_ca_pem = \"{}\"", authority.path("ca.pem"));
        let server = start("clients", &authority, &more);
        let own = authority.sign("client.pem", "device-7");
        let connector = authority.connector_with(Some(own));
        let stream = shake_hands(&server, &connector, "localhost").await.unwrap();
        assert!(get(stream, "/health").await.starts_with("HTTP/1.1 200"));
        let strangers = Authority::new("strangers");
        let stranger = strangers.sign("client.pem", "device-8");
        for own in [None, Some(stranger)] {
            let connector = authority.connector_with(own);
            // In TLS 1.3 a client learns that it is refused when it reads.
            if let Ok(stream) = shake_hands(&server, &connector, "localhost").await {
                let answer = ask(stream, "/health").await;
                assert!(answer.is_err(), "let in: {answer:?}");
            }
        }
    });
}

#[test]
fn who_forgets_the_s_is_told() {
    run(async {
        let authority = Authority::new("plain");
        authority.sign("server.pem", "localhost");
        let more = "[prometheus]\nenabled = true";
        let server = start("plain", &authority, more);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        // To its end: none of it is lost, although nothing that was sent was of any use.
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("use https:// or wss://"), "{answer}");
        let stream = shake_hands(&server, &authority.connector(), "localhost").await;
        let page = get(stream.unwrap(), "/metrics").await;
        for (reason, count) in [("tls_expected", 1), ("tls_unexpected", 0), ("tls", 0)] {
            let line =
                format!("\ntautline_connections_dropped_total{{reason=\"{reason}\"}} {count}\n");
            assert!(page.contains(&line), "{line}: {page}");
        }
        assert!(
            page.contains("\ntautline_http_errors_total{status=\"400\"} 1\n"),
            "{page}"
        );
    });
}

/// The other way round: what comes back is no TLS, and the operator learns of it, once.
#[test]
fn who_says_the_s_in_vain_is_told_and_so_is_the_operator() {
    run(async {
        let authority = Authority::new("unexpected");
        let config = "[prometheus]\nenabled = true\n[client]\nallow_anonymous_connect_without_token = true\n";
        let mut server = Server::serve("tls-unexpected", config);
        for _ in 0..2 {
            let error = shake_hands(&server, &authority.connector(), "localhost").await;
            let error = error.err().unwrap().to_string();
            // What rustls has to say of plain HTTP.
            assert!(error.contains("InvalidContentType"), "{error}");
        }
        // What Go's client looks for; the first bytes of a handshake are enough.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&[22]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("use http:// or ws://"), "{answer}");
        let page = server.get("/metrics");
        for (reason, count) in [("tls_expected", 0), ("tls_unexpected", 3), ("head", 0)] {
            let line =
                format!("\ntautline_connections_dropped_total{{reason=\"{reason}\"}} {count}\n");
            assert!(page.contains(&line), "{line}: {page}");
        }
        assert!(
            page.contains("\ntautline_http_errors_total{status=\"400\"} 3\n"),
            "{page}"
        );
        server.signal("-TERM");
        let log = server.read_rest();
        assert_eq!(log.matches("speaks TLS").count(), 1, "{log}");
        assert!(log.contains("http_server.tls"), "{log}");
    });
}

/// Those who fail before there is a session are in the log of connections.
#[test]
fn handshakes_that_fail_are_logged() {
    run(async {
        let authority = Authority::new("log");
        authority.sign("server.pem", "localhost");
        let more = "[log]\nconnections = \"all\"\nformat = \"json\"";
        let mut server = start("log", &authority, more);
        // A record of a handshake, in which there is none.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"\x16\x03\x01\x00\x04oops").await.unwrap();
        let line = server.read_until("did not come in").pop().unwrap();
        assert!(line.contains(r#""stage":"tls""#), "{line}");
        assert!(line.contains(r#""address":"127.0.0.1""#), "{line}");
    });
}
