//! What the dashboard and the alerts in `deploy/` ask Prometheus for: that the server tells it, under that name, with these labels
//! and values; and that each number which the server tells is to be seen.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/deployed.rs"]
mod deployed;
#[path = "support/process.rs"]
mod process;
#[path = "support/promql.rs"]
mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};

use saphyr_parser::{Event, Parser};
use serde_json::Value;
use tautline::http::metrics::metrics;

use self::deployed::read;
use self::process::Server;
use self::promql::{Asked, Known, Matcher};

/// All series that there are, by the names that Prometheus has them by.
fn series() -> BTreeMap<String, Known> {
    let mut all = BTreeMap::new();
    for metric in metrics() {
        let known = |is_counted: bool, more: &[&str]| {
            let labels = metric.labels.iter().chain(more);
            Known {
                name: metric.name,
                is_counted,
                labels: labels.map(|label| (*label).to_owned()).collect(),
            }
        };
        let name = metric.full_name();
        if metric.kind == "histogram" {
            all.insert(format!("{name}_bucket"), known(true, &["le"]));
            all.insert(format!("{name}_sum"), known(true, &[]));
            all.insert(format!("{name}_count"), known(true, &[]));
        } else {
            all.insert(name, known(metric.kind == "counter", &[]));
        }
    }
    // What Prometheus says by itself.
    let up = Known {
        name: "up",
        is_counted: false,
        labels: BTreeSet::new(),
    };
    all.insert("up".to_owned(), up);
    all
}

/// Prometheus puts these on everything that it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// What stands behind an expression where it is shown: `{{x}}` of a legend, `{{ $labels.x }}` of an alert.
fn shown(text: &str) -> Vec<&str> {
    let parts = text.split("{{").skip(1);
    let names = parts.map(|part| part.split("}}").next().unwrap().trim());
    // What is shown where there is such a label, as it is called in there, or else.
    let names = names.filter(|name| !matches!(*name, "." | "else" | "end"));
    names
        .map(|name| name.strip_prefix("with ").unwrap_or(name))
        .map(|name| name.strip_prefix("$labels.").unwrap_or(name))
        .collect()
}

/// Holds an expression, and what is shown of what comes of it, to what there is. Returns the metrics that it asks for.
fn hold(
    series: &BTreeMap<String, Known>,
    page: &str,
    expression: &str,
    texts: &[&str],
) -> BTreeSet<&'static str> {
    let asked =
        Asked::of(expression, series).unwrap_or_else(|error| panic!("{error}\n{expression}"));
    let mut labels: BTreeSet<&str> = SCRAPED.into_iter().collect();
    let mut names = BTreeSet::new();
    for selector in &asked.selectors {
        let known = &series[&selector.name];
        names.insert(known.name);
        labels.extend(known.labels.iter().map(String::as_str));
        assert_eq!(
            selector.is_rated, known.is_counted,
            "{} is a counter, and its rate of interest, or it is neither\n{expression}",
            selector.name
        );
        for Matcher { label, values } in &selector.matchers {
            let is_known = known.labels.contains(label) || SCRAPED.contains(&label.as_str());
            assert!(
                is_known,
                "{} has no label {label}\n{expression}",
                selector.name
            );
            for value in values.iter().filter(|value| !value.starts_with('$')) {
                let help = metrics().find(|metric| metric.name == known.name);
                let help = help.map_or("", |metric| metric.help);
                let is_said = SCRAPED.contains(&label.as_str())
                    || page.contains(&format!("{label}=\"{value}\""))
                    || help
                        .split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
                        .any(|word| word == value);
                assert!(
                    is_said,
                    "{label} of {} is never {value}\n{expression}",
                    selector.name
                );
            }
        }
    }
    for label in &asked.grouped {
        assert!(
            labels.contains(label.as_str()),
            "nothing has a label {label}\n{expression}"
        );
    }
    for label in texts.iter().flat_map(|text| shown(text)) {
        let is_left = match asked.is_aggregated {
            true => asked.grouped.contains(label),
            false => labels.contains(label),
        };
        assert!(
            is_left,
            "no label {label} is left to be shown\n{expression}"
        );
    }
    names
}

