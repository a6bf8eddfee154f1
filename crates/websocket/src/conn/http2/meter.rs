//! The frames that a client sends, counted by what they are good for.
//!
//! Frames that carry nothing (settings, pings, resets, windows a little wider) cost their sender some bytes and
//! this side work each, and the HTTP/2 library takes any number of them. They are counted as they are read, by
//! their heads alone, below the library: whoever sends more than makes sense is disconnected.
//!
//! Until then they are taken in small portions, with a turn for everybody else in between. The library answers all that it
//! finds before it is done, and thousands of pings fit into one read.
//!
//! What is written passes here, too: streams that the library refuses are counted by their resets.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::options::Http2Options;

/// What a client has sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flood {
    /// Frames that carry nothing: `SETTINGS`, `PING`, `PRIORITY`, `CONTINUATION`, `GOAWAY`, `DATA` without a byte
    /// that isn't the end of a stream, and those of unknown types
    /// ([`max_control_rate`](Http2Options::max_control_rate)).
    Control,
    /// `RST_STREAM` ([`max_reset_rate`](Http2Options::max_reset_rate)).
    Resets,
    /// `WINDOW_UPDATE` ([`max_window_rate`](Http2Options::max_window_rate)).
    Windows,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "frames that carry nothing",
            Self::Resets => "RST_STREAM frames",
            Self::Windows => "WINDOW_UPDATE frames",
        })
    }
}

/// A stream whose input is metered. Once that is a flood, there is nothing more to read.
pub(super) struct Metered<S> {
    io: S,
    meter: Meter,
    /// How many frames that carry nothing the last read has brought.
    empty: usize,
    /// Everybody else had a turn since.
    has_paused: bool,
    outgoing: Outgoing,
    notes: Arc<Notes>,
}

/// What is noted of a connection for whoever serves it.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// It sends too much that carries nothing.
    pub(super) flood: OnceLock<Flood>,
    /// Streams that it was refused.
    refused: AtomicU64,
}

/// How many streams a client was refused (`REFUSED_STREAM`) because it had as many open as it may.
///
/// The HTTP/2 library does so by itself and tells nobody, so they are counted as they are written.
#[derive(Clone, Debug)]
pub struct RefusedStreams(pub(super) Arc<Notes>);

