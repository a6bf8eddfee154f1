//! `cargo xtask requirements`: which requirements of the RFCs are met, where, and by which tests.
//!
//! The list is data, in `conformance/requirements`; the places are comments in the code. Its README
//! has the format of both.

mod catalogue;
mod markers;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;
use catalogue::{Excuse, Level, Requirement};
use markers::{Marker, Place};

/// Where the lists are.
const LISTS: &str = "conformance/requirements";

/// Where code and tests are.
const SOURCES: [&str; 6] = [
    "crates/websocket/src",
    "crates/websocket/tests",
    "crates/websocket/examples",
    "crates/deflate/src",
    "crates/deflate/tests",
    "tests/interop",
];

/// What was found out.
pub(crate) struct Findings {
    lists: Vec<(String, Vec<Found>)>,
    /// Markers of numbers that don't exist.
    unknown: Vec<String>,
}

struct Found {
    requirement: Requirement,
    code: Vec<String>,
    tests: Vec<String>,
}

impl Findings {
    /// Reads the lists and the sources below `root`.
    ///
    /// # Errors
    ///
    /// When a file can't be read, or a list isn't as it should be.
    pub(crate) fn collect(root: &Path) -> Result<Self, Error> {
        let mut markers: BTreeMap<(String, String), Vec<Marker>> = BTreeMap::new();
        for folder in SOURCES {
            for marker in markers::collect(root, folder)? {
                let key = (marker.document.clone(), marker.number.clone());
                markers.entry(key).or_default().push(marker);
            }
        }
        let mut lists = Vec::new();
        for (document, requirements) in catalogue::read(&root.join(LISTS))? {
            let found = requirements
                .into_iter()
                .map(|requirement| {
                    let key = (document.clone(), requirement.number.clone());
                    let mut found = Found {
                        requirement,
                        code: Vec::new(),
                        tests: Vec::new(),
                    };
                    for marker in markers.remove(&key).unwrap_or_default() {
                        match marker.place {
                            Place::Code => found.code.push(marker.at),
                            Place::Test => found.tests.push(marker.at),
                        }
                    }
                    found
                })
                .collect();
            lists.push((document, found));
        }
        let unknown = markers
            .into_values()
            .flatten()
            .map(|marker| {
                format!(
                    "{}: {} {} is not a requirement in {LISTS}",
                    marker.at, marker.document, marker.number
                )
            })
            .collect();
        Ok(Self { lists, unknown })
    }

    /// Everything that is wrong, one thing a line.
    pub(crate) fn problems(&self) -> Vec<String> {
        let missing = self.lists.iter().flat_map(|(document, list)| {
            list.iter().filter_map(move |found| {
                let Requirement {
                    number,
                    keyword,
                    role,
                    text,
                    ..
                } = &found.requirement;
                let missing = found.missing()?;
                Some(format!(
                    "{document} {number}: no {missing} ({role} {keyword}: {text})"
                ))
            })
        });
        self.unknown.iter().cloned().chain(missing).collect()
    }

    /// The counts, a line for each document and level.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (document, list) in &self.lists {
            text.push_str(&format!("{document}: {} requirements\n", list.len()));
            for level in Level::ALL {
                let of_level: Vec<_> = list
                    .iter()
                    .filter(|found| found.requirement.level == level)
                    .collect();
                let count = |state| of_level.iter().filter(|f| f.state() == state).count();
                text.push_str(&format!(
                    "  {:<7} {:>4}: {} met and tested, {} met, {} tested, {} not here, {} {}\n",
                    level.name(),
                    of_level.len(),
                    count(State::MetAndTested),
                    count(State::Met),
                    count(State::Tested),
                    count(State::NotHere),
                    count(State::Nothing),
                    if level == Level::May {
                        "not taken"
                    } else {
                        "without a mark"
                    },
                ));
            }
        }
        text
    }

    /// Each requirement with its places.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (document, list) in &self.lists {
            for found in list {
                let Requirement {
                    number,
                    keyword,
                    role,
                    text: what,
                    excuse,
                    ..
                } = &found.requirement;
                text.push_str(&format!("{document} {number} {keyword} ({role}): {what}\n"));
                for (kind, places) in [("code", &found.code), ("test", &found.tests)] {
                    for place in places {
                        text.push_str(&format!("    {kind} {place}\n"));
                    }
                }
                match excuse {
                    Some(Excuse::NotHere(why)) => text.push_str(&format!("    not here: {why}\n")),
                    Some(Excuse::NoTest(why)) => text.push_str(&format!("    no test: {why}\n")),
                    None => {}
                }
            }
        }
        text
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    MetAndTested,
    Met,
    Tested,
    NotHere,
    Nothing,
}

