//! Every option there is, set to something else than its default, loads and is reloaded. The values are made
//! from what is known of the options, so that none can be forgotten: a new one with rules of its own needs a
//! line in [`literal`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use tautline::config::{OptionEntry, OptionTable, Reference};

use crate::directory::Directory;
use crate::process::Server;

/// Which of the two files: some options can't stand beside each other.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    One,
    Other,
}

/// A certificate and its key, in files; and a directory.
struct Pem {
    certificate: PathBuf,
    key: PathBuf,
    directory: Directory,
}

impl Pem {
    fn new() -> Self {
        let path = |name: &str| {
            let name = format!("tautline-options-{name}-{}.pem", std::process::id());
            std::env::temp_dir().join(name)
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let pem = Self {
            certificate: path("certificate"),
            key: path("key"),
            directory: Directory::new("options"),
        };
        std::fs::write(&pem.certificate, made.cert.pem()).expect("a temporary file");
        std::fs::write(&pem.key, made.signing_key.serialize_pem()).expect("a temporary file");
        pem
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        for path in [&self.certificate, &self.key] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A public key of the tests of tokens, in PEM.
fn public_key(alg: &str) -> String {
    let cases: Value = serde_json::from_str(include_str!("../../../auth/tests/data/tokens.json"))
        .expect("the fixture is JSON");
    let cases = cases.as_array().expect("a list");
    let case = cases.iter().find(|case| case["alg"] == alg);
    let pem = case.expect("that algorithm")["pem"].as_str();
    pem.expect("a text").to_owned()
}

/// Options that can't be set where they are known, as another table's are.
fn is_excluded(table: &str, option: &str) -> bool {
    let is_endpoint = table.ends_with("proxy.connect")
        || table.ends_with("proxy.refresh")
        || table.starts_with("channel.proxy.") && table.split('.').count() == 3
        || table == "rpc.proxy";
    let has_switch = table.starts_with("client.proxy.");
    match option {
        "name" => is_endpoint || table == "rpc.without_namespace",
        "enabled" => table == "proxies" || is_endpoint && !has_switch,
        _ => false,
    }
}

/// Values with rules of their own; `None` for any. `Some(None)` leaves the option out of this file.
fn literal(table: &str, option: &str, which: Which, pem: &Pem) -> Option<Option<String>> {
    let text = |text: &str| Some(Some(format!("{text:?}")));
    let certificate = || text(&pem.certificate.display().to_string());
    let only = |file: Which, value: String| Some((which == file).then_some(value));
    if table.ends_with("tls") || table.ends_with("tls.certificates") {
        match option {
            "cert_pem" | "client_ca_pem" | "server_ca_pem" => return certificate(),
            "key_pem" => return text(&pem.key.display().to_string()),
            _ => {}
        }
    }
    if table.ends_with("token") {
        let is_first = table == "client.token";
        let at_first = |first: bool| {
            if first == is_first {
                Which::One
            } else {
                Which::Other
            }
        };
        match option {
            "rsa_public_key" => return text(&public_key("RS256")),
            "rsa_previous_public_key" => return text(&public_key("PS256")),
            "ecdsa_previous_public_key" => return text(&public_key("ES384")),
            "eddsa_previous_public_key" => return text(&public_key("EdDSA")),
            "ecdsa_public_key" => return text(&public_key("ES256")),
            "eddsa_public_key" => return text(&public_key("EdDSA")),
            "jwks_public_endpoint" => return text("http://127.0.0.1:1/keys"),
            "audience" | "issuer" => return only(at_first(true), "\"x\"".into()),
            "audience_regex" | "issuer_regex" => return only(at_first(false), "\"^x$\"".into()),
            "user_id_claim" => return text("uid"),
            "hmac_previous_secret_key_valid_until" => return Some(Some("1900000000".into())),
            _ => {}
        }
    }
    if table == "http_server.tls.acme" {
        match option {
            // Not in every build.
            "enabled" => return Some(cfg!(feature = "acme").then(|| "true".to_owned())),
            "domains" => return Some(Some("[\"live.example.test\"]".into())),
            "contact" => return Some(Some("[\"ops@example.test\"]".into())),
            "directory_url" => return text("https://127.0.0.1:1/directory"),
            "directory_ca_pem" => return certificate(),
            "external_account_hmac_key" => return text("AQID"),
            _ => {}
        }
    }
    match (table, option) {
        ("telemetry.otlp", "server_ca_pem") => certificate(),
        ("telemetry.otlp", "headers") => Some(Some("{\"x-b\" = \"c\"}".into())),
        ("telemetry.otlp", "service_name") => text("other"),
        ("http_server", "address") => text("127.0.0.2"),
        (_, "trusted_proxies" | "exempt") => Some(Some("[\"10.0.0.0/8\"]".into())),
        ("http_server", "internal_listen") => text("127.0.0.1:9000"),
        ("admin", "password") => only(Which::One, "\"twelve bytes at least\"".into()),
        ("admin", "password_hash") => {
            let (salt, hash) = ("0f".repeat(16), "a0".repeat(32));
            only(
                Which::Other,
                format!("\"pbkdf2-sha256:600000:{salt}:{hash}\""),
            )
        }
        ("client", "ping_interval") => text("26s"),
        ("client", "write_delay") => text("200ms"),
        ("events", "directory") => text(&pem.directory.path().display().to_string()),
        ("events", "kinds") => Some(Some("[\"connected\"]".into())),
        ("events", "namespaces") => Some(Some("[\"plain\"]".into())),
        ("shutdown", "timeout") => text("31s"),
        ("client.subscribe_to_user_personal_channel", "personal_channel_namespace") => {
            text("plain")
        }
        ("channel", "history_meta_ttl") => text("700h"),
        ("channel", "private_prefix") => text("%"),
        ("channel", "namespace_boundary") | ("rpc", "namespace_boundary") => text("::"),
        ("channel", "user_boundary") => text("@"),
        ("channel", "user_separator") => text("|"),
        (_, "history_ttl") => text("17s"),
        (_, "history_meta_ttl") => text("18s"),
        (_, "channel_regex") => text("^x$"),
        (_, "server_tags_filter") => text(r#"{"key":"a","cmp":"eq","val":"b"}"#),
        (_, "slow_consumer") => text("latest"),
        (_, "pattern") => text("/x/:user"),
        (_, "endpoint") => text("https://127.0.0.1:1/x"),
        (_, "sha256") => text(&"0f".repeat(32)),
        (_, "methods") => Some(Some("[\"publish\"]".into())),
        (_, "status_code") => Some(Some("404".into())),
        (_, "code") => Some(Some("3500".into())),
        ("doors.connect_code_to_http_response.transforms", "to") => {
            Some(Some("{status_code = 403}".into()))
        }
        (_, "to") => Some(Some("{code = 4501, reason = \"r\"}".into())),
        ("tunnels", "upstream") => text("wss://127.0.0.1:1/x"),
        ("tunnels", "server_ca_pem") => certificate(),
        (_, "to_error") => only(Which::One, "{code = 1000, message = \"m\"}".into()),
        (_, "to_disconnect") => only(Which::Other, "{code = 4001, reason = \"r\"}".into()),
        ("log", "level") => text("debug"),
        (_, name) if name.ends_with("_proxy_name") || name == "proxy_name" => text("named"),
        ("proxies", "name") => text("named"),
        (_, "user_id_http_header") => text("X-User"),
        (_, "allowed_origins") => Some(Some("[\"https://a.test\"]".into())),
        (_, "http_headers" | "emulated_headers") => Some(Some("[\"X-A\"]".into())),
        (_, "static_headers") => Some(Some("{\"x-b\" = \"c\"}".into())),
        _ => None,
    }
}

/// Something else than the default.
fn other(option: &OptionEntry) -> String {
    let choices: Vec<_> = option.kind.split('`').skip(1).step_by(2).collect();
    let choices = choices.into_iter();
    let mut choices = choices.filter(|choice| option.default != **choice);
    match option.kind.as_str() {
        "yes or no" => (option.default != true).to_string(),
        "number" => (option.default.as_u64().unwrap_or(6) + 1).to_string(),
        "rate" => "\"7/s\"".into(),
        "share" => "\"7%\"".into(),
        "duration" => match option.default.as_str() {
            Some("20s") => "\"21s\"".into(),
            _ => "\"9s\"".into(),
        },
        "list of texts" => "[\"x\"]".into(),
        kind if kind.starts_with("list of") => format!("[{:?}]", choices.next().expect("one")),
        kind if kind.starts_with('`') => format!("{:?}", choices.next().expect("one")),
        "text" | "secret text" => "\"some-text-that-is-long-enough-for-a-key\"".into(),
        kind => panic!("make a {kind} for {}", option.name),
    }
}

fn file(which: Which, pem: &Pem) -> String {
    let reference = Reference::built_in();
    let mut text = String::new();
    let mut add = |table: &OptionTable| {
        let (open, close) = if table.repeated {
            ("[[", "]]")
        } else {
            ("[", "]")
        };
        let _ = writeln!(text, "{open}{}{close}", table.name);
        for option in reference.options(table) {
            if is_excluded(&table.name, &option.name) {
                continue;
            }
            let value = match literal(&table.name, &option.name, which, pem) {
                Some(literal) => literal,
                None => Some(other(option)),
            };
            if let Some(value) = value {
                let _ = writeln!(text, "{} = {value}", option.name);
            }
        }
    };
    for table in &reference.tables {
        add(table);
    }
    // Whom the personal channel belongs to.
    text.push_str("[[channel.namespaces]]\nname = \"plain\"\n");
    text
}

/// What a line tells of: an option, without the element of a list that it is in.
fn option_of(line: &str) -> Option<String> {
    let text = match serde_json::from_str::<Value>(line) {
        Ok(line) if line["target"] == "tautline::reload" => line["message"].as_str()?.to_owned(),
        Ok(_) => return None,
        Err(_) => line.split_once("INFO tautline::reload: ")?.1.to_owned(),
    };
    let (before, _) = text.split_once(" -> ")?;
    let mut option = String::new();
    let mut rest = before.split_once(": ")?.0;
    // Elements are marked by ` (`name`)` or `[0]`.
    while let Some(start) = rest.find([' ', '[']) {
        option.push_str(&rest[..start]);
        let end = rest[start..]
            .find([')', ']'])
            .map_or(rest.len(), |at| start + at + 1);
        rest = &rest[end..];
    }
    option.push_str(rest);
    Some(option)
}

#[test]
fn every_option_set_to_something_else_loads_and_is_reloaded_and_shown() {
    let pem = Pem::new();
    let mut server = Server::serve("options", "");
    let mut told = BTreeSet::new();
    for which in [Which::One, Which::Other] {
        server.write_config(&file(which, &pem));
        let said = server.hang_up();
        assert!(!said[0].contains("was not reloaded"), "{}", said[0]);
        told.extend(said.iter().filter_map(|line| option_of(line)));
        // What there is to say a second time is what needs a restart.
        let again = server.hang_up();
        for line in again.iter().filter(|line| line.contains(" -> ")) {
            assert!(line.contains("(needs a restart)"), "{line}");
        }
    }
    let reference = Reference::built_in();
    for table in &reference.tables {
        for option in reference.options(table) {
            let path = format!("{}.{}", table.name, option.name);
            let is_told = told.contains(&path) || is_excluded(&table.name, &option.name);
            assert!(is_told, "{path} was set, and nothing was said of it");
        }
    }
    // And back.
    let said = server.reload("");
    assert!(!said[0].contains("was not reloaded"), "{}", said[0]);
    let said = server.reload("");
    assert!(said[0].contains("changes=0"), "{said:?}");
}
