//! How many files and connections the process may have open, and what of that is for whom.

/// Takes as many descriptors as the system lets the process have: what it gives by itself, often 1,024, is
/// for programs that wait for descriptors below that with `select`. Returns how many there are, where that is known.
#[cfg(unix)]
pub(crate) fn raise() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        // Some systems have a lower bound of their own.
        Err(_) => before,
    }
}

/// There is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise() -> Option<u64> {
    None
}

/// How many the process may have open at the moment; `None` for any number.
#[cfg(unix)]
pub(crate) fn most() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// There is no such limit.
#[cfg(not(unix))]
pub(crate) fn most() -> Option<u64> {
    None
}

/// What of the process's descriptors is for whom, so that whoever comes never finds that there is none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// For connections at the port for clients.
    pub(crate) clients: usize,
    /// For those of them that no limit by address is for, beyond that: whoever looks after the server.
    pub(crate) exempt: usize,
    /// For those that are told that they may not stay.
    pub(crate) goodbyes: usize,
    /// For connections at the internal listener.
    pub(crate) internal: usize,
}

impl Shares {
    /// Of so many. An eighth is for all that is none of the clients', and a quarter of that for nobody in particular: the
    /// backend, files, listening sockets.
    pub(crate) fn of(most: Option<u64>) -> Self {
        let most = most.and_then(|most| usize::try_from(most).ok());
        let most = most.unwrap_or(usize::MAX);
        let reserve = (most / 8).clamp(LEAST.min(most / 2), MOST);
        let quarter = reserve / 4;
        Self {
            clients: most - reserve,
            exempt: quarter,
            goodbyes: quarter,
            internal: quarter,
        }
    }
}

/// What the process has open with nobody there, and as much again.
const LEAST: usize = 64;
/// More than all that has a limit of its own comes to.
const MOST: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_for_others() {
        for (most, clients, quarter) in [
            (Some(1024), 896, 32),
            (Some(20_000), 17_500, 625),
            (Some(1_048_576), 983_040, 16_384),
            (Some(256), 192, 16),
            // Too few for anything.
            (Some(20), 10, 2),
            (Some(0), 0, 0),
            (None, usize::MAX - 65_536, 16_384),
        ] {
            let shares = Shares::of(most);
            let Shares {
                exempt,
                goodbyes,
                internal,
                ..
            } = shares;
            assert_eq!(shares.clients, clients, "{most:?}");
            assert_eq!([exempt, goodbyes, internal], [quarter; 3], "{most:?}");
        }
    }
}
