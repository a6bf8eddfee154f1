//! What the example servers share: their command line, and a thread with a listening socket of its
//! own for each worker.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::LocalSet;

/// The options that they have in common.
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) deflate: bool,
}

/// What is behind an option.
pub(crate) struct Value<'a> {
    option: &'a str,
    args: &'a mut dyn Iterator<Item = String>,
}

impl Value<'_> {
    /// As what was expected.
    pub(crate) fn parse<T: FromStr>(self, expected: &str) -> Result<T, String> {
        let option = self.option;
        let value = self.args.next().ok_or(format!("{option} needs a value"))?;
        value
            .parse()
            .map_err(|_| format!("{option} wants {expected}, not {value:?}"))
    }
}

impl Options {
    /// Reads the command line. `more` takes the options of one server alone, and says whether it has
    /// one of this name.
    pub(crate) fn parse(
        mut args: impl Iterator<Item = String>,
        mut more: impl FnMut(&str, Value<'_>) -> Result<bool, String>,
    ) -> Result<Self, String> {
        let (mut listen, mut threads, mut deflate) = (None, 1, false);
        while let Some(option) = args.next() {
            let value = Value {
                option: &option,
                args: &mut args,
            };
            match option.as_str() {
                "--listen" => listen = Some(value.parse("an address and port")?),
                "--threads" => threads = value.parse("a number from 1")?,
                "--deflate" => deflate = true,
                name => {
                    if !more(name, value)? {
                        return Err(format!("there is no option {option}"));
                    }
                }
            }
        }
        let listen = listen.ok_or("--listen is missing")?;
        if threads == 0 {
            return Err("--threads must be 1 or more".to_owned());
        }
        Ok(Self {
            listen,
            threads,
            deflate,
        })
    }
}

/// Ends with the problem and how it is done right, if there was one, and with that of `run` otherwise.
pub(crate) fn main_with<O>(
    options: Result<O, String>,
    usage: &str,
    run: impl FnOnce(&O) -> io::Result<()>,
) -> ExitCode {
    let options = match options {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{usage}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("can't listen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended from outside. `worker` is called once in each thread, and gives what is called
/// with each connection. `announce` is told where it listens.
pub(crate) fn serve<W, C, F>(
    options: &Options,
    announce: impl FnOnce(SocketAddr),
    worker: W,
) -> io::Result<()>
where
    W: Fn() -> C + Clone + Send + 'static,
    C: Fn(TcpStream) -> F,
    F: Future<Output = ()> + 'static,
{
    // The first socket tells the port when the kernel is to choose it; the others join it.
    let first = listen(options.listen)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..options.threads {
        listeners.push(listen(address)?);
    }
    announce(address);
    let workers: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let worker = worker.clone();
            thread::spawn(move || accept_all(listener, worker()))
        })
        .collect();
    for worker in workers {
        match worker.join() {
            Ok(result) => result?,
            Err(_) => return Err(io::Error::other("a worker thread has panicked")),
        }
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn accept_all<F: Future<Output = ()> + 'static>(
    listener: std::net::TcpListener,
    connected: impl Fn(TcpStream) -> F,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(connected(stream));
                }
                // Out of descriptors, or the client is gone already: neither ends the server.
                Err(error) => {
                    eprintln!("can't accept: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    })
}
