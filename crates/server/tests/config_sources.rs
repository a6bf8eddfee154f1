//! Where a configuration comes from beside TOML: YAML and JSON, the environment, the command line. What
//! an option means is the same everywhere, and what is wrong is told with its place.

#[path = "support/directory.rs"]
mod directory;

use std::ffi::OsString;
use std::time::Duration;

use tautline::config::{Config, ConfigError, ConfigFile, Overrides};

use self::directory::Directory;

/// What is said about a file, without its directory.
fn load(
    directory: &Directory,
    name: &str,
    text: &str,
    overrides: &Overrides,
) -> Result<Config, String> {
    let path = directory.file(name, text);
    Config::load_with(&path, overrides).map_err(|error| {
        let directory = format!("{}/", directory.path().display());
        error.to_string().replace(&directory, "")
    })
}

fn environment(variables: &[(&str, &str)]) -> Result<Overrides, ConfigError> {
    let variables = variables.iter();
    Overrides::from_environment(variables.map(|(name, value)| (name.into(), OsString::from(value))))
}

fn set(assignments: &[&str]) -> Overrides {
    let mut overrides = Overrides::default();
    for assignment in assignments {
        overrides.set(assignment).expect(assignment);
    }
    overrides
}

const YAML: &str = "\
# A comment, and ü.
http_server: {address: 127.0.0.1, port: 9000}
client:
  token:
    hmac_secret_key: \"0123456789abcdef0123456789abcdef\"
    leeway: 3s
channel:
  namespaces:
    - name: chat
      presence: true
    - name: \"7\"
http_api:
  key: a-key-of-the-backend
shutdown:
  timeout: 5s
node:
";

const JSON: &str = r#"{
  "http_server": {"address": "127.0.0.1", "port": 9000},
  "client": {"token": {"hmac_secret_key": "0123456789abcdef0123456789abcdef", "leeway": "3s"}},
  "channel": {"namespaces": [{"name": "chat", "presence": true}, {"name": "77"}]},
  "http_api": {"key": "a-key-of-the-backend"},
  "shutdown": {"timeout": "5s"},
  "node": null
}"#;

#[test]
fn yaml_and_json_mean_what_toml_means() {
    let directory = Directory::new("formats");
    let yaml = YAML.replace("\"7\"", "\"77\"");
    for (name, text) in [("a.yaml", &*yaml), ("a.YML", &yaml), ("a.json", JSON)] {
        let config = load(&directory, name, text, &Overrides::default());
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:9000", "{name}");
        assert_eq!(config.shutdown.timeout, Duration::from_secs(5));
        assert_eq!(config.token.leeway, Duration::from_secs(3));
        assert_eq!(config.warnings, [""; 0]);
    }
}

/// YAML 1.1, which Helm reads, has `false` for `off` and `true` for `on` where nothing quotes them.
#[test]
fn what_is_off_may_be_false_in_every_format() {
    let directory = Directory::new("off");
    let load = |name: &str, text: &str| load(&directory, name, text, &Overrides::default());
    for off in ["false", "\"off\""] {
        let toml = format!(
            "log.connections = {off}\nclient.connection_rate_limit = {off}\n\
             client.rate_limit.user_command.publish = {off}\n\
             channel.namespaces = [{{name = \"chat\", publish_rate_for_channel = {off}}}]\n"
        );
        let yaml = format!(
            "log:\n  connections: {off}\nclient:\n  connection_rate_limit: {off}\n  rate_limit:\n    \
             user_command:\n      publish: {off}\nchannel:\n  namespaces:\n    - name: chat\n      \
             publish_rate_for_channel: {off}\n"
        );
        let json = format!(
            r#"{{"log": {{"connections": {off}}},
                "client": {{"connection_rate_limit": {off}, "rate_limit": {{"user_command": {{"publish": {off}}}}}}},
                "channel": {{"namespaces": [{{"name": "chat", "publish_rate_for_channel": {off}}}]}}}}"#
        );
        for (name, text) in [("a.toml", toml), ("a.yaml", yaml), ("a.json", json)] {
            load(name, &text).unwrap_or_else(|error| panic!("{error}"));
            // The same, and no change where the other was before.
            let path = directory.file(name, &text);
            let shown = ConfigFile::new(&path, Vec::new()).show(false);
            let (_, shown) = shown.unwrap_or_else(|error| panic!("{error}"));
            let of = |option: &str| {
                let found = shown.iter().find(|one| one.option == option);
                found.map(|one| one.value.clone())
            };
            for option in [
                "log.connections",
                "client.connection_rate_limit",
                "client.rate_limit.user_command.publish",
                "channel.namespaces (`chat`).publish_rate_for_channel",
            ] {
                assert_eq!(of(option).as_deref(), Some("\"off\""), "{name}: {option}");
            }
        }
    }
    for (option, expected) in [
        (
            "connection_rate_limit",
            "a.yaml:2:26: client.connection_rate_limit: expected a rate such as \"100/s\", or \"off\" (or \
             `false`) for no limit, got `true`",
        ),
        (
            "channel_limit",
            "a.yaml:2:18: client.channel_limit: expected a whole number, got `true`",
        ),
    ] {
        let text = format!("client:\n  {option}: true\n");
        let told = load("a.yaml", &text).err().expect("it is no rate");
        assert!(told.starts_with(expected), "{told}");
    }
    let told = load("a.json", r#"{"log": {"connections": true}}"#)
        .err()
        .expect("it is no share");
    assert!(
        told.contains("\"all\", or \"off\" (or `false`) for none, got `true`"),
        "{told}"
    );
}

