//! What the application's backend is asked and told of.

use crate::{SECRET, load, problem};

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
            &["unknown key client.proxy.connect.endpiont", "`endpoint`"],
        ),
        (
            "[client]\nproxi = 1\n",
            "2:1:",
            &["unknown key client.proxi, did you mean `proxy`?"],
        ),
        (
            "[channel]\nproxi = 1\n",
            "2:1:",
            &["unknown key channel.proxi, did you mean `proxy`?"],
        ),
        (
            "[channel.proxy]\npublsh = {}\n",
            "2:1:",
            &["unknown key channel.proxy.publsh, did you mean `publish`?"],
        ),
        (
            "[rpc.proxy]\nendpoint = \"http://a\"\ntimeout = \"1m\"\n",
            "3:11:",
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
            "events.debounce: is 601s, must be between 0s and 10m",
        ),
        (
            "restart_debounce = \"2h\"",
            "events.restart_debounce: is 2h",
        ),
        ("batch_time = \"61s\"", "events.batch_time: is 61s"),
        ("sync_interval = \"61s\"", "events.sync_interval: is 61s"),
        (
            "retry_min = \"0s\"",
            "events.retry_min: is 0s, must be between 1ms",
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
