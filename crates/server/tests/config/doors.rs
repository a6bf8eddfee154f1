//! Ways in, and the channels behind them.

use crate::{load, problem};

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
