//! The examples, each run as a process, on the loopback interface: they do what their first lines say, and
//! say what is wrong where something is.
//!
//! `cargo test` builds them. Who runs these tests alone builds them before:
//! `cargo build -p tautline-websocket --all-features --examples`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tautline_websocket::conn::{ClientStream, ConnectError, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::deflate::ClientConfig;
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Those that are run here.
const EXAMPLES: [&str; 9] = [
    "autobahn_client",
    "axum_chat",
    "broadcast_server",
    "client_behind_proxy",
    "compression",
    "echo_client",
    "echo_server",
    "http2",
    "push_server",
];

#[test]
fn every_example_is_run_here_and_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let list = std::fs::read_to_string(folder.join("README.md")).expect("a list");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.extension().is_some_and(|ext| ext == "rs") || path.join("main.rs").exists()
        })
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(names, EXAMPLES);
    for name in EXAMPLES {
        assert!(
            list.contains(&format!("| `{name}` |")),
            "{name} is not in the list"
        );
    }
}

/// An example with these arguments.
fn example(name: &str, args: &[&str]) -> Command {
    // From target/PROFILE/deps/examples-HASH to target/PROFILE/examples/NAME.
    let own = std::env::current_exe().expect("a path");
    let profile = own.ancestors().nth(2).expect("two folders");
    let program: PathBuf = profile
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "{} is missing: cargo build -p tautline-websocket --all-features --examples",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs one to its end.
fn run(name: &str, args: &[&str]) -> Output {
    example(name, args).output().expect("it starts")
}

/// One that runs, until this is dropped.
struct Running {
    child: Child,
    /// Where it listens.
    address: SocketAddr,
}

impl Running {
    /// Starts one that says where it listens, by a URL in its first line of output, or of errors.
    fn start(mut command: Command, says_so: fn(&mut Child) -> Box<dyn Read>) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let mut output = BufReader::new(says_so(&mut child));
        output.read_line(&mut line).expect("a line");
        let (_, url) = line.split_once("://").expect(&line);
        let address = url.split(['/', ' ', ';', '\n']).next().expect("the first");
        let address = address.parse().expect(&line);
        Self { child, address }
    }

    /// Says so in its output.
    fn server(name: &str, args: &[&str]) -> Self {
        Self::start(example(name, args), |child| {
            Box::new(child.stdout.take().expect("piped"))
        })
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    async fn connect(&self, path: &str) -> WebSocket<ClientStream> {
        self.connect_with(path, &ConnectOptions::default()).await
    }

    async fn connect_with(&self, path: &str, options: &ConnectOptions) -> WebSocket<ClientStream> {
        connect(&self.url(path), options)
            .await
            .expect("a handshake")
            .websocket
    }

    /// Ctrl-C.
    fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("a shell").success());
    }

    /// How it ends.
    fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it was started")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next message, which doesn't take long.
async fn next(ws: &mut WebSocket<ClientStream>) -> Option<Message> {
    let received = timeout(Duration::from_secs(30), ws.recv()).await;
    received.expect("in time").expect("in order")
}

