//! Lots that are the same in each run (xorshift).

#[derive(Debug)]
pub(crate) struct Lots(pub(crate) u64);

impl Lots {
    /// A number below this one.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
