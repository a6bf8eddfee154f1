//! Tokens and key sets of any bytes, and what the fuzzer has found worth keeping.

#[path = "../../../fuzz/replay.rs"]
mod replay;
#[path = "fuzzed/token.rs"]
mod token;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use self::replay::replay;

#[test]
fn the_corpus_of_tokens() {
    replay("token", token::check);
}

fn any_claims() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "sub",
        "exp",
        "nbf",
        "iss",
        "aud",
        "expire_at",
        "channels",
        "subs",
        "meta",
        "channel",
        "client",
        "info",
        "b64info",
        "data",
        "b64data",
        "override",
        "iat",
    ]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (1_799_999_998..1_800_000_003_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
        Just(json!("e30=")),
        Just(json!(["a", "b"])),
        Just(
            json!({"a": {"info": {}, "b64data": "MQ==", "override": {"presence": {"value": true}}}})
        ),
        Just(json!({"presence": {"value": false}})),
    ];
    prop::collection::vec((name, value), 0..6).prop_map(|claims| {
        let claims = claims
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Value::Object(claims.collect::<Map<String, Value>>())
    })
}

proptest! {
    #[test]
    fn any_claims_are_read_or_refused(claims in any_claims()) {
        token::check(claims.to_string().as_bytes());
    }

    #[test]
    fn any_header_is_read_or_refused(
        alg in "HS256|HS512|RS256|none|[A-Z0-9]{0,5}",
        more in "|,\"kid\":\"a\"|,\"kid\":1|,\"crit\":null|,\"crit\":1|,\"typ\":\"JWT\"|,\"alg\":\"HS256\"|\\}",
    ) {
        token::check(format!("{{\"alg\":\"{alg}\"{more}}}\n{{\"sub\":\"7\"}}").as_bytes());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        token::check(&bytes);
    }
}