impl RefusedStreams {
    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl<S> Metered<S> {
    /// Beside the stream this gives the place where floods and refusals are noted.
    pub(super) fn new(io: S, options: &Http2Options) -> (Self, Arc<Notes>) {
        let notes = Arc::new(Notes::default());
        let metered = Self {
            io,
            meter: Meter::new(options, Instant::now()),
            empty: 0,
            has_paused: false,
            outgoing: Outgoing::default(),
            notes: Arc::clone(&notes),
        };
        (metered, notes)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.notes.flood.get().is_some() {
            // Nobody need be woken: whoever reads looks for the flood next, and gives the connection up.
            return Poll::Pending;
        }
        let is_wary = this.empty >= PORTION;
        if is_wary && !this.has_paused {
            this.has_paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if is_wary {
            let room = buffer.remaining().min(WARY_READ);
            let mut portion = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut portion))?;
            let count = portion.filled().len();
            buffer.advance(count);
        } else {
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        }
        let read = &buffer.filled()[before..];
        match this.meter.receive(read, Instant::now()) {
            Ok(empty) => {
                this.empty = empty;
                this.has_paused = false;
                Poll::Ready(Ok(()))
            }
            Err(flood) => {
                let _ = this.notes.flood.set(flood);
                buffer.set_filled(before);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.outgoing.sent(&bytes[..count], &this.notes);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        let mut rest = count;
        for slice in slices {
            let taken = rest.min(slice.len());
            this.outgoing.sent(&slice[..taken], &this.notes);
            rest -= taken;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Finds the streams that are refused in what is written.
#[derive(Default)]
struct Outgoing {
    /// Bytes of a frame that are still to come before the next head.
    rest: usize,
    /// A frame's head, and behind that of a reset its reason.
    head: [u8; HEAD_LEN + REASON_LEN],
    filled: usize,
}

impl Outgoing {
    fn sent(&mut self, mut bytes: &[u8], notes: &Notes) {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let is_reset = self.filled >= HEAD_LEN;
            let end = HEAD_LEN + if is_reset { REASON_LEN } else { 0 };
            let wanted = (end - self.filled).min(bytes.len());
            self.head[self.filled..][..wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled < end {
                continue;
            }
            let [a, b, c, kind, .., d, e, f, g] = self.head;
            if is_reset {
                self.filled = 0;
                if u32::from_be_bytes([d, e, f, g]) == REFUSED_STREAM {
                    notes.refused.fetch_add(1, Ordering::Relaxed);
                }
            } else if kind != RST_STREAM {
                self.filled = 0;
                self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
            }
        }
    }
}

/// Finds the heads of frames in what comes, and counts.
struct Meter {
    /// Bytes of the preface, or of a frame, that are still to come before the next head.
    rest: usize,
    head: [u8; HEAD_LEN],
    filled: usize,
    control: Bucket,
    resets: Bucket,
    windows: Bucket,
}

impl Meter {
    fn new(options: &Http2Options, now: Instant) -> Self {
        Self {
            rest: PREFACE_LEN,
            head: [0; HEAD_LEN],
            filled: 0,
            control: Bucket::new(options.max_control_rate, now),
            resets: Bucket::new(options.max_reset_rate, now),
            windows: Bucket::new(options.max_window_rate, now),
        }
    }

    /// Counts what came. How many of its frames carry nothing, resets and windows among them.
    fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Result<usize, Flood> {
        let mut empty = 0;
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD_LEN - self.filled).min(bytes.len());
            self.head[self.filled..][..wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == HEAD_LEN {
                self.filled = 0;
                empty += usize::from(self.count(now)?);
            }
        }
        Ok(empty)
    }

    /// Counts the frame whose head is there (RFC 9113 §4.1), if it is one of those that carry nothing.
    fn count(&mut self, now: Instant) -> Result<bool, Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        self.rest = len;
        let (bucket, flood) = match kind {
            DATA if len > 0 || flags & END_STREAM != 0 => return Ok(false),
            HEADERS => return Ok(false),
            RST_STREAM => (&mut self.resets, Flood::Resets),
            WINDOW_UPDATE => (&mut self.windows, Flood::Windows),
            _ => (&mut self.control, Flood::Control),
        };
        if bucket.take(now) {
            Ok(true)
        } else {
            Err(flood)
        }
    }
}

/// Tokens that come at a steady rate, and of which some can be saved.
struct Bucket {
    rate: f64,
    tokens: f64,
    /// When `tokens` was right.
    at: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self {
            rate,
            tokens: rate * BURST,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.tokens < 1.0 {
            let passed = now.saturating_duration_since(self.at).as_secs_f64();
            self.tokens = (self.tokens + passed * self.rate).min(self.rate * BURST);
            self.at = now;
        }
        let is_left = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(is_left));
        is_left
    }
}

/// Seconds for which tokens can be saved.
const BURST: f64 = 5.0;

/// As many frames that carry nothing in one read are a reason to take a break before the next.
const PORTION: usize = 32;

/// Bytes that are then read at a time: some 60 pings, or 110 settings without a setting.
const WARY_READ: usize = 1024;

const PREFACE_LEN: usize = 24;
const HEAD_LEN: usize = 9;
/// Of a reset's payload, all of it.
const REASON_LEN: usize = 4;
/// RFC 9113, section 7.
const REFUSED_STREAM: u32 = 7;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meter(now: Instant) -> Meter {
        let options = Http2Options {
            max_control_rate: 2,
            max_reset_rate: 1,
            max_window_rate: 1_000,
            ..Http2Options::default()
        };
        let mut meter = Meter::new(&options, now);
        meter.receive(&[b'P'; PREFACE_LEN], now).unwrap();
        meter
    }

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        // Payloads that look like heads are none.
        frame.resize(HEAD_LEN + usize::from(len), RST_STREAM);
        frame
    }

    #[test]
    fn frames_are_found_wherever_reads_end() {
        let now = Instant::now();
        let pings = frame(6, 0, 8).repeat(11);
        for step in 1..=pings.len() {
            let mut meter = meter(now);
            let mut chunks = pings.chunks(step);
            let flood = chunks.find_map(|chunk| meter.receive(chunk, now).err());
            assert_eq!(flood, Some(Flood::Control), "{step}");
        }
        let mut meter = meter(now);
        assert_eq!(meter.receive(&frame(6, 0, 8).repeat(10), now), Ok(10));
    }

