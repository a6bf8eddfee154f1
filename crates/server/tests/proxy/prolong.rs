//! What has expired lives on if the backend says so. Unix time has whole seconds, so these tests take some.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::backend::{Asked, Backend, Say};
use super::{run, start, url};
use crate::peer::Peer;

fn soon() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() + 2
}

#[test]
fn a_connection_lives_as_long_as_the_backend_says() {
    run(async {
        let refreshed = AtomicUsize::new(0);
        let mut backend = Backend::start(move |asked: &Asked| match &*asked.path {
            "/connect" => {
                Say::Json(json!({"result": {"user": "7", "expire_at": soon(), "meta": {"n": 0}}}))
            }
            _ if refreshed.fetch_add(1, Ordering::Relaxed) == 0 => {
                Say::Json(json!({"result": {"expire_at": soon(), "meta": {"n": 1}}}))
            }
            _ => Say::Json(json!({"result": {"expired": true}})),
        })
        .await;
        let node = start(&format!(
            "[client.proxy]\nconnect = {{enabled = true, endpoint = \"{0}/connect\"}}\n\
             refresh = {{enabled = true, endpoint = \"{0}/refresh\", include_connection_meta = true}}\n",
            backend.url
        ));
        let mut peer = Peer::open(&url(&node), &[]).await;
        let reply = peer.ask("connect", json!({})).await;
        let reply = &reply["connect"];
        assert!(
            reply["client"].is_string() && reply.get("expires").is_none(),
            "{reply}"
        );
        assert_eq!(backend.next().await.path, "/connect");
        let code = peer.closed().await;
        for n in 0..2 {
            let asked = backend.next().await;
            let expected = json!({
                "client": reply["client"], "transport": "websocket", "protocol": "json", "encoding": "json",
                "user": "7", "meta": {"n": n},
            });
            assert_eq!((asked.path.as_str(), asked.body), ("/refresh", expected));
        }
        assert_eq!(code, 3005);
        backend.assert_idle();
    });
}

/// Then nothing that the client says of its token matters any more, neither a good one nor one for other channels.
#[test]
fn what_the_backend_prolongs_the_client_does_not() {
    run(async {
        let secret = "0123456789abcdef0123456789abcdef";
        let token = |channels: &[&str]| {
            let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
            let claims = json!({"sub": "7", "exp": 4_000_000_000_u64, "channels": channels});
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        let mut backend = Backend::start(|_: &Asked| Say::Text(500, String::new())).await;
        let keys = format!("[client.token]\nhmac_secret_key = \"{secret}\"\n");
        let proxy = format!(
            "[client.proxy.refresh]\nenabled = true\nendpoint = \"{}\"\n",
            backend.url
        );
        for (is_asked, refreshed, code) in [
            (true, &["a"][..], Some(3501)),
            (true, &["a", "b"], Some(3501)),
            (true, &[], Some(3501)),
            (false, &["a"], None),
            (false, &["a", "b"], Some(3010)),
            (false, &[], Some(3010)),
        ] {
            let node = start(&format!("{keys}{}", if is_asked { &*proxy } else { "" }));
            let mut peer = Peer::open(&url(&node), &[]).await;
            let reply = peer.ask("connect", json!({"token": token(&["a"])})).await;
            let reply = &reply["connect"];
            assert!(reply["subs"]["a"].is_object(), "{reply}");
            // Whose duty it is.
            assert_eq!(reply["expires"] == json!(true), !is_asked, "{reply}");
            let refresh = json!({"token": token(refreshed)});
            match code {
                None => {
                    let reply = peer.ask("refresh", refresh).await;
                    assert_eq!(reply["refresh"]["expires"], json!(true), "{reply}");
                }
                Some(code) => {
                    peer.begin("refresh", refresh).await;
                    let case = format!("{refreshed:?}, a backend that is asked: {is_asked}");
                    assert_eq!(peer.closed().await, code, "{case}");
                }
            }
        }
        backend.assert_idle();
    });
}

#[test]
fn so_does_a_subscription() {
    run(async {
        let mut backend = Backend::start(|asked: &Asked| match &*asked.path {
            "/subscribe" => Say::Json(json!({"result": {"expire_at": soon()}})),
            // An error says that it is over, whatever its code.
            _ => Say::Json(json!({"error": {"code": 1000, "message": "no"}})),
        })
        .await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             [channel.without_namespace]\nsubscribe_proxy_enabled = true\nsub_refresh_proxy_enabled = true\n\
             [channel.proxy]\nsubscribe = {{endpoint = \"{0}/subscribe\"}}\n\
             sub_refresh = {{endpoint = \"{0}/sub_refresh\"}}\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        let reply = peer.ask("subscribe", json!({"channel": "orders"})).await;
        let is_quiet = reply["subscribe"].get("expires").is_none();
        assert!(reply["subscribe"].is_object() && is_quiet, "{reply}");
        backend.next().await;
        let asked = backend.next().await;
        assert_eq!(asked.path, "/sub_refresh");
        assert_eq!(asked.body["channel"], json!("orders"));
        assert_eq!(peer.push("unsubscribe").await["code"], json!(2501));
    });
}
