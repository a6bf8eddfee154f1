//! Who a node is among others.

use tautline_hub::Entropy;

/// Who this node is.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// Unique among all that were ever started.
    pub(super) uid: String,
    /// For people.
    pub(super) name: String,
}

impl NodeIdentity {
    pub(crate) fn new(name: String, entropy: &mut dyn Entropy) -> Self {
        let mut uid = [0; 16];
        entropy.fill(&mut uid);
        Self {
            uid: format!("{:032x}", u128::from_be_bytes(uid)),
            name,
        }
    }

    /// What no other process has as its name.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }
}