/// Waits for a message behind whatever others have said before.
async fn hear(ws: &mut WebSocket<ClientStream>, expected: &Message) {
    loop {
        let message = next(ws).await.expect("more to come");
        if message == *expected {
            return;
        }
        assert_eq!(message, Message::from("here"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn echo_server() {
    let server = Running::server(
        "echo_server",
        &[
            "--listen",
            "127.0.0.1:0",
            "--threads",
            "2",
            "--deflate",
            "--max-message",
            "2000",
        ],
    );
    let compressed = ConnectOptions {
        deflate: Some(ClientConfig::default()),
        ..ConnectOptions::default()
    };
    for (path, options) in [
        ("/", ConnectOptions::default()),
        ("/any/path?at=all", compressed),
    ] {
        let mut ws = server.connect_with(path, &options).await;
        for message in [
            Message::from("a text that is long enough to be compressed: ".repeat(10)),
            Message::from(vec![0x80; 1000]),
        ] {
            ws.send(&message).await.unwrap();
            assert_eq!(next(&mut ws).await, Some(message));
        }
        ws.send(&[7; 2001][..]).await.unwrap();
        assert_eq!(next(&mut ws).await, None);
        assert_eq!(
            ws.closed().expect("a Close").code,
            CloseCode::MESSAGE_TOO_BIG
        );
    }
    let wrong = run("echo_server", &["--listen", "nowhere"]);
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        said.contains("--listen wants an address and port") && said.contains("usage: "),
        "{said}"
    );
}

#[test]
fn echo_client() {
    let server = Running::server("echo_server", &["--listen", "127.0.0.1:0"]);
    let mut client = example("echo_client", &[&server.url("/")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = client.stdin.take().expect("piped");
    input.write_all("one\nzwölf\n".as_bytes()).unwrap();
    drop(input);
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "one\nzwölf\n");
    assert_eq!(run("echo_client", &[]).status.code(), Some(2));
}

#[tokio::test]
async fn broadcast_server() {
    let server = Running::server(
        "broadcast_server",
        &["--listen", "127.0.0.1:0", "--threads", "2", "--deflate"],
    );
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(server.connect("/fanout").await);
    }
    // Whoever has joined hears what it says itself.
    for member in &mut members {
        member.send("here").await.unwrap();
        assert_eq!(next(member).await, Some(Message::from("here")));
    }
    members[3].send(&b"to all"[..]).await.unwrap();
    for member in &mut members {
        hear(member, &Message::from(b"to all".to_vec())).await;
    }
    let elsewhere = connect(&server.url("/"), &ConnectOptions::default()).await;
    let Err(ConnectError::Refused(rejection)) = elsewhere else {
        panic!("{elsewhere:?}");
    };
    assert_eq!(rejection.head.status(), 404);
    assert_eq!(text(&rejection.body), "expected /fanout, not /\n");
}

#[tokio::test]
async fn push_server() {
    let server = Running::start(example("push_server", &["127.0.0.1:0", "1"]), |child| {
        Box::new(child.stderr.take().expect("piped"))
    });
    let mut ws = server.connect("/").await;
    for _ in 0..2 {
        let Some(Message::Text(time)) = next(&mut ws).await else {
            panic!("no text");
        };
        assert!(
            time.starts_with(r#"{"now":"#) && time.ends_with(r#","clients":1}"#),
            "{time}"
        );
    }
    server.interrupt();
    while next(&mut ws).await.is_some() {}
    let closed = ws.closed().expect("a Close");
    assert_eq!(
        (closed.code, &*closed.reason),
        (CloseCode::GOING_AWAY, "the server ends")
    );
    assert!(server.wait().success());
}

#[tokio::test]
async fn axum_chat() {
    let server = Running::server("axum_chat", &["127.0.0.1:0"]);
    let mut page = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address
    );
    page.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("/chat"),
        "{answer}"
    );

    let from = |origin: String| ConnectOptions {
        headers: vec![("Origin".to_owned(), origin)],
        ..ConnectOptions::default()
    };
    let own = from(format!("http://{}", server.address));
    let mut members = Vec::new();
    for _ in 0..3 {
        let mut member = server.connect_with("/chat", &own).await;
        member.send("here").await.unwrap();
        assert_eq!(next(&mut member).await, Some(Message::from("here")));
        members.push(member);
    }
    members[2].send("Hello!").await.unwrap();
    for member in &mut members {
        hear(member, &Message::from("Hello!")).await;
    }
    let other = connect(
        &server.url("/chat"),
        &from("http://elsewhere.example".to_owned()),
    )
    .await;
    assert!(
        matches!(&other, Err(ConnectError::Refused(rejection)) if rejection.head.status() == 403),
        "{other:?}"
    );

    server.interrupt();
    for member in &mut members {
        while next(member).await.is_some() {}
        assert_eq!(
            member.closed().expect("a Close").code,
            CloseCode::GOING_AWAY
        );
    }
    drop(members);
    assert!(server.wait().success());
}

/// One connection through a proxy that knows its user: HTTP's CONNECT, or SOCKS 5.
async fn proxy(listener: TcpListener, socks: bool) {
    let (mut client, _) = listener.accept().await.expect("open");
    let target: SocketAddr = if socks {
        let mut greeting = [0; 2];
        client.read_exact(&mut greeting).await.expect("open");
        let mut methods = vec![0; usize::from(greeting[1])];
        client.read_exact(&mut methods).await.expect("open");
        assert!(methods.contains(&2), "a password is offered");
        client.write_all(&[5, 2]).await.expect("open");
        let mut credentials = [0; 11];
        client.read_exact(&mut credentials).await.expect("open");
        assert_eq!(&credentials, b"\x01\x02me\x06secret");
        client.write_all(&[1, 0]).await.expect("open");
        let mut request = [0; 10];
        client.read_exact(&mut request).await.expect("open");
        let [5, 1, 0, 1, a, b, c, d, high, low] = request else {
            panic!("{request:x?}");
        };
        client
            .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .expect("open");
        ([a, b, c, d], u16::from_be_bytes([high, low])).into()
    } else {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("open"));
        }
        let head = text(&head);
        // me:secret
        assert!(head.contains("Basic bWU6c2VjcmV0"), "{head}");
        client
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .await
            .expect("open");
        head.split(' ')
            .nth(1)
            .expect("a target")
            .parse()
            .expect(&head)
    };
    let mut server = TcpStream::connect(target).await.expect("open");
    // How it ends is theirs.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn client_behind_proxy() {
    let server = Running::server("echo_server", &["--listen", "127.0.0.1:0"]);
    for kind in ["http", "socks5"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxied = tokio::spawn(proxy(listener, kind == "socks5"));
        let mut command = example(
            "client_behind_proxy",
            &[kind, &address, &server.url("/"), "Hello"],
        );
        command
            .env("PROXY_USER", "me")
            .env("PROXY_PASSWORD", "secret");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().expect("it starts");
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("Hello\n".to_owned(), String::new())
        );
        assert!(output.status.success());
        proxied.await.expect("what a proxy expects");
    }
    assert_eq!(
        run("client_behind_proxy", &["ftp", "a:1", "ws://b/", "c"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn compression() {
    let output = run("compression", &[]);
    let said = text(&output.stdout);
    let bytes: Vec<u64> = said
        .lines()
        .map(|line| {
            let (before, _) = line.split_once(" bytes").expect(&said);
            before
                .split_whitespace()
                .last()
                .expect(&said)
                .parse()
                .expect(&said)
        })
        .collect();
    assert!(output.status.success());
    assert!(
        matches!(bytes[..], [plain, alone, together] if plain > 2 * alone && alone > together),
        "{said}"
    );
}

#[test]
fn http2() {
    let server = Running::server("http2", &["serve", "127.0.0.1:0"]);
    let output = run("http2", &["ask", &server.url("/"), "20"]);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("20 of 20 answers over one connection"),
        "{said}"
    );
    assert!(output.status.success());
}

/// What it does with the suite is seen in `cargo xtask conformance`; here, that it says when there is none.
#[tokio::test]
async fn autobahn_client() {
    let output = example("autobahn_client", &[])
        .env_remove("AUTOBAHN_URL")
        .output();
    let output = output.expect("it starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.starts_with("AUTOBAHN_URL is not set"), "{said}");

    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut command = example("autobahn_client", &[]);
    command.env("AUTOBAHN_URL", format!("ws://{address}"));
    let output = command.output().expect("it starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("can't connect to 127.0.0.1 on port {}: ", address.port());
    assert!(
        said.starts_with(&expected) && said.lines().count() == 1,
        "{said}"
    );
}
