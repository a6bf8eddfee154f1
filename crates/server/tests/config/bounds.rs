//! What the reference and the schema say of an option is what the server does: bounds, examples, patterns. An editor that goes
//! by the schema and the server itself accept the same.

use serde_json::{Value, json};
use tautline::Config;
use tautline::config::{OptionEntry, OptionTable, Reference};
use tautline_hub::config::duration;

/// What else has to be said for an option to be at one of its bounds.
fn companions(table: &str, option: &str, value: &str) -> &'static [(&'static str, &'static str)] {
    match (table, option) {
        (_, "history_size" | "history_ttl") if ["0", "\"0s\""].contains(&value) => &[],
        ("client", "ping_interval") => &[("client.pong_timeout", "\"0s\"")],
        ("client", "pong_timeout") => &[("client.ping_interval", "\"0s\"")],
        (_, "history_size") => &[("history_ttl", "\"1h\"")],
        (_, "history_ttl") => &[
            ("history_size", "1"),
            ("channel.history_meta_ttl", "\"87600h\""),
        ],
        (_, "pattern") => &[("channel.patterns", "true")],
        ("shutdown", "readiness_delay") => &[("shutdown.timeout", "\"1h\"")],
        ("events", "retry_min") => &[("events.retry_max", "\"1h\"")],
        ("events", "retry_max") => &[("events.retry_min", "\"1ms\"")],
        _ => &[],
    }
}

/// A file in which an option has this value, and nothing is wrong but for that.
fn file(table: &OptionTable, option: &str, value: &str) -> String {
    let name = table.name.as_str();
    // Of a list there is one element, and an endpoint is an endpoint.
    let mut parts: Vec<String> = Vec::new();
    let mut start = String::new();
    for part in name.split('.') {
        start = if start.is_empty() {
            part.to_owned()
        } else {
            format!("{start}.{part}")
        };
        parts.push(start.clone());
    }
    let lists: Vec<_> = parts
        .iter()
        .filter(|part| {
            Reference::built_in()
                .tables
                .iter()
                .any(|table| table.name == **part && table.repeated)
        })
        .cloned()
        .collect();
    let mut text = String::new();
    let mut inside = Vec::new();
    for (other, value) in companions(name, option, value) {
        match other.rsplit_once('.') {
            Some((table, option)) if table == name => inside.push(format!("{option} = {value}\n")),
            Some((table, option)) => text.push_str(&format!("[{table}]\n{option} = {value}\n")),
            None => inside.push(format!("{other} = {value}\n")),
        }
    }
    let needs = |list: &str| {
        let required: &[(&str, &str)] = match list {
            "channel.namespaces" | "rpc.namespaces" => &[("name", "\"room\"")],
            "http_api.keys" => &[
                ("name", "\"k\""),
                (
                    "sha256",
                    "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
                ),
            ],
            "proxies" => &[
                ("name", "\"orders\""),
                ("endpoint", "\"https://app.example.com/x\""),
            ],
            "tunnels" => &[
                ("name", "\"docs\""),
                ("upstream", "\"ws://127.0.0.1:1234\""),
            ],
            list if list.ends_with("status_to_code_transforms") => &[
                ("status_code", "404"),
                ("to_error", "{code = 1001, message = \"m\"}"),
            ],
            list if list.starts_with("doors.") => {
                &[("code", "109"), ("to", "{status_code = 403, body = \"b\"}")]
            }
            list if list.ends_with("transforms") => {
                &[("code", "109"), ("to", "{code = 4001, reason = \"r\"}")]
            }
            _ => &[],
        };
        let own = |name: &str| {
            list == table.name
                && (name == option || name == "to_error" && option == "to_disconnect")
        };
        let lines = required.iter().filter(|(name, _)| !own(name));
        lines
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect::<String>()
    };
    for list in &lists {
        text.push_str(&format!("[[{list}]]\n{}", needs(list)));
    }
    if lists.last() != Some(&table.name) {
        text.push_str(&format!("[{name}]\n"));
    }
    text + &inside.concat() + &format!("{option} = {value}\n")
}

fn load(text: &str) -> Result<Config, String> {
    Config::from_toml(text).map_err(|error| error.to_string())
}

/// What the schema has for an option.
fn in_schema(schema: &Value, table: &str, option: &str) -> Value {
    let mut node = schema;
    for part in table.split('.') {
        node = &node["properties"][part];
        if node["type"] == "array" {
            node = &node["items"];
        }
    }
    let found = node["properties"][option].clone();
    assert!(found.is_object(), "{table}.{option} is not in the schema");
    found
}

