//! Counting sessions, for people who look after a server.

use std::collections::BTreeMap;

use super::Hub;

/// Sessions of one transport, by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Not in yet, or refused and about to end.
    pub coming: usize,
    /// In.
    pub connected: usize,
}

impl Hub {
    /// How many sessions there are, by the name of their transport. Looks at each of them.
    pub fn census(&self) -> BTreeMap<&'static str, Census> {
        let mut all: BTreeMap<_, Census> = BTreeMap::new();
        for id in self.sessions.ids() {
            let Some(session) = self.sessions.get(id) else {
                continue;
            };
            let census = all.entry(session.transport.name).or_default();
            if session.connected().is_some() {
                census.connected += 1;
            } else {
                census.coming += 1;
            }
        }
        all
    }
}
