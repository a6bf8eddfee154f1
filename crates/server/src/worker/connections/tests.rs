//! What is queued for connections, and when it is written.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::io::Io;

/// What has come, however it was written.
fn come(peer: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = peer.try_read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

/// All that is queued, in a round of its own.
fn write_all(connections: &mut Connections) {
    connections.begin_round();
    let mut room = usize::MAX;
    connections.write(&mut room);
    assert!(!connections.is_writing());
}

#[tokio::test]
async fn what_waits_for_more_is_written_when_there_is_enough_or_at_last() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (peer, (server, _)) = (peer.expect("connected"), accepted.expect("accepted"));
    server.writable().await.expect("writable");
    let mut connections = Connections::default();
    let id = SessionId {
        index: 3,
        generation: 0,
    };
    connections.insert(id, Link::new(Io::Plain(server), Encoding::Json), "test");
    connections.set_delays(true);

    assert_eq!(connections.send(id, b"one"), 5);
    connections.write_urgent();
    assert_eq!((connections.queued(id), connections.written(id)), (5, 0));
    assert!(connections.is_round_awaited());
    write_all(&mut connections);
    peer.readable().await.expect("readable");
    assert_eq!(come(&peer), b"\x81\x03one");
    assert!(!connections.is_round_awaited());

    // Enough for a write.
    let long = "x".repeat(ENOUGH);
    connections.send(id, b"two");
    let place = connections.place();
    connections.send(id, long.as_bytes());
    connections.send(id, b"three");
    connections.write_urgent();
    assert_eq!(connections.queued(id), 0);
    connections.send(id, b"four");
    connections.write_urgent();
    assert_eq!(connections.queued(id), 6, "it waits again");
    assert_eq!(connections.place(), place, "where it stood");

    // Somebody waits for it.
    connections.when_drained(id);
    connections.write_urgent();
    assert_eq!(connections.queued(id), 0);
    let mut drained = VecDeque::new();
    connections.take_drained(&mut drained);
    assert_eq!(drained, [id]);
    write_all(&mut connections);
    assert_eq!(connections.written(id), 5 + 5 + 4 + ENOUGH as u64 + 7 + 6);

    connections.set_delays(false);
    connections.send(id, b"five");
    write_all(&mut connections);
    assert_eq!(connections.queued(id), 0);
}

/// More than are looked at together, with gaps between them.
#[tokio::test]
async fn looking_at_connections_changes_nothing_of_what_they_get() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut connections = Connections::default();
    let mut peers = Vec::new();
    let count = 2 * AT_ONCE + 3;
    for index in (0..count as u32).map(|n| 2 * n) {
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (server, _) = accepted.expect("accepted");
        let id = SessionId {
            index,
            generation: 1,
        };
        connections.insert(id, Link::new(Io::Plain(server), Encoding::Json), "test");
        peers.push((id, peer.expect("connected")));
    }
    let stranger = SessionId {
        index: 1,
        generation: 1,
    };
    let message = connections.prepare(Encoding::Json, b"all");
    for round in 1..=3_u64 {
        let ids = peers.iter().map(|(id, _)| *id);
        connections.anticipate(ids.clone().chain([stranger]));
        connections.anticipate(ids.clone());
        for id in ids {
            assert_eq!(connections.queued(id), 0);
            connections.send_prepared(id, &message);
            connections.send(id, id.index.to_string().as_bytes());
        }
        // What has gone meanwhile is passed over.
        let (gone, _) = peers.remove(0);
        connections.remove(gone);
        write_all(&mut connections);
        for (id, peer) in &peers {
            assert_eq!(connections.queued(*id), 0, "round {round}");
            let text = id.index.to_string();
            let mut expected = b"\x81\x03all\x81".to_vec();
            expected.push(text.len() as u8);
            expected.extend_from_slice(text.as_bytes());
            peer.readable().await.expect("readable");
            assert_eq!(come(peer), expected, "round {round}");
        }
    }
}

/// A look at a socket without room doesn't lose word of room to come.
#[tokio::test]
async fn looking_at_a_full_socket_leaves_its_wake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (peer, (server, _)) = (peer.expect("connected"), accepted.expect("accepted"));
    let link = Link::new(Io::Plain(server), Encoding::Json);
    let mut connections = Connections::default();
    let id = SessionId {
        index: 0,
        generation: 0,
    };
    connections.insert(id, Rc::clone(&link), "test");
    let long = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while connections.queued(id) == 0 {
        connections.send(id, &long);
        sent += long.len() + 10;
        poll_fn(|cx| {
            link.borrow_mut().register(cx);
            write_all(&mut connections);
            Poll::Ready(())
        })
        .await;
    }
    connections.anticipate([id].into_iter());
    let drained = poll_fn(|cx| {
        let mut link = link.borrow_mut();
        link.register(cx);
        link.poll_flush()
    });
    let reading = async {
        let mut left = sent;
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            peer.readable().await.expect("readable");
            while let Ok(count @ 1..) = peer.try_read(&mut buffer) {
                left -= count;
            }
        }
    };
    let (drained, ()) = tokio::join!(drained, reading);
    drained.expect("written");
    assert_eq!(connections.written(id), sent as u64);
}