/// As far as our schema needs one: what a validator says, with our notes on durations, which none knows.
fn accepts(schema: &Value, value: &Value) -> bool {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let time = |value: &Value| duration::parse(value.as_str()?).ok();
    if let Some(schemas) = schema["anyOf"].as_array() {
        return schemas.iter().any(|schema| accepts(schema, value));
    }
    if let Some(expected) = schema.get("const") {
        return expected == value;
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    match (schema["type"].as_str(), value) {
        (Some("integer"), Value::Number(number)) => {
            let Some(number) = number.as_i64() else {
                return false;
            };
            bound("minimum").is_none_or(|least| number >= least)
                && bound("maximum").is_none_or(|most| number <= most)
        }
        (Some("string"), Value::String(text)) => {
            let Some(pattern) = schema["pattern"].as_str() else {
                return true;
            };
            let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
            let is_within = time(value).is_none_or(|time_of| {
                let bound = |name: &str| schema.get(name).and_then(time);
                let is_zero = time_of.is_zero() && schema["x-or-zero"] == true;
                is_zero
                    || bound("x-minimum").is_none_or(|least| time_of >= least)
                        && bound("x-maximum").is_none_or(|most| time_of <= most)
            });
            pattern.is_match(text) && is_within
        }
        (Some("boolean"), Value::Bool(_)) | (Some("object"), Value::Object(_)) => true,
        (Some("array"), Value::Array(list)) => {
            list.iter().all(|one| accepts(&schema["items"], one))
        }
        _ => false,
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let all = map
                .iter()
                .map(|(key, value)| format!("{key:?} = {}", toml(value)));
            format!("{{{}}}", all.collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn options() -> impl Iterator<Item = (&'static OptionTable, &'static OptionEntry)> {
    let reference = Reference::built_in();
    let tables = reference.tables.iter();
    tables.flat_map(|table| reference.options(table).map(move |option| (table, option)))
}

/// What is just within the bounds, and what is just not.
fn around(option: &OptionEntry) -> (Vec<Value>, Vec<Value>) {
    let (mut within, mut beyond) = (Vec::new(), Vec::new());
    let step = |value: &Value, up: bool| {
        if let Some(number) = value.as_i64() {
            return Some(json!(if up {
                number.checked_add(1)?
            } else {
                number - 1
            }));
        }
        let time = duration::parse(value.as_str()?)
            .expect("a duration")
            .as_millis();
        let time = if up {
            Some(time + 1)
        } else {
            time.checked_sub(1)
        };
        Some(json!(format!("{}ms", time?)))
    };
    for (bound, up) in [(&option.minimum, false), (&option.maximum, true)] {
        if !bound.is_null() {
            within.push(bound.clone());
            beyond.extend(step(bound, up));
        }
    }
    if option.or_zero {
        within.push(json!("0s"));
        beyond.push(json!("1ms"));
    }
    match option.kind.as_str() {
        "number" => beyond.extend([json!("1"), json!(1.5), json!(true), json!(-1)]),
        "duration" => beyond.extend([
            json!("1"),
            json!(1),
            json!("1 s"),
            json!("-1s"),
            json!("1d"),
            json!(""),
        ]),
        "rate" => {
            within.extend([
                json!("off"),
                json!("100/s"),
                json!("20 / 5s, burst 100"),
                json!("1/1m30s"),
                json!(false),
            ]);
            beyond.extend([
                json!(true),
                json!("100"),
                json!(100),
                json!("/s"),
                json!("1/x"),
                json!("1/s burst 3"),
            ]);
        }
        "share" => {
            within.extend([json!("off"), json!("all"), json!("0.5%"), json!(false)]);
            beyond.extend([json!(true), json!("some"), json!(1), json!("1")]);
        }
        "yes or no" => {
            within.extend([json!(true), json!(false)]);
            beyond.extend([json!("true"), json!(1)]);
        }
        _ if option.kind.starts_with('`') => {
            let choices = option.kind.split('`').skip(1).step_by(2);
            within.extend(choices.map(Value::from));
            beyond.extend([json!("else"), json!(1)]);
        }
        kind if kind.starts_with("list of ") => beyond.extend([json!("x"), json!([1])]),
        _ => {}
    }
    (within, beyond)
}

/// Options that need others for a value, where that is not about their bounds.
fn is_about_others(table: &str, option: &str, value: &Value) -> bool {
    match option {
        "slow_consumer" => value == "park",
        "enabled" | "proxy_protocol" | "single_connection" | "auto_cache_recover" => value == true,
        "force_recovery"
        | "allow_recovery"
        | "force_positioning"
        | "allow_positioning"
        | "delta_publish"
        | "force_push_join_leave" => value == true,
        name if name.ends_with("_proxy_enabled") || name == "proxy_enabled" => value == true,
        // A shutdown that ends before it begins.
        "timeout" => table == "shutdown" && value == "0s",
        // The one status that has a meaning already.
        _ => table == "http_server.tls.acme" && value == true,
    }
}

#[test]
fn what_is_beyond_a_bound_is_refused_by_schema_and_server_and_what_is_within_by_neither() {
    let schema = Reference::built_in().schema();
    let mut count = 0;
    for (table, option) in options() {
        let known = in_schema(&schema, &table.name, &option.name);
        let (within, beyond) = around(option);
        for value in within
            .iter()
            .filter(|value| !is_about_others(&table.name, &option.name, value))
        {
            let text = file(table, &option.name, &toml(value));
            assert!(
                accepts(&known, value),
                "the schema refuses {value}: {known}"
            );
            if let Err(error) = load(&text) {
                panic!("the server refuses what is within the bounds: {error}\n{text}");
            }
            count += 1;
        }
        for value in &beyond {
            let text = file(table, &option.name, &toml(value));
            assert!(
                !accepts(&known, value),
                "the schema takes {value} for {}.{}",
                table.name,
                option.name
            );
            let error = load(&text).err();
            let error = error
                .unwrap_or_else(|| panic!("the server takes what is beyond the bounds:\n{text}"));
            assert!(error.contains(&option.name), "{error}\n{text}");
            count += 1;
        }
    }
    assert!(count > 1500, "{count}");
}

#[test]
fn examples_are_of_use() {
    let schema = Reference::built_in().schema();
    let needs_more = |table: &str, option: &str| {
        // Files that aren't there, texts that are cut, and options that need another.
        option.ends_with("_pem")
            || option.ends_with("_public_key")
            || option.ends_with("_proxy_name")
            || option == "proxy_name"
            || option.starts_with("hmac_previous_secret_key")
            || [
                "password_hash",
                "slow_consumer_key_tag",
                "personal_channel_namespace",
            ]
            .contains(&option)
            || table == "events" && option == "namespaces"
            || option == "slow_consumer"
            || option == "name" && table != "channel.namespaces" && !table.ends_with("s")
            || table == "http_server.tls.acme"
    };
    for (table, option) in options() {
        if option.kind == "yes or no" {
            continue;
        }
        let path = format!("{}.{}", table.name, option.name);
        assert!(!option.example.is_null(), "{path} has no example");
        assert_ne!(option.example, option.default, "{path}");
        let known = in_schema(&schema, &table.name, &option.name);
        assert_eq!(known["examples"][0], option.example);
        assert!(accepts(&known, &option.example), "{path}: {known}");
        if !needs_more(&table.name, &option.name) {
            let text = file(table, &option.name, &toml(&option.example));
            if let Err(error) = load(&text) {
                panic!("{error}\n{text}");
            }
        }
    }
}

#[test]
fn numbers_say_what_they_count() {
    let of = |path: &str| {
        let (table, name) = path.rsplit_once('.').expect("a path");
        let mut all = options();
        let found = all.find(|(known, option)| known.name == table && option.name == name);
        found.expect("it is there").1
    };
    assert_eq!(of("client.queue_max_size").unit.as_deref(), Some("bytes"));
    assert_eq!(
        of("shutdown.reconnect_rate").unit.as_deref(),
        Some("per second")
    );
    assert_eq!(
        of("telemetry.otlp.sampling_percent").unit.as_deref(),
        Some("percent")
    );
    assert_eq!(of("http_server.port").maximum, 65_535);
    assert_eq!(of("events.queue_max_size").maximum, 1_u64 << 40);
    assert_eq!(of("client.ping_interval").minimum, "1s");
    for (table, option) in options().filter(|(_, option)| option.kind == "number") {
        let is_a_name = ["port", "code", "status_code"].contains(&&*option.name);
        assert_eq!(
            option.unit.is_none(),
            is_a_name,
            "{}.{}",
            table.name,
            option.name
        );
    }
    let page = Reference::built_in().markdown();
    assert!(
        page.contains("| `queue_max_size` | number (bytes) |"),
        "{page}"
    );
}
