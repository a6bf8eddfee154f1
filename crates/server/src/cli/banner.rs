//! What `tautline dev` says when it is up: what runs where, and what to try next.

use std::net::SocketAddr;

use crate::config::DEV_API_KEY;
use crate::http::WEBSOCKET_PATH;

/// The text for a server at `address`.
pub(super) fn dev(address: SocketAddr) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "\
Tautline {version}, development server for this machine

  chat page   http://{address}/
  lab         http://{address}/lab
  WebSocket   ws://{address}{WEBSOCKET_PATH}
  HTTP API    http://{address}/api/            key: {DEV_API_KEY}

Open the page in two tabs. Then say something from here:

  curl http://{address}/api/publish -H 'X-API-Key: {DEV_API_KEY}' \\
    -d '{{\"channel\":\"lobby\",\"data\":{{\"text\":\"Hello from curl\"}}}}'

or listen from your own program (npm install centrifuge):

  const client = new Centrifuge('ws://{address}{WEBSOCKET_PATH}');
  const lobby = client.newSubscription('lobby');
  lobby.on('publication', (context) => console.log(context.data));
  lobby.subscribe();
  client.connect();

Ctrl-C stops it; `tautline --help` tells what else there is.
"
    )
}