/// What the server tells, before anything has happened.
fn page() -> String {
    let config = "[client]\ninsecure = true\n[prometheus]\nenabled = true\n";
    let server = Server::serve("dashboard", config);
    let mut stream = server.connect();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// The scalars of a file in YAML that stand behind keys, in their order, by the last key.
fn scalars(text: &str) -> Vec<(String, String)> {
    let (mut found, mut key, mut depths) = (Vec::new(), None::<String>, Vec::new());
    for event in Parser::new_from_str(text) {
        match event.unwrap().0 {
            Event::MappingStart(..) => {
                depths.push(true);
                key = None;
            }
            Event::SequenceStart(..) => {
                depths.push(false);
                key = None;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depths.pop();
            }
            Event::Scalar(value, ..) if depths.last() == Some(&true) => match key.take() {
                None => key = Some(value.into_owned()),
                Some(key) => found.push((key, value.into_owned())),
            },
            _ => {}
        }
    }
    found
}

#[test]
fn alerts_ask_for_what_there_is() {
    let (series, page) = (series(), page());
    let text = read("prometheus/tautline.yml");
    let scalars = scalars(&text);
    let mut alerts = 0;
    for rule in scalars.split(|(key, _)| key == "alert").skip(1) {
        let of = |key: &str| {
            rule.iter()
                .find(|(known, _)| known == key)
                .map(|(_, value)| value.as_str())
        };
        hold(
            &series,
            &page,
            of("expr").unwrap(),
            &[of("summary").unwrap()],
        );
        alerts += 1;
    }
    assert!(
        alerts > 15 && alerts == text.matches("- alert: ").count(),
        "{alerts}"
    );
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/tautline.json")).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

#[test]
fn the_dashboard_asks_for_what_there_is_and_shows_all_of_it() {
    let (series, page, dashboard) = (series(), page(), dashboard());
    let mut asked = BTreeSet::new();
    for panel in panels(&dashboard)
        .iter()
        .filter(|panel| panel["type"] != "row")
    {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let (expression, legend) = (
                target["expr"].as_str().unwrap(),
                target["legendFormat"].as_str().unwrap(),
            );
            asked.extend(hold(&series, &page, expression, &[legend]));
            // Each follows what is chosen above.
            let chosen = expression
                .matches("{job=~\"$job\", instance=~\"$instance\"")
                .count();
            let selectors = Asked::of(expression, &series).unwrap().selectors;
            assert_eq!(chosen, selectors.len(), "{expression}");
        }
    }
    let told = metrics().map(|metric| metric.name);
    let left_out: Vec<_> = told
        .filter(|name| !asked.contains(name) && !NOT_SHOWN.contains(name))
        .collect();
    assert!(left_out.is_empty(), "on no panel: {left_out:?}");
    for name in NOT_SHOWN {
        assert!(!asked.contains(name), "{name} is shown");
    }
}

/// What says nothing beside what is shown.
const NOT_SHOWN: [&str; 3] = [
    // It is `node_num_subscriptions`, by Centrifugo's name.
    "client_subscriptions_inflight",
    // There is `node_uptime_seconds`.
    "process_start_time_seconds",
    // Says little of what is used.
    "process_virtual_memory_bytes",
];

#[test]
fn the_variables_of_the_dashboard_ask_for_what_there_is() {
    let (series, dashboard) = (series(), dashboard());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for variable in &variables[1..] {
        let query = variable["query"].as_str().unwrap();
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.unwrap().rsplit_once(", ").unwrap();
        assert_eq!(label, variable["name"]);
        hold(&series, "", selector, &[]);
    }
}

/// Nobody guesses at a number at night.
#[test]
fn every_panel_says_what_it_is() {
    let dashboard = dashboard();
    let (mut ids, mut titles, mut row, mut below) = (BTreeSet::new(), BTreeSet::new(), "", 0);
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: another has its id"
        );
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(
            x + w <= 24 && y >= below,
            "{title}: is beside the grid, or above its row"
        );
        for square in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
            assert!(taken.insert(square), "{title}: covers another");
        }
        if panel["type"] == "row" {
            (row, below) = (title, y);
            continue;
        }
        assert!(titles.insert((row, title)), "{row}: two are called {title}");
        let said = panel["description"].as_str().unwrap_or_default();
        assert!(said.ends_with('.'), "{title}: no description");
        let defaults = &panel["fieldConfig"]["defaults"];
        let unit = defaults["unit"].as_str().unwrap_or_default();
        let units = ["short", "ops", "Bps", "bytes", "s", "percentunit"];
        assert!(
            units.contains(&unit),
            "{title}: {unit} is no unit that we know"
        );
        let targets = panel["targets"].as_array().unwrap();
        let expressions = targets
            .iter()
            .map(|target| target["expr"].as_str().unwrap());
        let rates = expressions.filter(|expression| is_rate(expression)).count();
        let is_right = match (unit, rates) {
            ("ops" | "Bps", _) => rates == targets.len(),
            // Seconds a second.
            ("short", _) if title == "Processors" => true,
            _ => rates == 0,
        };
        assert!(
            is_right,
            "{title}: numbers a second beside others, or in {unit}"
        );
        if panel["type"] == "stat" {
            let steps = defaults["thresholds"]["steps"].as_array();
            assert!(
                steps.is_some_and(|steps| !steps.is_empty() && steps[0]["value"].is_null()),
                "{title}: no thresholds"
            );
        }
    }
    let rows: Vec<_> = panels(&dashboard)
        .iter()
        .filter(|panel| panel["type"] == "row")
        .collect();
    assert!(rows.len() >= 8);
}

