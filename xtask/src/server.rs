//! The server under test: built once, started on a free port, and stopped as an operator would.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::error::Error;
use crate::process::{self, Running};

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longer than the server's own time for a shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A server on loopback, ended when dropped.
pub(crate) struct Server {
    running: Running,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Builds the release binary, starts `tautline dev`, and waits until it is healthy. Its output
    /// goes to `target/xtask/server/NAME.log`.
    ///
    /// # Errors
    ///
    /// When it does not build, or is not healthy in time.
    pub(crate) fn start(context: &Context, name: &str) -> Result<Self, Error> {
        let address = free_address()?;
        let arguments = ["dev".into(), "--listen".into(), address.to_string()];
        Self::run(context, name, address, &arguments)
    }

    /// The same with `tautline serve` and the options of `file`, which must not say where to listen.
    ///
    /// # Errors
    ///
    /// When it does not build, is not healthy in time, or the file can't be read.
    pub(crate) fn configured(context: &Context, name: &str, file: &str) -> Result<Self, Error> {
        Self::configured_with(context, name, file, None)
    }

    /// The same, with the address of its backend in the place of `@BACKEND@`.
    ///
    /// # Errors
    ///
    /// As [`configured`](Self::configured).
    pub(crate) fn configured_with(
        context: &Context,
        name: &str,
        file: &str,
        backend: Option<SocketAddr>,
    ) -> Result<Self, Error> {
        let address = free_address()?;
        let options = context.root.join(file);
        let options = std::fs::read_to_string(&options)
            .map_err(Error::context(format!("can't read {}", options.display())))?;
        let options = match backend {
            None => options,
            Some(backend) => options.replace("@BACKEND@", &backend.to_string()),
        };
        let (ip, port) = (address.ip(), address.port());
        let place = format!("[http_server]\naddress = \"{ip}\"\nport = {port}\n\n");
        let whole = context.scratch("server")?.join(format!("{name}.toml"));
        std::fs::write(&whole, place + &options)
            .map_err(Error::context(format!("can't write {}", whole.display())))?;
        let arguments = [
            "serve".into(),
            "--config".into(),
            whole.display().to_string(),
        ];
        Self::run(context, name, address, &arguments)
    }

    /// The same with a server that has code behind it: an example of the crate, which is told where to
    /// listen.
    ///
    /// # Errors
    ///
    /// When it does not build, or is not healthy in time.
    pub(crate) fn example(context: &Context, example: &str) -> Result<Self, Error> {
        let build = ["--example", example];
        let program = format!("examples/{example}");
        let address = free_address()?;
        let arguments = [address.to_string()];
        Self::run_program(context, example, address, (&build, &program), &arguments)
    }

    fn run(
        context: &Context,
        name: &str,
        address: SocketAddr,
        arguments: &[String],
    ) -> Result<Self, Error> {
        Self::run_program(context, name, address, (&[], "tautline"), arguments)
    }

    fn run_program(
        context: &Context,
        name: &str,
        address: SocketAddr,
        (wanted, program): (&[&str], &str),
        arguments: &[String],
    ) -> Result<Self, Error> {
        let mut build = context.cargo(["build", "--release", "--package", "tautline"]);
        build.args(wanted);
        let built = process::run(&context.children, &mut build, BUILD_LIMIT)?;
        if !built.success {
            return Err(Error::new(format!("the server's build {}", built.ending)));
        }
        let log = context.scratch("server")?.join(format!("{name}.log"));
        let output =
            File::create(&log).map_err(Error::context(format!("can't write {}", log.display())))?;
        let errors = output
            .try_clone()
            .map_err(Error::context("can't share a file"))?;
        let mut command = Command::new(context.target.join("release").join(program));
        command
            .current_dir(&context.root)
            .args(arguments)
            .stdout(output)
            .stderr(errors);
        println!("$ {}", process::describe(&command));
        let running = Running::start(&context.children, &mut command)?;
        let mut server = Self {
            running,
            address,
            log,
        };
        server.wait_until_healthy()?;
        Ok(server)
    }

    /// Where a suite finds it.
    pub(crate) fn tell(&self, command: &mut Command) {
        command
            .env("TAUTLINE_URL", self.url())
            .env("TAUTLINE_API_KEY", "dev");
    }

    /// Where it is, for those who are told in another way.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The body of what it answers to a request for that path.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it isn't 200.
    pub(crate) fn get(&self, path: &str) -> Result<String, Error> {
        let failed = || Error::context(format!("GET {path} of the server failed"));
        let answer = get(self.address, path, u64::MAX).map_err(failed())?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(Error::new(format!("GET {path} was answered with {answer}"))),
        }
    }

    fn wait_until_healthy(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_LIMIT;
        while !is_healthy(self.address) {
            if let Some(status) = self.running.ended()? {
                return Err(self.failed(&format!("ended at once with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.failed(&format!(
                    "did not answer GET /health on {} with 200 within {} s",
                    self.address,
                    START_LIMIT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends SIGTERM, and expects it to end by itself, with status 0.
    ///
    /// # Errors
    ///
    /// When it doesn't.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        if let Some(status) = self.running.ended()? {
            return Err(self.failed(&format!("ended during the tests, with {status}")));
        }
        self.running.terminate();
        match self.running.ended_by(Instant::now() + STOP_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&format!("ended on SIGTERM with {status}, not 0"))),
            None => Err(self.failed(&format!(
                "did not end within {} s of SIGTERM",
                STOP_LIMIT.as_secs()
            ))),
        }
    }

    fn failed(&self, what: &str) -> Error {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        Error::new(format!(
            "the server {what}. The end of {}:\n{}",
            self.log.display(),
            tail.join("\n")
        ))
    }
}

/// A loopback address nobody listens on, at the moment of asking.
///
/// # Errors
///
/// When the system has none.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(Error::context("can't find a free port"))
}

fn is_healthy(address: SocketAddr) -> bool {
    // The status line is all we want; whoever is there should not send more than this.
    get(address, "/health", 4096).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// So much at the most of what is answered to a request.
fn get(address: SocketAddr, path: &str, most: u64) -> std::io::Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(most).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one connection with `answer`.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        address
    }

    #[test]
    fn healthy_is_status_200_alone() {
        assert!(is_healthy(answering(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        )));
        assert!(!is_healthy(answering(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n"
        )));
        assert!(!is_healthy(free_address().expect("a free port")));
    }
}
