//! How many files and connections the process may have open.

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