    #[test]
    fn what_carries_something_is_not_counted() {
        let now = Instant::now();
        let mut meter = meter(now);
        let useful = [
            frame(DATA, 0, 1),
            frame(DATA, END_STREAM, 0),
            frame(HEADERS, 0, 200),
            frame(HEADERS, 0, 0),
        ];
        assert_eq!(meter.receive(&useful.concat().repeat(100), now), Ok(0));
        let empty = frame(DATA, 0, 0).repeat(11);
        assert_eq!(meter.receive(&empty, now), Err(Flood::Control));
    }

    #[test]
    fn each_kind_has_a_rate_of_its_own() {
        let now = Instant::now();
        let mut meter = meter(now);
        // Without payloads, as what is behind a flood isn't read.
        let resets = frame(RST_STREAM, 0, 0).repeat(5);
        assert_eq!(meter.receive(&resets, now), Ok(5));
        let windows = frame(WINDOW_UPDATE, 0, 0).repeat(5_000);
        assert_eq!(meter.receive(&windows, now), Ok(5_000));
        assert_eq!(meter.receive(&resets, now), Err(Flood::Resets));
        assert_eq!(meter.receive(&windows, now), Err(Flood::Windows));
    }

    #[test]
    fn tokens_come_back() {
        let now = Instant::now();
        let mut meter = meter(now);
        let ping = frame(6, 0, 0);
        assert_eq!(meter.receive(&ping.repeat(10), now), Ok(10));
        assert!(meter.receive(&ping, now).is_err());
        let later = now + Duration::from_secs(1);
        assert_eq!(meter.receive(&ping.repeat(2), later), Ok(2));
        assert!(meter.receive(&ping, later).is_err());
        let much_later = now + Duration::from_secs(1_000);
        assert_eq!(meter.receive(&ping.repeat(10), much_later), Ok(10));
        assert!(meter.receive(&ping, much_later).is_err());
    }

    #[test]
    fn refused_streams_are_found_wherever_writes_end() {
        let reset = |reason: u8| {
            let mut frame = vec![0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1];
            frame.extend([0, 0, 0, reason]);
            frame
        };
        let sent = [
            frame(4, 0, 6),
            reset(7),
            frame(DATA, 0, 20),
            reset(8),
            frame(DATA, 0, 0),
            reset(7),
            reset(7),
        ]
        .concat();
        for step in 1..=sent.len() {
            let (mut outgoing, notes) = (Outgoing::default(), Notes::default());
            for chunk in sent.chunks(step) {
                outgoing.sent(chunk, &notes);
            }
            assert_eq!(notes.refused.into_inner(), 3, "{step}");
        }
    }

    /// What is read between two turns of everybody else's, until nothing comes any more.
    async fn turns(sent: Vec<u8>) -> Vec<usize> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::task::Wake;

        struct Wakes(AtomicUsize);
        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let (mut client, io) = tokio::io::duplex(sent.len());
        tokio::io::AsyncWriteExt::write_all(&mut client, &sent)
            .await
            .unwrap();
        let options = Http2Options {
            max_control_rate: 1_000,
            ..Http2Options::default()
        };
        let (mut metered, _) = Metered::new(io, &options);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Arc::clone(&wakes).into();
        let mut cx = Context::from_waker(&waker);
        let mut turns = vec![0];
        loop {
            let mut bytes = [0; 8 * 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut metered).poll_read(&mut cx, &mut buffer);
            match polled {
                Poll::Ready(read) => {
                    read.unwrap();
                    *turns.last_mut().unwrap() += buffer.filled().len();
                }
                Poll::Pending if wakes.0.swap(0, Ordering::Relaxed) > 0 => turns.push(0),
                Poll::Pending => return turns,
            }
        }
    }

    #[tokio::test]
    async fn floods_are_taken_in_portions() {
        let preface = vec![b'P'; PREFACE_LEN];
        let useful = frame(DATA, 0, 100).repeat(200);
        let sent = [&*preface, &useful].concat();
        assert_eq!(turns(sent.clone()).await, [sent.len()]);
        let pings = frame(6, 0, 8).repeat(1_000);
        let all = [&*preface, &pings].concat();
        let taken = turns(all.clone()).await;
        assert_eq!(taken.iter().sum::<usize>(), all.len());
        assert_eq!(taken[0], 8 * 1024);
        assert!(
            taken[1..].iter().all(|taken| *taken <= WARY_READ),
            "{taken:?}"
        );
        // Once that is over, nobody is kept waiting.
        let behind = frame(DATA, 0, 100).repeat(400);
        let taken = turns([all, behind].concat()).await;
        assert!(taken.last().unwrap() > &(32 * 1024), "{taken:?}");
    }
}
