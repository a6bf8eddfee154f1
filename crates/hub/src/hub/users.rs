//! The users of one hub, and the connections of each.
//!
//! A user's sessions are a list through the sessions themselves: finding them costs what they are,
//! however many others there are, and coming and going costs the same for a user with one connection
//! and for the anonymous one, who may have most of them.

use std::sync::Arc;

use hashbrown::HashMap;

use super::SessionId;
use super::sessions::Sessions;

/// All users with connected sessions.
#[derive(Default)]
pub(crate) struct Users {
    index: HashMap<Arc<str>, User, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy)]
struct User {
    count: u32,
    /// Index of the session that came last.
    newest: u32,
}

/// A session's neighbours in the list of its user's: indices of the table of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peers {
    newer: u32,
    older: u32,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            newer: NOBODY,
            older: NOBODY,
        }
    }
}

impl Users {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.index.keys()
    }

    /// The user id as others here share it, if the user is here.
    pub(crate) fn known(&self, user: &str) -> Option<&Arc<str>> {
        self.index.get_key_value(user).map(|(user, _)| user)
    }

    /// Enters a session that is connected now.
    pub(crate) fn enter(&mut self, user: &Arc<str>, id: SessionId, sessions: &mut Sessions) {
        let entry = self.index.entry(user.clone()).or_insert(User {
            count: 0,
            newest: NOBODY,
        });
        let older = std::mem::replace(&mut entry.newest, id.index);
        entry.count += 1;
        if let Some(connected) = sessions.connected_at_mut(older) {
            connected.peers.newer = id.index;
        }
        if let Some(connected) = sessions.connected_at_mut(id.index) {
            connected.peers = Peers {
                newer: NOBODY,
                older,
            };
        }
    }

    /// Takes out a session of `user` that had these neighbours, and is out of the table already.
    pub(crate) fn leave(&mut self, user: &str, peers: Peers, sessions: &mut Sessions) {
        let Peers { newer, older } = peers;
        if let Some(connected) = sessions.connected_at_mut(newer) {
            connected.peers.older = older;
        }
        if let Some(connected) = sessions.connected_at_mut(older) {
            connected.peers.newer = newer;
        }
        let Some(entry) = self.index.get_mut(user) else {
            return;
        };
        entry.count -= 1;
        if entry.count == 0 {
            self.index.remove(user);
        } else if newer == NOBODY {
            entry.newest = older;
        }
    }

    /// The sessions of a user, newest first.
    pub(crate) fn sessions_of(&self, user: &str, sessions: &Sessions) -> Vec<SessionId> {
        let Some(&User { count, newest }) = self.index.get(user) else {
            return Vec::new();
        };
        let mut found = Vec::with_capacity(count as usize);
        let mut next = newest;
        // No more than were entered: a list that had come to bite its tail would not keep the hub for ever.
        for _ in 0..count {
            let Some((id, connected)) = sessions.connected_at(next) else {
                break;
            };
            found.push(id);
            next = connected.peers.older;
        }
        found
    }
}

/// Where a list ends. No table of sessions gets so long.
const NOBODY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use tautline_protocol::Encoding;
    use tautline_protocol::message::ClientInfo;

    use super::super::Transport;
    use super::super::liveness::Heartbeat;
    use super::super::sessions::{Connected, Session, State};
    use super::super::tally::Tally;
    use super::*;

    fn session(user: &Arc<str>) -> Session {
        Session {
            counted: Tally::default().open("websocket"),
            transport: Transport::new("websocket", Encoding::Json),
            state: State::Connected(Connected {
                info: Arc::new(ClientInfo {
                    user: user.clone(),
                    ..ClientInfo::default()
                }),
                subscriptions: Vec::new(),
                heartbeat: Heartbeat::new(None, 0),
                mark: tautline_auth::TokenMark::NONE,
                expires_at: None,
                peers: Peers::default(),
                conduct: None,
            }),
            waiting: None,
            answers: 0,
            backlog: None,
            armed: 0,
            is_slow: false,
            is_tried: false,
            lag: None,
        }
    }

    #[test]
    fn a_list_is_no_longer_than_its_user_has_sessions() {
        let (mut users, mut sessions) = (Users::default(), Sessions::default());
        let ann: Arc<str> = "ann".into();
        let ids = [(); 3].map(|()| {
            let id = sessions.insert(session(&ann));
            users.enter(&ann, id, &mut sessions);
            id
        });
        let newest_first = [ids[2], ids[1], ids[0]];
        assert_eq!(users.sessions_of("ann", &sessions), newest_first);
        assert_eq!(users.sessions_of("bob", &sessions), []);
        // It bites its tail.
        let oldest = sessions.connected_at_mut(ids[0].index).unwrap();
        oldest.peers.older = ids[2].index;
        assert_eq!(users.sessions_of("ann", &sessions), newest_first);
    }
}
