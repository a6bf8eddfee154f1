//! Pings, and how long their answers may take.
//!
//! A client has [`pong_timeout`](crate::config::ClientOptions::pong_timeout) from when its ping was
//! written to its connection, not from when it was queued: before a slow reader's ping there may be much
//! that it has still to read. And as long as it is seen to read, it is there. It is given up when its
//! connection has taken nothing for that long, or when it had the ping for that long and nothing else
//! to read.
//!
//! Reading doesn't prolong that for ever: who reads a byte now and then is as bad as who reads none, as what
//! waits for it takes memory. After [`PATIENCE`] times `pong_timeout` (eight minutes of the default) the ping must have
//! been answered. A queue of the default's full length (`queue_max_size`, 1 MiB) is written by then to whoever takes
//! 2.2 KB a second, and that of a parked reader to whoever takes 600 bytes.
//!
//! And an answer counts only for a ping that the client may have: whoever doesn't read can't tell that it is there
//! by sending answers by the clock.
//!
//! Pure: what the connection has taken and what waits for it go in, what to do comes out. Every idle
//! connection has one, so it is small.

use std::time::Duration;

use super::wheel::Deadline;

/// The pings of one connection.
#[derive(Clone, Copy)]
pub(crate) struct Heartbeat {
    /// When the next ping is sent; `None` for never.
    next_ping: Option<Deadline>,
    /// The answer that is waited for.
    pong: Option<Pong>,
    /// Number of the [`Pace`] that the client was told.
    pace: u16,
    /// How often the answer was waited on for, as the client was reading.
    prolonged: u16,
}

/// How often there are pings, and how long answers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// The paces that clients of a hub were told, and which of them new ones are told. There is more than one
/// only after the options have changed: a client keeps what it was told, as it takes a server for gone that
/// is silent for longer.
pub(crate) struct Paces {
    all: Vec<Pace>,
    current: u16,
}

impl Paces {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            all: vec![pace],
            current: 0,
        }
    }

    /// The number of the pace that new clients are told.
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    pub(crate) fn get(&self, number: u16) -> Pace {
        let known = self.all.get(usize::from(number));
        *known.unwrap_or(&self.all[usize::from(self.current)])
    }

    /// Has new clients told another pace. `used` are the numbers of those who are there.
    pub(crate) fn change(&mut self, pace: Pace, used: impl Iterator<Item = u16>) {
        let known = self.all.iter().position(|known| *known == pace);
        let place = known.or_else(|| {
            let mut is_used = vec![false; self.all.len()];
            for number in used {
                is_used[usize::from(number)] = true;
            }
            is_used.iter().position(|is_used| !is_used)
        });
        let place = place.unwrap_or(self.all.len());
        // With as many paces in use as there can be, clients are told the one before.
        if let Ok(number) = u16::try_from(place) {
            if place == self.all.len() {
                self.all.push(pace);
            }
            self.all[place] = pace;
            self.current = number;
        }
    }
}

/// An answer that is waited for. Places in the stream of written bytes are known by their low 32
/// bits: what waits is much less.
#[derive(Clone, Copy)]
struct Pong {
    /// When it should be there, unless there is a reason to wait on.
    due: Deadline,
    /// The end of the ping in the stream.
    ping_ends: u32,
    /// How far the stream was written when that was last looked at.
    seen: u32,
}

/// What a connection has taken, and what waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// Bytes written since it was opened.
    pub(crate) written: u64,
    /// Bytes that wait to be written.
    pub(crate) queued: usize,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Nothing,
    /// Send a ping, and say so by [`Heartbeat::pinged`].
    Ping,
    /// Nobody is there.
    Dead,
}

impl Heartbeat {
    /// `pace` is the number of what the client was told.
    pub(crate) fn new(first_ping: Option<Duration>, pace: u16) -> Self {
        Self {
            next_ping: first_ping.map(Deadline::at),
            pong: None,
            pace,
            prolonged: 0,
        }
    }

    /// The number of the pace that the client was told.
    pub(crate) fn pace(&self) -> u16 {
        self.pace
    }

