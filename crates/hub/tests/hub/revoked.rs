//! Tokens that are revoked: who comes with one, and who is here by one.

use serde_json::{Value, json};
use tautline_auth::{Revocation, TokenId, TokenMark};
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{Ended, TokenRefusal};

use crate::support::{Client, START, Setup, Worker, World, sign_claims};

/// Tokens are issued then.
const ISSUED: u64 = START.as_secs() - 60;

fn token(user: &str, jti: &str) -> String {
    sign_claims(&json!({"sub": user, "jti": jti, "iat": ISSUED}))
}

fn channel_token(user: &str, channel: &str, jti: &str) -> String {
    sign_claims(&json!({"sub": user, "channel": channel, "jti": jti, "iat": ISSUED}))
}

fn by_id(jti: &str) -> Revocation {
    Revocation::Token {
        id: TokenId::of_jti(jti),
        expire_at: None,
    }
}

fn by_user(user: &str, issued_before: u64) -> Revocation {
    Revocation::User {
        user: user.into(),
        issued_before,
        expire_at: None,
    }
}

fn by_channel(user: &str, channel: &str, issued_before: u64) -> Revocation {
    Revocation::UserChannel {
        user: user.into(),
        channel: channel.into(),
        issued_before,
        expire_at: None,
    }
}

fn connect(world: &mut World, worker: usize, token: &str) -> (Client, Value) {
    let client = world.open(worker);
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    (client, heard.into_iter().next().unwrap_or_default())
}

fn here(world: &mut World, worker: usize, token: &str) -> Client {
    let (client, reply) = connect(world, worker, token);
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    client
}

/// Makes it known, and does no more.
fn revoke_only(world: &World, revocation: &Revocation) {
    let revocations = world.config.revocations();
    revocations.add(revocation, world.now.unix).unwrap();
}

/// Makes it known, and ends what there is.
fn revoke(world: &mut World, revocation: &Revocation) -> (usize, usize) {
    revoke_only(world, revocation);
    let user = match revocation {
        Revocation::User { user, .. } | Revocation::UserChannel { user, .. } => Some(&**user),
        _ => None,
    };
    let now = world.now;
    let (mut connections, mut subscriptions) = (0, 0);
    for Worker { hub, out, .. } in &mut world.workers {
        let ended: Ended = hub.enforce_revocations(now, user, out);
        connections += ended.connections;
        subscriptions += ended.subscriptions;
    }
    world.settle();
    (connections, subscriptions)
}

fn why_closed(world: &World, client: Client) -> Option<(u32, String)> {
    let closed = world.workers[client.worker].out.closed.get(&client.id);
    closed.map(|(told, _)| (told.code, told.reason.to_string()))
}

fn revoked() -> Option<(u32, String)> {
    Some((3005, "token revoked".into()))
}

