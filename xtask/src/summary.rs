//! Counting: what each kind of test runner says about itself, and the last line of everything.

use std::ops::AddAssign;
use std::time::Duration;

/// How many tests came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASS: Self = Self::new(1, 0, 0);
    pub(crate) const FAIL: Self = Self::new(0, 1, 0);

    pub(crate) const fn new(passed: u64, failed: u64, skipped: u64) -> Self {
        Self {
            passed,
            failed,
            skipped,
        }
    }

    fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Who ran the tests, and so how its output is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `conformance/autobahn`'s last line.
    Autobahn,
    /// `cargo test`, one `test result:` line a binary.
    Cargo,
    /// One command, one check.
    Check,
    /// `go test -v`.
    Go,
    /// `node --test`, in its spec or TAP form.
    Node,
    /// Maven's, for JUnit.
    Surefire,
    /// Python's `unittest`.
    Unittest,
}

impl Runner {
    /// Counts what `output` reports. Empty when it reports nothing: the runner did not get so far.
    pub(crate) fn count(self, output: &str) -> Tally {
        let mut tally = Tally::default();
        match self {
            Self::Check => {}
            Self::Cargo => {
                for line in output
                    .lines()
                    .filter(|line| line.starts_with("test result: "))
                {
                    tally += Tally::new(
                        before(line, " passed"),
                        before(line, " failed"),
                        before(line, " ignored"),
                    );
                }
            }
            Self::Go => {
                let tests: Vec<_> = output.lines().filter_map(go_result).collect();
                for (how, name) in &tests {
                    // One with parts is no test of its own.
                    let is_part = |other: &str| {
                        other
                            .strip_prefix(*name)
                            .is_some_and(|rest| rest.starts_with('/'))
                    };
                    if tests.iter().any(|(_, other)| is_part(other)) {
                        continue;
                    }
                    tally += match *how {
                        "PASS" => Tally::PASS,
                        "SKIP" => Tally::new(0, 0, 1),
                        _ => Tally::FAIL,
                    };
                }
            }
            Self::Node => {
                for line in output.lines() {
                    let Some(line) = line.strip_prefix("ℹ ").or(line.strip_prefix("# ")) else {
                        continue;
                    };
                    let Some((what, number)) = line.split_once(' ') else {
                        continue;
                    };
                    let Ok(number) = number.trim().parse::<u64>() else {
                        continue;
                    };
                    match what {
                        "pass" => tally.passed += number,
                        "fail" | "cancelled" => tally.failed += number,
                        "skipped" | "todo" => tally.skipped += number,
                        _ => {}
                    }
                }
            }
            Self::Surefire => {
                // The others are of one class each, and say how long it took.
                let total = output
                    .lines()
                    .rfind(|line| line.contains("Tests run: ") && !line.contains("Time elapsed"));
                if let Some(line) = total {
                    tally.failed = after(line, "Failures: ") + after(line, "Errors: ");
                    tally.skipped = after(line, "Skipped: ");
                    let ran = after(line, "Tests run: ");
                    tally.passed = ran.saturating_sub(tally.failed + tally.skipped);
                }
            }
            Self::Unittest => {
                let lines = output.lines();
                let ran: u64 = lines
                    .clone()
                    .filter(|line| line.starts_with("Ran ") && line.contains(" test"))
                    .map(|line| after(line, "Ran "))
                    .sum();
                for line in
                    lines.filter(|line| line.starts_with("OK") || line.starts_with("FAILED ("))
                {
                    // The bracket tells it from "expected failures=", which are none.
                    tally.failed += after(line, "(failures=")
                        + after(line, "errors=")
                        + after(line, "unexpected successes=");
                    tally.skipped += after(line, "skipped=");
                }
                tally.passed = ran.saturating_sub(tally.failed + tally.skipped);
            }
            Self::Autobahn => {
                if let Some(line) = output.lines().rfind(|line| line.starts_with("autobahn: ")) {
                    tally = Tally::new(before(line, " passed"), before(line, " failed"), 0);
                }
            }
        }
        tally
    }
}

