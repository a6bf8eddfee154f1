//! What is said of a file that is wrong, and where.

use tautline::config::Config;

use crate::{TempFile, load, problem};

#[test]
fn unknown_keys_are_told_with_their_place_and_the_nearest_known_one() {
    for (text, expected) in [
        (
            "[client]\nping_interval = \"25s\"\npong_timout = \"8s\"\n",
            "3:1: unknown key client.pong_timout, did you mean `pong_timeout`?",
        ),
        (
            "[client]\nalowed_origins = []\n",
            "2:1: unknown key client.alowed_origins, did you mean `allowed_origins`?",
        ),
        (
            "[client.tokn]\nhmac_secret_key = \"x\"\n",
            "1:9: unknown key client.tokn, did you mean `token`?",
        ),
        (
            "[client.token]\n  hmac_secret = \"x\"\n",
            "2:3: unknown key client.token.hmac_secret, did you mean `hmac_secret_key`?",
        ),
        (
            "[[channel.namespaces]]\nname = \"chat\"\n\n[[channel.namespaces]]\nname = \"b.c\"\n\
             presense = true\n",
            "6:1: unknown key channel.namespaces[1] (`b.c`).presense, did you mean `presence`?",
        ),
        (
            "[clients]\n",
            "1:2: unknown key clients, did you mean `client`?",
        ),
        (
            "[prometheus]\nworkers = 4\n",
            "2:1: unknown key prometheus.workers; prometheus may have `enabled`",
        ),
    ] {
        assert_eq!(problem(text), expected, "\n{text}");
    }
    let far = problem("zzzzzzzz = 1\n");
    assert!(
        far.starts_with(
            "1:1: unknown key zzzzzzzz; the file may have `admin`, `channel`, `client`"
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
            &["http_server.port", "a whole number", "got a text"][..],
        ),
        (
            "[http_server]\nport = 80000\n",
            "2:8:",
            &["http_server.port", "is 80000", "between 0 and 65535"],
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
            &["client.ping_interval", "25s", "duration", "got a number"],
        ),
        (
            "[client]\nallowed_origins = \"*\"\n",
            "2:19:",
            &["client.allowed_origins", "a list of texts", "got a text"],
        ),
        (
            "client = 1\n",
            "1:10:",
            &["client: expected a table", "got a number"],
        ),
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
            "2:17:",
            &["http_api.max_body_size", "1024"],
        ),
        (
            "[websocket]\nmessage_size_limit = 0\n",
            "2:22:",
            &["websocket.message_size_limit", "1024"],
        ),
        (
            "[shutdown]\ntimeout = \"2h\"\n",
            "2:11:",
            &["shutdown.timeout", "1h"],
        ),
        // The backend's doors would be everybody's, by chance or at once.
        (
            "[http_server]\naddress = \"127.0.0.1\"\ninternal_listen = \"127.0.0.1:8000\"\n",
            "3:",
            &["http_server.internal_listen", "8000", "another"],
        ),
        (
            "[http_server]\nport = 9000\ninternal_listen = \"127.0.0.1:9000\"\n",
            "3:",
            &["http_server.internal_listen", "9000", "another"],
        ),
        (
            "[engine.memory]\nmax_channels = 0\n",
            "2:16:",
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

#[test]
fn what_is_no_utf8_is_told_with_its_place() {
    for (bytes, problem) in [
        (
            &b"[http_api]\nkey = \"\xC3\xA4\xFFb\"\n"[..],
            "2:9: this is no UTF-8",
        ),
        (b"\xFF\xFE[\0h\0", "1:1: this is UTF-16, expected UTF-8"),
    ] {
        let file = TempFile::new("");
        std::fs::write(&file.0, bytes).unwrap();
        let error = Config::load(&file.0).err().unwrap().to_string();
        let expected = format!("{}:{problem}", file.0.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_mark_of_the_byte_order_is_left_out_in_all_formats() {
    for (name, text) in [
        ("toml", "[http_server]\nprot = 1"),
        ("yaml", "http_server:\n  prot: 1"),
        ("json", "{\"http_server\":\n {\"prot\": 1}}"),
    ] {
        let file = TempFile::new("");
        let path = file.0.with_extension(name);
        std::fs::write(&path, format!("\u{FEFF}{text}")).unwrap();
        let error = Config::load(&path).err().unwrap().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(
            error.contains(".prot, did you mean `port`?"),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_certificate_that_is_not_there_is_named_and_its_key_is_not() {
    let tls = |cert: &str, key: &str| {
        format!("[http_server.tls]\nenabled = true\ncert_pem = {cert:?}\nkey_pem = {key:?}\n")
    };
    let told = problem(&tls("/nowhere/cert.pem", "/nowhere/key.pem"));
    assert!(
        told.contains(
            "http_server.tls.cert_pem: `/nowhere/cert.pem` is no PEM, and no file either"
        ),
        "{told}"
    );
    let certificate = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    // It may be the key itself, with its first line lost.
    let told = problem(&tls(&certificate.cert.pem(), "hunter2"));
    assert!(
        told.contains("http_server.tls.key_pem: is no PEM") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn all_that_is_wrong_is_told_in_the_order_of_the_file() {
    let text = "[http_server]\nport = 70000\n[client]\nping_intervall = \"20s\"\nwrite_delay = 5\n\
                channel_limit = \"many\"\n[[channel.namespaces]]\nname = \"chat\"\npresense = true\n\
                history_ttl = \"1d\"\n[log]\nlevel = \"loud\"\nconnections = \"some\"\n[clients]\n\
                [grpc_api]\nenabled = true\n[limits.address]\nconnect = \"5\"\n\
                [client.token]\nhmac_secret_key = 20260101\n[[proxies]]\nname = \"aa\"\ntls = 1\n";
    let error = load(text).err().unwrap();
    let all = error.all();
    let told: Vec<_> = all
        .lines()
        .map(|line| line.split_once(".toml:").unwrap().1)
        .collect();
    let expected = [
        "2:8: http_server.port: is 70000, must be between 0 and 65535",
        "4:1: unknown key client.ping_intervall, did you mean `ping_interval`?",
        "5:15: client.write_delay: expected a duration such as \"25s\", got a number",
        "6:17: client.channel_limit: expected a whole number, got a text",
        "9:1: unknown key channel.namespaces[0] (`chat`).presense, did you mean `presence`?",
        "10:15: channel.namespaces[0] (`chat`).history_ttl: `1d` is not a duration; write numbers with units such as \
         300ms, 25s, 10m, 720h or 1h30m",
        "12:9: log.level: `loud` is not known, expected `debug`, `error`, `info`, `none`, `trace`, `warn`",
        "13:15: log.connections: expected `off`, `all` or a percentage such as `1%` or `0.5%`, at least 0.0001%",
        "14:2: unknown key clients, did you mean `client`?",
    ];
    assert_eq!(told[..expected.len()], expected);
    let rest = &told[expected.len()..];
    assert_eq!(rest.len(), 4, "{rest:?}");
    assert!(rest[0].starts_with("15:2: unknown key grpc_api; there is nothing of that here"));
    assert!(rest[1].starts_with("18:11: limits.address.connect: `5` is not a rate"));
    assert_eq!(
        rest[2],
        "20:19: client.token.hmac_secret_key: expected a text in quotes, got a number"
    );
    assert!(
        rest[3].starts_with("23:1: unknown key proxies[0] (`aa`).tls; "),
        "{}",
        rest[3]
    );
    // Where there is one line for it, the first is told.
    let line = error.to_string();
    assert!(
        line.ends_with("between 0 and 65535 (and 12 more; `tautline config check` tells all)"),
        "{line}"
    );
}

#[test]
fn what_is_no_table_is_told_to_be_none() {
    for (text, expected) in [
        (
            "channel = []\n",
            "1:11: channel: expected a table (`[channel]`), got a list",
        ),
        (
            "channel.namespaces = {}\n",
            "1:22: channel.namespaces: expected a list of tables (`[[channel.namespaces]]`), got a table",
        ),
        (
            "channel.namespaces = [1]\n",
            "1:23: channel.namespaces[0]: expected a table, got a number",
        ),
        (
            "client.proxy = 1\n",
            "1:16: client.proxy: expected a table (`[client.proxy]`), got a number",
        ),
        (
            "http_server.port = 0xFFFFFFFFFFFFFFFF\n",
            "1:20: http_server.port: is",
        ),
        (
            "http_server.port = 1e3\n",
            "1:20: http_server.port: expected a whole number, got a number with a point",
        ),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(expected), "{problem}\n{text}");
    }
}
