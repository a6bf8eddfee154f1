//! The command line, as it is met at a terminal.
//!
//! The long texts are in `tests/transcripts/`. To take over a changed one, after having read it:
//! `UPDATE_TRANSCRIPTS=1 cargo test -p tautline --test cli`.

#[path = "support/directory.rs"]
mod directory;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tautline_auth::{Verifier, VerifierConfig};

use self::directory::Directory;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn tautline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("COLUMNS")
        .env_remove("TAUTLINE_URL");
    command
}

fn run(arguments: &[&str]) -> Output {
    tautline(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// Writes a file; its path, as an argument.
fn written(directory: &Directory, name: &str, content: &str) -> String {
    let path = directory.file(name, content);
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[track_caller]
fn assert_transcript(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    // The spaces that clap leaves in blank lines can't be seen, and editors take them out.
    let actual: String = actual
        .lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &actual).expect("the transcript can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the transcript is there");
    assert_eq!(actual, expected, "{name} differs");
}

#[test]
fn help_reads_as_it_was_written() {
    for (name, arguments) in [
        ("help.txt", &["--help"][..]),
        ("help-dev.txt", &["dev", "--help"]),
        ("help-serve.txt", &["serve", "--help"]),
        ("help-token.txt", &["token", "--help"]),
        ("help-key.txt", &["key", "--help"]),
        ("help-password.txt", &["password", "--help"]),
        ("help-publish.txt", &["publish", "--help"]),
        ("help-subscribe.txt", &["subscribe", "--help"]),
        ("help-history.txt", &["history", "--help"]),
        ("help-broadcast.txt", &["broadcast", "--help"]),
        ("help-disconnect.txt", &["disconnect", "--help"]),
        ("help-unsubscribe.txt", &["unsubscribe", "--help"]),
        ("help-subscribe-user.txt", &["subscribe-user", "--help"]),
        ("help-health.txt", &["health", "--help"]),
        ("help-refresh.txt", &["refresh", "--help"]),
        ("help-events.txt", &["events", "--help"]),
        ("help-events-list.txt", &["events", "list", "--help"]),
        ("help-lab.txt", &["lab", "--help"]),
        ("help-config.txt", &["config", "--help"]),
        ("help-config-show.txt", &["config", "show", "--help"]),
        ("help-config-check.txt", &["config", "check", "--help"]),
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert!(output.stderr.is_empty());
        let help = text(&output.stdout);
        for line in help.lines() {
            assert!(
                line.chars().count() <= 100,
                "too long for a terminal: {line}"
            );
        }
        assert_transcript(name, help);
    }
}

#[test]
fn version_is_told() {
    let output = run(&["--version"]);
    assert_eq!(
        text(&output.stdout),
        format!("tautline {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_example_in_the_help_is_a_good_configuration() {
    let help = run(&["serve", "--help"]);
    let example: String = text(&help.stdout)
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("[http_server]"))
        .take_while(|line| line.starts_with("  ") || line.is_empty())
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(example.contains("[[channel.namespaces]]"), "{example}");
    let directory = Directory::new("example");
    let file = written(
        &directory,
        "tautline.toml",
        &example.replace("\"...\"", &format!("\"{SECRET}\"")),
    );
    let output = run(&["config", "check", &file]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), format!("{file}: good\n"));
}

#[test]
fn wrong_command_lines_end_with_status_2() {
    for (arguments, part) in [
        (&["srve"][..], "serve"),
        (&["serve"], "--config <FILE>"),
        (&["dev", "--listen", "8000"], "invalid socket address"),
        (&["dev", "--lisen", "127.0.0.1:1"], "--listen"),
        (
            &["dev", "--allow-origin", "localhost:5173"],
            "`localhost:5173` is not an origin",
        ),
        (&["token", "--user", "7"], "--secret-env"),
        (
            &["token", "--secret-env", "A", "--config", "b", "--user", "7"],
            "cannot be used with",
        ),
        (&["token", "--secret-env", "A"], "--user <ID>"),
        (
            &["token", "--secret-env", "A", "--user", "7", "--ttl", "5"],
            "25s",
        ),
        (
            &[
                "token",
                "--secret-env",
                "A",
                "--user",
                "7",
                "--info",
                "{name}",
            ],
            "expected JSON such as",
        ),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let error = text(&output.stderr);
        assert!(
            error.starts_with("error: ") && error.contains(part),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn development_refuses_addresses_that_others_reach() {
    for arguments in [
        &["dev", "--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        assert!(error.contains("stays on this machine"), "{error}");
        assert!(error.contains("tautline serve --config FILE"), "{error}");
    }
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["dev", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty(),
        "nothing is announced that isn't there"
    );
    let error = text(&output.stderr);
    let port = address.rsplit_once(':').unwrap().1;
    for part in [
        format!("can't listen on {address}"),
        format!("port {port}"),
        "--listen".into(),
    ] {
        assert!(error.contains(&part), "{part} is missing in {error}");
    }
}

#[test]
fn wrong_configurations_end_with_status_2_and_their_place() {
    let directory = Directory::new("wrong");
    let file = written(
        &directory,
        "bad.toml",
        "[client]\nping_intervall = \"25s\"\n",
    );
    let expected = format!(
        "error: {file}:2:1: unknown key client.ping_intervall, did you mean `ping_interval`?\n"
    );
    for arguments in [
        &["config", "check", &file][..],
        &["serve", "--config", &file],
        &["token", "--config", &file, "--user", "7"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stderr), expected, "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
    let output = run(&["serve", "--config", "/nonexistent.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: /nonexistent.toml: "));
}

#[test]
fn what_is_known_of_the_options_can_be_printed() {
    let printed = |command: &str| {
        let output = run(&["config", command]);
        assert!(output.status.success() && output.stderr.is_empty());
        text(&output.stdout).to_owned()
    };
    let directory = Directory::new("default");
    let file = written(&directory, "default.toml", &printed("default"));
    let output = run(&["config", "check", &file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(printed("reference").starts_with("# Configuration\n"));
    let schema: serde_json::Value = serde_json::from_str(&printed("schema")).expect("it is JSON");
    assert_eq!(
        schema["properties"]["http_server"]["properties"]["port"]["default"],
        8000
    );
}

#[test]
fn the_environment_and_arguments_count_more_than_the_file() {
    let directory = Directory::new("over");
    let file = written(&directory, "a.yaml", "client: {pong_timeout: 8s}\n");
    let check = |variable: &str, argument: &str| {
        let mut command = tautline(&["config", "check", &file, "--set", argument]);
        let output = command
            .env("TAUTLINE_CLIENT_PING_INTERVAL", variable)
            .output();
        let output = output.expect("the binary runs");
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (status, error) = check("7s", "node.workers=1");
    assert_eq!(status, Some(2));
    assert!(error.contains("client.pong_timeout"), "{error}");
    assert_eq!(check("7s", "client.ping_interval=9s").0, Some(0));
    let (status, error) = check("9s", "client.ping_interval=x");
    assert_eq!(status, Some(2));
    assert!(
        error.contains("(set by --set client.ping_interval)"),
        "{error}"
    );
}

#[test]
fn config_check_warns_and_is_content() {
    let directory = Directory::new("check");
    let file = written(&directory, "empty.toml", "");
    let output = run(&["config", "check", &file]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("{file}: good\n"));
    let warnings = text(&output.stderr);
    assert_eq!(
        warnings
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .count(),
        3,
        "{warnings}"
    );
}

#[test]
fn tokens_from_the_command_line_verify() {
    let directory = Directory::new("token");
    let file = written(
        &directory,
        "tautline.toml",
        &format!(
            "[client.token]\nhmac_secret_key = \"{SECRET}\"\naudience = \"a\"\nissuer = \"i\"\n"
        ),
    );
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: Some(SECRET.into()),
        audience: Some("a".into()),
        issuer: Some("i".into()),
        ..VerifierConfig::default()
    })
    .unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = |arguments: &[&str]| {
        let output = run(&[&["token", "--config", &file], arguments].concat());
        assert_eq!(text(&output.stderr), "");
        assert!(output.status.success());
        text(&output.stdout).trim_end_matches('\n').to_owned()
    };

    let made = token(&[
        "--user",
        "7",
        "--info",
        r#"{"name": "Ann"}"#,
        "--ttl",
        "10m",
    ]);
    let claims = verifier.verify_connect(&made, now).unwrap();
    assert_eq!(claims.user, "7");
    assert_eq!(claims.info.as_deref(), Some(&br#"{"name": "Ann"}"#[..]));
    let ttl = claims.expire_at.unwrap() - now.as_secs();
    assert!((600..630).contains(&ttl), "{ttl}");

    let made = token(&["--user", "7", "--channel", "$orders:7", "--ttl", "0"]);
    let claims = verifier.verify_subscribe(&made, now).unwrap();
    assert_eq!(
        (claims.channel.as_str(), claims.expire_at),
        ("$orders:7", None)
    );

    let made = token(&["--user", ""]);
    let claims = verifier.verify_connect(&made, now).unwrap();
    assert_eq!(claims.user, "");
    let ttl = claims.expire_at.unwrap() - now.as_secs();
    assert!((3600..3630).contains(&ttl), "{ttl}");
}

#[test]
fn the_secret_of_a_token_can_come_from_the_environment() {
    let arguments = [
        "token",
        "--secret-env",
        "TAUTLINE_TEST_SECRET",
        "--user",
        "7",
        "--ttl",
        "0",
    ];
    let output = tautline(&arguments)
        .env("TAUTLINE_TEST_SECRET", "secret")
        .output()
        .unwrap();
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: Some("secret".into()),
        ..VerifierConfig::default()
    });
    let (made, now) = (text(&output.stdout), SystemTime::now());
    let now = now.duration_since(UNIX_EPOCH).unwrap();
    let claims = verifier.unwrap().verify_connect(made.trim_end(), now);
    let claims = claims.unwrap();
    assert_eq!((claims.user.as_str(), claims.expire_at), ("7", None));
    // It says when it was made, by which it can be revoked.
    let all = tautline_auth::Revocations::default();
    let revoke = |issued_before| tautline_auth::Revocation::User {
        user: "7".into(),
        issued_before,
        expire_at: None,
    };
    all.add(&revoke(now.as_secs() - 60), now).unwrap();
    assert!(!all.has(&claims.mark, "7", now));
    all.add(&revoke(now.as_secs() + 1), now).unwrap();
    assert!(all.has(&claims.mark, "7", now));

    for secret in [None, Some("")] {
        let mut command = tautline(&arguments);
        command.env_remove("TAUTLINE_TEST_SECRET");
        if let Some(secret) = secret {
            command.env("TAUTLINE_TEST_SECRET", secret);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_configuration_without_a_secret_makes_no_tokens() {
    let directory = Directory::new("no-secret");
    let file = written(&directory, "tautline.toml", "");
    let output = run(&["token", "--config", &file, "--user", "7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("client.token.hmac_secret_key"));
}

#[test]
fn a_key_comes_with_what_the_configuration_needs() {
    let output = run(&["key", "--name", "a \"shop\""]);
    assert!(output.status.success());
    let key = text(&output.stdout).trim();
    assert!(
        key.len() >= 43 && !key.contains(char::is_whitespace),
        "{key}"
    );
    let told = text(&output.stderr);
    let table = told.find("[[http_api.keys]]").expect("a table");
    let digest = tautline_auth::KeyDigest::of(key.as_bytes()).to_hex();
    assert!(told.contains(&digest) && !told.contains(key), "{told}");
    let directory = Directory::new("key");
    let file = written(&directory, "tautline.toml", &told[table..]);
    let output = run(&["config", "check", &file]);
    assert_eq!(text(&output.stdout), format!("{file}: good\n"));
    assert!(!text(&output.stderr).contains("http_api"), "{output:?}");
    assert_ne!(text(&run(&["key"]).stdout).trim(), key);
}

#[test]
fn log_lines_are_objects_for_programs_who_want_them() {
    use std::io::{BufRead as _, BufReader};

    let directory = Directory::new("log");
    let file = written(
        &directory,
        "tautline.toml",
        "[http_server]\nport = 0\n[log]\nformat = \"json\"\n",
    );
    let mut server = tautline(&["serve", "--config", &file])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
    let listening = loop {
        let line = lines.next().expect("a line").expect("it can be read");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        if line["message"] == "listening" {
            break line;
        }
    };
    assert!(listening["address"].is_string(), "{listening}");
    server.kill().expect("it can be ended");
    server.wait().expect("it ends");
}

#[test]
fn what_each_option_is_is_shown_with_who_says_so_and_without_secrets() {
    let directory = Directory::new("show");
    let file = written(
        &directory,
        "tautline.toml",
        &format!(
            "client.ping_interval = \"20s\"\nclient.pong_timeout = \"7s\"\nnode.workers = 3\n\
             client.token.hmac_secret_key = \"{SECRET}\"\nhttp_api.key = \"hidden-key\"\n\
             [[channel.namespaces]]\nname = \"chat\"\npresence = true\n"
        ),
    );
    let show = |arguments: &[&str]| {
        let arguments = [
            &["config", "show", &file, "--set", "node.workers=5"],
            arguments,
        ]
        .concat();
        let mut command = tautline(&arguments);
        command.env("TAUTLINE_CLIENT_PONG_TIMEOUT", "6s");
        command.env("TAUTLINE_NODE_WORKERS", "4");
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let shown = text(&output.stdout).to_owned();
        assert!(
            !shown.contains(SECRET) && !shown.contains("hidden"),
            "{shown}"
        );
        shown
    };
    assert_eq!(
        show(&[]),
        format!(
            "channel.namespaces (`chat`) = there  # {file}\n\
             channel.namespaces (`chat`).name = \"chat\"  # {file}\n\
             channel.namespaces (`chat`).presence = true  # {file}\n\
             client.ping_interval = \"20s\"  # {file}\n\
             client.pong_timeout = \"6s\"  # TAUTLINE_CLIENT_PONG_TIMEOUT\n\
             client.token.hmac_secret_key = (secret)  # {file}\n\
             http_api.key = (secret)  # {file}\n\
             node.workers = 5  # --set node.workers\n"
        )
    );
    let all = show(&["--all"]);
    assert!(
        all.contains("\nhttp_server.port = 8000  # default\n"),
        "{all}"
    );
    assert!(
        all.contains("\nclient.ping_interval = \"20s\"  # "),
        "{all}"
    );
    assert!(!all.contains("client.ping_interval = \"25s\""), "{all}");
    assert!(all.lines().is_sorted());
    let json: serde_json::Value = serde_json::from_str(&show(&["--json"])).expect("JSON");
    let workers = json.as_array().expect("a list").last();
    assert_eq!(
        workers,
        Some(
            &serde_json::json!({"option": "node.workers", "value": "5", "from": "--set node.workers"})
        )
    );
}

/// Lists are set as a whole by the environment.
#[test]
fn elements_of_a_list_are_of_whoever_has_set_the_list() {
    let directory = Directory::new("show-list");
    let file = written(
        &directory,
        "tautline.toml",
        "[[channel.namespaces]]\nname = \"chat\"\n",
    );
    let mut command = tautline(&["config", "show", &file]);
    command.env(
        "TAUTLINE_CHANNEL_NAMESPACES",
        r#"[{"name":"news","presence":true}]"#,
    );
    let output = command.output().expect("the binary runs");
    let shown = text(&output.stdout);
    assert!(!shown.contains("chat"), "{shown}");
    for line in shown.lines() {
        assert!(line.ends_with("  # TAUTLINE_CHANNEL_NAMESPACES"), "{line}");
    }
    assert!(shown.contains("(`news`).presence = true"), "{shown}");
}

#[test]
fn events_without_an_endpoint_are_for_those_who_embed_the_server() {
    let directory = Directory::new("events");
    let file = written(
        &directory,
        "tautline.toml",
        "[events]\nenabled = true\ndirectory = \"/x\"\n",
    );
    for command in [
        &["config", "check", &file][..],
        &["serve", "--config", &file],
    ] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("events.endpoint must be set"));
    }
}

/// As with `tautline config default | head -n 1`.
#[cfg(unix)]
#[test]
fn who_reads_only_the_beginning_is_told_nothing_else() {
    for arguments in [
        ["config", "default"],
        ["config", "reference"],
        ["config", "schema"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = tautline(&arguments)
            .stdout(writer)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
}
