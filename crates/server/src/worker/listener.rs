//! Listening sockets: one a worker, all on the same address.
//!
//! On Linux each worker has a socket of its own (`SO_REUSEPORT`) and the kernel spreads new
//! connections over them by a hash: no accept lock, no hand-over between threads. Elsewhere the
//! workers share one socket, and whoever is free accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How many connections may wait to be accepted. The kernel cuts it to its own limit
/// (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

/// How many free ports are tried where any will do.
const FREE_PORTS: usize = 16;

/// Listens on `address` once for each of `workers`; with port 0 all get the same free port.
///
/// # Errors
///
/// What the system says of the address: in use, not ours, not permitted. An address on which any
/// other socket listens is in use, another Tautline's too.
pub(crate) fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let mut attempts = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        attempts -= 1;
        match listen_once(address, workers) {
            // A port that was free may be somebody's a moment later.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            outcome => return outcome,
        }
    }
}

fn listen_once(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Sockets with SO_REUSEPORT share an address with those of *another* process of the same user
    // without a word. So an ordinary one, which would not, claims the address first.
    let claim = socket(address, false)?;
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
        .map(|_| Ok(socket(address, true)?.into()))
        .collect()
}

/// Makes a socket that listens already one for each of `workers`, who share it.
///
/// # Errors
///
/// What the system says of it.
pub(crate) fn share(listener: TcpListener, workers: usize) -> io::Result<Vec<TcpListener>> {
    #[cfg(target_os = "linux")]
    prepare(&listener)?;
    listener.set_nonblocking(true)?;
    let mut listeners = vec![listener];
    while listeners.len() < workers {
        listeners.push(listeners[0].try_clone()?);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
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
    let _ = share;
    // Connections inherit both: two system calls less for each of them.
    #[cfg(target_os = "linux")]
    prepare(&socket)?;
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
pub(crate) fn prepare<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    // Replies leave in whole batches, so there is nothing for the kernel to wait for.
    socket.set_tcp_nodelay(true)?;
    // What the peer has no room for waits in our queue, where it is known, and not in megabytes of the
    // kernel's: a slow reader's ping is not far behind what it was sent before.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// How many bytes of a connection the kernel takes that it can't send yet.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_come_prepared() {
        use std::net::TcpStream;

        for workers in [1, 2] {
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = listen(address, workers).unwrap().remove(0);
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
        }
    }

    #[test]
    fn workers_share_one_address() {
        let listeners = listen(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
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
            let listeners = listen(SocketAddr::from(([127, 0, 0, 1], 0)), workers).unwrap();
            let address = listeners[0].local_addr().unwrap();
            let error = listen(address, 2).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{workers} workers");
        }
    }
}
