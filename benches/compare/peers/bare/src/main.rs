//! The floor: a TCP server on bare epoll that bounces bytes and parses nothing. One thread, level-triggered, one read
//! and one write for each readable event, one 64 KiB buffer for all.
//!
//! `--fanout` writes what it reads to every connection, the sender too, instead of back to the sender alone.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    /// What the socket would not take; while there is any, nothing is read from this connection.
    unsent: Vec<u8>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (address, fanout) = match words[..] {
        ["--listen", address] => (address, false),
        ["--listen", address, "--fanout"] => (address, true),
        _ => {
            eprintln!("usage: peer-bare --listen ADDRESS:PORT [--fanout]");
            return ExitCode::from(2);
        }
    };
    let Err(error) = serve(address, fanout) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("cannot serve on {address}: {error}");
    ExitCode::FAILURE
}

fn serve(address: &str, fanout: bool) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; BUFFER];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            let id = event.data();
            if id == LISTENER {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let id = stream.as_raw_fd() as u64;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
                connections.insert(
                    id,
                    Connection {
                        stream,
                        unsent: Vec::new(),
                    },
                );
                continue;
            }
            let Some(connection) = connections.get_mut(&id) else {
                continue;
            };
            let outcome = if event.events().contains(EpollFlags::EPOLLOUT) {
                connection.drain(&epoll, id).map(|()| true)
            } else if fanout {
                spread(&mut connections, &epoll, id, &mut buffer)
            } else {
                connection.bounce(&epoll, id, &mut buffer)
            };
            if !matches!(outcome, Ok(true)) {
                connections.remove(&id);
            }
        }
    }
}

impl Connection {
    /// One read, one write. `false` at the end of the stream.
    fn bounce(&mut self, epoll: &Epoll, id: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let n = self.stream.read(buffer)?;
        self.write(epoll, id, &buffer[..n])?;
        Ok(n > 0)
    }

    fn write(&mut self, epoll: &Epoll, id: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let n = written(self.stream.write(bytes))?;
        if n < bytes.len() {
            self.unsent.extend_from_slice(&bytes[n..]);
            epoll.modify(&self.stream, &mut EpollEvent::new(EpollFlags::EPOLLOUT, id))?;
        }
        Ok(())
    }

    fn drain(&mut self, epoll: &Epoll, id: u64) -> io::Result<()> {
        let n = written(self.stream.write(&self.unsent))?;
        self.unsent.drain(..n);
        if self.unsent.is_empty() {
            epoll.modify(&self.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        }
        Ok(())
    }
}

/// One read from `from`, one write to each connection.
fn spread(
    connections: &mut HashMap<u64, Connection>,
    epoll: &Epoll,
    from: u64,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Some(sender) = connections.get_mut(&from) else {
        return Ok(true);
    };
    let n = sender.stream.read(buffer)?;
    for (id, connection) in connections {
        // One that is broken is found out by its own next event.
        let _ = connection.write(epoll, *id, &buffer[..n]);
    }
    Ok(n > 0)
}

fn written(outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
