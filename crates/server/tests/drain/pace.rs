//! How fast a server has told its clients to go, by its own log: when it did, and not when they had time to hear of it.

use std::time::Duration;

use serde_json::Value;

/// What of a delay a worker makes up for, and as much for the time between looking at the clock and writing the line.
const GRAIN: Duration = Duration::from_millis(100);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sees that in no time were more clients told than `rate` allows, of `clients` that there were.
pub(crate) fn never_above(rate: usize, clients: usize, said: &[String]) {
    let lines = said
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    let lines: Vec<Value> = lines.collect();
    let told = lines
        .iter()
        .filter(|line| line["message"] == "disconnected");
    let mut told: Vec<_> = told.filter(|line| line["code"] == 3001).map(time).collect();
    // Lines are left out where nobody takes them, and counted.
    let gaps = lines
        .iter()
        .filter(|line| line["target"] == "tautline::log");
    let left_out = gaps.filter_map(|line| line["other"].as_u64());
    let left_out = usize::try_from(left_out.sum::<u64>()).unwrap();
    assert!(
        told.len() + left_out >= clients,
        "{} of {clients}",
        told.len()
    );
    assert!(
        told.len() > clients / 2,
        "{} of {clients} are logged",
        told.len()
    );
    // Around midnight.
    if let (Some(first), Some(last)) = (told.iter().min(), told.iter().max())
        && *last - *first > DAY / 2
    {
        for time in told.iter_mut().filter(|time| **time < DAY / 2) {
            *time += DAY;
        }
    }
    told.sort_unstable();
    for window in [100, 250, 1000].map(Duration::from_millis) {
        let most = ((window + GRAIN).as_secs_f64() * rate as f64) as usize;
        let mut begin = 0;
        let mut largest = 0;
        for (end, time) in told.iter().enumerate() {
            while *time - told[begin] >= window {
                begin += 1;
            }
            largest = largest.max(end + 1 - begin);
        }
        assert!(
            largest <= most,
            "{largest} were told within {window:?}, where {most} may be"
        );
    }
}

/// The time of day of a line.
fn time(line: &Value) -> Duration {
    let text = line["timestamp"].as_str().unwrap();
    let (_, clock) = text.trim_end_matches('Z').split_once('T').unwrap();
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().unwrap());
    let mut next = || parts.next().unwrap();
    Duration::from_secs_f64(next() * 3600.0 + next() * 60.0 + next())
}
