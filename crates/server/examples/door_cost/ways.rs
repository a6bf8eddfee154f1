//! The ways to a client: what each is called in `docs/transports.md`, where there is a row for it, and what its client asks.

/// How messages get to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) door: Door,
    /// Over HTTP/2, so many clients to each connection.
    pub(crate) http2: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    WebSocket,
    HttpStream,
    Sse,
    Poll,
    /// Polls with answers that go on.
    PollStream,
    UniSocket,
    UniSse,
    UniHttpStream,
    PlainSocket,
    Events,
    Lines,
    History,
    /// A tunnel to another server's `/ws`, by a WebSocket.
    Tunnel,
    /// The same by polls with answers that go on.
    PolledTunnel,
}

impl Way {
    pub(crate) const ALL: [Self; 20] = [
        Self::over_http1(Door::WebSocket),
        Self::over_http2(Door::WebSocket, 1),
        Self::over_http2(Door::WebSocket, 100),
        Self::over_http1(Door::HttpStream),
        Self::over_http2(Door::HttpStream, 100),
        Self::over_http1(Door::Sse),
        Self::over_http2(Door::Sse, 100),
        Self::over_http1(Door::Poll),
        Self::over_http1(Door::PollStream),
        Self::over_http2(Door::Poll, 100),
        Self::over_http1(Door::UniSocket),
        Self::over_http1(Door::UniSse),
        Self::over_http1(Door::UniHttpStream),
        Self::over_http1(Door::PlainSocket),
        Self::over_http1(Door::Events),
        Self::over_http1(Door::Lines),
        Self::over_http1(Door::History),
        Self::over_http2(Door::Events, 100),
        Self::over_http1(Door::Tunnel),
        Self::over_http1(Door::PolledTunnel),
    ];

    const fn over_http1(door: Door) -> Self {
        Self { door, http2: None }
    }

    const fn over_http2(door: Door, to_each: usize) -> Self {
        Self {
            door,
            http2: Some(to_each),
        }
    }

    /// The first cell of its row.
    pub(crate) fn name(self) -> String {
        let door = self.door.name();
        match self.http2 {
            None => door.to_owned(),
            Some(1) => format!("{door} over HTTP/2, a connection each"),
            Some(count) => format!("{door} over HTTP/2, {count} on a connection"),
        }
    }
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "`/connection/websocket`",
            Self::HttpStream => "`/connection/http_stream`",
            Self::Sse => "`/connection/sse`",
            Self::Poll => "`/connection/poll`",
            Self::PollStream => "`/connection/poll`, answers that go on",
            Self::UniSocket => "`/connection/uni_websocket`",
            Self::UniSse => "`/connection/uni_sse`",
            Self::UniHttpStream => "`/connection/uni_http_stream`",
            Self::PlainSocket => "`/ws`",
            Self::Events => "`/events`",
            Self::Lines => "`/lines`",
            Self::History => "`/history?wait=`",
            Self::Tunnel => "`/tunnel/NAME` to another `/ws`",
            Self::PolledTunnel => "`/tunnel/NAME` to another `/ws`, over plain HTTP",
        }
    }
}
