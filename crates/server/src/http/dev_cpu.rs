//! `GET /dev/cpu`: how much time of a processor the server has used, by which the page of the lab tells what a way costs it.

use http::{Method, StatusCode};

use super::respond::{self, Response};

pub(super) const PATH: &str = "/dev/cpu";

/// Tells it in microseconds; `null` where the system doesn't tell.
pub(super) fn respond(method: &Method) -> Response {
    if method != Method::GET {
        return respond::method_not_allowed("GET");
    }
    let used = used().map_or_else(|| "null".to_owned(), |used| used.to_string());
    respond::json(StatusCode::OK, format!("{{\"microseconds\":{used}}}"))
}

#[cfg(unix)]
fn used() -> Option<i64> {
    use rustix::time::{ClockId, clock_gettime};
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Some(used.tv_sec * 1_000_000 + used.tv_nsec / 1000)
}

#[cfg(not(unix))]
fn used() -> Option<i64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_grows_with_work() {
        let before = used().expect("the system tells");
        let mut sum = 0_u64;
        while used().expect("the system tells") < before + 2_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
        assert_eq!(respond(&Method::GET).status(), 200);
        assert_eq!(respond(&Method::POST).status(), 405);
    }
}
