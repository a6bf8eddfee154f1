//! What clients publish by themselves: which of it is in a trace, and the span of the command.
//!
//! A command of the client protocol has no field for a trace, and strangers would decide what is kept; so each of these
//! traces begins here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tautline_hub::rate::{Bucket, Rate};
use tautline_hub::watch::TraceParent;

use super::context::Context;
use super::delivery::{Delivery, Followed};
use super::{Attribute, Finished, Kind, Telemetry, unix_time};

/// Chooses among the publications of one worker's clients.
pub(crate) struct Sampler {
    telemetry: Arc<Telemetry>,
    dice: u64,
    bucket: Bucket,
}

/// One that was chosen. Its span ends when this is dropped.
pub(crate) struct Publication {
    telemetry: Arc<Telemetry>,
    followed: Followed,
    channel: Arc<str>,
    begun: Instant,
    /// Until it is over.
    span: Option<Finished>,
}

impl Sampler {
    /// `None` where nothing is kept that begins here.
    pub(crate) fn new(telemetry: &Arc<Telemetry>) -> Option<Self> {
        if telemetry.percent == 0 {
            return None;
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).ok()?;
        Some(Self {
            telemetry: Arc::clone(telemetry),
            dice: u64::from_ne_bytes(seed),
            bucket: Bucket::default(),
        })
    }

    /// A client publishes, at that time on a clock that only goes forward. Chance decides, and what there is in a second.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        client: &str,
        channel: &Arc<str>,
    ) -> Option<Publication> {
        // SplitMix64: nobody gains by guessing it, and it costs less than a call of the system.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut dice = self.dice;
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        dice = (dice ^ (dice >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let is_chosen = (dice >> 32) * 100 < u64::from(self.telemetry.percent) << 32;
        if !is_chosen || self.bucket.take(now, &MOST).is_err() {
            return None;
        }
        let mut random = [0; 24];
        getrandom::fill(&mut random).ok()?;
        let context = Context::root(random, 100);
        let attributes = vec![
            Attribute("tautline.channel", channel.to_string()),
            Attribute("tautline.client", client.to_owned()),
        ];
        Some(Publication {
            telemetry: Arc::clone(&self.telemetry),
            followed: Followed::new(Arc::clone(&self.telemetry), context),
            channel: Arc::clone(channel),
            begun: Instant::now(),
            span: Some(Finished {
                context,
                parent: None,
                name: "publish".to_owned(),
                kind: Kind::Server,
                start: unix_time(),
                took: Duration::ZERO,
                attributes,
                numbers: Vec::new(),
                error: None,
            }),
        })
    }
}

impl Publication {
    /// It was accepted just now, at this offset if the channel has a history. What follows it to where it is written.
    pub(crate) fn accepted(&mut self, offset: Option<u64>) -> Delivery {
        if let Some(span) = &mut self.span {
            let offset = offset.map(|offset| ("tautline.offset", offset));
            span.numbers.extend(offset);
        }
        self.followed.publish(&self.channel)
    }

    /// What goes on with it.
    pub(crate) fn trace(&self) -> Option<TraceParent> {
        self.span.as_ref().map(|span| span.context.into())
    }

    /// It was refused with this code.
    pub(crate) fn refused(&mut self, code: u32) {
        if let Some(span) = &mut self.span {
            let code = code.to_string();
            span.attributes.push(Attribute("error.type", code.clone()));
            span.error = Some(code);
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.took = self.begun.elapsed();
            self.telemetry.finish(span);
        }
    }
}

/// Of each worker: clients are many, and calls of the API should find room in the queue.
const MOST: Rate = Rate::per_second(50);
