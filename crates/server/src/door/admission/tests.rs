//! Who is let in and who is not, at times that the tests say.

use std::net::Ipv4Addr;

use http::StatusCode;
use tautline_hub::rate::Rate;

use super::authentication::BACKEND_TIME;
use super::*;
use crate::Config;
use crate::client_address::Trust;
use crate::network::Networks;

#[test]
fn there_is_room_again_when_a_client_is_gone() {
    let admission = of_node(2, None);
    let (one, other) = (admission.client(), admission.client());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(refused(admission.client()), Limit::Clients);
    drop(one);
    let third = admission.client();
    assert!(third.is_ok());
    let refused = admission.client().err().unwrap();
    assert_eq!(refused.limit, Limit::Clients);
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(admission.node_refusals(), [("connections", 2), ("rate", 0)]);
}

#[test]
fn who_comes_too_fast_takes_no_room() {
    // None comes back in the time of a test.
    let rate = Rate::parse("2/1h").unwrap();
    let admission = of_node(3, Some(rate));
    let (_one, _other) = (admission.client().unwrap(), admission.client().unwrap());
    for _ in 0..5 {
        assert_eq!(refused(admission.client()), Limit::NewClients);
    }
    assert_eq!(admission.clients.get(), 2);
    assert_eq!(admission.node_refusals(), [("connections", 0), ("rate", 5)]);
}

#[test]
fn what_the_node_has_room_for_can_be_tried_out() {
    let admission = Admission::new(Arc::new(Rules {
        dry_run: true,
        clients: 1,
        new_clients: Some(Rate::parse("2/1h").unwrap()),
        http_sessions: 1,
        ..Rules::default()
    }));
    let all: Vec<_> = (0..4).map(|_| admission.client()).collect();
    assert!(all.iter().all(Result::is_ok));
    let sessions = [admission.http_session(), admission.http_session()];
    assert!(sessions.iter().all(Result::is_ok));
    let counted = |name: &str| {
        let all = admission.refusals().into_iter();
        let of = all.filter(|(limit, _, _)| *limit == name);
        of.map(|(_, mode, count)| (mode, count)).collect::<Vec<_>>()
    };
    for (name, count) in [
        ("node_connections", 3),
        ("node_connect", 2),
        ("http_sessions", 1),
    ] {
        let expected = [("enforced", 0), ("dry_run", count)];
        assert_eq!(counted(name), expected, "{name}");
    }
    drop(all);
    assert_eq!(admission.clients.get(), 0);
}

#[test]
fn clients_are_counted_before_there_is_a_limit() {
    let admission = of_node(0, None);
    let all: Vec<_> = (0..1000).map(|_| admission.client()).collect();
    assert!(all.iter().all(Result::is_ok));
    admission.reconfigure(Arc::new(Rules {
        clients: 1000,
        ..Rules::default()
    }));
    assert_eq!(refused(admission.client()), Limit::Clients);
    drop(all);
    assert!(admission.client().is_ok());
}

#[test]
fn who_is_refused_for_an_address_takes_no_room() {
    let admission = Admission::new(Arc::new(Rules {
        clients: 2,
        ..by_address(AddressRules {
            connections: 1,
            ..AddressRules::default()
        })
    }));
    let stranger = Some(ip("192.0.2.1"));
    let permits = admission.client_from(stranger).unwrap();
    for _ in 0..3 {
        let refused = refused(admission.client_from(stranger));
        assert_eq!(refused, Limit::AddressConnections);
    }
    assert_eq!(admission.clients.get(), 1);
    // Whose address isn't known counts as a client only.
    let unknown = admission.client_from(None).unwrap();
    assert!(unknown.address.is_none());
    assert_eq!(refused(admission.client_from(None)), Limit::Clients);
    drop((permits, unknown));
    assert!(admission.client_from(stranger).is_ok());
}

#[test]
fn sessions_over_http_have_room_of_their_own() {
    let admission = Admission::new(Arc::new(Rules {
        http_sessions: 1,
        ..Rules::default()
    }));
    let permit = admission.http_session().unwrap();
    let refused = admission.http_session().err().unwrap();
    assert_eq!(
        (refused.limit, refused.retry_after),
        (Limit::HttpSessions, 10)
    );
    drop(permit);
    assert!(admission.http_session().is_ok());
}

#[test]
fn connections_are_counted_by_address_until_they_end() {
    let admission = Admission::new(Arc::new(by_address(few())));
    let enter = |text| admission.enter(NOW, ip(text), true);
    let mut first = enter("192.0.2.1").unwrap().unwrap();
    let second = enter("192.0.2.1").unwrap();
    assert_eq!(refused(enter("192.0.2.1")), Limit::AddressHandshakes);
    first.begun();
    first.begun();
    let third = enter("192.0.2.1").unwrap();
    let refused = enter("::ffff:192.0.2.1").err().unwrap();
    assert_eq!(
        (refused.limit, refused.status()),
        (Limit::AddressConnections, StatusCode::TOO_MANY_REQUESTS)
    );
    assert!(admission.enter(NOW, ip("192.0.2.1"), false).is_err());
    assert!(enter("192.0.2.2").is_ok());
    drop((first, second, third));
    let again: Vec<_> = (0..2).map(|_| enter("192.0.2.1").unwrap()).collect();
    drop(again);
    assert!(
        admission
            .refusals()
            .contains(&("connections", "enforced", 2))
    );
}