    /// When [`beat`](Self::beat) has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let due = self.pong.map(|pong| pong.due);
        [self.next_ping, due]
            .into_iter()
            .flatten()
            .min()
            .map(Deadline::time)
    }

    /// Time has passed. `is_deaf` where nothing is read from the connection at the moment: the answer
    /// may be there.
    pub(crate) fn beat(
        &mut self,
        now: Duration,
        interval: Duration,
        timeout: Duration,
        flow: Flow,
        is_deaf: bool,
    ) -> Beat {
        if let Some(pong) = &mut self.pong
            && now >= pong.due.time()
        {
            let written = low(flow.written);
            let had_the_ping = reaches(pong.seen, pong.ping_ends);
            let has_the_ping = reaches(written, pong.ping_ends);
            let is_reading = written != pong.seen && (flow.queued > 0 || !has_the_ping);
            // That it isn't listened to at the moment is no fault of its own.
            if !is_deaf {
                self.prolonged = self.prolonged.saturating_add(1);
                let is_there = is_reading || has_the_ping && !had_the_ping;
                if !is_there || self.prolonged >= PATIENCE {
                    return Beat::Dead;
                }
            }
            pong.seen = written;
            pong.due = Deadline::at(now + timeout);
        }
        if let Some(next) = self.next_ping
            && now >= next.time()
        {
            self.next_ping = Some(Deadline::at(now + interval));
            // One at a time.
            if self.pong.is_none() {
                return Beat::Ping;
            }
        }
        Beat::Nothing
    }

    /// A ping was queued, which is the last that `flow` tells of; `waited` bytes were before it. It is to
    /// be answered within `timeout`, zero for never.
    pub(crate) fn pinged(&mut self, now: Duration, timeout: Duration, flow: Flow, waited: usize) {
        let ping_ends = low(flow.written.wrapping_add(flow.queued as u64));
        self.prolonged = 0;
        self.pong = (!timeout.is_zero()).then(|| Pong {
            due: Deadline::at(now + timeout),
            ping_ends,
            // With nothing before it, it is written at once.
            seen: if waited == 0 {
                ping_ends
            } else {
                low(flow.written)
            },
        });
    }

    /// An answer has come, from a client that may have got so many bytes. Returns whether one was waited for.
    pub(crate) fn answered(&mut self, told: u64) -> bool {
        let had_the_ping = |pong: &mut Pong| reaches(low(told), pong.ping_ends);
        self.pong.take_if(had_the_ping).is_some()
    }
}

fn low(place: u64) -> u32 {
    place as u32
}

/// Whether what is written up to `written` includes what is before `place`.
fn reaches(written: u32, place: u32) -> bool {
    written.wrapping_sub(place) < 1 << 31
}

