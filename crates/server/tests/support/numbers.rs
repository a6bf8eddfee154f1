//! What a server says of itself at `/metrics`.

use super::process::Server;

/// All numbers that there are.
pub(crate) fn numbers(server: &Server) -> Vec<(String, f64)> {
    let page = server.get("/metrics");
    let (_, page) = page.split_once("\r\n\r\n").unwrap();
    let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let known = lines.filter_map(|(name, value)| Some((name.strip_prefix("tautline_")?, value)));
    let numbers = known.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    numbers.collect()
}

/// The one of this name and these labels, 0 if there is none.
pub(crate) fn number(numbers: &[(String, f64)], name: &str) -> f64 {
    let found = numbers.iter().find(|(known, _)| known == name);
    found.map_or(0.0, |(_, value)| *value)
}

/// Checks that there are exactly these.
pub(crate) fn expect(server: &Server, expected: &[(&str, f64)]) {
    let numbers = numbers(server);
    for (name, value) in expected {
        let found = number(&numbers, name);
        assert!(
            (found - value).abs() < f64::EPSILON,
            "{name}: {found} instead of {value}\n{numbers:#?}"
        );
    }
}