#[test]
fn a_dry_run_refuses_nobody_and_counts() {
    let admission = Admission::new(Arc::new(by_address(AddressRules {
        dry_run: true,
        requests: Some(Rate::per_second(1)),
        ..few()
    })));
    let household = ip("2001:db8::1");
    let permits: Vec<_> = (0..10)
        .map(|_| admission.enter(NOW, household, false).unwrap())
        .collect();
    drop(permits);
    for _ in 0..4 {
        admission.request_at(NOW, household).unwrap();
    }
    assert!(
        admission
            .refusals()
            .contains(&("connections", "dry_run", 7))
    );
    assert!(admission.refusals().contains(&("requests", "dry_run", 3)));
}

#[test]
fn rates_tell_when_to_come_again() {
    let admission = Admission::new(Arc::new(by_address(AddressRules {
        connects: Some(Rate::new(2, Duration::from_secs(10))),
        requests: Some(Rate::new(1, Duration::from_secs(3))),
        exempt: Networks::parse(&["198.51.100.0/24"]).unwrap(),
        exempt_loopback: true,
        ..AddressRules::default()
    })));
    let enter = |now, text| admission.enter(now, ip(text), false).map(|_| ());
    let request = |text| admission.request_at(NOW, ip(text));
    assert!(enter(NOW, "192.0.2.1").is_ok() && enter(NOW, "192.0.2.1").is_ok());
    let refused = enter(NOW, "192.0.2.1").err().unwrap();
    assert_eq!(
        (refused.limit, refused.retry_after),
        (Limit::AddressConnects, 5)
    );
    let text = String::from_utf8(refused.http1()).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 429 Too Many Requests\r\n")
            && text.contains("\r\nRetry-After: 5\r\n")
    );
    assert!(enter(NOW + Duration::from_secs(5), "192.0.2.1").is_ok());
    assert!(request("192.0.2.1").is_ok());
    assert_eq!(request("192.0.2.1").err().unwrap().retry_after, 3);
    for address in ["198.51.100.7", "127.0.0.1", "::1"] {
        for _ in 0..9 {
            assert!(enter(NOW, address).is_ok() && request(address).is_ok());
        }
    }
}

#[test]
fn who_fails_too_often_has_to_wait_and_others_do_not() {
    let admission = Admission::new(Arc::new(by_address(AddressRules {
        failures: Some(Rate::new(2, Duration::from_secs(10))),
        exempt: Networks::parse(&["198.51.100.0/24"]).unwrap(),
        max_addresses: 1000,
        ..AddressRules::default()
    })));
    let key = |text| Key::from(ip(text));
    let may = |now, text, user| {
        let attempt = admission.attempt(now, key(text), user, &|| false);
        attempt.is_ok()
    };
    assert!(may(NOW, "192.0.2.1", None));
    admission.failure(NOW, key("192.0.2.1"), Some("ann"));
    assert!(may(NOW, "192.0.2.1", None));
    admission.failure(NOW, key("192.0.2.1"), Some("ann"));
    assert!(!may(NOW, "192.0.2.1", None) && may(NOW, "192.0.2.2", None));
    // Nor by another address, nor does that stand for another user.
    assert!(!may(NOW, "192.0.2.2", Some("ann")) && may(NOW, "192.0.2.2", Some("bob")));
    let later = NOW + Duration::from_secs(5);
    assert!(may(later, "192.0.2.1", None) && may(later, "192.0.2.2", Some("ann")));
    // What is good is let in, and isn't counted.
    let good = admission.attempt(NOW, key("192.0.2.1"), None, &|| true);
    assert!(good.is_ok());
    let refused = admission.key_attempt_at(NOW, ip("192.0.2.1"));
    let refused = refused.err().unwrap();
    assert_eq!((refused.status().as_u16(), refused.retry_after), (429, 5));
    assert!(
        admission
            .refusals()
            .contains(&("authentication", "enforced", 3))
    );
    for _ in 0..9 {
        admission.key_tried_at(NOW, ip("198.51.100.7"), false);
    }
    assert!(admission.key_attempt_at(NOW, ip("198.51.100.7")).is_ok());
}

#[test]
fn the_backend_is_not_shut_out_by_a_part_of_it_with_a_wrong_key() {
    let admission = Admission::new(Arc::new(by_address(AddressRules {
        failures: Some(Rate::new(2, Duration::from_secs(10))),
        max_addresses: 1000,
        ..AddressRules::default()
    })));
    let (backend, stranger) = (ip("192.0.2.1"), ip("192.0.2.2"));
    admission.key_tried_at(NOW, backend, true);
    for _ in 0..5 {
        admission.key_tried_at(NOW, backend, false);
        admission.key_tried_at(NOW, stranger, false);
    }
    assert!(admission.key_attempt_at(NOW, backend).is_ok());
    assert!(admission.key_attempt_at(NOW, stranger).is_err());
    // It is the backend's no longer than that.
    let late = NOW + BACKEND_TIME;
    for _ in 0..2 {
        admission.key_tried_at(late, backend, false);
    }
    assert!(admission.key_attempt_at(late, backend).is_err());
}

