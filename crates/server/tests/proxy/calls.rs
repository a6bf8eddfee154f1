//! What is asked, and what becomes of the answers.

use serde_json::{Value, json};

use super::backend::{Asked, Backend, Say};
use super::{run, start, url};
use crate::peer::Peer;

fn result(result: &Value) -> Say {
    Say::Json(json!({"result": result}))
}

/// What is behind every question that isn't about its own client.
fn known(body: &Value, user: &str) -> Value {
    json!({"client": body["client"], "transport": "websocket", "protocol": "json", "encoding": "json", "user": user})
}

fn with(mut value: Value, more: &Value) -> Value {
    let fields = more.as_object().unwrap();
    value.as_object_mut().unwrap().extend(fields.clone());
    value
}

#[test]
fn the_backend_says_who_comes_in() {
    run(async {
        let mut backend = Backend::start(|asked: &Asked| match asked.body["data"]["who"].as_str() {
            Some("ann") => result(&json!({
                "user": "7", "info": {"name": "Ann"}, "data": {"hello": 1}, "channels": ["news"],
                "subs": {"extra": {"data": [1]}}, "meta": {"plan": "pro"},
            })),
            Some("nobody") => Say::Json(json!({})),
            Some("late") => Say::Json(json!({"error": {"code": 1001, "message": "later", "temporary": true}})),
            Some("evil") => Say::Json(json!({"disconnect": {"code": 4500, "reason": "go away"}})),
            Some("lost") => result(&json!({"user": "7", "channels": ["nope:1"]})),
            _ => result(&json!({})),
        })
        .await;
        let node = start(&format!(
            "[client.proxy.connect]\nenabled = true\nendpoint = \"{}/connect?a=b\"\n\
             [channel.without_namespace]\npresence = true\nallow_presence_for_subscriber = true\n",
            backend.url
        ));
        let connect = async |who: &str| {
            let mut peer = Peer::open(&url(&node), &[]).await;
            let request = json!({"data": {"who": who}, "name": "js", "version": "1.2"});
            (peer.begin("connect", request).await, peer)
        };

        let (_, mut ann) = connect("ann").await;
        let reply = ann.find(|message| message["id"] == json!(1)).await;
        let reply = &reply["connect"];
        assert_eq!(reply["data"], json!({"hello": 1}));
        assert_eq!(reply["subs"]["extra"]["data"], json!([1]));
        let mut subs: Vec<_> = reply["subs"].as_object().unwrap().keys().collect();
        subs.sort();
        assert_eq!(subs, ["extra", "news"]);
        let asked = backend.next().await;
        assert_eq!(asked.path, "/connect");
        assert_eq!(asked.headers["content-type"], "application/json");
        assert_eq!(asked.headers["tautline-event"], "connect");
        let expected = json!({
            "client": reply["client"], "transport": "websocket", "protocol": "json", "encoding": "json",
            "data": {"who": "ann"}, "name": "js", "version": "1.2",
        });
        assert_eq!(asked.body, expected);
        let presence = ann.ask("presence", json!({"channel": "news"})).await;
        let members = presence["presence"]["presence"].as_object().unwrap();
        let ann = members.values().next().unwrap();
        assert_eq!(
            (&ann["user"], &ann["conn_info"]),
            (&json!("7"), &json!({"name": "Ann"}))
        );

        // Nobody is not an anonymous user, unless those may come in.
        let (_, mut nobody) = connect("nobody").await;
        assert_eq!(nobody.closed().await, 3501);
        let (id, mut anonymous) = connect("").await;
        let reply = anonymous.find(|message| message["id"] == json!(id)).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        let (_, mut late) = connect("late").await;
        let reply = late.find(|message| message["id"] == json!(1)).await;
        let expected = json!({"code": 1001, "message": "later", "temporary": true});
        assert_eq!(reply["error"], expected);
        let (_, mut evil) = connect("evil").await;
        assert_eq!(evil.closed().await, 4500);
        let (_, mut lost) = connect("lost").await;
        let reply = lost.find(|message| message["id"] == json!(1)).await;
        assert_eq!(reply["error"]["code"], json!(102));
    });
}

