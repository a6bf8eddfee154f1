//! Tests that wait: each on a runtime of its own, and not for ever.

use std::time::Duration;

/// Runs a test, within a time that is longer than anything takes on the slowest of machines.
///
/// # Panics
///
/// When the test does, or hangs.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let test = tokio::time::timeout(DEADLINE, test);
        test.await.expect("the test hangs");
    });
}

const DEADLINE: Duration = Duration::from_secs(60);
