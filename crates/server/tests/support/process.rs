//! The whole server as a process.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on the slowest of machines.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running server, stopped when dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    /// Where it listens for those who are no clients, if that is apart.
    pub(crate) internal: Option<SocketAddr>,
    output: Output,
    config: Option<PathBuf>,
}

impl Server {
    /// `tautline dev` on a free port.
    pub(crate) fn dev() -> Self {
        Self::dev_with(&[])
    }

    /// The same with more on its command line.
    pub(crate) fn dev_with(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["dev", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut output = Output::of(process.stdout.take().expect("stdout is piped"));
        let (address, internal) = find_address(&mut output, "ws://");
        Self {
            process,
            address,
            internal,
            output,
            config: None,
        }
    }

    /// `tautline serve` with this configuration, on a free port.
    pub(crate) fn serve(name: &str, config: &str) -> Self {
        Self::serve_by(&[], name, config)
    }

    /// The same, started by another program: its name and its arguments.
    pub(crate) fn serve_by(starter: &[&str], name: &str, config: &str) -> Self {
        Self::serve_file_by(starter, name, &format!("{LISTEN}{config}"))
    }

    /// `tautline serve` with this file.
    pub(crate) fn serve_file(name: &str, text: &str) -> Self {
        Self::serve_file_by(&[], name, text)
    }

    /// The same, started by another program: its name and its arguments.
    pub(crate) fn serve_file_by(starter: &[&str], name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tautline-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        let server = [env!("CARGO_BIN_EXE_tautline")];
        let mut command = starter.iter().chain(&server);
        let mut process = Command::new(command.next().expect("there is one"))
            .args(command)
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut output = Output::of(process.stderr.take().expect("stderr is piped"));
        let (address, internal) = find_address(&mut output, "listening");
        Self {
            process,
            address,
            internal,
            output,
            config: Some(path),
        }
    }

    /// Writes another configuration, has the server reload it, and returns what it says about it.
    pub(crate) fn reload(&mut self, config: &str) -> Vec<String> {
        self.write_config(&format!("{LISTEN}{config}"));
        self.hang_up()
    }

    /// Where its configuration is.
    pub(crate) fn config_path(&self) -> &Path {
        self.config.as_ref().expect("it has a configuration")
    }

    /// Writes another configuration, all of it.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.config_path(), text).expect("a temporary file");
    }

    /// Has the server reload its configuration, and returns what it says about it.
    pub(crate) fn hang_up(&mut self) -> Vec<String> {
        self.signal("-HUP");
        let mut lines = self.read_until("the configuration was");
        // What it had to say before is of no interest.
        lines.drain(..lines.len() - 1);
        if lines.iter().all(|line| !line.contains("not reloaded")) {
            let (_, count) = lines[lines.len() - 1]
                .rsplit_once("changes")
                .expect("a number of changes");
            // As text, or in JSON.
            let count = count.trim_start_matches(['=', '"', ':']);
            let end = count.find(|c: char| !c.is_ascii_digit());
            let count: usize = count[..end.unwrap_or(count.len())]
                .parse()
                .expect("a number");
            for _ in 0..count {
                // With whatever else it says meanwhile.
                lines.extend(self.read_until(" -> "));
            }
        }
        lines
    }

    /// The lines that the server says until one has `mark`, that one included.
    pub(crate) fn read_until(&mut self, mark: &str) -> Vec<String> {
        let (mut lines, wait) = (Vec::new(), Wait::new(mark));
        loop {
            let line = self.output.line(&wait);
            let is_last = line.contains(mark);
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// One call of the HTTP API, with the key of the development server.
    pub(crate) fn api(&self, method: &str, body: &str) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "POST /api/{method} HTTP/1.1\r\nHost: {}\r\nX-API-Key: dev\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .expect("the server takes a request");
        let mut response = String::new();
        stream
            .read_to_string(&mut response)
            .expect("the server answers");
        assert!(
            response.starts_with("HTTP/1.1 200 "),
            "{method}: {response}"
        );
        response
            .split_once("\r\n\r\n")
            .expect("a response has a body")
            .1
            .to_owned()
    }

    /// What a path answers with.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )
        .expect("the server takes a request");
        let mut response = String::new();
        stream
            .read_to_string(&mut response)
            .expect("the server answers");
        response
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status()
            .expect("kill is there");
        assert!(status.success());
    }

    /// Has somebody read all that the server says from now on, and gives how many bytes that is. Nobody else can read
    /// it then.
    pub(crate) fn drain_output(&mut self) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let its = Arc::clone(&count);
        let output = std::mem::replace(&mut self.output, Output::of(std::io::empty()));
        std::thread::spawn(move || {
            let mut output = output;
            while let Some(line) = output.next() {
                its.fetch_add(line.len() as u64, Ordering::Relaxed);
            }
        });
        count
    }

    /// Nobody reads what it says any more, ever.
    pub(crate) fn close_output(&mut self) {
        std::mem::replace(&mut self.output, Output::of(std::io::empty())).close();
    }

    /// All that the server still says, until it ends.
    pub(crate) fn read_rest(&mut self) -> String {
        let (mut rest, wait) = (String::new(), Wait::new("the end of what the server says"));
        while let Some(line) = self.output.line_or_end(&wait) {
            rest.push_str(&line);
        }
        rest
    }

    /// Reads what the server says until a line has `mark`.
    pub(crate) fn wait_for_output(&mut self, mark: &str) {
        let wait = Wait::new(mark);
        while !self.output.line(&wait).contains(mark) {}
    }

    /// Reads on, for as long as the server says something, while the test does something else. The lines are there when it
    /// has ended.
    pub(crate) fn read_on(&mut self) -> JoinHandle<Vec<String>> {
        let nothing = Output::of(std::io::empty());
        let mut output = std::mem::replace(&mut self.output, nothing);
        std::thread::spawn(move || std::iter::from_fn(|| output.next()).collect())
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("the server ends", || {
            self.process.try_wait().expect("it can be waited for")
        })
    }
}