#[test]
fn who_has_a_token_is_not_asked_about() {
    run(async {
        let mut backend = Backend::start(|_: &Asked| Say::Text(500, String::new())).await;
        let secret = "0123456789abcdef0123456789abcdef";
        let node = start(&format!(
            "[client.token]\nhmac_secret_key = \"{secret}\"\n\
             [client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n",
            backend.url
        ));
        let signer = tautline_auth::Signer::hs256(&secret.into()).unwrap();
        let claims = tautline_auth::TokenClaims {
            user: "7",
            expires_at: Some(4_000_000_000),
            ..tautline_auth::TokenClaims::default()
        };
        let token = signer.sign(&claims).unwrap();
        let mut peer = Peer::open(&url(&node), &[]).await;
        let reply = peer.ask("connect", json!({"token": token})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        let mut peer = Peer::open(&url(&node), &[]).await;
        peer.begin("connect", json!({"token": format!("{token}x")}))
            .await;
        assert_eq!(peer.closed().await, 3500);
        // Nor about a token that no key could vouch for.
        let node = start(&format!(
            "[client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n",
            backend.url
        ));
        let mut peer = Peer::open(&url(&node), &[]).await;
        peer.begin("connect", json!({"token": token})).await;
        assert_eq!(peer.closed().await, 3500);
        backend.assert_idle();
    });
}

const CHANNELS: &str = r#"
    client.allow_anonymous_connect_without_token = true

    [[channel.namespaces]]
    name = "chat"
    subscribe_proxy_enabled = true
    publish_proxy_enabled = true
    allow_user_limited_channels = true
    history_size = 10
    history_ttl = "1m"

    [[channel.namespaces]]
    name = "other"
    subscribe_proxy_enabled = true
    subscribe_proxy_name = "second"

    [channel.without_namespace]
    allow_subscribe_for_client = true
    allow_subscribe_for_anonymous = true
"#;

#[test]
fn the_backend_says_who_subscribes() {
    run(async {
        let mut backend = Backend::start(|asked: &Asked| match asked.body["channel"].as_str().unwrap() {
            "chat:open" => result(&json!({"data": {"topic": "x"}, "override": {"force_recovery": {"value": true}}})),
            "chat:same" => Say::Json(json!({})),
            "chat:kick" => Say::Json(json!({"disconnect": {"code": 4501, "reason": "enough"}})),
            _ => Say::Json(json!({"error": {"code": 403, "message": "not a member"}})),
        })
        .await;
        let mut second = Backend::start(|_: &Asked| result(&json!({}))).await;
        let node = start(&format!(
            "proxies = [{{name = \"second\", endpoint = \"{}/other\"}}]\n{CHANNELS}\n\
             [channel.proxy.subscribe]\nendpoint = \"{}/subscribe\"\n\
             [channel.proxy.publish]\nendpoint = \"{}/publish\"\n",
            second.url, backend.url, backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        let request = json!({"channel": "chat:open", "data": {"a": 1}});
        let reply = peer.ask("subscribe", request).await;
        assert_eq!(reply["subscribe"]["data"], json!({"topic": "x"}));
        assert_eq!(reply["subscribe"]["recoverable"], json!(true), "{reply}");
        let asked = backend.next().await;
        assert_eq!(asked.path, "/subscribe");
        let expected = with(
            known(&asked.body, ""),
            &json!({"channel": "chat:open", "data": {"a": 1}}),
        );
        assert_eq!(asked.body, expected);
        let reply = peer.ask("subscribe", json!({"channel": "chat:same"})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        let reply = peer
            .ask("subscribe", json!({"channel": "chat:closed"}))
            .await;
        assert_eq!(
            reply["error"],
            json!({"code": 403, "message": "not a member"})
        );
        // By the name that the namespace gives.
        peer.ask("subscribe", json!({"channel": "other:1"})).await;
        assert_eq!(second.next().await.path, "/other");
        // Nobody is asked about channels of listed users, those that need a token, and those of other namespaces.
        while backend.next().await.body["channel"] != json!("chat:closed") {}
        for (channel, code) in [("chat:x#9", 103), ("$chat:open", 103), ("plain", 0)] {
            let reply = peer.ask("subscribe", json!({"channel": channel})).await;
            assert_eq!(
                reply["error"]["code"].as_u64().unwrap_or_default(),
                code,
                "{channel}: {reply}"
            );
        }
        let request = json!({"channel": "chat:open2", "token": "x"});
        let reply = peer.ask("subscribe", request).await;
        assert!(reply["error"].is_object(), "{reply}");
        backend.assert_idle();
        peer.begin("subscribe", json!({"channel": "chat:kick"}))
            .await;
        assert_eq!(peer.closed().await, 4501);
    });
}

#[test]
fn the_backend_says_what_is_published() {
    run(async {
        let mut backend =
            Backend::start(|asked: &Asked| match (&*asked.path, &asked.body["data"]) {
                ("/subscribe", _) => result(&json!({})),
                (_, data) if data["text"] == "change" => {
                    result(&json!({"data": {"text": "changed", "from": ""}, "tags": {"a": "b"}}))
                }
                (_, data) if data["text"] == "skip" => result(&json!({"skip_history": true})),
                (_, data) if data["text"] == "same" => Say::Json(json!({})),
                _ => Say::Json(json!({"error": {"code": 1000, "message": "no"}})),
            })
            .await;
        let node = start(&format!(
            "proxies = [{{name = \"second\", endpoint = \"{0}/other\"}}]\n{CHANNELS}\n\
             [channel.proxy.subscribe]\nendpoint = \"{0}/subscribe\"\n\
             [channel.proxy.publish]\nendpoint = \"{0}/publish\"\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        peer.ask("subscribe", json!({"channel": "chat:1"})).await;
        backend.next().await;
        for (text, expected, offset) in [
            ("change", "changed", Some(1)),
            ("skip", "skip", None),
            ("same", "same", Some(2)),
        ] {
            let request = json!({"channel": "chat:1", "data": {"text": text}});
            let reply = peer.ask("publish", request).await;
            assert!(reply["publish"].is_object(), "{reply}");
            let push = peer.push("pub").await;
            assert_eq!(push["data"]["text"], json!(expected));
            assert_eq!(push["offset"].as_u64(), offset, "{text}");
            assert_eq!(
                push["tags"]["a"].as_str(),
                (text == "change").then_some("b")
            );
            let asked = backend.next().await;
            let more = json!({"channel": "chat:1", "data": {"text": text}});
            assert_eq!(asked.body, with(known(&asked.body, ""), &more));
        }
        let reply = peer
            .ask("publish", json!({"channel": "chat:1", "data": {}}))
            .await;
        assert_eq!(reply["error"]["code"], json!(1000));
        // Elsewhere the options decide.
        let reply = peer
            .ask("publish", json!({"channel": "plain", "data": {}}))
            .await;
        assert_eq!(reply["error"]["code"], json!(103));
    });
}

/// Each asks the one that it names, and not the one that all have.
#[test]
fn namespaces_may_ask_others_about_what_is_published_and_how_long_who_may_stay() {
    run(async {
        let soon = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            + 1;
        let backend = Backend::start(move |asked: &Asked| match &*asked.path {
            "/subscribe" => result(&json!({"expire_at": soon})),
            "/own" if asked.body["data"].is_null() => {
                Say::Json(json!({"error": {"code": 1000, "message": "it is over"}}))
            }
            "/own" => result(&json!({"data": "of the namespace"})),
            _ => result(&json!({"data": "of all", "expire_at": soon + 1000})),
        })
        .await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             proxies = [{{name = \"own\", endpoint = \"{0}/own\"}}]\n\
             [[channel.namespaces]]\nname = \"chat\"\nsubscribe_proxy_enabled = true\n\
             publish_proxy_enabled = true\npublish_proxy_name = \"own\"\n\
             sub_refresh_proxy_enabled = true\nsub_refresh_proxy_name = \"own\"\n\
             [channel.proxy]\nsubscribe = {{endpoint = \"{0}/subscribe\"}}\n\
             publish = {{endpoint = \"{0}/all\"}}\nsub_refresh = {{endpoint = \"{0}/all\"}}\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        peer.ask("subscribe", json!({"channel": "chat:1"})).await;
        let reply = peer
            .ask("publish", json!({"channel": "chat:1", "data": 1}))
            .await;
        assert!(reply["publish"].is_object(), "{reply}");
        assert_eq!(peer.push("pub").await["data"], json!("of the namespace"));
        assert_eq!(peer.push("unsubscribe").await["code"], json!(2501));
    });
}

#[test]
fn where_a_methods_namespace_ends_is_an_option() {
    run(async {
        let backend = Backend::start(|asked| result(&json!({"data": asked.path}))).await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             proxies = [{{name = \"admin\", endpoint = \"{0}/admin\"}}]\n\
             [rpc]\nwithout_namespace.proxy_enabled = true\nnamespace_boundary = \"::\"\n\
             namespaces = [{{name = \"admin\", proxy_enabled = true, proxy_name = \"admin\"}}]\n\
             proxy = {{endpoint = \"{0}/rpc\"}}\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        for (method, path) in [("admin::ban", "/admin"), ("admin:ban", "/rpc")] {
            let reply = peer.ask("rpc", json!({"method": method, "data": 1})).await;
            assert_eq!(reply["rpc"]["data"], json!(path), "{reply}");
        }
    });
}

#[test]
fn the_backend_answers_calls() {
    run(async {
        let mut backend =
            Backend::start(
                |asked: &Asked| match asked.body["method"].as_str().unwrap() {
                    "getYear" => result(&json!({"data": {"year": 2026}})),
                    "null" => result(&json!({"data": null})),
                    "nothing" => Say::Json(json!({})),
                    "admin:ban" => result(&json!({"data": asked.path})),
                    _ => Say::Json(json!({"error": {"code": 404, "message": "no such method"}})),
                },
            )
            .await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             proxies = [{{name = \"admin\", endpoint = \"{0}/admin\"}}]\n\
             [rpc]\nwithout_namespace.proxy_enabled = true\n\
             namespaces = [{{name = \"admin\", proxy_enabled = true, proxy_name = \"admin\"}}, {{name = \"none\"}}]\n\
             proxy = {{endpoint = \"{0}/rpc\"}}\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        let mut call = async |method: &str, data: Value| {
            let reply = peer
                .ask("rpc", json!({"method": method, "data": data}))
                .await;
            (
                reply["rpc"].get("data").cloned(),
                reply["error"]["code"].as_u64(),
            )
        };
        assert_eq!(
            call("getYear", json!({})).await,
            (Some(json!({"year": 2026})), None)
        );
        let asked = backend.next().await;
        let more = json!({"method": "getYear", "data": {}});
        assert_eq!(
            (asked.path.as_str(), &asked.body),
            ("/rpc", &with(known(&asked.body, ""), &more))
        );
        assert_eq!(call("null", json!(1)).await, (Some(json!(null)), None));
        assert_eq!(call("nothing", json!(1)).await.1, None);
        assert_eq!(
            call("admin:ban", json!(1)).await,
            (Some(json!("/admin")), None)
        );
        assert_eq!(call("what", json!(1)).await.1, Some(404));
        for _ in 0..4 {
            backend.next().await;
        }
        assert_eq!(call("none:x", json!(1)).await.1, Some(108));
        assert_eq!(call("unknown:x", json!(1)).await.1, Some(104));
        backend.assert_idle();
    });
}

#[test]
fn the_servers_own_method_goes_before_the_backend() {
    run(async {
        let mut backend = Backend::start(|asked: &Asked| {
            result(&json!({"data": {"of": asked.path, "for": asked.body["method"]}}))
        })
        .await;
        for (method, own) in [
            ("ping", "ping"),
            ("admin:ping", "admin:ping"),
            ("none:ping", "none:ping"),
        ] {
            let node = start(&format!(
                "client.allow_anonymous_connect_without_token = true\n\
                 proxies = [{{name = \"admin\", endpoint = \"{0}/admin\"}}]\n\
                 [rpc]\nping = {{enabled = true, method = \"{method}\"}}\nwithout_namespace.proxy_enabled = true\n\
                 namespaces = [{{name = \"admin\", proxy_enabled = true, proxy_name = \"admin\"}}, {{name = \"none\"}}]\n\
                 proxy = {{endpoint = \"{0}/rpc\"}}\n",
                backend.url
            ));
            let mut peer = Peer::connect(&url(&node)).await;
            let reply = peer.ask("rpc", json!({"method": own, "data": 1})).await;
            assert_eq!(reply["rpc"], json!({}), "{own}: {reply}");
            backend.assert_idle();
            // By that very name, and no other.
            for (others, path) in [
                ("Ping", "/rpc"),
                ("pinger", "/rpc"),
                ("admin:pong", "/admin"),
            ] {
                let reply = peer.ask("rpc", json!({"method": others})).await;
                let expected = json!({"of": path, "for": others});
                assert_eq!(reply["rpc"]["data"], expected, "{others}: {reply}");
                assert_eq!(backend.next().await.path, path);
            }
            for (others, code) in [("none:x", 108), ("unknown:ping", 104)] {
                let reply = peer.ask("rpc", json!({"method": others})).await;
                assert_eq!(reply["error"]["code"], json!(code), "{others}: {reply}");
            }
        }
        backend.assert_idle();
    });
}
