//! The web application: pages, sessions, and a form that publishes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tautline::{Config, Node, NodeHandle, Publish};

use crate::live::{CHANNEL, Live};

/// Whoever is logged in may have the list; nobody publishes but the application.
const CONFIG: &str = r#"
    [[channel.namespaces]]
    name = "list"
    presence = true
    history_size = 1
    history_ttl = "1h"
"#;

/// Who has logged in, by the secret in their cookie. A real application has a store for it.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<HashMap<String, String>>>);

/// The user of a request. A layer puts it there, routes and the real-time side find it.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) String);

/// The application, and the node behind it.
pub(crate) fn start() -> Result<(Node, Router), Box<dyn std::error::Error>> {
    let node = Node::builder(Config::from_toml(CONFIG)?)
        .handler(Live::default())
        .without_listener()
        .start()?;
    let sessions = Sessions::default();
    let app = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/login", post(log_in))
        .route("/announce", post(announce))
        // The layer below applies here too: this is how the handler knows who connects.
        .route_service("/connection/websocket", node.handle().websocket())
        .layer(middleware::from_fn_with_state(sessions.clone(), find_user))
        .with_state((sessions, node.handle().clone()));
    Ok((node, app))
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

/// Believes everybody. A real application asks for more than a name.
async fn log_in(
    State((sessions, _)): State<(Sessions, NodeHandle)>,
    Query(Login { name }): Query<Login>,
) -> Response {
    let name = name.trim();
    if name.is_empty() || name.len() > 40 {
        return (StatusCode::BAD_REQUEST, "a name has 1 to 40 bytes\n").into_response();
    }
    let mut secret = [0; 16];
    if getrandom::fill(&mut secret).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let secret = format!("{:032x}", u128::from_be_bytes(secret));
    let cookie = format!("session={secret}; HttpOnly; SameSite=Strict; Path=/");
    let mut known = sessions.0.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(secret, name.to_owned());
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

/// Finds out whose request it is.
async fn find_user(State(sessions): State<Sessions>, mut request: Request, next: Next) -> Response {
    if let Some(user) = sessions.user(request.headers()) {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

impl Sessions {
    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
        let mut cookies = cookies
            .split(';')
            .filter_map(|cookie| cookie.trim().split_once('='));
        let (_, secret) = cookies.find(|(name, _)| *name == "session")?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(secret).cloned().map(User)
    }
}

/// A route like any other, which everybody with the list open hears of.
async fn announce(
    State((_, node)): State<(Sessions, NodeHandle)>,
    user: Option<axum::Extension<User>>,
    Json(text): Json<String>,
) -> Response {
    let Some(axum::Extension(User(user))) = user else {
        return (StatusCode::UNAUTHORIZED, "log in first\n").into_response();
    };
    let data = serde_json::json!({"announcement": {"by": user, "text": text}});
    let publish = Publish {
        channel: CHANNEL.into(),
        data: data.to_string().into(),
        // The history is for the list.
        skip_history: true,
        ..Publish::default()
    };
    match node.publish(publish).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{}\n", error.message)).into_response(),
    }
}