#[test]
fn mistakes_have_their_place_in_every_format() {
    let directory = Directory::new("mistakes");
    let none = Overrides::default();
    for (name, text, expected) in [
        (
            "a.yaml",
            "# ü\nclient:\n  ping_intervall: 20s\n",
            "a.yaml:3:3: unknown key client.ping_intervall, did you mean `ping_interval`?",
        ),
        (
            "a.json",
            "{\"client\":\n  {\"ping_intervall\": \"20s\"}}",
            "a.json:2:4: unknown key client.ping_intervall, did you mean `ping_interval`?",
        ),
        (
            "a.yaml",
            "channel:\n  namespaces:\n    - name: chat\n      presence: yes\n",
            "a.yaml:4:17: channel.namespaces[0] (`chat`).presence: expected `true` or `false`, got a text",
        ),
        (
            "a.yaml",
            "client:\n  ping_interval: 5s\n  pong_timeout: 8s\n",
            "a.yaml:3:3: client.pong_timeout: ",
        ),
        ("a.yaml", "client:\n  a: *b\n", "a.yaml:2:6: "),
        ("a.yaml", "client: [\n", "a.yaml:2:1: "),
        ("a.json", "{\"client\": }", "a.json:1:12: expected value"),
        ("a.json", "[]", "a.json:1:1: expected an object"),
        (
            "a.json",
            "{\"log\": {}, \"log\": {}}",
            "a.json:1:13: `log` is there twice",
        ),
    ] {
        let error = load(&directory, name, text, &none).err().expect(text);
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn the_environment_counts_more_than_the_file_and_the_command_line_more_than_both() {
    let directory = Directory::new("environment");
    let secret = directory.file("secret", "0123456789abcdef0123456789abcdef\n");
    let mut overrides = environment(&[
        ("TAUTLINE_HTTP_SERVER_PORT", "7001"),
        ("TAUTLINE_NODE_NAME", "7"),
        ("TAUTLINE_SHUTDOWN_TIMEOUT", "6s"),
        ("TAUTLINE_HEALTH_ENABLED", "false"),
        (
            "TAUTLINE_CLIENT_ALLOWED_ORIGINS",
            "https://a.example https://b.example",
        ),
        (
            "TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY_FILE",
            secret.to_str().expect("UTF-8"),
        ),
        (
            "TAUTLINE_CHANNEL_NAMESPACES",
            r#"[{"name": "chat", "history_size": 3, "history_ttl": "1s"}]"#,
        ),
        ("TAUTLINE_URL", "http://127.0.0.1"),
        ("PATH", "/bin"),
    ])
    .expect("all are options");
    overrides.set("http_server.port=7002").expect("an option");
    let text = "http_server.port = 7000\nhttp_server.address = \"127.0.0.1\"\nnode.name = \"file\"\nhttp_api.key = \"a key of the backend\"\n\
                [[channel.namespaces]]\nname = \"chat\"\npresence = 1\n";
    let config = load(&directory, "a.toml", text, &overrides);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listen.port(), 7002);
    assert_eq!(config.node.name, "7");
    assert_eq!(config.shutdown.timeout, Duration::from_secs(6));
    assert!(!config.http.health);
    let secret = config.token.hmac_secret_key.expect("the secret");
    assert_eq!(secret.expose(), b"0123456789abcdef0123456789abcdef");
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn overrides_that_are_wrong_are_named() {
    let directory = Directory::new("wrong");
    for (variable, value, expected) in [
        (
            "TAUTLINE_HTTP_SERVER_PORT",
            "tcp://10.0.0.1:80",
            "a.toml: http_server.port: expected a number (set by TAUTLINE_HTTP_SERVER_PORT)",
        ),
        (
            "TAUTLINE_HEALTH_ENABLED",
            "yes",
            "a.toml: health.enabled: expected `true` or `false` (set by TAUTLINE_HEALTH_ENABLED)",
        ),
        (
            "TAUTLINE_CLIENT_PONG_TIMEOUT",
            "1h",
            "a.toml: client.pong_timeout: ",
        ),
        (
            "TAUTLINE_CHANNEL_NAMESPACES",
            r#"[{"name": "chat", "presense": true}]"#,
            "a.toml: unknown key channel.namespaces[0] (`chat`).presense, did you mean `presence`? \
             (set by TAUTLINE_CHANNEL_NAMESPACES)",
        ),
        (
            "TAUTLINE_CHANNEL_NAMESPACES",
            "chat",
            "a.toml: channel.namespaces: expected JSON: ",
        ),
    ] {
        let overrides = environment(&[(variable, value)]).expect("an option");
        let error = load(&directory, "a.toml", "", &overrides)
            .err()
            .expect(value);
        assert!(error.starts_with(expected), "{error}");
        assert!(error.ends_with(&format!("(set by {variable})")), "{error}");
    }
    let error = load(
        &directory,
        "a.toml",
        "client = 1",
        &set(&["client.ping_interval=1s"]),
    );
    let error = error.err().expect("no table");
    assert!(
        error.contains("`client` is no table in the file"),
        "{error}"
    );

    let error = environment(&[("TAUTLINE_NODE_NAME_FILE", "/nonexistent")]).err();
    let error = error.expect("no file").to_string();
    assert!(
        error.starts_with("TAUTLINE_NODE_NAME_FILE: /nonexistent: "),
        "{error}"
    );
    let error = environment(&[
        ("TAUTLINE_NODE_NAME", "a"),
        ("TAUTLINE_NODE_NAME_FILE", "b"),
    ])
    .err();
    assert!(error.is_some());

    let mut overrides = Overrides::default();
    for (assignment, expected) in [
        (
            "client.ping_intervall=1s",
            "--set: unknown option `client.ping_intervall`, did you mean `client.ping_interval`?",
        ),
        (
            "client.ping_interval",
            "--set: expected an option and its value, such as client.ping_interval=20s",
        ),
    ] {
        let error = overrides.set(assignment).expect_err(assignment);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn variables_that_are_no_options_are_warned_of() {
    let directory = Directory::new("unknown");
    let overrides = environment(&[
        ("TAUTLINE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TAUTLINE_CLIENT_PING_INTERVALL", "1s"),
        ("CENTRIFUGO_CLIENT_PING_INTERVAL", "1s"),
        ("CENTRIFUGO_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ])
    .expect("warnings only");
    let config = load(&directory, "a.toml", "", &overrides).expect("good");
    let warnings: Vec<_> = config
        .warnings
        .iter()
        .filter(|w| w.contains("variable"))
        .collect();
    assert_eq!(
        warnings,
        [
            "the variable CENTRIFUGO_CLIENT_PING_INTERVAL is not read; here it is TAUTLINE_CLIENT_PING_INTERVAL",
            "the variable TAUTLINE_CLIENT_PING_INTERVALL is no option, did you mean TAUTLINE_CLIENT_PING_INTERVAL?",
            "the variable TAUTLINE_PORT_8000_TCP_ADDR is no option, and was left alone",
        ]
    );
}

#[test]
fn values_are_told_to_nobody() {
    let directory = Directory::new("secret");
    let overrides =
        environment(&[("TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", "")]).expect("an option");
    let error = load(&directory, "a.toml", "", &overrides)
        .err()
        .expect("empty");
    assert!(
        error.ends_with("(set by TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY)"),
        "{error}"
    );
    for variable in ["TAUTLINE_HTTP_API_KEYS", "TAUTLINE_HTTP_API_MAX_BODY_SIZE"] {
        let overrides = environment(&[(variable, "\"hush-hush")]).expect("an option");
        let error = load(&directory, "a.toml", "", &overrides)
            .err()
            .expect("wrong");
        assert!(!error.contains("hush"), "{error}");
    }
}