/// What every configuration begins with.
const LISTEN: &str = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n";

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(config) = &self.config {
            let _ = std::fs::remove_file(config);
        }
    }
}

/// What a process says. A thread reads a line when somebody wants one, so that who waits for it has a deadline; what
/// nobody asks for stays in the pipe.
pub(crate) struct Output {
    wants: Sender<()>,
    lines: Mutex<Receiver<String>>,
    thread: JoinHandle<()>,
}

impl Output {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (wants, wanted) = mpsc::channel();
        let (tell, lines) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            for () in wanted {
                let mut line = Vec::new();
                let Ok(1..) = pipe.read_until(b'\n', &mut line) else {
                    return;
                };
                let text = String::from_utf8_lossy(&line).into_owned();
                if tell.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            wants,
            lines: Mutex::new(lines),
            thread,
        }
    }

    /// The next line; `None` when there is none any more. It may be waited for as long as it takes.
    fn next(&mut self) -> Option<String> {
        // The reader may have seen the end.
        let _ = self.wants.send(());
        let lines = self.lines.get_mut().expect("nobody panics with it");
        lines.recv().ok()
    }

    /// The same by a deadline.
    fn line_or_end(&mut self, wait: &Wait) -> Option<String> {
        let _ = self.wants.send(());
        let lines = self.lines.get_mut().expect("nobody panics with it");
        match lines.recv_timeout(wait.left()) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => wait.fail("it was not said"),
        }
    }

    /// The next line, which there must be.
    pub(crate) fn line(&mut self, wait: &Wait) -> String {
        self.line_or_end(wait)
            .unwrap_or_else(|| wait.fail("the process ended"))
    }

    /// Returns when nobody has the pipe any more.
    fn close(self) {
        drop(self.wants);
        self.thread.join().expect("it reads");
    }
}

/// A connection whose reads have a time-out.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a time-out can be set");
    stream
        .set_nodelay(true)
        .expect("the delay can be switched off");
    stream
}

/// Reads lines until one has `mark`, and takes the address from it, and before that the one of the internal listener, if
/// there is one.
fn find_address(output: &mut Output, mark: &str) -> (SocketAddr, Option<SocketAddr>) {
    let wait = Wait::new(format!("a line with {mark}, which says that it is up"));
    let address = |line: &str| {
        let from = line.find("127.0.0.1:").expect("the line names the address");
        let text: String = line[from..]
            .chars()
            .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
            .collect();
        text.trim_end_matches(':').parse().expect("an address")
    };
    let mut internal = None;
    loop {
        let line = output.line(&wait);
        if line.contains("have a listener of their own") {
            internal = Some(address(&line));
        }
        if line.contains(mark) {
            return (address(&line), internal);
        }
    }
}

/// A wait that ends, and then says what it was for. What only time-outs of single reads guard goes on for ever where
/// something else comes again and again, such as pings.
pub(crate) struct Wait {
    what: String,
    since: Instant,
}

impl Wait {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            since: Instant::now(),
        }
    }

    /// For how long it may be waited yet.
    pub(crate) fn left(&self) -> Duration {
        DEADLINE.saturating_sub(self.since.elapsed())
    }

    /// To be asked before each further step.
    pub(crate) fn go_on(&self) {
        if self.left().is_zero() {
            self.fail("it did not come");
        }
    }

    /// Ends it: `why` it came to nothing.
    pub(crate) fn fail(&self, why: &str) -> ! {
        let (what, elapsed) = (&self.what, self.since.elapsed());
        panic!("waited {elapsed:.1?} for {what}: {why}");
    }

    /// Reads more of a stream that has a time-out. Returns whether there was more.
    pub(crate) fn read(&self, stream: &mut TcpStream, into: &mut Vec<u8>) -> bool {
        self.read_up_to(stream, into, usize::MAX)
    }

    /// The same, so that there are no more than `most` bytes.
    pub(crate) fn read_up_to(
        &self,
        stream: &mut TcpStream,
        into: &mut Vec<u8>,
        most: usize,
    ) -> bool {
        self.go_on();
        let mut buffer = [0; 16 * 1024];
        let len = buffer.len().min(most.saturating_sub(into.len()));
        let count = match stream.read(&mut buffer[..len]) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => {
                let so_far = String::from_utf8_lossy(into);
                self.fail(&format!("{error}; so far there is {so_far:?}"))
            }
        };
        into.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// Asks again and again until there is an answer, for as long as the deadline allows.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let wait = Wait::new(what);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        wait.go_on();
        std::thread::yield_now();
    }
}
