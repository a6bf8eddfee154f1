//! Names of sessions, for requests that come beside their connection.
//!
//! A client whose connection carries messages in one direction only names its session in each
//! request of the other. The name is secret, says by itself where the session is, and can't be made
//! up: node, worker and place in its table, and a code over all of that (HMAC-SHA-256, RFC 2104,
//! half of it, which its section 5 allows) with a key that the node has made for itself. So any worker
//! can take any request, with nothing to look up and nothing to remember; and a name is worth nothing
//! any more when its session has ended.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use tautline_hub::{Entropy, SessionAddress, SessionId};

/// Worker, index, generation.
const PLACE_LEN: usize = 2 + 4 + 4;
const CODE_LEN: usize = 16;

/// What a node makes and reads its sessions' names with.
#[derive(Clone)]
pub(crate) struct AddressKey {
    node: Arc<str>,
    key: hmac::Key,
    /// What the sessions are for: a name of one purpose is none of another.
    purpose: &'static str,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) worker: u16,
    pub(crate) id: SessionId,
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// It names another node. Where nodes can reach each other, that one would be asked: it alone can
    /// tell whether the name is good.
    OtherNode,
    /// It isn't one of this node's.
    Forged,
}

impl AddressKey {
    /// A new key for the sessions of `node`.
    pub(crate) fn new(node: &str, entropy: &mut dyn Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self {
            node: node.into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            purpose: "",
        }
    }

    /// The same for sessions of another purpose, whose names are nothing here, and the other way round.
    pub(crate) fn for_purpose(&self, purpose: &'static str) -> Self {
        Self {
            purpose,
            ..self.clone()
        }
    }

    /// The name of a session.
    pub(crate) fn name(&self, place: Place) -> SessionAddress {
        self.name_of(place, "")
    }

    /// The name of a session that is `owner`'s alone: it leads nowhere for another.
    pub(crate) fn name_of(&self, place: Place, owner: &str) -> SessionAddress {
        let place = place.to_bytes();
        let mut bytes = [0; PLACE_LEN + CODE_LEN];
        bytes[..PLACE_LEN].copy_from_slice(&place);
        bytes[PLACE_LEN..].copy_from_slice(&self.code(owner, place));
        let session = format!("{}.{}", self.node, URL_SAFE_NO_PAD.encode(bytes));
        SessionAddress {
            session: session.into(),
            node: Some(Arc::clone(&self.node)),
        }
    }

    /// Where the session of that name is, or was.
    pub(crate) fn find(&self, session: &str) -> Result<Place, Unreachable> {
        self.find_of(session, "")
    }

    /// The same for a session of `owner`'s.
    pub(crate) fn find_of(&self, session: &str, owner: &str) -> Result<Place, Unreachable> {
        let (node, rest) = session.split_once('.').ok_or(Unreachable::Forged)?;
        if node != &*self.node {
            return Err(Unreachable::OtherNode);
        }
        let mut bytes = [0; PLACE_LEN + CODE_LEN];
        let len = URL_SAFE_NO_PAD.decode_slice(rest, &mut bytes);
        if len != Ok(bytes.len()) {
            return Err(Unreachable::Forged);
        }
        let (place, code) = bytes
            .split_first_chunk::<PLACE_LEN>()
            .ok_or(Unreachable::Forged)?;
        if !bool::from(self.code(owner, *place).ct_eq(code)) {
            return Err(Unreachable::Forged);
        }
        Ok(Place::from_bytes(*place))
    }

    fn code(&self, owner: &str, place: [u8; PLACE_LEN]) -> [u8; CODE_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        // Purpose and node are the same for all names of a key, and a place has its length.
        context.update(self.purpose.as_bytes());
        context.update(self.node.as_bytes());
        context.update(owner.as_bytes());
        context.update(&place);
        let mut code = [0; CODE_LEN];
        code.copy_from_slice(&context.sign().as_ref()[..CODE_LEN]);
        code
    }
}

impl Place {
    fn to_bytes(self) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        bytes[..2].copy_from_slice(&self.worker.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.id.index.to_be_bytes());
        bytes[6..].copy_from_slice(&self.id.generation.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; PLACE_LEN]) -> Self {
        let [a, b, index @ .., c, d, e, f] = bytes;
        Self {
            worker: u16::from_be_bytes([a, b]),
            id: SessionId {
                index: u32::from_be_bytes(index),
                generation: u32::from_be_bytes([c, d, e, f]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
        }
    }

    const PLACE: Place = Place {
        worker: 513,
        id: SessionId {
            index: 0x0102_0304,
            generation: 0x0506_0708,
        },
    };

    #[test]
    fn a_name_leads_to_its_session() {
        let key = AddressKey::new("n1", &mut Counting(0));
        let address = key.name(PLACE);
        assert_eq!(address.node.as_deref(), Some("n1"));
        assert_eq!(key.find(&address.session), Ok(PLACE));
    }

    #[test]
    fn no_name_can_be_made_up() {
        let key = AddressKey::new("n1", &mut Counting(0));
        let session = key.name(PLACE).session;
        // Each byte of it counts, be it of the place or of the code.
        let (node, text) = session.split_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        for index in 0..bytes.len() {
            let mut other = bytes.clone();
            other[index] ^= 1;
            let other = format!("{node}.{}", URL_SAFE_NO_PAD.encode(other));
            assert_eq!(key.find(&other), Err(Unreachable::Forged), "byte {index}");
        }
        for other in [
            "",
            "n1",
            "n1.",
            "n1.AAAA",
            "n1.!!",
            &session[..session.len() - 1],
        ] {
            assert_eq!(key.find(other), Err(Unreachable::Forged), "{other}");
        }
        assert_eq!(key.find(&format!("{session}AA")), Err(Unreachable::Forged));
        // What another node has signed is that node's.
        let another = AddressKey::new("n2", &mut Counting(0)).name(PLACE).session;
        assert_eq!(key.find(&another), Err(Unreachable::OtherNode));
        let moved = another.replacen("n2", "n1", 1);
        assert_eq!(key.find(&moved), Err(Unreachable::Forged));
        let tunnel = key.for_purpose("tunnel");
        assert_eq!(tunnel.find(&session), Err(Unreachable::Forged));
        let other = tunnel.name(PLACE).session;
        assert_eq!(key.find(&other), Err(Unreachable::Forged));
        assert_eq!(tunnel.find(&other), Ok(PLACE));
        let ones = tunnel.name_of(PLACE, "a").session;
        assert_eq!(tunnel.find_of(&ones, "a"), Ok(PLACE));
        for other in ["", "b", "ab"] {
            assert_eq!(tunnel.find_of(&ones, other), Err(Unreachable::Forged));
        }
        // And so is what this node has signed in an earlier life.
        let earlier = AddressKey::new("n1", &mut Counting(9)).name(PLACE).session;
        assert_eq!(key.find(&earlier), Err(Unreachable::Forged));
    }
}
