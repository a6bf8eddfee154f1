//! `POST /dev/token`: the development server signs tokens for whoever asks.
//!
//! It stands for the application's backend, which would know its users; so it exists in
//! `tautline dev` only, where everybody who can ask is on this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use tautline_auth::{Signer, TokenClaims};

use super::body;
use super::respond::{self, Response};
use crate::http::RequestBody;

pub(crate) const PATH: &str = "/dev/token";

/// How long a token is good for. The page fetches another one before that.
const VALIDITY: Duration = Duration::from_secs(60 * 60);
const MAX_BODY_LEN: usize = 4 * 1024;
const MAX_NAME_CHARS: usize = 64;
const MAX_USER_LEN: usize = 128;

#[derive(Deserialize)]
struct TokenRequest {
    /// Shown to others.
    name: String,
    /// User id; the name where there is none.
    user: Option<String>,
}

#[derive(Serialize)]
struct TokenResponse {
    token: String,
}

#[derive(Serialize)]
struct Info<'a> {
    name: &'a str,
}

pub(crate) async fn respond(request: Request<RequestBody>, signer: &Signer) -> Response {
    if request.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    let body = match body::read(request.into_body(), MAX_BODY_LEN).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match make_token(&body, signer) {
        Ok(body) => respond::json(StatusCode::OK, body),
        Err(reason) => respond::text(StatusCode::BAD_REQUEST, format!("Bad Request: {reason}\n")),
    }
}

fn make_token(body: &[u8], signer: &Signer) -> Result<Vec<u8>, String> {
    let expected = r#"expected {"name": "…", "user": "…"}, where user may be left out"#;
    let request: TokenRequest =
        serde_json::from_slice(body).map_err(|error| format!("{expected}: {error}"))?;
    let chars = request.name.chars().count();
    if request.name.trim().is_empty() || chars > MAX_NAME_CHARS {
        return Err(format!(
            "name has {chars} characters, expected 1 to {MAX_NAME_CHARS}"
        ));
    }
    let user = request.user.as_deref().unwrap_or(&request.name);
    if user.is_empty() || user.len() > MAX_USER_LEN {
        return Err(format!(
            "user has {} bytes, expected 1 to {MAX_USER_LEN}",
            user.len()
        ));
    }
    let info = to_raw_value(&Info {
        name: &request.name,
    })
    .map_err(|error| error.to_string())?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let token = signer.sign(&TokenClaims {
        user,
        issued_at: Some(now.as_secs()),
        expires_at: Some((now + VALIDITY).as_secs()),
        info: Some(&info),
        ..TokenClaims::default()
    });
    let token = token.map_err(|error| error.to_string())?;
    serde_json::to_vec(&TokenResponse { token }).map_err(|error| error.to_string())
}
