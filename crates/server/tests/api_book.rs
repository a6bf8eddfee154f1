//! The chapter about the server API: its examples are run, and its tables of parameters are made from
//! the API's description of itself.
//!
//! To take over changed tables, after having read them:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test api_book`.

#[path = "support/process.rs"]
mod process;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use self::process::Server;

const KEY: &str = "X-API-Key: dev";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn chapter() -> String {
    std::fs::read_to_string(root().join("docs/server-api.md")).expect("the chapter is there")
}

/// An example: where it is sent, what, and what comes back.
struct Example {
    path: String,
    body: String,
    answer: Value,
}

/// What stands between `start` and `end`, and what is behind.
fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<(&'t str, &'t str)> {
    text.split_once(start)?.1.split_once(end)
}

fn examples(mut text: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    while let Some((command, rest)) = between(text, "```sh\ncurl ", "\n```\n") {
        let (answer, behind) = between(rest, "```json\n", "\n```\n").expect("an answer");
        let url = command.split(' ').next().expect("a URL");
        let path = url
            .strip_prefix("http://127.0.0.1:8000")
            .expect("the development server");
        assert!(command.contains(&format!("-H '{KEY}'")), "{command}");
        let (body, _) = between(command, "-d '", "'").expect("a body");
        examples.push(Example {
            path: path.to_owned(),
            body: body.to_owned(),
            answer: serde_json::from_str(answer).expect(answer),
        });
        text = behind;
    }
    examples
}

/// What is another one each time becomes the same.
fn normal(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(normal).collect(),
        Value::Object(object) => {
            let entries = object.iter().map(|(name, value)| {
                let is_id = name.len() == 36 && name.matches('-').count() == 4;
                let name = if is_id { "(id)" } else { name };
                let changes =
                    ["epoch", "uid", "client", "name", "uptime", "cpu", "rss"].contains(&name);
                let kind = match value {
                    Value::String(_) => "(text)".into(),
                    Value::Number(_) => "(number)".into(),
                    other => normal(other),
                };
                let value = if changes { kind } else { normal(value) };
                (name.to_owned(), value)
            });
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

/// A client that is there while the examples are run.
struct Watcher {
    process: std::process::Child,
    /// Kept open: the client writes there.
    _lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watcher {
    fn new(server: &Server) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["subscribe", "lobby", "--url"])
            .arg(format!("http://{}", server.address))
            .env_remove("TAUTLINE_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let is_there = lines
            .by_ref()
            .any(|line| line.is_ok_and(|line| line.contains("\"subscribed\"")));
        assert!(is_there, "it has subscribed");
        Self {
            process,
            _lines: lines,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_examples_are_what_happens() {
    let server = Server::dev();
    let _watcher = Watcher::new(&server);
    let examples = examples(&chapter());
    assert!(examples.len() >= 16, "one for each method");
    for Example { path, body, answer } in examples {
        let method = path.strip_prefix("/api").expect("a path of the API");
        let came = server.api(method.trim_start_matches('/'), &body);
        let came: Value = serde_json::from_str(&came).expect(&came);
        assert_eq!(normal(&came), normal(&answer), "{path} {body}");
    }
}

/// The rows of a method's table.
fn table(document: &Value, method: &str) -> String {
    let operation = &document["paths"][format!("/api/{method}")]["post"];
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut text = "| parameter | type | |\n|---|---|---|\n".to_owned();
    let required = schema["required"].as_array().expect("a list");
    let properties = schema["properties"].as_object().expect("parameters");
    let is_required = |name: &str| required.iter().any(|required| required == name);
    // What is needed comes first.
    let (first, others): (Vec<_>, Vec<_>) =
        properties.iter().partition(|(name, _)| is_required(name));
    for (name, property) in first.into_iter().chain(others) {
        let description = property["description"].as_str().expect("a description");
        let needed = if is_required(name) { " Required." } else { "" };
        let _ = writeln!(
            text,
            "| `{name}` | {} | {description}{needed} |",
            kind(property)
        );
    }
    text
}

fn kind(property: &Value) -> &'static str {
    let kind = match &property["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds[0].as_str().expect("a name"),
        _ if property["anyOf"].is_array() || property["$ref"].is_string() => "object",
        _ => "any",
    };
    match kind {
        "any" => "any JSON",
        "array" => "list",
        "boolean" => "true or false",
        "integer" => "number",
        "object" => "object",
        "string" => "text",
        other => panic!("no name for {other}"),
    }
}

#[test]
fn the_tables_are_what_the_code_says() {
    let document = include_str!("../assets/openapi.json");
    let document: Value = serde_json::from_str(document).expect("JSON");
    let written = chapter();
    let mut expected = String::new();
    let mut rest = &*written;
    let mut methods = 0;
    while let Some((before, behind)) = rest.split_once("<!-- parameters of ") {
        let (method, behind) = behind.split_once(" -->\n").expect("a name");
        let (_, behind) = behind.split_once("<!-- end -->").expect("an end");
        let table = table(&document, method);
        let _ = write!(
            expected,
            "{before}<!-- parameters of {method} -->\n{table}<!-- end -->"
        );
        rest = behind;
        methods += 1;
    }
    expected.push_str(rest);
    // `debug`, `info` and `reload` have no parameters.
    let all = document["paths"].as_object().expect("methods").len();
    assert_eq!(methods, all - 3);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let path = root().join("docs/server-api.md");
        std::fs::write(path, &expected).expect("the chapter can be written");
        return;
    }
    assert!(
        written == expected,
        "docs/server-api.md is not what the code says; to take it over: \
         UPDATE_REFERENCE=1 cargo test -p tautline --test api_book"
    );
}
