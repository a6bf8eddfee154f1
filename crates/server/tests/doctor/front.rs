//! What stands in front of a server, and spoils what passes; and what stands in its place.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// What stands in front of a server, on a port of its own: `pass` has a connection of the client's and one of the
/// server's.
pub(crate) fn in_front(server: SocketAddr, pass: fn(TcpStream, TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                return;
            };
            std::thread::spawn(move || pass(client, server));
        }
    });
    address
}

/// Reads a request's head.
pub(crate) fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Passes everything on, both ways, until one end is over.
pub(crate) fn pass(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
}

/// The same, with each line of the request's head changed.
pub(crate) fn pass_changed(mut client: TcpStream, mut server: TcpStream, change: fn(&str) -> &str) {
    let head = head(&mut client);
    let lines = head.split_inclusive("\r\n").map(change);
    let changed: String = lines.collect();
    server.write_all(changed.as_bytes()).unwrap();
    pass(client, server);
}

/// Something in the place of a server, which answers each request with the status for its path.
pub(crate) fn answering(status: impl Fn(&str) -> u16 + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else {
                return;
            };
            let head = head(&mut client);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let _ = write!(
                client,
                "HTTP/1.1 {} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                status(path)
            );
        }
    });
    address
}

/// Passes requests on, with these lines in the place of what the client says of addresses.
pub(crate) fn pass_saying(mut client: TcpStream, mut server: TcpStream, own: &str, keeps: bool) {
    let head = head(&mut client);
    let is_told = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("x-forwarded-for:") || line.starts_with("forwarded:")
    };
    let has_told = head.lines().any(|line| is_told(&line));
    let mut lines: Vec<&str> = head.split_inclusive("\r\n").collect();
    lines.pop();
    if !keeps {
        lines.retain(|line| !is_told(line));
    }
    if !(keeps && has_told) {
        lines.push(own);
    }
    lines.push("\r\n");
    server.write_all(lines.concat().as_bytes()).unwrap();
    pass(client, server);
}

/// Passes requests on, with a line behind what the client says of addresses.
pub(crate) fn pass_adding(mut client: TcpStream, mut server: TcpStream, own: &str) {
    let head = head(&mut client);
    let head = head.strip_suffix("\r\n").unwrap_or(&head);
    let head = format!("{head}{own}\r\n");
    server.write_all(head.as_bytes()).unwrap();
    pass(client, server);
}
