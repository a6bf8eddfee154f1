//! What Prometheus' own tool (`promtool`) says of the alert rules in `deploy/`, of what they come to, of what the dashboard
//! there asks for, and of the names in `/metrics`.
//!
//! A family of which there is no number yet is not looked at by it, so each gets one here before it is asked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::server::Server;
use crate::summary::Report;
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(60);

const RULES: &str = "deploy/prometheus/tautline.yml";
/// What there is to tell of some histories.
const HISTORIES: &str = "tests/alerts/tautline.yml";
const DASHBOARD: &str = "deploy/grafana/tautline.json";

/// Names of Centrifugo's which break the conventions. They are kept, so that dashboards made for it need a search and
/// replace of the prefix and no more; what is ours alone follows the conventions.
const CENTRIFUGO: &[&str] = &[
    "api_command_duration_seconds_histogram",
    "broker_publish_suppressed_count",
    "client_command_duration_seconds_histogram",
    "client_connections_accepted",
    "client_num_reply_errors",
    "client_num_server_disconnects",
    "client_num_server_unsubscribes",
    "client_recover",
    "client_subscriptions_accepted",
    "node_client_connection_limit",
    "node_messages_received_count",
    "node_messages_sent_count",
    "proxy_duration_seconds_histogram",
    "proxy_errors",
    "transport_messages_received",
    "transport_messages_received_size",
    "transport_messages_sent",
    "transport_messages_sent_size",
    "transport_outgoing_close_count",
];

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let promtool = tools.promtool()?;
    let ask = |what: &str, rules: &Path| {
        let mut command = Command::new(promtool);
        command.args([what, "rules"]).arg(rules);
        let finished = process::run_quietly(&context.children, &mut command, LIMIT)?;
        Ok::<_, Error>(match finished.success {
            true => Ok(()),
            false => Err(format!("{}:\n{}", finished.ending, finished.output)),
        })
    };
    let check = |rules: &Path| ask("check", rules);
    report.check("promtool check rules", check(&context.root.join(RULES))?);
    let told = ask("test", &context.root.join(HISTORIES))?;
    report.check("promtool test rules", told);
    let dashboard = context.root.join(DASHBOARD);
    let dashboard = std::fs::read_to_string(&dashboard).map_err(Error::context(format!(
        "can't read {}",
        dashboard.display()
    )))?;
    let rules = context.scratch("dashboard")?.join("rules.yml");
    std::fs::write(&rules, as_rules(&dashboard))
        .map_err(Error::context(format!("can't write {}", rules.display())))?;
    report.check("promtool check rules, the dashboard's", check(&rules)?);

    let server = Server::start(context, "metrics")?;
    let page = server.get("/metrics")?;
    let whole = with_numbers(&page);
    let file = context.scratch("metrics")?.join("page.txt");
    std::fs::write(&file, whole)
        .map_err(Error::context(format!("can't write {}", file.display())))?;
    // What is started has no input, and the tool reads nothing else.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec "$0" check metrics <"$1""#])
        .arg(promtool)
        .arg(&file);
    let finished = process::run_quietly(&context.children, &mut command, LIMIT)?;
    report.check("promtool check metrics", verdict(&finished.output));
    report.check("SIGTERM ends the server", server.stop());
    Ok(())
}

/// What a dashboard asks for, as rules that record it: a file for a tool that knows no dashboards. A text in JSON is one in
/// YAML.
fn as_rules(dashboard: &str) -> String {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let lines = dashboard.lines().map(str::trim);
    let asked = lines.filter_map(|line| line.strip_prefix("\"expr\": "));
    for (number, expression) in asked.enumerate() {
        let expression = expression
            .trim_end_matches(',')
            .replace("$__rate_interval", "1m")
            .replace("$job", ".*")
            .replace("$instance", ".*");
        let _ = writeln!(
            rules,
            "      - record: panel_{number}\n        expr: {expression}"
        );
    }
    rules
}

/// The page, with a number for each family that has none.
fn with_numbers(page: &str) -> String {
    let mut whole = page.to_owned();
    for (name, kind) in page.lines().filter_map(family) {
        let has_some = page.lines().any(|line| {
            let sample = line.split(['{', ' ']).next().unwrap_or_default();
            let behind = sample.strip_prefix(name);
            behind.is_some_and(|behind| matches!(behind, "" | "_bucket"))
        });
        if has_some {
            continue;
        }
        let sample = if kind == "histogram" {
            format!("{name}_bucket{{le=\"+Inf\"}} 0\n{name}_sum 0\n{name}_count 0\n")
        } else {
            format!("{name} 0\n")
        };
        // Where its family is: a family is in one piece.
        let head = format!("# TYPE {name} {kind}\n");
        whole = whole.replacen(&head, &(head.clone() + &sample), 1);
    }
    whole
}

fn family(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

/// Fails on what the tool finds in names of our own, and on names that are kept without need.
fn verdict(output: &str) -> Result<(), String> {
    let mut problems = String::new();
    let mut kept = BTreeSet::new();
    for line in output.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let name = name.strip_prefix("tautline_").unwrap_or(name);
        if CENTRIFUGO.contains(&name) {
            kept.insert(name);
        } else if !line.trim().is_empty() {
            let _ = writeln!(problems, "{line}");
        }
    }
    for name in CENTRIFUGO {
        if !kept.contains(name) {
            let _ = writeln!(
                problems,
                "{name} is kept, and the tool has nothing against it"
            );
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_number() {
        let page = "# HELP a A.\n# TYPE a counter\n# HELP b B.\n# TYPE b histogram\n# HELP c C.\n# TYPE c gauge\nc 1\n\
                    # TYPE a_b counter\na_b{x=\"y\"} 2\n";
        assert_eq!(
            with_numbers(page),
            "# HELP a A.\n# TYPE a counter\na 0\n# HELP b B.\n# TYPE b histogram\nb_bucket{le=\"+Inf\"} 0\nb_sum 0\n\
             b_count 0\n# HELP c C.\n# TYPE c gauge\nc 1\n# TYPE a_b counter\na_b{x=\"y\"} 2\n"
        );
    }

    #[test]
    fn what_a_dashboard_asks_for_is_recorded() {
        let dashboard = r#"{
          "title": "T",
          "expr": "rate(a{b=~\"$job\"}[$__rate_interval])",
          "refId": "A",
          "expr": "up"
        }"#;
        assert_eq!(
            as_rules(dashboard),
            "groups:\n  - name: dashboard\n    rules:\n      - record: panel_0\n        expr: \"rate(a{b=~\\\".*\\\"}[1m])\"\n      \
             - record: panel_1\n        expr: \"up\"\n"
        );
    }

    #[test]
    fn names_of_others_are_kept_and_ours_are_not() {
        let all = CENTRIFUGO.iter();
        let mut said: String = all
            .map(|name| format!("tautline_{name} counter metrics should have \"_total\" suffix\n"))
            .collect();
        assert_eq!(verdict(&said), Ok(()));
        said.push_str("tautline_ours counter metrics should have \"_total\" suffix\n");
        assert!(verdict(&said).is_err_and(|text| text.contains("tautline_ours")));
        assert!(verdict("").is_err_and(|text| text.contains("proxy_errors is kept")));
    }
}
