//! What the process uses of the machine.

/// Numbers of this process, with the names and units of Prometheus's own clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessNumbers {
    /// Time of processors, in seconds.
    pub cpu_seconds: f64,
    /// Memory that it has, in bytes.
    pub resident_bytes: u64,
    /// Memory that it has asked for, in bytes.
    pub virtual_bytes: u64,
    /// Descriptors that are open.
    pub open_descriptors: u64,
    /// Descriptors that may be; `None` for any number.
    pub max_descriptors: Option<u64>,
    /// When it was started, in seconds of Unix time.
    pub start_seconds: f64,
}

impl ProcessNumbers {
    /// Asks the system. `None` where it doesn't tell: it is Linux that does, in `/proc` (`proc(5)`).
    #[cfg(target_os = "linux")]
    pub fn read() -> Option<Self> {
        use rustix::param::{clock_ticks_per_second, page_size};
        use rustix::process::{Resource, getrlimit};
        use std::fs::{read_dir, read_to_string};

        let stat = Stat::parse(&read_to_string("/proc/self/stat").ok()?)?;
        let booted = read_to_string("/proc/stat").ok()?;
        let booted = booted
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?;
        let booted: f64 = booted.trim().parse().ok()?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are some hundreds of them"
        )]
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: stat.cpu_ticks / ticks,
            resident_bytes: stat.resident_pages * page_size() as u64,
            virtual_bytes: stat.virtual_bytes,
            // One of them is for looking.
            open_descriptors: (read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            max_descriptors: getrlimit(Resource::Nofile).current,
            start_seconds: booted + stat.start_ticks / ticks,
        })
    }

    /// The system doesn't tell.
    #[cfg(not(target_os = "linux"))]
    pub fn read() -> Option<Self> {
        None
    }
}

/// What is of interest in `/proc/self/stat`.
#[cfg(any(target_os = "linux", test))]
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: u64,
    resident_pages: u64,
}

#[cfg(any(target_os = "linux", test))]
impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program stands in brackets, and may have spaces and brackets itself.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first is the third of the whole line.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = |number| field(number)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: ticks(14)? + ticks(15)?,
            start_ticks: ticks(22)?,
            virtual_bytes: field(23)?.parse().ok()?,
            resident_pages: field(24)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_program_with_an_odd_name_is_read() {
        let line = "7 (a) b (c) R 1 7 7 0 -1 4194560 90 0 0 0 25 75 0 0 20 0 3 0 8000 123456 42 18446744073709551615";
        let stat = Stat {
            cpu_ticks: 100.0,
            start_ticks: 8000.0,
            virtual_bytes: 123_456,
            resident_pages: 42,
        };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(Stat::parse("7 (a) R 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let numbers = ProcessNumbers::read().expect("Linux tells");
        assert!(
            numbers.resident_bytes > 1024 * 1024 && numbers.virtual_bytes > numbers.resident_bytes
        );
        assert!(numbers.open_descriptors >= 3);
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let age = now.as_secs_f64() - numbers.start_seconds;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
