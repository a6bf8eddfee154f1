//! What every engine must do, as tests; and an engine that is slow on purpose.
//!
//! Whoever writes an engine makes it a [`Subject`] and runs [`check`] over it:
//!
//! ```
//! use std::sync::Arc;
//! use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
//! use tautline_hub::engine::testkit::{self, Seeded, Subject};
//! use tautline_hub::engine::Engine;
//!
//! struct Memory(MemoryEngine);
//!
//! impl Subject for Memory {
//!     fn engine(&self) -> &dyn Engine {
//!         &self.0
//!     }
//! }
//!
//! testkit::check(|| Memory(MemoryEngine::new(MemoryOptions::default(), Box::new(Seeded::new(1)))));
//! ```

mod contract;
mod delayed;

pub use contract::{CONTRACT, Rule, check};
pub use delayed::{DelayOptions, DelayedEngine};

use super::Engine;
use crate::Now;
use crate::entropy::Entropy;

/// An engine to be tested.
pub trait Subject {
    /// The engine. Fresh: nobody has used it.
    fn engine(&self) -> &dyn Engine;

    /// Lets the engine get on with what was started. Called again and again while a test waits for
    /// an outcome or a delivery, at `now`; for an engine that works by itself, a good place to yield.
    fn pump(&self, now: Now) {
        let _ = now;
    }
}

/// Random bytes that are the same for the same seed (SplitMix64). For tests only.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// Bytes that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// `true` in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.bits().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}
