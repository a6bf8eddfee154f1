//! Revoked tokens, over all workers and over a restart.

use serde_json::{Value, json};
use tautline_auth::{Signer, TokenClaims};

use crate::client::{Client, Frame};
use crate::directory::Directory;
use crate::process::Server;

const SECRET: &str = "a secret that is long enough for HS256";

fn config(directory: Option<&Directory>) -> String {
    let directory = directory.map_or(String::new(), |directory| {
        format!("directory = {:?}", directory.path().display().to_string())
    });
    format!(
        "[node]\nworkers = 4\n[http_api]\nkey = \"dev\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n\
         [prometheus]\nenabled = true\n[revocation]\n{directory}\n"
    )
}

fn token(user: &str, jti: &str, issued_at: u64) -> String {
    let signer = Signer::hs256(&SECRET.into()).expect("a secret");
    let claims = TokenClaims {
        user,
        id: Some(jti),
        issued_at: Some(issued_at),
        ..TokenClaims::default()
    };
    signer.sign(&claims).expect("a token")
}

fn channel_token(user: &str, channel: &str, issued_at: u64) -> String {
    let signer = Signer::hs256(&SECRET.into()).expect("a secret");
    let claims = TokenClaims {
        user,
        channel: Some(channel),
        issued_at: Some(issued_at),
        ..TokenClaims::default()
    };
    signer.sign(&claims).expect("a token")
}

fn connect(server: &Server, token: &str) -> (Client, Value) {
    let mut client = Client::open(server);
    client.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
    let reply = serde_json::from_str(&client.text()).expect("JSON");
    (client, reply)
}

fn here(server: &Server, token: &str) -> (Client, String) {
    let (client, reply) = connect(server, token);
    let id = reply["connect"]["client"].as_str();
    let id = id.unwrap_or_else(|| panic!("{reply}")).to_owned();
    (client, id)
}

fn is_refused(server: &Server, token: &str) -> bool {
    let (_, reply) = connect(server, token);
    if reply["connect"].is_object() {
        return false;
    }
    assert_eq!(reply["error"]["code"], 109, "{reply}");
    true
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "JSON is made where it is used"
)]
fn call(server: &Server, method: &str, body: Value) -> Value {
    serde_json::from_str(&server.api(method, &body.to_string())).expect("JSON")
}

fn gone() -> Frame {
    Frame::Close(3005, "token revoked".into())
}

