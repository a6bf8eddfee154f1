//! What a file that was brought along from Centrifugo may say and mean nothing by: that something is off which isn't here
//! at all, and that an option is at its default.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::elsewhere::{self, Here};
use super::options::{OptionEntry, Reference};

/// Takes out of a file, all of which it is, what stands for nothing, and writes as it is written here what can't mean
/// anything else: an empty text for the default of a choice or an address, 0 for a rate that is off.
///
/// What is switched on, or set to anything, stays: that it is not here has to be known.
pub(super) fn settle(root: &mut DeTable<'_>) {
    look_at(Reference::built_in(), "", "", root);
}

/// `path` is where a table stands, and `name` what it is called whatever element of a list it is in.
fn look_at(reference: &Reference, path: &str, name: &str, table: &mut DeTable<'_>) {
    let keys: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
    for key in keys {
        let below = |table: &str| match table {
            "" => key.clone(),
            table => format!("{table}.{key}"),
        };
        let (path, option) = (below(path), below(name));
        let Some(value) = table.get_mut(&*key).map(Spanned::get_mut) else {
            continue;
        };
        if let Some(entry) = reference.find(&option) {
            match value {
                DeValue::String(text) if text.is_empty() && is_default_if_empty(entry) => {
                    table.remove(&*key);
                }
                DeValue::Integer(number) if entry.kind == "rate" && number.as_str() == "0" => {
                    *value = DeValue::String(Cow::Borrowed("off"));
                }
                _ => {}
            }
        } else if let Some(is_list) = reference.table(&option) {
            match value {
                DeValue::Table(table) if !is_list => look_at(reference, &path, &option, table),
                DeValue::Array(list) if is_list => {
                    for (index, element) in list.iter_mut().enumerate() {
                        if let DeValue::Table(table) = element.get_mut() {
                            look_at(reference, &format!("{path}[{index}]"), &option, table);
                        }
                    }
                }
                _ => {}
            }
        } else if is_nothing_here(&path) && (is_nothing(value) || is_so_anyway(&path, value)) {
            table.remove(&*key);
        }
    }
}

/// Whether it is a choice or an address, which an empty text can't be.
fn is_default_if_empty(entry: &OptionEntry) -> bool {
    entry.kind == "IP address" || !entry.choices().is_empty() && entry.default != ""
}

/// Whether it is known that what is off there is not here, or off as well where nothing is said.
fn is_nothing_here(path: &str) -> bool {
    let known = elsewhere::find(path);
    known.is_some_and(|known| match known.here {
        Here::Not(_) => true,
        Here::Is(_) => OFF_HERE.contains(&known.option),
    })
}

/// Whether it says no more than that there is none: all of it is empty, 0 or `false`, or it is a table that isn't
/// `enabled`.
fn is_nothing(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Boolean(is_on) => !is_on,
        DeValue::Integer(number) => number.as_str() == "0",
        DeValue::String(text) => text.is_empty() || matches!(&**text, "0s" | "0"),
        DeValue::Array(list) => list.is_empty(),
        DeValue::Table(table) => {
            let enabled = table.get("enabled").map(Spanned::get_ref);
            let mut values = table.values();
            matches!(enabled, Some(DeValue::Boolean(false)))
                || values.all(|value| is_nothing(value.get_ref()))
        }
        DeValue::Float(_) | DeValue::Datetime(_) => false,
    }
}

/// Whether it is what is so here in any case: the one engine that there is, where things are, and a secret that
/// Centrifugo puts into each file that it makes, by which it signs what an admin is known by. (Sessions are kept here.)
fn is_so_anyway(path: &str, value: &DeValue<'_>) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    path == "admin.secret" || SO_ANYWAY.contains(&(path, text))
}

/// Options that are not here, with what it would be if they were.
const SO_ANYWAY: [(&str, &str); 6] = [
    ("engine.type", "memory"),
    ("http_api.handler_prefix", "/api"),
    ("websocket.handler_prefix", "/connection/websocket"),
    ("health.handler_prefix", "/health"),
    ("prometheus.handler_prefix", "/metrics"),
    ("admin.handler_prefix", "/admin"),
];

/// What has other names here, and is off as well where nothing is said of it. (Doors are not.)
const OFF_HERE: [&str; 4] = [
    "http_server.internal_address",
    "http_server.internal_port",
    "http_server.tls_autocert",
    "opentelemetry",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a file.
    fn left(text: &str) -> String {
        let mut root = DeTable::parse(text).expect("it is TOML");
        settle(root.get_mut());
        let mut names = Vec::new();
        fn list(prefix: &str, table: &DeTable<'_>, names: &mut Vec<String>) {
            for (key, value) in table {
                let name = format!("{prefix}{}", key.get_ref());
                match value.get_ref() {
                    DeValue::Table(table) => list(&format!("{name}."), table, names),
                    DeValue::String(text) => names.push(format!("{name}={text}")),
                    _ => names.push(name),
                }
            }
        }
        list("", root.get_ref(), &mut names);
        names.sort();
        names.join(" ")
    }

    #[test]
    fn what_is_off_and_not_here_means_nothing() {
        for nothing in [
            "uni_grpc = {enabled = false, port = 11000}",
            "grpc_api.enabled = false",
            "broker = {enabled = false, type = \"memory\"}",
            "websocket.disabled = false",
            "http_api.disabled = false",
            "log.file = \"\"",
            "engine.type = \"memory\"",
            "admin.secret = \"made by genconfig\"",
            "health.handler_prefix = \"/health\"",
            "graphite = {}",
            "consumers = []",
            "client.channel_position_max_time_lag = \"0s\"",
            "client.queue_shrink_delay = 0",
            "proxies = [{grpc = {tls = {enabled = false}}}]",
            "channel.without_namespace.shared_poll = {publish_enabled = false}",
            "opentelemetry.enabled = false",
            "http_server.internal_port = \"\"",
        ] {
            let rest = left(nothing);
            // A list of tables is there, whatever is in them.
            let is_empty = rest.is_empty() || rest == "proxies";
            assert!(is_empty, "{nothing}: {rest}");
        }
        for (said, expected) in [
            ("uni_grpc.enabled = true", "uni_grpc.enabled"),
            ("engine.type = \"redis\"", "engine.type=redis"),
            ("websocket.disabled = true", "websocket.disabled"),
            (
                "health.handler_prefix = \"/up\"",
                "health.handler_prefix=/up",
            ),
            // It would be open here.
            ("uni_sse.enabled = false", "uni_sse.enabled"),
            // Nobody knows what that is.
            ("clientt.foo = false", "clientt.foo"),
            ("client.foo = false", "client.foo"),
        ] {
            assert_eq!(left(said), expected, "{said}");
        }
    }

    #[test]
    fn an_empty_choice_is_the_default_and_a_rate_of_0_is_off() {
        for (said, expected) in [
            ("http_server.address = \"\"", ""),
            ("channel.publication_data_format = \"\"", ""),
            ("channel.without_namespace.force_recovery_mode = \"\"", ""),
            (
                "client.connection_rate_limit = 0",
                "client.connection_rate_limit=off",
            ),
            // That is a value of its own, or a text that may be forgotten.
            (
                "channel.without_namespace.publication_data_format = \"\"",
                "channel.without_namespace.publication_data_format=",
            ),
            ("http_api.key = \"\"", "http_api.key="),
            (
                "client.connection_rate_limit = 5",
                "client.connection_rate_limit",
            ),
        ] {
            assert_eq!(left(said), expected, "{said}");
        }
    }
}