#[test]
fn nobody_comes_in_by_a_revoked_token() {
    let mut world = World::new();
    revoke_only(&world, &by_id("a"));
    revoke_only(&world, &by_user("bob", ISSUED + 1));
    for (user, jti, is_let_in) in [
        ("ann", "a", false),
        ("bob", "c", false),
        ("ann", "b", true),
        // Of another user, if that can be: it is the same token.
        ("cid", "a", false),
    ] {
        let (client, reply) = connect(&mut world, 1, &token(user, jti));
        assert_eq!(
            reply["connect"].is_object(),
            is_let_in,
            "{user} {jti}: {reply}"
        );
        if !is_let_in {
            // SDKs ask the application for another one, and come back.
            assert_eq!(reply["error"]["code"], 109);
            assert_eq!(why_closed(&world, client), None);
        }
    }
    let later = sign_claims(&json!({"sub": "bob", "iat": ISSUED + 1}));
    here(&mut world, 0, &later);
    let unknown = sign_claims(&json!({"sub": "bob"}));
    assert_eq!(connect(&mut world, 0, &unknown).1["error"]["code"], 109);
    let counts = world.workers.iter().map(|worker| {
        let refused = worker.hub.counters().refused_tokens;
        refused.connection[TokenRefusal::Revoked.index()]
    });
    assert_eq!(counts.collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_revocation_ends_by_itself() {
    let mut world = World::new();
    let revocation = Revocation::Token {
        id: TokenId::of_jti("a"),
        expire_at: Some(START.as_secs() + 10),
    };
    revoke_only(&world, &revocation);
    let (_, reply) = connect(&mut world, 0, &token("ann", "a"));
    assert_eq!(reply["error"]["code"], 109);
    world.seconds(10);
    here(&mut world, 0, &token("ann", "a"));
}

#[test]
fn who_is_here_by_a_revoked_token_goes() {
    let mut world = World::new();
    let first = here(&mut world, 0, &token("ann", "a"));
    let same = here(&mut world, 1, &token("ann", "a"));
    let second = here(&mut world, 1, &token("ann", "b"));
    let other = here(&mut world, 1, &token("bob", "c"));
    let anonymous = world.connect(0);
    let named = world.open_as(0, "ann");
    world.tell(named, json!({"id": 1, "connect": {}}));

    assert_eq!(revoke(&mut world, &by_id("a")), (2, 0));
    for client in [first, same] {
        assert_eq!(why_closed(&world, client), revoked());
    }
    assert_eq!(revoke(&mut world, &by_id("a")), (0, 0), "they are gone");
    assert_eq!(
        revoke(&mut world, &by_user("ann", ISSUED)),
        (0, 0),
        "it is of later"
    );
    for client in [second, other, anonymous, named] {
        assert_eq!(why_closed(&world, client), None);
    }
    assert_eq!(revoke(&mut world, &by_user("ann", ISSUED + 1)), (1, 0));
    assert_eq!(why_closed(&world, second), revoked());
    // Whoever is here without a token has none that could be revoked.
    for client in [other, anonymous, named] {
        assert_eq!(why_closed(&world, client), None);
    }
    let counted: u64 = (0..2)
        .map(|worker| world.workers[worker].hub.counters().revoked_connections)
        .sum();
    assert_eq!(counted, 3);
}

#[test]
fn a_connection_is_here_by_its_last_token() {
    let mut world = World::new();
    let ends = json!(START.as_secs() + 3600);
    let with_end =
        |jti: &str| sign_claims(&json!({"sub": "ann", "jti": jti, "iat": ISSUED, "exp": ends}));
    let refresh = |world: &mut World, client: Client, token: &str| {
        let heard = world.tell(client, json!({"id": 2, "refresh": {"token": token}}));
        heard.into_iter().next()
    };
    let client = here(&mut world, 0, &with_end("a"));
    let reply = refresh(&mut world, client, &with_end("b")).unwrap();
    assert!(reply["refresh"].is_object(), "{reply}");
    assert_eq!(revoke(&mut world, &by_id("a")), (0, 0));
    // As with one that has expired.
    assert_eq!(refresh(&mut world, client, &with_end("a")), None);
    assert_eq!(
        why_closed(&world, client),
        Some((3005, "connection expired".into()))
    );
    let client = here(&mut world, 0, &with_end("c"));
    refresh(&mut world, client, &with_end("b"));
    assert_eq!(revoke(&mut world, &by_id("b")), (1, 0));
    assert_eq!(why_closed(&world, client), revoked());
}

#[test]
fn nobody_subscribes_by_a_revoked_token_and_who_did_is_unsubscribed() {
    let mut world = World::new();
    let client = here(&mut world, 0, &token("ann", "a"));
    let other = here(&mut world, 1, &token("ann", "b"));
    let subscribe = |world: &mut World, client: Client, channel: &str, jti: &str| {
        let token = channel_token("ann", channel, jti);
        let request = json!({"channel": channel, "token": token});
        world
            .tell(client, json!({"id": 2, "subscribe": request}))
            .remove(0)
    };
    for channel in ["vault:1", "vault:2"] {
        let reply = subscribe(&mut world, client, channel, channel);
        assert!(reply["subscribe"].is_object(), "{reply}");
    }
    assert_eq!(revoke(&mut world, &by_id("vault:1")), (0, 1));
    let told = json!({"code": 2501, "reason": "token revoked"});
    assert_eq!(
        world.heard(client),
        [json!({"push": {"channel": "vault:1", "unsubscribe": told}})]
    );
    assert_eq!(why_closed(&world, client), None);
    let reply = subscribe(&mut world, client, "vault:1", "vault:1");
    assert_eq!(reply["error"]["code"], 109);
    let reply = subscribe(&mut world, client, "vault:1", "another");
    assert!(reply["subscribe"].is_object(), "{reply}");

    // A subscription is there by its last token, too.
    let refresh = |world: &mut World, jti: &str| {
        let token = channel_token("ann", "vault:2", jti);
        let request = json!({"channel": "vault:2", "token": token});
        world
            .tell(client, json!({"id": 3, "sub_refresh": request}))
            .remove(0)
    };
    let reply = refresh(&mut world, "vault:1");
    assert_eq!(reply["error"]["code"], 109);
    assert_eq!(
        reply["error"]["temporary"], true,
        "the client asks for another"
    );
    assert!(refresh(&mut world, "new")["sub_refresh"].is_object());
    assert_eq!(revoke(&mut world, &by_id("vault:2")), (0, 0));
    assert_eq!(revoke(&mut world, &by_id("new")), (0, 1));
    world.heard(client);

    // All of a user's: those of its subscriptions go with the connections.
    assert_eq!(revoke(&mut world, &by_user("ann", ISSUED + 1)), (2, 0));
    for client in [client, other] {
        assert_eq!(why_closed(&world, client), revoked());
    }
    let subscription = world.workers[0].hub.counters().refused_tokens.subscription;
    assert_eq!(subscription[TokenRefusal::Revoked.index()], 2);
    assert_eq!(world.workers[0].hub.counters().revoked_subscriptions, 2);
}

#[test]
fn a_users_tokens_for_one_channel_can_be_revoked_alone() {
    let mut world = World::new();
    let first = here(&mut world, 0, &token("ann", "a"));
    let second = here(&mut world, 1, &token("ann", "b"));
    let other = here(&mut world, 1, &token("bob", "c"));
    let subscribe = |world: &mut World, client: Client, user: &str, channel: &str| {
        let token = channel_token(user, channel, &format!("{user} {channel}"));
        let request = json!({"channel": channel, "token": token});
        world
            .tell(client, json!({"id": 2, "subscribe": request}))
            .remove(0)
    };
    for (client, user) in [(first, "ann"), (second, "ann"), (other, "bob")] {
        for channel in ["vault:1", "vault:2"] {
            let reply = subscribe(&mut world, client, user, channel);
            assert!(reply["subscribe"].is_object(), "{reply}");
        }
    }
    let of_later = by_channel("ann", "vault:1", ISSUED);
    assert_eq!(revoke(&mut world, &of_later), (0, 0));
    let revocation = by_channel("ann", "vault:1", ISSUED + 1);
    assert_eq!(revoke(&mut world, &revocation), (0, 2));
    let told = json!({"code": 2501, "reason": "token revoked"});
    let ended = json!({"push": {"channel": "vault:1", "unsubscribe": told}});
    for client in [first, second] {
        assert_eq!(world.heard(client), std::slice::from_ref(&ended));
        assert_eq!(why_closed(&world, client), None);
    }
    assert_eq!(world.heard(other), Vec::<Value>::new());

    let reply = subscribe(&mut world, first, "ann", "vault:1");
    assert_eq!(reply["error"]["code"], 109);
    let newer = json!({"sub": "ann", "channel": "vault:1", "iat": ISSUED + 1});
    let request = json!({"channel": "vault:1", "token": sign_claims(&newer)});
    let reply = world.tell(first, json!({"id": 3, "subscribe": request}));
    assert!(reply[0]["subscribe"].is_object(), "{reply:?}");
    // To refresh with an older one is to come by that.
    let older = channel_token("ann", "vault:1", "older");
    let request = json!({"channel": "vault:1", "token": older});
    let reply = world.tell(first, json!({"id": 4, "sub_refresh": request}));
    assert_eq!(reply[0]["error"]["code"], 109);
    // Whoever connects does so by another kind of token.
    here(&mut world, 0, &token("ann", "a"));
}

/// What has not begun yet when its token is revoked is ended once it has: the client knows what it is about.
#[test]
fn what_is_about_to_begin_is_ended_too() {
    let mut world = World::with(Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    });
    let client = here(&mut world, 0, &token("ann", "a"));
    let request = json!({"channel": "vault:1", "token": channel_token("ann", "vault:1", "c")});
    world.tell_only(client, json!({"id": 2, "subscribe": request}));
    assert_eq!(revoke(&mut world, &by_id("c")), (0, 1));
    let heard = world.heard(client);
    assert!(heard[0]["subscribe"].is_object(), "{heard:?}");
    assert_eq!(heard[1]["push"]["unsubscribe"]["code"], 2501, "{heard:?}");

    let request = json!({"channel": "room:1"});
    let coming = world.open(1);
    let token = sign_claims(&json!({"sub": "ann", "jti": "d", "channels": ["room:1"]}));
    world.tell_only(coming, json!({"id": 1, "connect": {"token": token}}));
    world.tell_only(client, json!({"id": 3, "subscribe": request}));
    assert_eq!(revoke(&mut world, &by_id("d")), (1, 0));
    assert_eq!(why_closed(&world, coming), revoked());
    assert_eq!(world.heard(coming), Vec::<Value>::new());
}

#[test]
fn what_a_connection_is_there_by_can_be_asked() {
    let mut world = World::new();
    let (client, reply) = connect(&mut world, 0, &token("ann", "a"));
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    let request = json!({"channel": "vault:1", "token": channel_token("ann", "vault:1", "c")});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    world.tell(client, json!({"id": 3, "subscribe": {"channel": "open"}}));
    let marks = world.workers[0].hub.tokens_of(&id).unwrap();
    let ids: Vec<_> = marks.iter().map(TokenMark::id).collect();
    assert_eq!(ids, [TokenId::of_jti("a"), TokenId::of_jti("c")]);
    assert_eq!(world.workers[1].hub.tokens_of(&id), None);
    let anonymous = world.open(1);
    let reply = world
        .tell(anonymous, json!({"id": 1, "connect": {}}))
        .remove(0);
    let id = reply["connect"]["client"].as_str().unwrap();
    assert_eq!(world.workers[1].hub.tokens_of(id), Some(Vec::new()));
}

#[test]
fn another_configuration_knows_what_was_revoked() {
    let mut world = World::new();
    revoke_only(&world, &by_id("a"));
    let setup = Setup::default();
    world.reconfigure(setup.client, setup.channel);
    let (_, reply) = connect(&mut world, 0, &token("ann", "a"));
    assert_eq!(reply["error"]["code"], 109);
}
