//! Tables for people, JSON lines for programs.

use serde_json::{Value, json};

use crate::load::{Idle, Sample, Work};
use crate::peers::{BASELINE, Peer};
use crate::rounds::Entry;
use crate::stats::Spread;

/// Prints the table of one load.
pub(crate) fn print(title: &str, entries: &[Entry]) {
    println!("\n{title}");
    let is_idle = entries
        .iter()
        .flat_map(|entry| &entry.samples)
        .any(|sample| matches!(sample, Some(Sample::Idle(_))));
    if is_idle {
        print_idle(entries);
    } else {
        print_work(entries);
    }
}

/// One measurement as a JSON object.
pub(crate) fn json(title: &str, peer: &Peer, round: usize, sample: &Sample) -> Value {
    let mut object = json!({ "load": title, "server": peer.name, "round": round + 1 });
    let figures = match sample {
        Sample::Work(work) => json!({
            "messages": work.messages,
            "cpu_ns": work.cpu.as_nanos() as u64,
            "elapsed_ns": work.elapsed.as_nanos() as u64,
        }),
        Sample::Idle(idle) => json!({
            "heap": peer.heap_is_counted.then_some(idle.after_handshake.heap),
            "blocks": peer.heap_is_counted.then_some(idle.after_handshake.blocks),
            "resident": idle.after_handshake.resident,
            "heap_after_burst": peer.heap_is_counted.then_some(idle.after_burst.heap),
            "resident_after_burst": idle.after_burst.resident,
        }),
    };
    if let (Value::Object(object), Value::Object(figures)) = (&mut object, figures) {
        object.extend(figures);
    }
    object
}

fn print_work(entries: &[Entry]) {
    println!(
        "{:<24} {:>11} {:>19} {:>9} {:>13} {:>13}",
        "server", "CPU ns/msg", "(min - max)", "vs bare", "msg/CPU s", "msg/s"
    );
    let baseline = entries.iter().find(|entry| entry.peer.name == BASELINE);
    for entry in entries {
        let works = || entry.samples.iter().map(|sample| as_work(sample.as_ref()));
        let Some(cost) = Spread::of(works().flatten().map(Work::cpu_per_message)) else {
            println!("{:<24} {:>11}", entry.peer.name, "failed");
            continue;
        };
        // Turn by turn with the baseline's of the same round, so that a slow minute cancels out.
        let ratio =
            baseline.and_then(|baseline| {
                let pairs = works().zip(
                    baseline
                        .samples
                        .iter()
                        .map(|sample| as_work(sample.as_ref())),
                );
                Spread::of(pairs.filter_map(|(own, base)| {
                    Some(base?.cpu_per_message() / own?.cpu_per_message())
                }))
            });
        let rate = Spread::of(works().flatten().map(Work::rate)).map_or(0.0, |rate| rate.median);
        println!(
            "{:<24} {:>11} {:>19} {:>9} {:>13} {:>13}",
            entry.peer.name,
            grouped(cost.median),
            format!("({} - {})", grouped(cost.min), grouped(cost.max)),
            ratio.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median)),
            grouped(1e9 / cost.median),
            grouped(rate),
        );
    }
}

fn print_idle(entries: &[Entry]) {
    println!(
        "{:<24} {:>10} {:>8} {:>10} {:>16} {:>15}",
        "bytes per connection", "heap", "blocks", "resident", "heap after echo", "resident after"
    );
    for entry in entries {
        let figure = |figure: fn(&Idle) -> f64| {
            Spread::of(
                entry
                    .samples
                    .iter()
                    .filter_map(|sample| Some(figure(as_idle(sample.as_ref())?))),
            )
        };
        let counted = |value: Option<Spread>, digits: usize| match value {
            Some(value) if entry.peer.heap_is_counted && digits == 1 => {
                format!("{:.1}", value.median)
            }
            Some(value) if entry.peer.heap_is_counted => grouped(value.median),
            Some(_) => "not seen".to_owned(),
            None => "failed".to_owned(),
        };
        let seen = |value: Option<Spread>| {
            value.map_or("failed".to_owned(), |value| grouped(value.median))
        };
        println!(
            "{:<24} {:>10} {:>8} {:>10} {:>16} {:>15}",
            entry.peer.name,
            counted(figure(|idle| idle.after_handshake.heap), 0),
            counted(figure(|idle| idle.after_handshake.blocks), 1),
            seen(figure(|idle| idle.after_handshake.resident)),
            counted(figure(|idle| idle.after_burst.heap), 0),
            seen(figure(|idle| idle.after_burst.resident)),
        );
    }
}

fn as_work(sample: Option<&Sample>) -> Option<&Work> {
    match sample {
        Some(Sample::Work(work)) => Some(work),
        _ => None,
    }
}

fn as_idle(sample: Option<&Sample>) -> Option<&Idle> {
    match sample {
        Some(Sample::Idle(idle)) => Some(idle),
        _ => None,
    }
}

/// A whole number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::from(if number <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        let numbers = [0.4, 999.0, 1000.0, 1_234_567.2, -1500.0];
        assert_eq!(
            numbers.map(grouped),
            ["0", "999", "1 000", "1 234 567", "-1 500"]
        );
    }
}
