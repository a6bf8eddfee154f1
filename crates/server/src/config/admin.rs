//! `[admin]`: the page for who looks after the server.

use std::net::SocketAddr;

use serde::Deserialize;
use tautline_auth::Secret;

use super::HttpServerOptions;
use super::file::Unusable;
use crate::http::admin::{AdminSettings, Password};

/// `[admin]`: a page at `/admin` that shows what the node carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminOptions {
    /// Whether there is one. Default: no.
    pub enabled: bool,
    /// What one logs in with, at least 12 bytes. Either this or `password_hash` is required where `enabled`.
    pub password: Option<Secret>,
    /// The same as `tautline password` prints it, so that who reads the configuration can't log in.
    pub password_hash: Option<Secret>,
}

/// Checks them; `None` for no page.
pub(super) fn settings(
    options: &AdminOptions,
    server: &HttpServerOptions,
) -> Result<Option<AdminSettings>, Unusable> {
    let password = match (&options.password, &options.password_hash) {
        (Some(_), Some(_)) => {
            let problem = "and admin.password say the same: leave one of them out";
            return Err(Unusable::new("admin.password_hash", problem));
        }
        (Some(password), None) if password.expose().len() < LEAST => {
            let problem = format!("is short and may be guessed, expected at least {LEAST} bytes");
            return Err(Unusable::new("admin.password", problem));
        }
        (Some(password), None) => Some(Password::of(password.expose())),
        (None, Some(hash)) => {
            let text = std::str::from_utf8(hash.expose()).unwrap_or_default();
            let hash = Password::from_hash(text.trim());
            Some(hash.map_err(|error| Unusable::new("admin.password_hash", error.to_string()))?)
        }
        (None, None) => None,
    };
    if !options.enabled {
        return Ok(None);
    }
    let Some(password) = password else {
        let problem = "is required where admin.enabled is set; or admin.password_hash, as `tautline password` prints it";
        return Err(Unusable::new("admin.password", problem));
    };
    Ok(Some(AdminSettings {
        password,
        is_encrypted: server.tls.enabled && server.internal_listen.is_empty(),
    }))
}

/// Where those are who are no clients, if that is apart.
pub(super) fn internal(
    server: &HttpServerOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<SocketAddr>, Unusable> {
    let text = &server.internal_listen;
    if text.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        let problem =
            format!("expected an IP address and a port, such as 127.0.0.1:9000; got `{text}`");
        Unusable::new("http_server.internal_listen", problem)
    })?;
    let clients = server.address;
    let is_same =
        clients == address.ip() || clients.is_unspecified() || address.ip().is_unspecified();
    if address.port() != 0 && address.port() == server.port && is_same {
        let problem = format!(
            "is the clients' port, {} (http_server.port): what is for nobody outside needs another",
            server.port
        );
        return Err(Unusable::new("http_server.internal_listen", problem));
    }
    if !address.ip().is_loopback() {
        warnings.push(
            "http_server.internal_listen is reachable from other machines, without encryption: keep it in a network \
             of your own"
                .to_owned(),
        );
    }
    Ok(Some(address))
}

const LEAST: usize = 12;