#[test]
fn what_is_revoked_is_refused_and_ended_on_all_workers() {
    let server = Server::serve("revoke", &config(None));
    let (ann, bob) = (token("ann", "a", 1_000), token("bob", "b", 1_000));
    // Spread over the workers by the kernel, many enough for all of them.
    let clients: Vec<_> = (0..24).map(|_| here(&server, &ann)).collect();
    let (mut other, other_id) = here(&server, &bob);

    let answer = call(&server, "revoke_token", json!({"uid": "a"}));
    let ended = |connections: usize| json!({"result": {"connections": connections, "subscriptions": 0, "persisted": false}});
    assert_eq!(answer, ended(24));
    for (mut client, _) in clients {
        assert_eq!(client.frame(), gone());
    }
    for _ in 0..12 {
        assert!(is_refused(&server, &ann));
    }
    let (mut later, _) = here(&server, &token("ann", "c", 2_000));

    // By user and time; without a time, all so far.
    let body = json!({"user": "ann", "issued_before": 2_000});
    assert_eq!(call(&server, "invalidate_user_tokens", body), ended(0));
    assert!(is_refused(&server, &token("ann", "d", 1_999)));
    let body = json!({"user": "ann"});
    assert_eq!(call(&server, "invalidate_user_tokens", body), ended(1));
    assert_eq!(later.frame(), gone());
    assert!(is_refused(&server, &token("ann", "e", 2_000)));

    // By connection: whoever comes with its token.
    let (mut twin, _) = here(&server, &bob);
    let body = json!({"client": other_id});
    assert_eq!(call(&server, "revoke_client", body.clone()), ended(2));
    assert_eq!(other.frame(), gone());
    assert_eq!(twin.frame(), gone());
    assert!(is_refused(&server, &bob));
    assert_eq!(call(&server, "revoke_client", body), ended(0), "it is gone");

    for (body, code) in [
        (json!({"uid": "x", "expire_at": 1}), 110),
        (json!({"uid": "x".repeat(1025)}), 107),
    ] {
        assert_eq!(call(&server, "revoke_token", body)["error"]["code"], code);
    }
    let metrics = server.get("/metrics");
    for expected in [
        "tautline_node_num_revocations{kind=\"token\"} 2",
        "tautline_node_num_revocations{kind=\"user\"} 1",
        "tautline_client_revoked_total{kind=\"connection\"} 27",
        "tautline_client_refused_tokens_total{token=\"connection\",reason=\"revoked\"} 15",
    ] {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
}

#[test]
fn a_users_tokens_for_one_channel_are_revoked_and_no_others() {
    let directory = Directory::new("channel");
    let mut server = Server::serve("revoke-channel", &config(Some(&directory)));
    let (mut client, _) = here(&server, &token("ann", "a", 1_000));
    let subscribe = |client: &mut Client, channel: &str| -> Value {
        let request = json!({"channel": channel, "token": channel_token("ann", channel, 1_000)});
        client.send(&json!({"id": 2, "subscribe": request}).to_string());
        serde_json::from_str(&client.text()).expect("JSON")
    };
    for channel in ["one", "other"] {
        let reply = subscribe(&mut client, channel);
        assert!(reply["subscribe"].is_object(), "{reply}");
    }
    let body = json!({"user": "ann", "channel": "one"});
    let answer = call(&server, "invalidate_user_tokens", body);
    let ended = json!({"result": {"connections": 0, "subscriptions": 1, "persisted": true}});
    assert_eq!(answer, ended);
    let told: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(
        told,
        json!({"push": {"channel": "one", "unsubscribe": {"code": 2501, "reason": "token revoked"}}})
    );
    assert_eq!(subscribe(&mut client, "one")["error"]["code"], 109);
    let metrics = server.get("/metrics");
    let known = "tautline_node_num_revocations{kind=\"user\"} 1";
    assert!(metrics.contains(known), "{metrics}");

    // Neither no channel nor all of them.
    for channel in [String::new(), "c".repeat(1025)] {
        let body = json!({"user": "ann", "channel": channel});
        let answer = call(&server, "invalidate_user_tokens", body);
        assert_eq!(answer["error"]["code"], 107, "{answer}");
        let text = answer["error"]["message"].as_str().expect("a text");
        assert!(
            text.contains("channel has") && text.contains("leave it out"),
            "{text}"
        );
    }

    server.process.kill().expect("it can be killed");
    server.wait();
    let server = Server::serve("revoke-channel", &config(Some(&directory)));
    let (mut client, _) = here(&server, &token("ann", "a", 1_000));
    assert_eq!(subscribe(&mut client, "one")["error"]["code"], 109);
    assert!(subscribe(&mut client, "other")["subscribe"].is_object());
}

#[test]
fn what_is_revoked_stays_revoked_after_a_kill() {
    let directory = Directory::new("kill");
    let mut server = Server::serve("revoke-kill", &config(Some(&directory)));
    let answer = call(&server, "revoke_token", json!({"uid": "a"}));
    assert_eq!(answer["result"]["persisted"], true);
    call(&server, "invalidate_user_tokens", json!({"user": "bob"}));
    server.process.kill().expect("it can be killed");
    server.wait();
    let server = Server::serve("revoke-kill", &config(Some(&directory)));
    assert!(is_refused(&server, &token("ann", "a", 1_000)));
    assert!(is_refused(&server, &token("bob", "b", 1_000)));
    here(&server, &token("ann", "b", 1_000));
}

#[test]
fn no_more_may_be_known_than_the_options_say_and_a_reload_changes_that() {
    let full = |most: usize| format!("{}max_entries = {most}\n", config(None));
    let mut server = Server::serve("revoke-full", &full(2));
    for uid in ["a", "b"] {
        assert!(call(&server, "revoke_token", json!({"uid": uid}))["result"].is_object());
    }
    let answer = call(&server, "revoke_token", json!({"uid": "c"}));
    assert_eq!(answer["error"]["code"], 106);
    let text = answer["error"]["message"].as_str().expect("a text");
    assert!(text.contains("revocation.max_entries"), "{text}");
    here(&server, &token("ann", "c", 1_000));
    server.reload(&full(3));
    assert!(call(&server, "revoke_token", json!({"uid": "c"}))["result"].is_object());
    assert!(
        is_refused(&server, &token("ann", "a", 1_000)),
        "it is still known"
    );
}

/// Of which nobody thinks until it has happened.
#[test]
fn who_revokes_is_told_that_it_is_not_kept() {
    let mut server = Server::serve("revoke-memory", &config(None));
    call(&server, "revoke_token", json!({"uid": "a"}));
    server.wait_for_output("set revocation.directory");
}