#[test]
fn as_many_addresses_are_remembered_as_the_options_say() {
    let config = Config::from_toml("limits.max_addresses = 2000\n").expect("it is good");
    let admission = Admission::new(config.admission);
    let first = u32::from(Ipv4Addr::new(192, 0, 0, 0));
    for number in 0..10_000 {
        let address = Ipv4Addr::from(first + number);
        admission.key_tried_at(NOW, address.into(), false);
    }
    assert_eq!(admission.addresses(), 2000);
}

#[test]
fn without_memory_nobody_new_comes_in() {
    let admission = Admission::new(Arc::new(Rules {
        memory: MemoryRules {
            ceiling: Some(1000),
            ..MemoryRules::default()
        },
        ..by_address(AddressRules {
            exempt_loopback: true,
            ..AddressRules::default()
        })
    }));
    let enter = |text| admission.enter(NOW, ip(text), false);
    let before = enter("192.0.2.1").unwrap();
    admission.memory.observe(
        memory::Load {
            used: 1001,
            present: 0,
        },
        1000,
    );
    let refused = enter("192.0.2.1").err().unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Whoever looks after the server gets in, and clients of a proxy on this machine don't.
    assert!(admission.enter(NOW, ip("127.0.0.1"), true).is_ok());
    assert!(enter("127.0.0.1").is_err());
    admission.memory.observe(
        memory::Load {
            used: 900,
            present: 0,
        },
        1000,
    );
    assert!(enter("192.0.2.1").is_ok());
    drop(before);
}

/// With a clock that the test winds.
#[tokio::test(start_paused = true)]
#[cfg(target_os = "linux")]
async fn memory_is_measured_as_often_as_the_options_say() {
    let rules = |max_bytes: u64| {
        let limits = "[limits.memory]\ncheck_interval = \"40s\"\n";
        let config = Config::from_toml(&format!("{limits}max_bytes = {max_bytes}\n"));
        config.expect("it is good").admission
    };
    let admission = Admission::new(rules(1 << 60));
    let seconds = |count| tokio::time::sleep(Duration::from_secs(count));
    let test = async {
        seconds(1).await;
        assert!(!admission.memory.is_over());
        admission.reconfigure(rules(1));
        seconds(38).await;
        assert!(!admission.memory.is_over(), "it is not looked at yet");
        seconds(2).await;
        assert!(admission.memory.is_over());
    };
    tokio::select! {
        () = admission.watch_memory() => {}
        () = test => {}
    }
}

fn of_node(clients: usize, new_clients: Option<Rate>) -> Arc<Admission> {
    Admission::new(Arc::new(Rules {
        clients,
        new_clients,
        ..Rules::default()
    }))
}

fn by_address(address: AddressRules) -> Rules {
    Rules {
        address,
        ..Rules::default()
    }
}

fn few() -> AddressRules {
    AddressRules {
        connections: 3,
        handshakes: 2,
        max_addresses: 1000,
        ..AddressRules::default()
    }
}

fn refused<T>(outcome: Result<T, OverLimit>) -> Limit {
    outcome.err().expect("a refusal").limit
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const NOW: Duration = Duration::from_secs(1);

#[test]
fn who_comes_through_a_proxy_whom_nobody_trusts_is_counted() {
    let admission = Admission::new(Arc::new(Rules {
        trust: Trust {
            proxies: Networks::parse(&["10.1.0.0/16"]).unwrap(),
            ..Trust::default()
        },
        ..Rules::default()
    }));
    let come = |peer, name| {
        let before = admission.unknown_proxy_requests();
        let fields = [("host", &b"a"[..]), (name, b"198.51.100.1")];
        let client = admission.client_address(ip(peer), fields.into_iter());
        (
            client.to_string(),
            admission.unknown_proxy_requests() - before,
        )
    };
    for (peer, name, client, count) in [
        ("10.1.0.1", "X-Forwarded-For", "198.51.100.1", 0),
        ("10.2.0.1", "X-Forwarded-For", "10.2.0.1", 1),
        ("127.0.0.1", "x-forwarded-for", "127.0.0.1", 1),
        ("::1", "Forwarded", "::1", 1),
        ("::ffff:192.168.0.1", "forwarded", "192.168.0.1", 1),
        ("100.64.0.1", "forwarded", "100.64.0.1", 1),
        ("fd00::1", "forwarded", "fd00::1", 1),
        ("127.0.0.1", "x-forwarded-proto", "127.0.0.1", 0),
        // Anybody can write it.
        ("192.0.2.1", "X-Forwarded-For", "192.0.2.1", 0),
        ("100.128.0.1", "X-Forwarded-For", "100.128.0.1", 0),
    ] {
        let expected = (client.to_owned(), count);
        assert_eq!(come(peer, name), expected, "{peer} {name}");
    }
}
