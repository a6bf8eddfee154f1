//! The parameters of what is done to tokens: `revoke_token`, `invalidate_user_tokens`, `revoke_client`.

use serde::Deserialize;

use super::command::Command;
use super::control::expire_at;
use super::error::Failure;
use super::params::{integer, parse, required};
use crate::revocations::Revoke;

pub(super) fn token(body: &[u8]) -> Result<Command, Failure> {
    let params: RevokeTokenParams = parse(body)?;
    Ok(Command::Revoke(Revoke::Token {
        uid: required("uid", params.uid)?,
        expire_at: expire_at(params.expire_at),
    }))
}

pub(super) fn user(body: &[u8]) -> Result<Command, Failure> {
    let params: InvalidateUserTokensParams = parse(body)?;
    let user = required("user", params.user)?;
    let issued_before = expire_at(params.issued_before);
    let expire_at = expire_at(params.expire_at);
    Ok(Command::Revoke(match params.channel {
        None => Revoke::User {
            user,
            issued_before,
            expire_at,
        },
        // One without a name is refused: it is none, and it is not all.
        Some(channel) => Revoke::UserChannel {
            user,
            channel,
            issued_before,
            expire_at,
        },
    }))
}

pub(super) fn client(body: &[u8]) -> Result<Command, Failure> {
    let params: RevokeClientParams = parse(body)?;
    Ok(Command::Revoke(Revoke::Client {
        client: required("client", params.client)?,
        expire_at: expire_at(params.expire_at),
    }))
}

/// Which token is to count no more.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RevokeTokenParams {
    /// The token's id, its claim `jti`; at most 1,024 bytes.
    uid: Option<String>,
    /// When this can be forgotten, in Unix seconds, as the token has expired then; 0 or absent for never.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    expire_at: Option<i64>,
}

/// Whose tokens are to count no more.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct InvalidateUserTokensParams {
    /// User id; at most 1,024 bytes.
    user: Option<String>,
    /// Only the user's subscription tokens for this channel; at most 1,024 bytes. If it is absent, all tokens of the user.
    channel: Option<String>,
    /// Those that were issued (claim `iat`) before this, in Unix seconds; 0 or absent for all that were so far. Tokens that
    /// don't say when they were issued count as old.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    issued_before: Option<i64>,
    /// When this can be forgotten, in Unix seconds, as all such tokens have expired then; 0 or absent for never.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    expire_at: Option<i64>,
}

/// Which connection is to go, and its tokens to count no more.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RevokeClientParams {
    /// Id of the connection.
    client: Option<String>,
    /// When this can be forgotten, in Unix seconds, as its tokens have expired then; 0 or absent for never.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    expire_at: Option<i64>,
}

/// Schemas of the parameters, for the API's document.
#[cfg(test)]
pub(super) fn schema(method: super::method::Method) -> Option<schemars::Schema> {
    use schemars::schema_for;

    use super::method::Method;
    match method {
        Method::InvalidateUserTokens => Some(schema_for!(InvalidateUserTokensParams)),
        Method::RevokeClient => Some(schema_for!(RevokeClientParams)),
        Method::RevokeToken => Some(schema_for!(RevokeTokenParams)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(result: Result<Command, Failure>) -> Result<Revoke, u32> {
        match result {
            Ok(Command::Revoke(revoke)) => Ok(revoke),
            Ok(other) => panic!("{other:?}"),
            Err(Failure::Malformed(_)) => Err(400),
            Err(Failure::Error(error)) => Err(error.code),
        }
    }

    #[test]
    fn what_is_revoked_is_named() {
        let of_token = |body: &str| read(token(body.as_bytes()));
        let until = |expire_at| {
            Ok(Revoke::Token {
                uid: "a".into(),
                expire_at,
            })
        };
        assert_eq!(of_token(r#"{"uid":"a"}"#), until(None));
        assert_eq!(of_token(r#"{"uid":"a","expire_at":0}"#), until(None));
        assert_eq!(of_token(r#"{"uid":"a","expire_at":7}"#), until(Some(7)));
        assert_eq!(of_token(r#"{"uid":"a","expire_at":-7}"#), until(Some(1)));
        assert_eq!(of_token("{}"), Err(107));
        assert_eq!(of_token(r#"{"uid":""}"#), Err(107));
        assert_eq!(of_token(r#"{"uid":7}"#), Err(400));
        // Not those of everybody, nor of anonymous users.
        assert_eq!(read(user(b"{}")), Err(107));
        assert_eq!(read(user(br#"{"user":""}"#)), Err(107));
        let of_user = read(user(br#"{"user":"ann","issued_before":5,"expire_at":9}"#));
        let expected = Revoke::User {
            user: "ann".into(),
            issued_before: Some(5),
            expire_at: Some(9),
        };
        assert_eq!(of_user, Ok(expected));
        for channel in ["a", ""] {
            let body = format!(r#"{{"user":"ann","channel":"{channel}","issued_before":5}}"#);
            let expected = Revoke::UserChannel {
                user: "ann".into(),
                channel: channel.into(),
                issued_before: Some(5),
                expire_at: None,
            };
            assert_eq!(read(user(body.as_bytes())), Ok(expected), "not all of them");
        }
        let all = read(user(br#"{"user":"ann","channel":null}"#));
        assert!(matches!(all, Ok(Revoke::User { .. })));
        assert_eq!(read(user(br#"{"user":"ann","channel":7}"#)), Err(400));
        assert_eq!(read(client(b"{}")), Err(107));
        assert!(read(client(br#"{"client":"c"}"#)).is_ok());
    }
}
