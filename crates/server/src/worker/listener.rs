//! Listening sockets: one a worker, all on the same address.
//!
//! On Linux each worker has a socket of its own (`SO_REUSEPORT`) and the kernel spreads new
//! connections over them by a hash: no accept lock, no hand-over between threads. Elsewhere the
//! workers share one socket, and whoever is free accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::Config;

/// How many connections may wait to be accepted. The kernel cuts it to its own limit
/// (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

/// How many free ports are tried where any will do.
const FREE_PORTS: usize = 16;

/// After how long without a word, in either direction, the system asks whether the peer of a connection is there: not sooner
/// than there is a ping, for those who have set few of them.
pub(crate) fn silence(config: &Config) -> Duration {
    let pings = config.hub.ping_interval();
    pings.clamp(SILENCE, MAX_SILENCE)
}

/// Listens on `address` once for each of `workers`; with port 0 all get the same free port. Peers of connections that are
/// silent for as long as `silence` are asked whether they are there.
///
/// # Errors
///
/// What the system says of the address: in use, not ours, not permitted. An address on which any
/// other socket listens is in use, another Tautline's too.
pub(crate) fn listen(
    address: SocketAddr,
    workers: usize,
    silence: Duration,
) -> io::Result<Vec<TcpListener>> {
    let mut attempts = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        attempts -= 1;
        match listen_once(address, workers, silence) {
            // A port that was free may be somebody's a moment later.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            outcome => return outcome,
        }
    }
}

fn listen_once(
    address: SocketAddr,
    workers: usize,
    silence: Duration,
) -> io::Result<Vec<TcpListener>> {
    // Sockets with SO_REUSEPORT share an address with those of *another* process of the same user
    // without a word. So an ordinary one, which would not, claims the address first.
    let claim = socket(address, false, silence)?;
    let Some(address) = claim.local_addr()?.as_socket() else {
        return Err(io::Error::other("the listening socket has no IP address"));
    };
    if workers == 1 || !cfg!(target_os = "linux") {
        let first: TcpListener = claim.into();
        let mut listeners = vec![first];
        while listeners.len() < workers {
            listeners.push(listeners[0].try_clone()?);
        }
        return Ok(listeners);
    }
    drop(claim);
    (0..workers)
        .map(|_| Ok(socket(address, true, silence)?.into()))
        .collect()
}

/// Makes a socket that listens already one for each of `workers`, who share it. `silence` as in [`listen`].
///
/// # Errors
///
/// What the system says of it.
pub(crate) fn share(
    listener: TcpListener,
    workers: usize,
    silence: Duration,
) -> io::Result<Vec<TcpListener>> {
    #[cfg(target_os = "linux")]
    prepare(&listener, silence)?;
    #[cfg(not(target_os = "linux"))]
    let _ = silence;
    listener.set_nonblocking(true)?;
    let mut listeners = vec![listener];
    while listeners.len() < workers {
        listeners.push(listeners[0].try_clone()?);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, share: bool, silence: Duration) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the process before it to fade.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    if share {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (share, silence);
    // Connections inherit it all: system calls less for each of them.
    #[cfg(target_os = "linux")]
    prepare(&socket, silence)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Sets what every connection needs: on a connection, or on Linux on the socket that it comes in at.
///
/// # Errors
///
/// What the system says of it.
pub(crate) fn prepare<'s>(socket: impl Into<SockRef<'s>>, silence: Duration) -> io::Result<()> {
    let socket = socket.into();
    // Replies leave in whole batches, so there is nothing for the kernel to wait for.
    socket.set_tcp_nodelay(true)?;
    // What the peer has no room for waits in our queue, where it is known, and not in megabytes of the
    // kernel's: a slow reader's ping is not far behind what it was sent before.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // A line on which nobody has anything to say would otherwise be there for ever when its client isn't.
    let keepalive = TcpKeepalive::new().with_time(silence);
    #[cfg(target_os = "linux")]
    let keepalive = keepalive.with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Has the system end a connection when its peer acknowledges nothing of what was written for so long, or has no room for it
/// all the time (`TCP_USER_TIMEOUT`, RFC 5482). `None` leaves it at what the system has by itself: a quarter of an hour for whoever
/// is gone, and for ever for whoever says that there is no room. On Linux only.
///
/// # Errors
///
/// What the system says of it.
pub(crate) fn give_up_after<'s>(
    socket: impl Into<SockRef<'s>>,
    limit: Option<Duration>,
) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.into().set_tcp_user_timeout(limit)?;
    #[cfg(not(target_os = "linux"))]
    let _ = (socket.into(), limit);
    Ok(())
}

