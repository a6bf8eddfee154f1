//! Tables: one load in plain text, as it is measured.

use crate::load::{Engine, Idle, Sample, Work};
use crate::peers::BASELINE;
use crate::rounds::Entry;
use crate::stats::Spread;

/// Prints the table of one load.
pub(crate) fn print(title: &str, entries: &[Entry]) {
    println!("\n{title}");
    let first = entries.iter().flat_map(|entry| &entry.samples).flatten();
    match first.clone().next() {
        Some(Sample::Idle(_)) => print_idle(entries),
        Some(Sample::Engine(_)) => print_engine(entries),
        Some(Sample::Work(_)) => print_work(entries),
        None => println!("nothing was measured"),
    }
}

/// The spread of one figure of an entry, `None` when no turn has it.
pub(crate) fn figure(entry: &Entry, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    Spread::of(entry.samples.iter().flatten().filter_map(figure))
}

/// The CPU time of the baseline divided by that of `entry`: turn by turn with the baseline's of the same round, so that a
/// slow minute cancels out.
pub(crate) fn against_baseline(entry: &Entry, entries: &[Entry]) -> Option<Spread> {
    let baseline = entries.iter().find(|entry| entry.peer.name == BASELINE)?;
    let pairs = entry.samples.iter().zip(&baseline.samples);
    Spread::of(pairs.filter_map(|(own, base)| Some(cost(base.as_ref()?)? / cost(own.as_ref()?)?)))
}

/// CPU nanoseconds per message.
pub(crate) fn cost(sample: &Sample) -> Option<f64> {
    as_work(sample).map(Work::cpu_per_message)
}

pub(crate) fn as_work(sample: &Sample) -> Option<&Work> {
    match sample {
        Sample::Work(work) => Some(work),
        _ => None,
    }
}

pub(crate) fn as_idle(sample: &Sample) -> Option<&Idle> {
    match sample {
        Sample::Idle(idle) => Some(idle),
        _ => None,
    }
}

pub(crate) fn as_engine(sample: &Sample) -> Option<&Engine> {
    match sample {
        Sample::Engine(engine) => Some(engine),
        _ => None,
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::from(if number <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn print_work(entries: &[Entry]) {
    println!(
        "{:<24} {:>11} {:>19} {:>8} {:>13} {:>11}  also",
        "server", "CPU ns/msg", "(min - max)", "vs bare", "msg/CPU s", "msg/s"
    );
    for entry in entries {
        let Some(spread) = figure(entry, cost) else {
            println!("{:<24} {:>11}", entry.peer.name, "failed");
            continue;
        };
        let ratio = against_baseline(entry, entries);
        let rate = figure(entry, |sample| as_work(sample).map(Work::rate));
        println!(
            "{:<24} {:>11} {:>19} {:>8} {:>13} {:>11}  {}",
            entry.peer.name,
            grouped(spread.median),
            format!("({} - {})", grouped(spread.min), grouped(spread.max)),
            ratio.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median)),
            grouped(1e9 / spread.median),
            grouped(rate.map_or(0.0, |rate| rate.median)),
            extras(entry),
        );
    }
}

/// What only some loads tell.
fn extras(entry: &Entry) -> String {
    let size = figure(entry, |sample| as_work(sample)?.reply_bytes);
    let latency = |index: usize| figure(entry, |sample| Some(as_work(sample)?.latency_us?[index]));
    match (size, latency(0), latency(1), latency(2)) {
        (Some(size), ..) => format!("replies of {:.0} B", size.median),
        (_, Some(median), Some(p99), Some(p999)) => format!(
            "p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us",
            median.median, p99.median, p999.median
        ),
        _ => String::new(),
    }
}

fn print_idle(entries: &[Entry]) {
    println!(
        "{:<24} {:>10} {:>8} {:>10} {:>16} {:>15}",
        "bytes per connection", "heap", "blocks", "resident", "heap afterwards", "resident after"
    );
    for entry in entries {
        let read = |read: fn(&Idle) -> f64| figure(entry, |sample| as_idle(sample).map(read));
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
            counted(read(|idle| idle.after_handshake.heap), 0),
            counted(read(|idle| idle.after_handshake.blocks), 1),
            seen(read(|idle| idle.after_handshake.resident)),
            counted(read(|idle| idle.after_burst.heap), 0),
            seen(read(|idle| idle.after_burst.resident)),
        );
    }
}

fn print_engine(entries: &[Entry]) {
    println!(
        "{:<24} {:>9} {:>17} {:>13} {:>12}",
        "per message", "ns", "(min - max)", "instructions", "allocations"
    );
    for entry in entries {
        let read = |read: fn(&Engine) -> Option<f64>| {
            figure(entry, |sample| as_engine(sample).and_then(read))
        };
        let Some(time) = read(|engine| Some(engine.nanoseconds)) else {
            println!("{:<24} {:>9}", entry.peer.name, "failed");
            continue;
        };
        let instructions = read(|engine| engine.instructions);
        let allocations = read(|engine| Some(engine.allocations));
        println!(
            "{:<24} {:>9.1} {:>17} {:>13} {:>12.3}",
            entry.peer.name,
            time.median,
            format!("({:.1} - {:.1})", time.min, time.max),
            instructions.map_or("-".to_owned(), |count| format!("{:.0}", count.median)),
            allocations.map_or(0.0, |count| count.median),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        let numbers = [0.4, 999.0, 1000.0, 1_234_567.2, -1500.0];
        assert_eq!(
            numbers.map(grouped),
            ["0", "999", "1,000", "1,234,567", "-1,500"]
        );
    }
}
