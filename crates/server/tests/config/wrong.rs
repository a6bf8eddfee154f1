//! What is said of a file that is wrong, and where.

use tautline::config::Config;

use crate::{load, problem};

#[test]
fn unknown_keys_are_told_with_their_place_and_the_nearest_known_one() {
    for (text, expected) in [
        (
            "[client]\nping_interval = \"25s\"\npong_timout = \"8s\"\n",
            "3:1: unknown key `client.pong_timout`, did you mean `pong_timeout`?",
        ),
        (
            "[client]\nalowed_origins = []\n",
            "2:1: unknown key `client.alowed_origins`, did you mean `allowed_origins`?",
        ),
        (
            "[client.tokn]\nhmac_secret_key = \"x\"\n",
            "1:9: unknown key `client.tokn`, did you mean `token`?",
        ),
        (
            "[client.token]\n  hmac_secret = \"x\"\n",
            "2:3: unknown key `client.token.hmac_secret`, did you mean `hmac_secret_key`?",
        ),
        (
            "[[channel.namespaces]]\nname = \"chat\"\n\n[[channel.namespaces]]\nname = \"b.c\"\n\
             presense = true\n",
            "6:1: unknown key `channel.namespaces[1] (`b.c`).presense`, did you mean `presence`?",
        ),
        (
            "[clients]\n",
            "1:2: unknown key `clients`, did you mean `client`?",
        ),
        (
            "[prometheus]\nworkers = 4\n",
            "2:1: unknown key `prometheus.workers`; `prometheus` may have `enabled`",
        ),
    ] {
        assert_eq!(problem(text), expected, "\n{text}");
    }
    let far = problem("zzzzzzzz = 1\n");
    assert!(
        far.starts_with(
            "1:1: unknown key `zzzzzzzz`; the file may have `admin`, `channel`, `client`"
        ),
        "{far}"
    );
}

#[test]
fn wrong_values_are_told_with_their_place_and_what_was_expected() {
    for (text, place, parts) in [
        (
            "[http_server]\nport = \"8000\"\n",
            "2:8:",
            &["http_server.port", "string", "u16"][..],
        ),
        (
            "[http_server]\nport = 80000\n",
            "2:8:",
            &["http_server.port", "80000", "u16"],
        ),
        (
            "[http_server]\naddress = \"localhost\"\n",
            "2:11:",
            &["http_server.address", "IP address"],
        ),
        (
            "[client]\nping_interval = \"25\"\n",
            "2:17:",
            &["client.ping_interval", "`25`", "25s"],
        ),
        (
            "[client]\nping_interval = 25\n",
            "2:17:",
            &["client.ping_interval", "25", "duration"],
        ),
        (
            "[client]\nallowed_origins = \"*\"\n",
            "2:19:",
            &["client.allowed_origins", "sequence"],
        ),
        ("client = 1\n", "1:10:", &["client"]),
        (
            "[log]\nlevel = \"inf\"\n",
            "2:9:",
            &["log.level", "`inf`", "did you mean `info`"],
        ),
        (
            "[log]\nlevel = \"loud\"\n",
            "2:9:",
            &["log.level", "`loud`", "`warn`", "`none`"],
        ),
        ("[log\n", "1:5:", &["expected"]),
        ("[client]\n[client]\n", "2:2:", &["duplicate"]),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(place), "{problem}\n{text}");
        for part in parts {
            assert!(problem.contains(part), "{part} is missing in: {problem}");
        }
    }
}

#[test]
fn options_that_contradict_each_other_are_told_with_their_place() {
    for (text, place, parts) in [
        (
            "[client]\nping_interval = \"5s\"\npong_timeout = \"8s\"\n",
            "3:1:",
            &["client.pong_timeout", "ping_interval"][..],
        ),
        (
            "\n[[channel.namespaces]]\nname = \"chat\"\nhistory_size = 5\n",
            "4:1:",
            &["channel.namespaces[0] (`chat`).history_size", "history_ttl"],
        ),
        // The option that is wrong isn't there; its table is.
        (
            "[client]\nping_interval = \"2s\"\n",
            "1:2:",
            &["client.pong_timeout"],
        ),
        (
            "[client]\nallowed_origins = [\"example.org\"]\n",
            "2:1:",
            &["client.allowed_origins", "https://"],
        ),
        (
            "[client.token]\nhmac_secret_key = \"\"\n",
            "2:1:",
            &["client.token.hmac_secret_key", "empty"],
        ),
        (
            "[client.token]\nhmac_previous_secret_key = \"x\"\n",
            "2:1:",
            &["client.token.hmac_previous_secret_key", "current"],
        ),
        (
            "[http_api]\nkey = \"\"\n",
            "2:1:",
            &["http_api.key", "empty"],
        ),
        (
            "[http_api]\nmax_body_size = 10\n",
            "2:1:",
            &["http_api.max_body_size", "1024"],
        ),
        (
            "[websocket]\nmessage_size_limit = 0\n",
            "2:1:",
            &["websocket.message_size_limit", "1024"],
        ),
        (
            "[shutdown]\ntimeout = \"2h\"\n",
            "2:1:",
            &["shutdown.timeout", "1h"],
        ),
        (
            "[engine.memory]\nmax_channels = 0\n",
            "2:1:",
            &["engine.memory.max_channels", "1"],
        ),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(place), "{problem}\n{text}");
        for part in parts {
            assert!(problem.contains(part), "{part} is missing in: {problem}");
        }
    }
}

#[test]
fn no_error_shows_a_secret() {
    for text in [
        "[client.token]\nhmac_secret_key = 20260101\n",
        "[client.token]\nhmac_secret_key = [\"hunter2\"]\n",
        "[client.token]\nhmac_secret_key = \"hunter2\n",
        "[client.token]\nhmac_secret_key = \"hunter2\"\nissue = \"x\"\n",
        "[http_api]\nkey = 20260101\n",
        "[http_api]\nkey = \"hunter2\" x\n",
    ] {
        let problem = problem(text);
        assert!(
            !problem.contains("hunter2") && !problem.contains("20260101"),
            "{problem}"
        );
    }
    let text = "[client.token]\nhmac_secret_key = \"hunter2\"\n[http_api]\nkey = \"hunter2\"\n";
    let config = load(text).unwrap();
    let shown = format!("{:?} {:?}", config.token, config.http);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn files_that_can_not_be_read_are_named() {
    let error = Config::load("/nonexistent/tautline.toml".as_ref())
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("/nonexistent/tautline.toml: "), "{error}");
    let error = load(&"#".repeat(2 << 20)).err().unwrap().to_string();
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
}