/// How many times `pong_timeout` may pass until a ping is answered, whatever the client reads meanwhile.
const PATIENCE: u16 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(8);

    /// A connection that takes some bytes a second, with a ping behind others in its queue.
    struct Line {
        heartbeat: Heartbeat,
        now: Duration,
        flow: Flow,
    }

    impl Line {
        /// Pinged at once, with so many bytes before the ping.
        fn pinged(written: u64, waited: usize) -> Self {
            let mut heartbeat = Heartbeat::new(Some(Duration::ZERO), 0);
            let mut flow = Flow {
                written,
                queued: waited,
            };
            let now = Duration::from_secs(1);
            assert_eq!(beat(&mut heartbeat, now, flow), Beat::Ping);
            flow.queued += 4;
            heartbeat.pinged(now, TIMEOUT, flow, waited);
            Self {
                heartbeat,
                now,
                flow,
            }
        }

        /// Takes up to `rate` bytes in each second; after how many seconds it is given up, if within
        /// `seconds`.
        fn run(&mut self, seconds: u64, rate: usize) -> Option<u64> {
            for second in 1..=seconds {
                let taken = rate.min(self.flow.queued);
                self.flow.queued -= taken;
                self.flow.written += taken as u64;
                self.now += Duration::from_secs(1);
                match beat(&mut self.heartbeat, self.now, self.flow) {
                    Beat::Dead => return Some(second),
                    Beat::Ping => panic!("pinged while one is not answered"),
                    Beat::Nothing => {}
                }
            }
            None
        }
    }

    fn beat(heartbeat: &mut Heartbeat, now: Duration, flow: Flow) -> Beat {
        heartbeat.beat(now, INTERVAL, TIMEOUT, flow, false)
    }

    #[test]
    fn who_has_the_ping_and_says_nothing_is_given_up_in_time() {
        assert_eq!(Line::pinged(0, 0).run(100, 1000), Some(8));
    }

    #[test]
    fn who_takes_nothing_is_given_up_in_time() {
        assert_eq!(Line::pinged(5, 1000).run(100, 0), Some(8));
    }

    #[test]
    fn the_time_counts_from_when_the_ping_was_written() {
        let mut line = Line::pinged(0, 100_000);
        assert_eq!(line.run(14, 10_000), None, "still reading what came before");
        assert!(line.heartbeat.answered(line.flow.written));
        // Written in the tenth second, noticed in the sixteenth, and waited for after that.
        assert_eq!(Line::pinged(0, 100_000).run(100, 10_000), Some(24));
    }

    #[test]
    fn who_stops_reading_is_given_up() {
        let mut line = Line::pinged(0, 100_000);
        assert_eq!(line.run(9, 1000), None);
        assert_eq!(line.run(100, 0), Some(15), "looked at every eight seconds");
    }

    #[test]
    fn who_reads_all_the_time_is_there() {
        let mut line = Line::pinged(0, 0);
        for _ in 0..100 {
            line.flow.queued += 5000;
            assert_eq!(line.run(1, 1000), None);
        }
    }

    #[test]
    fn who_reads_a_byte_now_and_then_is_given_up() {
        // With the ping behind all that, and with the ping but without an answer.
        for waited in [100_000, 0] {
            let mut line = Line::pinged(0, waited);
            line.flow.queued += 100_000;
            let patience = u64::from(PATIENCE) * TIMEOUT.as_secs();
            assert_eq!(line.run(2 * patience, 1), Some(patience), "{waited}");
        }
    }

    #[test]
    fn who_reads_a_full_queue_slowly_has_the_time_for_it() {
        let mut line = Line::pinged(0, 1024 * 1024);
        assert_eq!(line.run(460, 2_300), None);
        assert!(line.heartbeat.answered(line.flow.written));
        // And that begins anew with each ping.
        line.now += INTERVAL;
        let now = line.now;
        assert_eq!(beat(&mut line.heartbeat, now, line.flow), Beat::Ping);
        line.flow.queued += 1024 * 1024;
        line.heartbeat.pinged(now, TIMEOUT, line.flow, 1024 * 1024);
        assert_eq!(line.run(460, 2_300), None);
    }

    #[test]
    fn an_answer_counts_only_for_a_ping_that_was_written() {
        for start in [0, u64::from(u32::MAX) - 500] {
            let mut line = Line::pinged(start, 1000);
            assert!(!line.heartbeat.answered(start), "nothing was written");
            line.run(1, 1003);
            assert!(!line.heartbeat.answered(line.flow.written), "not all");
            line.run(1, 1);
            assert!(line.heartbeat.answered(line.flow.written));
            assert!(!line.heartbeat.answered(line.flow.written), "once");
            // One that came too early doesn't put off the end.
            let mut line = Line::pinged(start, 1000);
            assert!(!line.heartbeat.answered(start));
            assert_eq!(line.run(100, 0), Some(8));
        }
    }

    #[test]
    fn a_line_that_died_with_nothing_before_the_ping_has_one_more_turn_at_the_most() {
        // What is sent to it fills up buffers on the way before it waits.
        let mut line = Line::pinged(0, 0);
        line.flow.written += 4;
        line.flow.queued = 9000;
        assert_eq!(line.run(7, 100), None);
        assert_eq!(line.run(100, 0), Some(9));
    }

    #[test]
    fn places_may_wrap() {
        for start in [u64::from(u32::MAX) - 50_000, u64::from(u32::MAX), 1 << 40] {
            assert_eq!(Line::pinged(start, 0).run(100, 1000), Some(8));
            assert_eq!(Line::pinged(start, 100_000).run(100, 10_000), Some(24));
            assert_eq!(Line::pinged(start, 100_000).run(100, 0), Some(8));
        }
    }

    #[test]
    fn clients_keep_the_pace_that_they_were_told() {
        let pace = |seconds| Pace {
            interval: Duration::from_secs(seconds),
            timeout: Duration::from_secs(1),
        };
        let mut paces = Paces::new(pace(25));
        assert_eq!(paces.current(), 0);
        paces.change(pace(50), [0, 0].into_iter());
        assert_eq!((paces.current(), paces.get(1)), (1, pace(50)));
        assert_eq!(paces.get(0), pace(25), "those who were here");
        paces.change(pace(25), [0, 1].into_iter());
        assert_eq!(paces.current(), 0, "known already");
        paces.change(pace(10), [0].into_iter());
        assert_eq!(
            (paces.current(), paces.get(1)),
            (1, pace(10)),
            "nobody has it"
        );
        assert_eq!(paces.all.len(), 2);
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Heartbeat>() <= 20);
    }
}
