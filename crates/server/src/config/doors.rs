//! `[websocket]` and `[doors]`: the ways in.

use std::time::Duration;

use serde::Deserialize;
use tautline_hub::config::duration;

use super::ResponseTransforms;

/// `[websocket]`: limits of messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketOptions {
    /// Longest message of a client, in bytes; between 1 KiB and 64 MiB. A longer one ends the connection with code 1009.
    /// Default: 64 KiB.
    pub message_size_limit: usize,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            message_size_limit: 64 * 1024,
        }
    }
}

/// `[doors]`: the ways in beside the WebSocket, for clients that can't open one or have no SDK.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorOptions {
    /// `/connection/http_stream`, with `/emulation`. Default: yes.
    pub http_stream: bool,
    /// `/connection/sse`, with `/emulation`. Default: yes.
    pub sse: bool,
    /// `/connection/poll`, long-polling. Default: yes.
    pub poll: bool,
    /// How long a session stays that is long-polled and isn't any more; between 1s and
    /// 5m. Default: 20 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_timeout: Duration,
    /// `/connection/uni_websocket`, `/connection/uni_sse` and `/connection/uni_http_stream`.
    /// Default: yes.
    pub unidirectional: bool,
    /// `/ws`, `/events`, `/lines`, `/history` and `/publish`, for clients with no SDK. Default: yes.
    pub plain: bool,
    /// How long caches may keep a page of `/history` that never changes: what is removed from history may be there for as
    /// long still. Whole seconds, between 0s and 8760h; `0s` has such a page kept as briefly as one that isn't full. Default:
    /// 1 h.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_max_age: Duration,
    /// Longest body of a client's request, in bytes; between 1 KiB and 64 MiB. Default: 64 KiB.
    pub request_size_limit: usize,
    /// How many sessions may be there at once whose messages leave in HTTP responses, on the whole
    /// node. Default: 100,000.
    pub max_sessions: usize,
    /// Whether clients of `/connection/uni_websocket` are told in a message, too, why their connection ends, before
    /// the Close frame that says so. Default: yes.
    pub uni_websocket_disconnect_push: bool,
    /// Whether publications that leave together are one message for them, a line each. Default: no, each is a message.
    pub uni_websocket_join_messages: bool,
    /// How the other unidirectional doors answer whom they don't let in.
    pub connect_code_to_http_response: ResponseTransforms,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            http_stream: true,
            sse: true,
            poll: true,
            poll_timeout: Duration::from_secs(20),
            unidirectional: true,
            plain: true,
            history_max_age: Duration::from_secs(60 * 60),
            request_size_limit: 64 * 1024,
            max_sessions: 100_000,
            uni_websocket_disconnect_push: true,
            uni_websocket_join_messages: false,
            connect_code_to_http_response: ResponseTransforms::default(),
        }
    }
}
