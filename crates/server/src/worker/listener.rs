//! Listening sockets: one a worker, all on the same address.
//!
//! On Linux each worker has a socket of its own (`SO_REUSEPORT`) and the kernel spreads new
//! connections over them by a hash: no accept lock, no hand-over between threads. Elsewhere the
//! workers share one socket, and whoever is free accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted. The kernel cuts it to its own limit
/// (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

/// Listens on `address` once for each of `workers`; with port 0 all get the same free port.
///
/// # Errors
///
/// What the system says of the address: in use, not ours, not permitted. An address on which any
/// other socket listens is in use, another Tautline's too.
pub(crate) fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
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
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

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
