//! Requests that come too fast, and those that lie about whom they are from.

use std::time::Instant;

use crate::stand::Stand;

#[test]
fn forged_forwarding_headers() {
    const RATE: usize = 5_000;
    const ALL: usize = 8_000;
    let stand = Stand::new(
        "forged",
        &format!("connect = \"off\"\nrequests = \"{RATE}/1h\""),
        "",
    );
    // The users of good will ask from another address than the stranger, and have a budget of their own.
    let refused = stand.endures(
        "8,000 requests, each with another X-Forwarded-For or Forwarded: 429 beyond the rate",
        0,
        |_| {
            let (mut refused, began) = (0, Instant::now());
            let mut http = stand.http();
            for number in 0..ALL {
                let (a, b) = (number / 250, number % 250);
                let field = match number % 5 {
                    0 => format!("X-Forwarded-For: 203.0.{a}.{b}"),
                    1 => format!("Forwarded: for=203.0.{a}.{b};proto=https"),
                    2 => format!("X-Real-IP: 203.0.{a}.{b}"),
                    3 => format!("X-Forwarded-For: {}", "127.0.0.1, ".repeat(900)),
                    _ => format!("Forwarded: for=\"[2001:db8::{number:x}]\", for=_hidden"),
                };
                let head = format!("GET /history?channel=a HTTP/1.1\r\n{field}");
                refused += u64::from(http.ask(&head, b"").status == 429);
            }
            // Some tokens come back meanwhile.
            let back = began.elapsed().as_secs_f64() * RATE as f64 / 3600.0;
            assert!(
                (ALL - RATE - back as usize - 1..=ALL - RATE).contains(&(refused as usize)),
                "{refused}, and {back} came back"
            );
            refused
        },
    );
    let name = r#"limits_refused_total{limit="requests",mode="enforced"}"#;
    assert_eq!(stand.number(name), refused);
    // The stranger's, the users', the operator's.
    assert!(stand.number("limits_num_addresses") <= 3);
}
