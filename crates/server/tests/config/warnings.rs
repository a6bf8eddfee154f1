//! What can be as it is, and is warned of.

use crate::{SECRET, load};

const BEHIND_A_PROXY: &str = "[http_server]\naddress = \"127.0.0.1\"\n";

#[test]
fn doubtful_settings_are_warned_about() {
    let base = format!(
        "{BEHIND_A_PROXY}[http_api]\nkey = \"a key of the backend\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n"
    );
    assert_eq!(load(&base).unwrap().warnings.len(), 0);
    for (text, part) in [
        (
            format!("{BEHIND_A_PROXY}[http_api]\nkey = \"a key of the backend\"\n"),
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
            base.replace("key = \"a key of the backend\"", "insecure = true"),
            "http_api.insecure",
        ),
        (
            base.replace("key = \"a key of the backend\"", ""),
            "http_api.key",
        ),
    ] {
        let warnings = load(&text).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}\n{text}");
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

/// Or the histories of a container with half a gigabyte are full when it was killed twice.
#[test]
fn histories_leave_room_for_all_else() {
    let with = |limit: &str, engine: &str| {
        let text = format!(
            "{BEHIND_A_PROXY}[http_api]\nkey = \"a key of the backend\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n\
             [limits.memory]\n{limit}\n[engine.memory]\n{engine}\n"
        );
        load(&text).unwrap()
    };
    let gib = 1024 * 1024 * 1024;
    for (limit, engine, kept) in [
        ("max_bytes = 400_000_000", "", 200_000_000),
        (
            "max_bytes = 400_000_000",
            "max_bytes = 300_000_000",
            300_000_000,
        ),
        ("max_bytes = 3_000_000_000", "", gib),
        ("max_bytes = 1000", "", 16 * 1024 * 1024),
        (
            "enabled = false",
            "max_bytes = 4_000_000_000",
            4_000_000_000,
        ),
    ] {
        let config = with(limit, engine);
        assert_eq!(config.engine.max_bytes, kept, "{limit} {engine}");
        let warnings = config.warnings.iter();
        let about = warnings.filter(|warning| warning.contains("engine.memory"));
        assert_eq!(about.count(), 0, "{limit} {engine}");
    }
    let warnings = with("max_bytes = 400_000_000", "max_bytes = 300_000_001").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["engine.memory.max_bytes is 300000001", "400000000", "line "] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

#[test]
fn what_is_open_to_strangers_is_warned_of() {
    let base = format!(
        "[http_api]\nkey = \"a key of the backend\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n[http_server]\n"
    );
    let inside = format!("{base}address = \"127.0.0.1\"\n");
    let public = format!("{base}tls.enabled = false\n");
    let count = load(&public).unwrap().warnings.len();
    for (text, part) in [
        (
            format!("{public}trusted_proxies = [\"0.0.0.0/0\"]\n"),
            "http_server.trusted_proxies has 0.0.0.0/0",
        ),
        (
            format!("{public}trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]\n"),
            "http_server.trusted_proxies has ::/0",
        ),
        (
            format!("{public}[limits]\nexempt = [\"0.0.0.0/0\"]\n"),
            "limits.exempt has 0.0.0.0/0",
        ),
        (
            format!("{public}[prometheus]\nenabled = true\n"),
            "prometheus.enabled",
        ),
        (
            format!("{public}[client]\nuser_id_http_header = \"X-User\"\n"),
            "may be any user",
        ),
        (
            format!("{public}[limits]\nmemory.enabled = false\naddress.connect = \"off\"\n"),
            "limits.memory.enabled, limits.address.connect: switched off",
        ),
        (
            format!("{public}[limits]\ndry_run = true\n"),
            "limits.dry_run is on",
        ),
        (
            format!("{public}[client]\nrate_limit.client_command.enabled = false\n"),
            "client.rate_limit.client_command.enabled",
        ),
    ] {
        let warnings = load(&text).unwrap().warnings;
        assert_eq!(warnings.len(), count + 1, "{warnings:?}\n{text}");
        let told = warnings.iter().find(|told| told.contains(part));
        assert!(
            told.is_some_and(|told| told.contains("(line ")),
            "{warnings:?}"
        );
    }
    for good in [
        format!("{inside}[prometheus]\nenabled = true\n"),
        format!("{inside}[client]\nuser_id_http_header = \"X-User\"\n"),
        format!("{inside}trusted_proxies = [\"10.0.0.0/8\"]\n"),
    ] {
        assert_eq!(
            load(&good).unwrap().warnings,
            Vec::<String>::new(),
            "{good}"
        );
    }
}

#[test]
fn origins_that_strangers_can_have_are_warned_of() {
    let text = |origins: &str| {
        format!(
            "[http_server]\naddress = \"127.0.0.1\"\n[http_api]\nkey = \"a key of the backend\"\n\
             [client]\nallowed_origins = {origins}\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n"
        )
    };
    for loose in [
        "https://*",
        "https://*example.org",
        "https://*.org",
        "https://example.*",
        "https://example.*:8443",
        "https://*:*",
        "*://*",
        "https://app-*",
    ] {
        let warnings = load(&text(&format!("[\"https://a.example.org\", {loose:?}]")));
        let warnings = warnings.unwrap().warnings;
        assert!(
            matches!(&*warnings, [told] if told.contains(&format!("`{loose}`")) && told.contains("(line 6")),
            "{loose}: {warnings:?}"
        );
    }
    let good = r#"["https://*.example.org", "https://pr-*.app.example.org:*", "http://localhost:*", "http://*.localhost"]"#;
    assert_eq!(load(&text(good)).unwrap().warnings, [] as [&str; 0]);
}

#[test]
fn a_warning_says_where() {
    let text = "[http_server]\naddress = \"127.0.0.1\"\n[http_api]\nkey = \"a key of the backend\"\n[client]\n  insecure = true\n";
    let warnings = load(text).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with("(line 6, column 3)"), "{warnings:?}");
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
fn a_backend_that_says_who_comes_in_is_a_way_in() {
    let text = "http_server.address = \"127.0.0.1\"\nhttp_api.key = \"a key of the backend\"\n[client.proxy.connect]\nendpoint = \"http://a/\"\n";
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
fn secrets_that_may_be_guessed_are_warned_of_wherever_they_stand() {
    let base = "http_server.address = \"127.0.0.1\"\nhttp_api.key = \"a key of the backend\"\n\
                [client]\nallow_anonymous_connect_without_token = true\n";
    assert_eq!(load(base).unwrap().warnings, Vec::<String>::new());
    let long = SECRET;
    for (text, expected) in [
        (
            format!("[client.token]\nhmac_secret_key = \"{long}\"\nhmac_previous_secret_key = \"short\"\n"),
            &["client.token.hmac_previous_secret_key is short and may be guessed; use at least 32 random bytes (RFC 7518 §3.2) (line 7, column 1)"][..],
        ),
        (
            "[client.token]\nhmac_secret_key = \"change-me change-me change-me change-me\"\n".to_owned(),
            &["client.token.hmac_secret_key is a placeholder, which others know, too; use at least 32 random bytes (line 6, column 1)"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a/\"\nhmac_secret_key = \"x\"\n[[proxies]]\nname = \"aa\"\nendpoint = \"http://b/\"\n\
             hmac_secret_key = \"y\"\nhttp.static_headers = {secret = \"z\"}\n".to_owned(),
            &["rpc.proxy.hmac_secret_key is short", "proxies[0].hmac_secret_key is short"],
        ),
        (
            format!("[client.subscription_token]\nenabled = true\nhmac_secret_key = \"{long}\"\n"),
            &[],
        ),
    ] {
        let warnings = load(&format!("{base}{text}")).unwrap().warnings;
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
        }
    }
    let short = load(&base.replace("a key of the backend", "dev"))
        .unwrap()
        .warnings;
    assert!(
        short[0].starts_with("http_api.key is short and may be guessed; use a long random text"),
        "{short:?}"
    );
    assert!(short[0].ends_with("(line 2, column 10)"), "{short:?}");
}