impl Runner {
    /// The names of the tests that failed, as far as `output` gives them, each once.
    fn failures(self, output: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for line in output.lines().map(str::trim_end) {
            let name = match self {
                Self::Autobahn => line.strip_prefix("FAIL  "),
                Self::Cargo => line
                    .strip_prefix("test ")
                    .and_then(|line| line.strip_suffix(" ... FAILED")),
                Self::Check => None,
                Self::Go => go_result(line).and_then(|(how, name)| (how == "FAIL").then_some(name)),
                // The duration differs between the two places where it names a test.
                Self::Node => line
                    .trim_start()
                    .strip_prefix("✖ ")
                    .map(|line| line.rsplit_once(" (").map_or(line, |(name, _)| name))
                    .filter(|&line| line != "failing tests:"),
                Self::Surefire => line
                    .strip_prefix("[ERROR] ")
                    .and_then(|line| line.split_once(" -- Time elapsed: "))
                    .map(|(name, _)| name)
                    .filter(|name| !name.starts_with("Tests run: ")),
                Self::Unittest => line
                    .strip_prefix("FAIL: ")
                    .or_else(|| line.strip_prefix("ERROR: ")),
            };
            if let Some(name) = name
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }
}

/// How a test of Go ended, and its name, of `    --- PASS: TestA/part (0.01s)`.
fn go_result(line: &str) -> Option<(&str, &str)> {
    let (how, name) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    Some((how, name.rsplit_once(" (").map_or(name, |(name, _)| name)))
}

/// "what: 2 failed", and a line for each name, but not for hundreds.
fn failed_tests(what: &str, count: u64, names: &[&str]) -> String {
    const SHOWN: usize = 20;
    let mut text = format!("{what}: {count} failed");
    for name in names.iter().take(SHOWN) {
        text += "\n          ";
        text += name;
    }
    if names.len() > SHOWN {
        text += "\n          …";
    }
    text
}

/// The number which ends where `marker` begins; 0 when there is none.
fn before(line: &str, marker: &str) -> u64 {
    line.split_once(marker)
        .and_then(|(head, _)| head.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The number which begins where `marker` ends; 0 when there is none.
fn after(line: &str, marker: &str) -> u64 {
    line.split_once(marker)
        .and_then(|(_, tail)| tail.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// What became of one suite.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) suite: &'static str,
    pub(crate) tally: Tally,
    /// What failed, a line each, to be read again at the end.
    pub(crate) problems: Vec<String>,
    /// What could not be looked at, the same way.
    left_out: Vec<String>,
    pub(crate) duration: Duration,
}

impl Report {
    pub(crate) fn new(suite: &'static str) -> Self {
        Self {
            suite,
            ..Self::default()
        }
    }

    /// Adds a command's tests. A command that failed without a failed test is one failure, and so
    /// is one that reports no test where it should.
    pub(crate) fn add(
        &mut self,
        what: &str,
        runner: Runner,
        output: &str,
        success: bool,
        ending: &str,
    ) {
        let mut tally = runner.count(output);
        if runner == Runner::Check {
            tally = if success { Tally::PASS } else { Tally::FAIL };
        } else if tally.total() == 0 {
            self.problems.push(format!("{what}: no test ran"));
            self.tally += Tally::FAIL;
            return;
        } else if !success && tally.failed == 0 {
            tally += Tally::FAIL;
        }
        if tally.failed > 0 {
            self.problems.push(match runner {
                Runner::Check => format!("{what}: {ending}"),
                _ => failed_tests(what, tally.failed, &runner.failures(output)),
            });
        }
        self.tally += tally;
    }

    /// Adds one check of our own.
    pub(crate) fn check(&mut self, what: &str, outcome: Result<(), impl std::fmt::Display>) {
        match outcome {
            Ok(()) => self.tally += Tally::PASS,
            Err(problem) => self.fail(format!("{what}: {problem}")),
        }
    }

    pub(crate) fn fail(&mut self, problem: String) {
        self.problems.push(problem);
        self.tally += Tally::FAIL;
    }

    /// Says, and counts, that something could not be looked at here.
    pub(crate) fn skip(&mut self, what: String) {
        self.left_out.push(what);
        self.tally += Tally::new(0, 0, 1);
    }

    fn passed(&self) -> bool {
        self.tally.failed == 0 && self.tally.passed > 0
    }
}

/// Prints the table, what failed, and the last line; `true` when all passed.
pub(crate) fn conclude(reports: &[Report]) -> bool {
    print!("{}", conclusion(reports));
    !reports.is_empty() && reports.iter().all(Report::passed)
}

fn conclusion(reports: &[Report]) -> String {
    use std::fmt::Write as _;

    let mut text = String::from("\n");
    let mut all = Tally::default();
    for report in reports {
        let Tally {
            passed,
            failed,
            skipped,
        } = report.tally;
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:<12} {passed:>6} passed {failed:>4} failed {skipped:>4} skipped {:>5} s",
            report.suite,
            report.duration.as_secs(),
        );
        all += report.tally;
        if report.tally.total() == 0 {
            all += Tally::FAIL;
            let _ = writeln!(text, "FAILED  {}: no test ran", report.suite);
        }
    }
    for report in reports {
        for problem in &report.problems {
            let _ = writeln!(text, "FAILED  {}: {problem}", report.suite);
        }
        for what in &report.left_out {
            let _ = writeln!(text, "SKIPPED {}: {what}", report.suite);
        }
    }
    let _ = writeln!(
        text,
        "{} passed, {} failed, {} skipped",
        all.passed, all.failed, all.skipped
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surefire_ends_with_its_sum() {
        let output = "\
[ERROR] Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.240 s <<< FAILURE! -- in sdk.ATest
[ERROR] sdk.ATest.fails -- Time elapsed: 0.052 s <<< FAILURE!
[INFO] Tests run: 4, Failures: 0, Errors: 0, Skipped: 1, Time elapsed: 1.708 s -- in sdk.BTest
[ERROR]   ATest.fails:2 what ==> expected: <1> but was: <2>
[ERROR] Tests run: 6, Failures: 1, Errors: 0, Skipped: 1
";
        assert_eq!(Runner::Surefire.count(output), Tally::new(4, 1, 1));
        assert_eq!(Runner::Surefire.failures(output), ["sdk.ATest.fails"]);
    }

    #[test]
    fn cargo_is_summed_over_its_binaries() {
        let output = "\
running 2 tests
test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test a ... FAILED
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(Runner::Cargo.count(output), Tally::new(15, 2, 1));
    }

    #[test]
    fn node_is_read_in_both_its_forms() {
        let spec = "✔ a (1ms)\nℹ tests 9\nℹ pass 5\nℹ fail 1\nℹ cancelled 1\nℹ skipped 1\nℹ todo 1\nℹ duration_ms 3.5";
        assert_eq!(Runner::Node.count(spec), Tally::new(5, 2, 2));
        let tap = "TAP version 13\nok 1 - a\n# tests 3\n# pass 3\n# fail 0\n# cancelled 0\n# skipped 0\n# todo 0";
        assert_eq!(Runner::Node.count(tap), Tally::new(3, 0, 0));
    }

    #[test]
    fn unittest_counts_by_what_did_not_pass() {
        let ok = "Ran 12 tests in 2.2s\n\nOK\n";
        assert_eq!(Runner::Unittest.count(ok), Tally::new(12, 0, 0));
        let skipped = "Ran 1 test in 2.2s\n\nOK (skipped=1)\n";
        assert_eq!(Runner::Unittest.count(skipped), Tally::new(0, 0, 1));
        let failed = "Ran 9 tests in 2s\n\nFAILED (failures=2, errors=1, skipped=3)\n";
        assert_eq!(Runner::Unittest.count(failed), Tally::new(3, 3, 3));
        let errors = "Ran 2 tests in 2s\n\nFAILED (errors=1)\n";
        assert_eq!(Runner::Unittest.count(errors), Tally::new(1, 1, 0));
    }

    #[test]
    fn autobahn_is_its_last_line() {
        let output = "autobahn: error at first\nautobahn: 247 passed, 3 failed\n";
        assert_eq!(Runner::Autobahn.count(output), Tally::new(247, 3, 0));
    }

    #[test]
    fn go_counts_what_has_no_parts() {
        let output = "\
=== RUN   TestA
=== RUN   TestA/json
--- FAIL: TestA (0.02s)
    --- PASS: TestA/json (0.01s)
    --- FAIL: TestA/protobuf (0.01s)
--- PASS: TestAB (0.00s)
--- SKIP: TestC (0.00s)
FAIL
";
        assert_eq!(Runner::Go.count(output), Tally::new(2, 1, 1));
        assert_eq!(Runner::Go.failures(output), ["TestA", "TestA/protobuf"]);
    }

    fn report(runner: Runner, output: &str, success: bool) -> Report {
        let mut report = Report::new("suite");
        report.add(
            "command",
            runner,
            output,
            success,
            "ended with exit status: 1",
        );
        report
    }

    #[test]
    fn what_failed_is_named_once() {
        let cargo = "test a::b ... ok\ntest a::c ... FAILED\n\nfailures:\n    a::c\n";
        assert_eq!(Runner::Cargo.failures(cargo), ["a::c"]);
        let node = "✔ fine (1ms)\n✖ broken (a lot) (2ms)\nℹ fail 1\n✖ failing tests:\n✖ broken (a lot) (2.1ms)";
        assert_eq!(Runner::Node.failures(node), ["broken (a lot)"]);
        let unittest = "test_a (x.A) ... FAIL\n=====\nFAIL: test_a (x.A)\nERROR: test_b (x.A)\n";
        assert_eq!(
            Runner::Unittest.failures(unittest),
            ["test_a (x.A)", "test_b (x.A)"]
        );
        let autobahn = "note  7.1.6 ok\nFAIL  9.3.1    behavior=FAILED";
        assert_eq!(
            Runner::Autobahn.failures(autobahn),
            ["9.3.1    behavior=FAILED"]
        );
    }

    #[test]
    fn many_names_are_cut_short() {
        let text = failed_tests("all", 500, &["a"; 500]);
        assert_eq!(text.lines().count(), 1 + 20 + 1);
        assert_eq!(failed_tests("one", 1, &["a"]), "one: 1 failed\n          a");
    }

    #[test]
    fn a_check_is_one_test() {
        assert_eq!(
            report(Runner::Check, "test result: 5 passed", true).tally,
            Tally::PASS
        );
        let failed = report(Runner::Check, "", false);
        assert_eq!(failed.tally, Tally::FAIL);
        assert_eq!(failed.problems, ["command: ended with exit status: 1"]);
    }

    #[test]
    fn a_runner_that_dies_or_runs_nothing_has_failed() {
        // It did not compile, or ended before its summary.
        assert_eq!(
            report(Runner::Cargo, "error[E0308]", false).tally,
            Tally::FAIL
        );
        // It says that all is well, having run nothing.
        let nothing = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(report(Runner::Cargo, nothing, true).tally, Tally::FAIL);
        // All that ran passed, and then something went wrong.
        let died = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(
            report(Runner::Cargo, died, false).tally,
            Tally::new(5, 1, 0)
        );
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let text = conclusion(&[
            report(Runner::Autobahn, "autobahn: 247 passed, 1 failed", false),
            report(Runner::Unittest, "Ran 3 tests in 1s\nOK (skipped=1)", true),
        ]);
        assert_eq!(text.lines().last(), Some("249 passed, 1 failed, 1 skipped"));
        assert!(text.contains("FAILED  suite: command: 1 failed"));
    }

    #[test]
    fn a_suite_without_tests_fails_all() {
        assert!(!conclude(&[]));
        let empty = [report(Runner::Check, "", true), Report::new("empty")];
        assert!(!conclude(&empty));
        assert_eq!(
            conclusion(&empty).lines().last(),
            Some("1 passed, 1 failed, 0 skipped")
        );
        assert!(conclude(&[report(Runner::Check, "", true)]));
    }
}
