//! The forms of permessage-deflate that are tried, by name.

use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};

/// Each has a server of its own.
pub(crate) const NAMES: [&str; 4] = ["plain", "deflate", "alone", "narrow"];

/// What our server agrees to.
///
/// # Errors
///
/// When there is no such form.
pub(crate) fn of_server(name: &str) -> Result<Option<ServerConfig>, String> {
    let default = ServerConfig::default();
    Ok(match name {
        "plain" => None,
        "deflate" => Some(default),
        "alone" => Some(ServerConfig {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            ..default
        }),
        "narrow" => Some(ServerConfig {
            server_max_window_bits: 9,
            client_max_window_bits: 9,
            ..default
        }),
        _ => return Err(format!("there is no compression {name}")),
    })
}

/// What our client offers.
///
/// # Errors
///
/// When there is no such form.
pub(crate) fn of_client(name: &str) -> Result<Option<ClientConfig>, String> {
    let default = ClientConfig::default();
    Ok(match name {
        "plain" => None,
        "deflate" => Some(default),
        "alone" => Some(ClientConfig {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            ..default
        }),
        "narrow" => Some(ClientConfig {
            server_max_window_bits: Some(9),
            ..default
        }),
        _ => return Err(format!("there is no compression {name}")),
    })
}
