//! What can be as it is, and is warned of.

use crate::{SECRET, load};

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
fn to_believe_any_signature_is_warned_of() {
    let config = load("client.insecure_skip_token_signature_verify = true").unwrap();
    let mut warnings = config.warnings.iter();
    assert!(warnings.any(|text| text.contains("everybody can be any user")));
    let mut warnings = config.warnings.iter();
    assert!(!warnings.any(|text| text.contains("nobody can connect")));
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
