//! What an HTTP/2 connection may take, and how long.

use std::time::Duration;

/// The limits of an HTTP/2 connection, of a server or a client.
///
/// Beside these there are some of the HTTP/2 library [h2] that need no setting: a peer that resets
/// its streams before they could be looked at (20 at a time), makes errors (1,024), sends
/// heaps of tiny frames that nobody has read yet, or more than a few `CONTINUATION` frames, is
/// disconnected with `ENHANCE_YOUR_CALM`.
///
/// The rates are for servers, and so is keep-alive. Each rate is an average over five seconds; a client that goes
/// beyond it is disconnected with `ENHANCE_YOUR_CALM`, and [`Http2Error::Flooded`](super::Http2Error::Flooded)
/// says of what it had too much.
///
/// [h2]: https://docs.rs/h2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams that the peer may have open at once; a server refuses more than that with
    /// `REFUSED_STREAM`. Default 256.
    pub max_streams: u32,
    /// Bytes of one stream that may be under way to us without having been read. Default 64 KiB. All
    /// streams together may hold [`max_streams`](Self::max_streams) times as much.
    pub stream_window: u32,
    /// Bytes of one stream that may wait in the HTTP/2 connection to be sent. Default 64 KiB.
    pub send_buffer: usize,
    /// Bytes of the header fields of a request, or of a response, as RFC 9113 §6.5.2 counts them;
    /// beyond it is answered with 431. Default 16 KiB.
    pub max_header_list: u32,
    /// How long the peer has to begin. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a server keeps a connection without a stream. Default 60 s.
    pub idle_timeout: Duration,
    /// How often a server asks, by `PING`, whether the client is still there. Default `None`, never.
    pub keep_alive: Option<Duration>,
    /// How long the answer may take. Default 10 s.
    pub keep_alive_timeout: Duration,
    /// Frames a second that carry nothing ([`Flood::Control`](super::Flood::Control)). Default 100: browsers send a ping in
    /// some seconds, and clients of gRPC not one for each answer.
    pub max_control_rate: u32,
    /// `RST_STREAM` frames a second, whatever became of their streams: what is sent in one go with the request
    /// counts against the HTTP/2 library's own limit, too (CVE-2023-44487). Default 200.
    pub max_reset_rate: u32,
    /// `WINDOW_UPDATE` frames a second. Default 10,000: a client may well send two for each message it gets.
    pub max_window_rate: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_streams: 256,
            stream_window: 64 * 1024,
            send_buffer: 64 * 1024,
            max_header_list: 16 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            keep_alive: None,
            keep_alive_timeout: Duration::from_secs(10),
            max_control_rate: 100,
            max_reset_rate: 200,
            max_window_rate: 10_000,
        }
    }
}

impl Http2Options {
    /// The window of the whole connection: no stream can use up what another needs.
    fn connection_window(&self) -> u32 {
        self.stream_window
            .saturating_mul(self.max_streams)
            .clamp(MIN_WINDOW, MAX_WINDOW)
    }

    pub(super) fn server(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            //= rfc8441 3-1
            //= rfc8441 3-3
            .enable_connect_protocol()
            .max_concurrent_streams(self.max_streams)
            .initial_window_size(self.stream_window.min(MAX_WINDOW))
            .initial_connection_window_size(self.connection_window())
            .max_header_list_size(self.max_header_list)
            .max_send_buffer_size(self.send_buffer.clamp(1, MAX_WINDOW as usize));
        builder
    }

    pub(super) fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            // Nothing that a server would push is of use here.
            .enable_push(false)
            .max_concurrent_streams(0)
            .initial_window_size(self.stream_window.min(MAX_WINDOW))
            .initial_connection_window_size(self.connection_window())
            .max_header_list_size(self.max_header_list)
            .max_send_buffer_size(self.send_buffer.clamp(1, MAX_WINDOW as usize));
        builder
    }
}

/// What every connection has before anything is settled (RFC 9113 §6.9.2).
const MIN_WINDOW: u32 = 65_535;

/// The largest window that there is (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