/// As [`silence`] says, where there are more pings than that.
const SILENCE: Duration = Duration::from_secs(60);

/// The system has a limit of its own for it.
const MAX_SILENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long after a question that was not answered the next follows.
#[cfg(target_os = "linux")]
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// How many of them, until the peer is taken for gone.
#[cfg(target_os = "linux")]
const PROBES: u32 = 4;

/// How many bytes of a connection the kernel takes that it can't send yet.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(90);

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_come_prepared() {
        use std::net::TcpStream;

        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // Of one's own, for one and for several; and one that somebody else has made, such as systemd.
        let listeners = [
            listen(any, 1, QUIET),
            listen(any, 2, QUIET),
            share(TcpListener::bind(any).unwrap(), 2, QUIET),
        ];
        for listeners in listeners {
            let listener = listeners.unwrap().remove(0);
            let address = listener.local_addr().unwrap();
            // As many as it takes until one comes in here.
            let mut clients = Vec::new();
            let connection = loop {
                clients.push(TcpStream::connect(address).unwrap());
                if let Ok((connection, _)) = listener.accept() {
                    break connection;
                }
            };
            let connection = SockRef::from(&connection);
            assert!(connection.tcp_nodelay().unwrap());
            assert_eq!(connection.tcp_notsent_lowat().unwrap(), UNSENT);
            assert!(connection.keepalive().unwrap());
            assert_eq!(connection.tcp_keepalive_time().unwrap(), QUIET);
            assert_eq!(connection.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
            assert_eq!(connection.tcp_keepalive_retries().unwrap(), PROBES);
            // A reader without room may rest, unless it is said on the connection how long.
            assert_eq!(connection.tcp_user_timeout().unwrap(), None);
            give_up_after(&*connection, Some(QUIET)).unwrap();
            assert_eq!(connection.tcp_user_timeout().unwrap(), Some(QUIET));
            give_up_after(&*connection, None).unwrap();
            assert_eq!(connection.tcp_user_timeout().unwrap(), None);
        }
    }

    #[test]
    fn who_has_few_pings_is_asked_no_more_often() {
        for (interval, expected) in [("25s", 60), ("0s", 60), ("5m", 300), ("24h", 7200)] {
            let config = format!("client.ping_interval = {interval:?}\n");
            let config = Config::from_toml(&config).unwrap();
            assert_eq!(
                silence(&config),
                Duration::from_secs(expected),
                "{interval}"
            );
        }
    }

    #[test]
    fn workers_share_one_address() {
        let listeners = listen(SocketAddr::from(([127, 0, 0, 1], 0)), 3, QUIET).unwrap();
        let first = listeners[0].local_addr().unwrap();
        assert_ne!(first.port(), 0);
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap() == first)
        );
    }

    #[test]
    fn an_address_in_use_is_refused_even_by_another_set_of_ours() {
        for workers in [1, 2] {
            let listeners = listen(SocketAddr::from(([127, 0, 0, 1], 0)), workers, QUIET).unwrap();
            let address = listeners[0].local_addr().unwrap();
            let error = listen(address, 2, QUIET).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{workers} workers");
        }
    }
}
