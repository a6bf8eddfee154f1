//! The command line. Small enough that a parser library would be more text than this.

use crate::suites::Suite;

pub(crate) const HELP: &str = "\
Development tasks of the Tautline workspace.

usage: cargo xtask test [SUITE...] [--no-install]
       cargo xtask conformance [CASES] [--no-install]
       cargo xtask requirements [all]
       cargo xtask page [--no-install]

  test              everything that has to hold, with all of its own set-up
  test quick        the inner loop: format, lints and cargo test; Rust alone
  test ladder       the long run: a million messages over every ordered pair of transports
  test SUITE...     these suites:
                      rust         format, lints, docs, unit, integration and doc tests, requirements of the RFCs
                      supply       licences and lock files of what we depend on
                      page         the committed pages are what their sources build
                      metrics      alert rules, and the names in /metrics, by Prometheus' own promtool
                      openapi      the HTTP API, fuzzed from its own description by schemathesis
                      interop      the WebSocket library with ws, websockets and Chromium, and behind proxies
                      acme         certificates from a real authority, Pebble, which looks over loopback
                      chart        the chart of deploy/ as Helm sees it: lints, and the effect of each value
                      sdk          the real JavaScript and Python SDKs against a server
                      client       the TypeScript package against a server, through a hostile proxy
                      proxies      what comes through nginx, HAProxy, Caddy and a hostile proxy, by which rung
                      browser      the pages and the TypeScript package in headless Chromium
                      conformance  Autobahn, strict, against the WebSocket engine in both roles
  conformance       Autobahn alone; CASES selects, for example 6.* or 'core,9.*,!9.4.*'; 'all' has the
                    large compressed messages too (conformance/autobahn/README.md)
  requirements      which requirements of the WebSocket RFCs are met and tested, and which are not; 'all'
                    lists every one with its places (conformance/requirements/README.md)
  page              build the chat page and the lab from their sources in packages/

  --no-install      install nothing: what is missing fails, with its name and how to get it
  --help            this text

What the suites need beyond Rust is Python 3.10 with venv, Node.js 20, Chromium, nginx, HAProxy, Caddy and promtool. On
Debian and Ubuntu, as root or where sudo asks for no password, missing ones are installed; packages from npm and
PyPI go into the project's folders and target/ only.

The last line is always 'N passed, M failed, K skipped'. Exit status: 0 all passed, 1 not, 2 for a
wrong command line.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Help,
    Page {
        install: bool,
    },
    Requirements {
        /// Each of them, not the counts alone.
        all: bool,
    },
    Test {
        suites: Vec<Suite>,
        /// Autobahn's cases.
        cases: String,
        install: bool,
    },
}

pub(crate) fn parse(arguments: &[String]) -> Result<Action, String> {
    let mut install = true;
    let mut words = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--help" | "-h" | "help" => return Ok(Action::Help),
            "--no-install" => install = false,
            option if option.starts_with('-') => return Err(format!("unknown option: {option}")),
            word => words.push(word),
        }
    }
    let cases = Suite::DEFAULT_CASES.to_owned();
    match words.as_slice() {
        [] => Ok(Action::Help),
        ["test"] => Ok(Action::Test {
            suites: Suite::ALL.to_vec(),
            cases,
            install,
        }),
        ["test", names @ ..] => Ok(Action::Test {
            suites: names
                .iter()
                .map(|name| suite(name))
                .collect::<Result<_, _>>()?,
            cases,
            install,
        }),
        ["conformance", rest @ ..] => match rest {
            [] | [_] => Ok(Action::Test {
                suites: vec![Suite::Conformance],
                cases: rest.first().map_or(cases, |&cases| cases.to_owned()),
                install,
            }),
            _ => Err("conformance takes one list of cases, separated by commas".to_owned()),
        },
        ["page"] => Ok(Action::Page { install }),
        ["requirements"] => Ok(Action::Requirements { all: false }),
        ["requirements", "all"] => Ok(Action::Requirements { all: true }),
        [task, ..] => Err(format!(
            "unknown task: {task} (expected test, conformance, requirements or page)"
        )),
    }
}

fn suite(name: &str) -> Result<Suite, String> {
    Suite::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Suite::ALL.iter().map(|suite| suite.name()).collect();
        format!(
            "unknown suite: {name} (expected quick, ladder, {})",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Action, String> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn test(suites: &[Suite], install: bool) -> Result<Action, String> {
        Ok(Action::Test {
            suites: suites.to_vec(),
            cases: Suite::DEFAULT_CASES.to_owned(),
            install,
        })
    }

    #[test]
    fn test_alone_means_every_suite() {
        assert_eq!(parsed("test"), test(Suite::ALL, true));
        assert!(!Suite::ALL.contains(&Suite::Quick));
    }

    #[test]
    fn suites_are_named_one_by_one() {
        assert_eq!(parsed("test quick"), test(&[Suite::Quick], true));
        assert_eq!(parsed("test ladder"), test(&[Suite::Ladder], true));
        assert_eq!(
            parsed("test sdk --no-install browser"),
            test(&[Suite::Sdk, Suite::Browser], false)
        );
        for &suite in Suite::ALL {
            assert_eq!(
                parsed(&format!("test {}", suite.name())),
                test(&[suite], true)
            );
            assert!(
                HELP.contains(&format!(" {} ", suite.name())),
                "help on {}",
                suite.name()
            );
        }
    }

    #[test]
    fn conformance_takes_cases() {
        let Ok(Action::Test { suites, cases, .. }) = parsed("conformance 6.*") else {
            panic!("not a test")
        };
        assert_eq!((suites, cases.as_str()), (vec![Suite::Conformance], "6.*"));
    }

    #[test]
    fn requirements_are_counted_or_listed() {
        let action = |all| Ok(Action::Requirements { all });
        assert_eq!(parsed("requirements"), action(false));
        assert_eq!(parsed("requirements all"), action(true));
        assert!(parsed("requirements some").is_err());
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parsed("test slow").is_err_and(|text| text.contains("slow")));
        assert!(parsed("dance").is_err_and(|text| text.contains("dance")));
        assert!(parsed("test --fast").is_err_and(|text| text.contains("--fast")));
        assert!(parsed("conformance 1.* 2.*").is_err());
    }

    #[test]
    fn nothing_and_help_give_help() {
        assert_eq!(parsed(""), Ok(Action::Help));
        assert_eq!(parsed("test --help"), Ok(Action::Help));
    }
}