/// Whether it is a number a second.
fn is_rate(expression: &str) -> bool {
    expression.contains("rate(") && !expression.contains("histogram_quantile")
}

/// Or a mistake in a name would go unseen.
#[test]
fn mistakes_are_found() {
    let series = series();
    let page = "tautline_client_recover{recovered=\"no\",has_recovered_publications=\"no\"} 0\n";
    let good = "sum by (instance) (rate(tautline_client_recover{recovered=\"no\"}[5m])) > 0.1";
    let hold = |expression: &str, text: &str| {
        let (expression, text) = (expression.to_owned(), text.to_owned());
        let series = &series;
        std::panic::catch_unwind(move || hold(series, page, &expression, &[&text])).is_ok()
    };
    assert!(hold(good, "{{ $labels.instance }} is bad"));
    for (from, to) in [
        ("tautline_", "tautlin_"),
        ("tautline_", "centrifugo_"),
        ("tautline_", ""),
        ("client_recover", "client_recovers"),
        ("client_recover", "client_recover_count"),
        ("client_recover", "node_num_clients"),
        ("recovered=", "recover="),
        ("\"no\"", "\"maybe\""),
        ("(instance)", "(node)"),
        ("rate", "rat"),
        (
            "rate(tautline_client_recover{recovered=\"no\"}[5m])",
            "tautline_client_recover",
        ),
        ("{recovered", "recovered"),
        ("by (instance) ", ""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(
            !hold(&bad, "{{ $labels.instance }} is bad"),
            "not found: {bad}"
        );
    }
    assert!(!hold(good, "{{ $labels.reason }} is bad"));
    let either = |label: &str| {
        format!("{{{{ with $labels.{label} }}}}{{{{ . }}}}{{{{ else }}}}it{{{{ end }}}} is bad")
    };
    assert!(hold(good, &either("instance")) && !hold(good, &either("reason")));
}
