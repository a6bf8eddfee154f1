//! Who a node is among others.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tautline_hub::Entropy;

/// Who this node is.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// Unique among all that were ever started.
    uid: String,
    /// What it is called where nobody has named it.
    address: String,
    /// For people.
    name: Mutex<String>,
}

impl NodeIdentity {
    /// Of a node that is listening there, and has this name, if that isn't empty.
    pub(crate) fn new(name: &str, address: Option<SocketAddr>, entropy: &mut dyn Entropy) -> Self {
        let mut uid = [0; 16];
        entropy.fill(&mut uid);
        let identity = Self {
            uid: format!("{:032x}", u128::from_be_bytes(uid)),
            address: address.map_or_else(|| "embedded".to_owned(), |address| address.to_string()),
            name: Mutex::default(),
        };
        identity.rename(name);
        identity
    }

    /// What no other process has as its name.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        let name = self.name.lock();
        name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What people would call it if the configuration said so: by its address where that says nothing.
    pub(crate) fn name_by(&self, name: &str) -> String {
        let name = if name.is_empty() { &self.address } else { name };
        name.to_owned()
    }

    /// Calls it so from now on.
    pub(crate) fn rename(&self, name: &str) {
        let name = self.name_by(name);
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}