impl Found {
    fn state(&self) -> State {
        match (self.code.is_empty(), self.tests.is_empty()) {
            (false, false) => State::MetAndTested,
            (false, true) => State::Met,
            (true, false) => State::Tested,
            (true, true) if self.requirement.excuse.is_some() => State::NotHere,
            (true, true) => State::Nothing,
        }
    }

    /// What would have to be there and isn't.
    fn missing(&self) -> Option<&'static str> {
        let excuse = self.requirement.excuse.as_ref();
        if matches!(excuse, Some(Excuse::NotHere(_))) {
            return None;
        }
        let tested = !self.tests.is_empty() || matches!(excuse, Some(Excuse::NoTest(_)));
        match (self.requirement.level, self.code.is_empty(), tested) {
            (Level::May, ..) | (_, false, true) => None,
            (Level::Must, true, true) => Some("code"),
            (Level::Must, false, false) => Some("test"),
            (Level::Must | Level::Should, true, false) => Some("code and no test"),
            (Level::Should, ..) => None,
        }
    }
}

/// For a suite: `Err` with all problems.
///
/// # Errors
///
/// The problems, as one text.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let findings = Findings::collect(root).map_err(|error| error.to_string())?;
    let problems = findings.problems();
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("\n{}", problems.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str, excuse: Option<Excuse>, code: bool, test: bool) -> Found {
        let mut requirement = catalogue::requirement(line).expect("a requirement");
        requirement.excuse = excuse;
        let places = |there: bool| {
            if there {
                vec!["a.rs:1".to_owned()]
            } else {
                vec![]
            }
        };
        Found {
            requirement,
            code: places(code),
            tests: places(test),
        }
    }

    #[test]
    fn a_must_needs_code_and_a_test() {
        let must = "1-1 | MUST NOT | both | does something";
        let missing = |code, test| found(must, None, code, test).missing();
        assert_eq!(missing(true, true), None);
        assert_eq!(missing(true, false), Some("test"));
        assert_eq!(missing(false, true), Some("code"));
        assert_eq!(missing(false, false), Some("code and no test"));
    }

    #[test]
    fn a_should_needs_either_and_a_may_nothing() {
        let missing = |level: &str, code, test| {
            found(&format!("1-1 | {level} | both | x"), None, code, test).missing()
        };
        assert_eq!(missing("SHOULD", true, false), None);
        assert_eq!(missing("RECOMMENDED", false, true), None);
        assert_eq!(
            missing("SHOULD NOT", false, false),
            Some("code and no test")
        );
        assert_eq!(missing("MAY", false, false), None);
    }

    #[test]
    fn an_excuse_goes_as_far_as_it_says() {
        let must = "1-1 | MUST | both | does something";
        let not_here = || Some(Excuse::NotHere("x".into()));
        let no_test = || Some(Excuse::NoTest("x".into()));
        assert_eq!(found(must, not_here(), false, false).missing(), None);
        assert_eq!(found(must, no_test(), true, false).missing(), None);
        assert_eq!(found(must, no_test(), false, false).missing(), Some("code"));
    }
}
