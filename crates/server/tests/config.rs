//! What a configuration file may say, and what is said of one that is wrong.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tautline::config::{Config, ConfigError, LogLevel};
use tautline::http::api::ErrorMode;
use tautline_auth::Signer;

/// A file that is gone with the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tautline-config-{}-{}.toml",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::load(&TempFile::new(text).0)
}

/// What is said of a wrong file, without the name of the file.
#[track_caller]
fn problem(text: &str) -> String {
    let file = TempFile::new(text);
    let Err(error) = Config::load(&file.0) else {
        panic!("this should be refused:\n{text}");
    };
    let error = error.to_string();
    let prefix = format!("{}:", file.0.display());
    error
        .strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("no file name in {error}"))
        .to_owned()
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn an_empty_file_is_all_defaults() {
    let config = load("").unwrap();
    assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 8000)));
    assert_eq!(config.websocket.message_size_limit, 65_536);
    assert_eq!(config.shutdown.timeout, Duration::from_secs(30));
    assert_eq!(config.log.level, LogLevel::Info);
    assert!(config.http.api_keys.is_empty() && config.http.health);
    assert!(config.http.dev.is_none());
    // Nobody can connect, nobody can publish, and nothing is encrypted.
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
}

#[test]
fn every_table_is_read() {
    let text = format!(
        r#"
        [http_server]
        address = "::1"
        port = 9000

        [client]
        allowed_origins = ["https://*.example.org"]
        ping_interval = "1m30s"

        [client.token]
        hmac_secret_key = "{SECRET}"
        hmac_previous_secret_key = "old"
        hmac_previous_secret_key_valid_until = 1900000000
        leeway = "30s"
        audience = "chat"
        issuer = "https://example.org"

        [channel]
        max_length = 100

        [channel.without_namespace]
        presence = true

        [[channel.namespaces]]
        name = "chat"
        history_size = 10
        history_ttl = "1h"

        [engine.memory]
        max_channels = 1000

        [http_api]
        key = "k"
        error_mode = "transport"
        max_body_size = 2048

        [websocket]
        message_size_limit = 4096

        [health]
        enabled = false

        [shutdown]
        timeout = "5s"

        [log]
        level = "debug"
        "#
    );
    let config = load(&text).unwrap();
    assert_eq!(config.listen, "[::1]:9000".parse::<SocketAddr>().unwrap());
    assert_eq!(config.engine.max_channels, 1000);
    assert!(!config.http.api_keys.is_empty());
    assert_eq!(config.http.api_error_mode, ErrorMode::Transport);
    assert_eq!(config.http.api_limits.max_body_size, 2048);
    assert!(!config.http.health);
    assert_eq!(config.websocket.message_size_limit, 4096);
    assert_eq!(config.token.issuer.as_deref(), Some("https://example.org"));
    assert_eq!(config.shutdown.timeout, Duration::from_secs(5));
    assert_eq!(config.log.level, LogLevel::Debug);
    let origin = |origin: &str| {
        config
            .http
            .origins
            .check_values([origin.as_bytes()], Some(b"x"))
            .is_ok()
    };
    assert!(origin("https://a.example.org") && !origin("https://a.example.com"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

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

const BEHIND_A_PROXY: &str = "[http_server]\naddress = \"127.0.0.1\"\n";

#[test]
fn doubtful_settings_are_warned_about() {
    let base = format!(
        "{BEHIND_A_PROXY}[http_api]\nkey = \"k\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n"
    );
    assert_eq!(load(&base).unwrap().warnings.len(), 0);
    for (text, part) in [
        (
            format!("{BEHIND_A_PROXY}[http_api]\nkey = \"k\"\n"),
            "nobody can connect",
        ),
        (base.replace("127.0.0.1", "0.0.0.0"), "http_server.tls"),
        (base.replace(SECRET, "short"), "short"),
        (
            format!("{base}[client]\ninsecure = true\n"),
            "client.insecure",
        ),
        (
            format!("{base}[client]\nallowed_origins = [\"*\"]\n"),
            "client.allowed_origins",
        ),
        (
            base.replace("key = \"k\"", "insecure = true"),
            "http_api.insecure",
        ),
        (base.replace("key = \"k\"", ""), "http_api.key"),
    ] {
        let warnings = load(&text).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}\n{text}");
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

#[test]
fn tunnels_are_checked() {
    let tunnel = |options: &str| format!("[[tunnels]]\nname = \"docs\"\n{options}\n");
    let to = "upstream = \"ws://127.0.0.1:1234/base\"\n";
    assert!(load(&tunnel(to)).is_ok());
    let secure = "upstream = \"wss://127.0.0.1/\"\n";
    for (text, part) in [
        (tunnel(""), "tunnels[0] (`docs`).upstream: is required"),
        (tunnel("upstream = \"http://a\""), "upstream: can't be used"),
        (
            tunnel("upstream = \"ws://u:hunter2@a\""),
            "upstream: can't be used",
        ),
        (format!("[[tunnels]]\n{to}"), "tunnels[0].name: must be"),
        (
            format!("[[tunnels]]\nname = \"a/b\"\n{to}"),
            "name: must be",
        ),
        (
            format!("[[tunnels]]\nname = \"..\"\n{to}"),
            "name: must not be dots",
        ),
        (format!("{}{}", tunnel(to), tunnel(to)), "there twice"),
        (
            tunnel(&format!("{to}http_headers = [\"Host\"]")),
            "http_headers",
        ),
        (
            tunnel(&format!("{to}http_headers = [\"a b\"]")),
            "http_headers",
        ),
        (
            tunnel(&format!("{to}http_headers = [\"x-forwarded-for\"]")),
            "writes itself",
        ),
        (
            tunnel(&format!("{to}static_headers = {{a = \"hunter2\\n\"}}")),
            "static_headers.a: is no header field",
        ),
        (
            tunnel(&format!(
                "{to}http_headers = [\"A\"]\nstatic_headers = {{a = \"b\"}}"
            )),
            "either the client",
        ),
        (tunnel(&format!("{to}connect_timeout = \"61s\"")), "60s"),
        (
            tunnel(&format!("{to}message_size_limit = 10")),
            "message_size_limit: is 10 bytes",
        ),
        (tunnel(&format!("{to}max_connections = 0")), "at least 1"),
        (
            tunnel(&format!("{to}server_ca_pem = \"x\"")),
            "needs an upstream with wss://",
        ),
        (
            tunnel(&format!("{secure}server_ca_pem = \"/nonexistent\"")),
            "server_ca_pem: is no PEM",
        ),
        (tunnel(&format!("{to}nam = 1")), "did you mean `name`"),
    ] {
        let problem = problem(&text);
        assert!(problem.contains(part), "{problem}\n{text}");
        assert!(!problem.contains("hunter2"), "{problem}");
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
fn development_is_for_this_machine_only() {
    for address in ["127.0.0.1:8000", "127.9.9.9:0", "[::1]:8000"] {
        let config = Config::dev(address.parse().unwrap()).unwrap();
        assert!(config.http.dev.is_some() && !config.http.api_keys.is_empty());
    }
    for address in ["0.0.0.0:8000", "192.168.1.2:8000", "[::]:8000"] {
        let error = Config::dev(address.parse().unwrap())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(address) && error.contains("tautline serve"),
            "{error}"
        );
    }
}

#[test]
fn development_has_a_new_secret_each_time() {
    let secrets: Vec<_> = (0..2)
        .map(|_| {
            Config::dev("127.0.0.1:0".parse().unwrap())
                .unwrap()
                .token
                .hmac_secret_key
                .unwrap()
        })
        .collect();
    assert_ne!(secrets[0], secrets[1]);
    assert_eq!(secrets[0].expose().len(), 32);
    assert!(Signer::hs256(&secrets[0]).is_ok());
}

#[test]
fn public_keys_are_checked_when_they_are_configured() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../auth/tests/data/tokens.json")).unwrap();
    let key = |alg: &str| {
        let case = cases
            .as_array()
            .unwrap()
            .iter()
            .find(|case| case["alg"] == alg);
        case.unwrap()["pem"].as_str().unwrap().to_owned()
    };
    let token =
        |option: &str, pem: &str| format!("[client.token]\n{option} = \"\"\"\n{pem}\"\"\"\n");
    for (option, alg) in [
        ("rsa_public_key", "RS256"),
        ("ecdsa_public_key", "ES256"),
        ("ecdsa_public_key", "ES512"),
        ("eddsa_public_key", "EdDSA"),
    ] {
        let config = load(&token(option, &key(alg))).unwrap();
        let warning = "nobody can connect";
        assert!(
            !config.warnings.iter().any(|text| text.contains(warning)),
            "{option}"
        );
    }
    for (option, pem, expected) in [
        (
            "rsa_public_key",
            key("ES256"),
            "is a key of ES256; it belongs into another option",
        ),
        (
            "eddsa_public_key",
            key("RS256"),
            "is a key of RS256, RS384, RS512, PS256, PS384, PS512; it belongs",
        ),
        (
            "rsa_public_key",
            "secret\n".into(),
            "not a public key in PEM",
        ),
        (
            "ecdsa_public_key",
            key("ES256").replace("PUBLIC", "PRIVATE"),
            "this is a private key, which only the signer should have",
        ),
    ] {
        let problem = problem(&token(option, &pem));
        assert!(
            problem.contains(&format!("client.token.{option}")) && problem.contains(expected),
            "{problem}"
        );
    }
    let endpoint = |url: &str| format!("[client.token]\njwks_public_endpoint = \"{url}\"\n");
    assert!(problem(&endpoint("id.example.com")).contains("is not a URL of a key set"));
    let warns = |url: &str| {
        let config = load(&endpoint(url)).unwrap();
        config
            .warnings
            .iter()
            .any(|text| text.contains("whoever is on the way"))
    };
    assert!(warns("http://id.example.com/keys"));
    assert!(!warns("https://id.example.com/keys") && !warns("http://localhost:8080/keys"));
    let problem = problem("[client.token]\nleeway = \"6m\"\n");
    assert!(
        problem.contains("client.token.leeway") && problem.contains("5m"),
        "{problem}"
    );
}

#[test]
fn what_tokens_fill_into_the_url_of_a_key_set_is_a_group_and_no_host() {
    let token = |url: &str, more: &str| {
        format!("[client.token]\njwks_public_endpoint = \"{url}\"\n{more}\n")
    };
    let issuer = "issuer_regex = '^https://id\\.example\\.com/(?<tenant>[a-z]+)$'";
    let good = "https://id.example.com/{{tenant}}/keys";
    let config = load(&token(good, issuer)).unwrap();
    let warns = |config: &Config, text: &str| {
        let mut warnings = config.warnings.iter();
        warnings.any(|warning| warning.contains(text))
    };
    assert!(!warns(&config, "whoever is on the way"));
    let open = load(&token(&good.replace("https", "http"), issuer)).unwrap();
    assert!(warns(&open, "whoever is on the way"));
    load(&token("https://{{tenant}}.id.example.com/keys", issuer)).unwrap();
    for (url, more, expected) in [
        (good, "", "`{{tenant}}` is no named group"),
        (
            good,
            "issuer_regex = '(?<other>a)'",
            "`{{tenant}}` is no named group",
        ),
        (
            good,
            &*format!("{issuer}\naudience_regex = '(?<tenant>a)'"),
            "is a named group of both",
        ),
        (
            "https://{{tenant}}/keys",
            issuer,
            "a token could send the server anywhere",
        ),
        ("{{tenant}}/keys", issuer, "must begin with https://"),
        (
            "https://id.example.com/{{tenant",
            issuer,
            "with no name and `}}`",
        ),
    ] {
        let problem = problem(&token(url, more));
        assert!(
            problem.contains("client.token.jwks_public_endpoint: ") && problem.contains(expected),
            "{problem}"
        );
    }
}

#[test]
fn what_unidirectional_doors_say_is_checked() {
    let disconnects = |text: &str| {
        format!(
            "[client.connect_code_to_unidirectional_disconnect]\nenabled = true\ntransforms = [{text}]\n"
        )
    };
    let responses = |text: &str| {
        format!("[doors.connect_code_to_http_response]\nenabled = true\ntransforms = [{text}]\n")
    };
    load(&disconnects(
        "{ code = 109, to = { code = 4501, reason = \"x\" } }",
    ))
    .unwrap();
    load(&responses("{ code = 109, to = { status_code = 204 } }")).unwrap();
    let twice =
        "{ code = 1, to = { status_code = 401 } }, { code = 1, to = { status_code = 402 } }";
    for (text, expected) in [
        (
            disconnects("{ to = { code = 4501 } }"),
            "transforms[0].code: is required",
        ),
        (
            disconnects("{ code = 109 }"),
            "transforms[0].to: is required",
        ),
        (
            disconnects("{ code = 109, to = { code = 4501 } }"),
            "the reason is required",
        ),
        (
            disconnects("{ code = 109, to = { code = 4501, reason = \"1\" } }"),
            "the reason is JSON",
        ),
        (
            disconnects("{ code = 109, to = { code = 5000, reason = \"x\" } }"),
            "5000 is not between 3000 and 4999",
        ),
        (
            responses("{ code = 109, to = { status_code = 101 } }"),
            "101 is not between 200 and 599",
        ),
        (responses(twice), "transforms[1].code: 1 is there twice"),
    ] {
        let problem = problem(&text);
        assert!(problem.contains(expected), "{problem}");
    }
    let idle = disconnects("{ code = 109, to = { code = 4501, reason = \"x\" } }");
    let config = load(&idle.replace("enabled = true", "")).unwrap();
    let mut warnings = config.warnings.iter();
    assert!(warnings.any(|text| text.contains("they don't count")));
    assert!(problem("rpc.ping = { enabled = true, method = \"\" }").contains("rpc.ping.method"));
}

#[test]
fn to_believe_any_signature_is_warned_of() {
    let config = load("client.insecure_skip_token_signature_verify = true").unwrap();
    let mut warnings = config.warnings.iter();
    assert!(warnings.any(|text| text.contains("everybody can be any user")));
    let mut warnings = config.warnings.iter();
    assert!(!warnings.any(|text| text.contains("nobody can connect")));
}

#[test]
fn keys_of_the_api_are_checked() {
    let key = |more: &str| format!("[[http_api.keys]]\nname = \"shop\"\n{more}\n");
    let digest = format!("sha256 = \"{}\"", "0".repeat(64));
    let good = key(&format!(
        "{digest}\nmethods = [\"publish\", \"history_remove\"]\nchannels = [\"shop:*\"]"
    ));
    let config = load(&good).unwrap();
    assert!(!config.http.api_keys.is_empty());
    for (text, expected) in [
        (key(""), "http_api.keys[0].sha256: is not a SHA-256 digest"),
        (key("sha256 = \"my secret key\""), "64 hexadecimal digits"),
        (
            key(&format!("{digest}\nmethods = [\"publsh\"]")),
            "http_api.keys[0].methods: `publsh` is no method of the API, did you mean `publish`?",
        ),
        (
            key(&format!("{digest}\nchannels = [\"a[\"]")),
            "http_api.keys[0].channels: `a[` can't be read",
        ),
        (
            key(&digest) + &key(&digest),
            "http_api.keys[1].name: must be there, and be another one for each key",
        ),
        (
            key(&format!("{digest}\nscope = []")),
            "unknown key `http_api.keys[0] (`shop`).scope`",
        ),
        (
            "[http_api]\nmax_batch_commands = 0".to_owned(),
            "must be at least 1",
        ),
    ] {
        let error = load(&text).err().expect(&text).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("my secret key"), "{error}");
    }
}

#[test]
fn subscription_tokens_can_have_keys_of_their_own() {
    let text = "[client.token]\nhmac_secret_key = \"one\"\n\
                [client.subscription_token]\nenabled = true\nhmac_secret_key = \"\"\n";
    let problem_of = problem(text);
    assert!(
        problem_of.contains("5:1: client.subscription_token.hmac_secret_key"),
        "{problem_of}"
    );
    let off = text.replace("enabled = true", "enabled = false");
    assert!(load(&off).is_ok(), "not enabled: not looked at");
    let text = "[client.subscription_token]\nenable = true\n";
    assert!(problem(text).contains("did you mean `enabled`?"));
    let text = "[client.subscription_token]\nenabled = 1\n";
    assert!(
        problem(text).contains("client.subscription_token.enabled"),
        "{}",
        problem(text)
    );
}

#[test]
fn patterns_of_tokens_are_checked() {
    for (text, expected) in [
        (
            "audience = \"a\"\naudience_regex = \"a\"",
            "audience_regex: can't be set beside audience",
        ),
        (
            "issuer = \"a\"\nissuer_regex = \"a\"",
            "issuer_regex: can't be set beside issuer",
        ),
        (
            "issuer_regex = \"(\"",
            "client.token.issuer_regex: `(` can't be used as a regular expression",
        ),
        (
            "user_id_claim = \"user-id\"",
            "user_id_claim: `user-id` must be one or more letters",
        ),
    ] {
        let problem = problem(&format!("[client.token]\n{text}\n"));
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn names_of_channels_are_checked() {
    for (text, expected) in [
        (
            "[channel]\nnamespace_boundary = \"\"",
            "channel.namespace_boundary: must be at most",
        ),
        (
            "[channel]\nuser_separator = \"x\"",
            "channel.user_separator: must be at most",
        ),
        (
            "[channel]\nuser_boundary = \":\"",
            "channel.user_boundary: `:` means something else already",
        ),
        (
            "[channel.without_namespace]\nchannel_regex = \"(?=a)\"",
            "channel.without_namespace.channel_regex: `(?=a)` can't be used",
        ),
        (
            "[channel.without_namespace]\npattern = \"/a\"",
            "channel.without_namespace.pattern: must not be set",
        ),
        (
            "[[channel.namespaces]]\nname = \"orders\"\npattern = \"/orders/:id\"",
            "needs channel.patterns = true",
        ),
        (
            "[[channel.namespaces]]\nname = \"orders\"\npattern = \"orders/:id\"",
            "it must begin with a slash",
        ),
    ] {
        let problem = problem(&format!("{text}\n"));
        assert!(problem.contains(expected), "{problem}");
    }
    let namespaces = |patterns: &[&str]| {
        let mut text = "[channel]\npatterns = true\n".to_owned();
        for (index, pattern) in patterns.iter().enumerate() {
            let namespace =
                format!("[[channel.namespaces]]\nname = \"ns{index}\"\npattern = \"{pattern}\"\n");
            text.push_str(&namespace);
        }
        text
    };
    assert!(
        load(&namespaces(&[
            "/users/:id",
            "/users/me",
            "/users/:id/orders"
        ]))
        .is_ok()
    );
    let problem_of = problem(&namespaces(&["/users/:id", "/:kind/me"]));
    assert!(
        problem_of.contains("the pattern of `ns0` (/users/:id) alike"),
        "{problem_of}"
    );
    let listed = "[channel]\npatterns = true\n[[channel.namespaces]]\nname = \"orders\"\n\
                  pattern = \"/orders/:id\"\nallow_user_limited_channels = true\n";
    assert!(problem(listed).contains("needs the variable `:user`"));
}

#[test]
fn proxies_that_cannot_work_are_told_with_their_place() {
    for (text, place, parts) in [
        (
            "[client.proxy.connect]\nenabled = true\n",
            "1:15:",
            &["client.proxy.connect.endpoint", "must be set", "https://"][..],
        ),
        (
            "[client.proxy.connect]\nendpoint = \"grpc://127.0.0.1:1\"\nenabled = true\n",
            "2:1:",
            &["client.proxy.connect.endpoint", "gRPC"],
        ),
        (
            "[client.proxy.connect]\nendpoint = \"http://a:b@c/\"\nenabled = true\n",
            "2:1:",
            &["endpoint", "password", "hmac_secret_key"],
        ),
        (
            "[client.proxy.connect]\nendpiont = \"http://a/\"\n",
            "2:1:",
            &["unknown key `client.proxy.connect.endpiont`", "`endpoint`"],
        ),
        (
            "[client]\nproxi = 1\n",
            "2:1:",
            &["unknown key `client.proxi`, did you mean `proxy`?"],
        ),
        (
            "[channel]\nproxi = 1\n",
            "2:1:",
            &["unknown key `channel.proxi`, did you mean `proxy`?"],
        ),
        (
            "[channel.proxy]\npublsh = {}\n",
            "2:1:",
            &["unknown key `channel.proxy.publsh`, did you mean `publish`?"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\ntimeout = \"1m\"\n",
            "3:1:",
            &["rpc.proxy.timeout", "30s"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nenabled = true\n",
            "3:1:",
            &["rpc.proxy.enabled", "belongs to client.proxy"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nname = \"x\"\n",
            "3:1:",
            &["rpc.proxy.name", "[[proxies]]"],
        ),
        (
            "[rpc]\nnamespaces = [{name = \"ab\", proxy_enabled = true}]\n",
            "1:2:",
            &["rpc.proxy.endpoint", "must be set"],
        ),
        (
            "[rpc]\nnamespace_boundary = \"\"\n",
            "2:1:",
            &["rpc.namespace_boundary", "punctuation"],
        ),
        (
            "[[channel.namespaces]]\nname = \"chat\"\nsubscribe_proxy_enabled = true\n\
             subscribe_proxy_name = \"nobody\"\n",
            "4:1:",
            &[
                "channel.namespaces[0] (`chat`).subscribe_proxy_name",
                "`nobody`",
                "proxies",
            ],
        ),
        (
            "[channel.without_namespace]\npublish_proxy_name = \"default\"\n",
            "2:1:",
            &[
                "channel.without_namespace.publish_proxy_name",
                "publish_proxy_enabled",
            ],
        ),
        (
            "[channel.without_namespace]\nsub_refresh_proxy_enabled = true\n",
            "1:2:",
            &["channel.proxy.sub_refresh.endpoint", "must be set"],
        ),
        (
            "[[proxies]]\nendpoint = \"http://a\"\n",
            "1:1:",
            &["proxies[0].name", "two or more"],
        ),
        (
            "[[proxies]]\nname = \"default\"\nendpoint = \"http://a\"\n",
            "2:1:",
            &["proxies[0] (`default`).name", "not `default`"],
        ),
        (
            "[[proxies]]\nname = \"aa\"\nendpoint = \"http://a\"\n[[proxies]]\nname = \"aa\"\nendpoint = \"http://b\"\n",
            "5:1:",
            &["proxies[1] (`aa`).name", "twice"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nhttp_headers = [\"Host\"]\n",
            "3:1:",
            &["rpc.proxy.http_headers", "`Host`", "writes its own"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nemulated_headers = [\"Tautline-Signature\"]\n",
            "3:1:",
            &["rpc.proxy.emulated_headers", "writes its own"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nhmac_previous_secret_key = \"x\"\n",
            "3:1:",
            &["hmac_previous_secret_key", "needs hmac_secret_key"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\nhttp.tls.server_ca_pem = \"x\"\n",
            "3:6:",
            &["rpc.proxy.http.tls", "https://"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"https://a\"\nhttp.tls.server_ca_pem = \"/nowhere.pem\"\n",
            "3:10:",
            &["rpc.proxy.http.tls.server_ca_pem", "no file"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\n[[rpc.proxy.http.status_to_code_transforms]]\nstatus_code = 200\n",
            "4:1:",
            &["status_to_code_transforms[0].status_code", "not 200"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\n[[rpc.proxy.http.status_to_code_transforms]]\nstatus_code = 404\n",
            "3:1:",
            &["status_to_code_transforms[0].to_error", "to_disconnect"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\n[[rpc.proxy.http.status_to_code_transforms]]\nstatus_code = 404\n\
             to_error = {code = 3000}\n",
            "5:1:",
            &["status_to_code_transforms[0].to_error", "3000"],
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
fn a_backend_that_says_who_comes_in_is_a_way_in() {
    let text = "http_server.address = \"127.0.0.1\"\nhttp_api.key = \"k\"\n[client.proxy.connect]\nendpoint = \"http://a/\"\n";
    let warnings = load(text).unwrap().warnings;
    assert!(
        warnings.iter().any(|text| text.contains("is not enabled")),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 2, "nobody can connect either: {warnings:?}");
    let warnings = load(&format!("{text}enabled = true\n")).unwrap().warnings;
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn events_that_cannot_be_told_as_they_are_configured_are_refused() {
    let told = |more: &str| {
        let text = format!(
            "[events]\nenabled = true\nendpoint = \"https://app.test/e\"\ndirectory = \"/var/lib/x\"\n{more}"
        );
        match load(&text) {
            Ok(config) => config.warnings.join("; "),
            Err(error) => error.to_string(),
        }
    };
    assert!(
        told("").contains("events.hmac_secret_key is not set"),
        "{}",
        told("")
    );
    let secret = format!("hmac_secret_key = \"{SECRET}\"\n");
    assert!(!told(&secret).contains("events."), "{}", told(&secret));
    for (line, expected) in [
        (
            "debounce = \"601s\"",
            "events.debounce: is 601000ms, must be between 0ms and 600000ms",
        ),
        (
            "restart_debounce = \"2h\"",
            "events.restart_debounce: is 7200000ms",
        ),
        ("batch_time = \"61s\"", "events.batch_time: is 61000ms"),
        (
            "sync_interval = \"61s\"",
            "events.sync_interval: is 61000ms",
        ),
        (
            "retry_min = \"0s\"",
            "events.retry_min: is 0ms, must be between 1ms",
        ),
        (
            "retry_min = \"2s\"\nretry_max = \"1s\"",
            "events.retry_max: is 1000ms, must be between 2000ms",
        ),
        ("retry_for = \"8761h\"", "events.retry_for: is"),
        (
            "batch_size = 0",
            "events.batch_size: is 0, must be between 1 and 10000",
        ),
        ("batch_size = 10001", "events.batch_size: is 10001"),
        ("batch_max_size = 1023", "events.batch_max_size: is 1023"),
        (
            "queue_max_size = 4194303",
            "events.queue_max_size: is 4194303",
        ),
        ("dead_max_events = 0", "events.dead_max_events: is 0"),
        (
            "dead_max_events = 100001",
            "events.dead_max_events: is 100001",
        ),
        ("timeout = \"31s\"", "events.timeout"),
        (
            "kinds = [\"conected\"]",
            "`conected` is not known, did you mean `connected`?",
        ),
        ("kinds = [\"x\"]", "expected one of connected, disconnected"),
        (
            "namespaces = [\"chat\"]",
            "`chat` is the name of none of channel.namespaces",
        ),
        (
            "http.static_headers = {\"a b\" = \"c\"}",
            "events.http.static_headers",
        ),
    ] {
        let told = told(&format!("{line}\n"));
        assert!(told.contains(expected), "{line}: {told}");
    }
    let without = |line: &str| problem(&format!("[events]\nenabled = true\n{line}\n"));
    assert!(without("endpoint = \"https://app.test\"").contains("events.directory"));
    let no_url = without("endpoint = \"app.test\"\ndirectory = \"/x\"");
    assert!(no_url.contains("events.endpoint"), "{no_url}");
    let idle = load("[events]\nendpoint = \"https://app.test\"\n").unwrap();
    assert!(
        idle.warnings
            .iter()
            .any(|warning| warning.contains("events has an endpoint and is not enabled"))
    );
}
