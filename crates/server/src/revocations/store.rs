//! Revocations on disk: a journal, to which a thread appends, and which it writes anew when most of it is over.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tautline_auth::{Revocation, Revocations, TokenId};
use tokio::sync::oneshot;

use super::RevocationsError;
use crate::events::journal::{self, Journal};
use crate::kept;

/// Hands revocations to the thread. That ends when this is gone.
pub(super) struct Store {
    requests: mpsc::Sender<Request>,
}

/// Hears whether what was to be written is; with the system's words if not.
pub(super) type Written = oneshot::Receiver<Result<(), String>>;

struct Request {
    record: Vec<u8>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Store {
    /// Reads what an earlier process has left into `known`, and starts the thread.
    pub(super) fn start(
        directory: &Path,
        known: Arc<Revocations>,
        now: fn() -> Duration,
    ) -> Result<Self, RevocationsError> {
        let file = KeptFile::open(directory, known, now)?;
        let (requests, asked) = mpsc::channel();
        let thread = thread::Builder::new().name("revocations".into());
        thread
            .spawn(move || write(file, &asked))
            .map_err(RevocationsError::System)?;
        Ok(Self { requests })
    }

    /// Has a revocation written, and says when it is so that it survives a loss of power.
    pub(super) fn add(&self, revocation: &Revocation) -> Written {
        let (done, written) = oneshot::channel();
        // A thread that has ended drops it, and that is heard.
        drop(self.requests.send(Request {
            record: encode(revocation),
            done,
        }));
        written
    }
}

/// The thread: those that wait are written together, and synced once.
fn write(mut file: KeptFile, asked: &mpsc::Receiver<Request>) {
    while let Ok(first) = asked.recv() {
        let all: Vec<_> = std::iter::once(first)
            .chain(asked.try_iter().take(TOGETHER))
            .collect();
        let mut bytes = Vec::new();
        for request in &all {
            journal::encode(&request.record, &mut bytes);
        }
        let outcome = file.append(&bytes, all.len());
        let outcome = outcome.map_err(|error| {
            let path = file.path.display();
            tracing::error!(%error, %path, "revocations can't be written: a restart forgets them");
            error.to_string()
        });
        for request in all {
            // Whoever doesn't wait any more need not hear of it.
            let _ = request.done.send(outcome.clone());
        }
    }
}

/// The file with them.
struct KeptFile {
    directory: PathBuf,
    path: PathBuf,
    journal: Journal,
    known: Arc<Revocations>,
    now: fn() -> Duration,
    /// Records in the file.
    records: usize,
    /// It lacks some: the next time it is written whole.
    lacks: bool,
    /// Held as long as this process uses the directory.
    _lock: File,
}

impl KeptFile {
    fn open(
        directory: &Path,
        known: Arc<Revocations>,
        now: fn() -> Duration,
    ) -> Result<Self, RevocationsError> {
        let failed = |source| RevocationsError::Directory {
            path: directory.to_owned(),
            source,
        };
        kept::directory(directory).map_err(failed)?;
        let lock = File::create(directory.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(RevocationsError::InUse(directory.to_owned()));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = directory.join("revocations.log");
        let (mut records, mut unknown) = (0, 0_u64);
        let (journal, cut) = Journal::open(&path, |record| {
            records += 1;
            match decode(record) {
                Some(revocation) => known.restore(&revocation),
                None => unknown += 1,
            }
        })
        .map_err(failed)?;
        let path_of = path.display();
        if cut > 0 {
            // It was not answered for: the process ended, or the power, while it was written.
            tracing::warn!(bytes = cut, path = %path_of, "revocations had a torn end, which was cut off");
        }
        if unknown > 0 {
            tracing::error!(records = unknown, path = %path_of, "revocations that this version can't read don't count");
        }
        known.forget_ended(now());
        let mut file = Self {
            directory: directory.to_owned(),
            path,
            journal,
            known,
            now,
            records,
            lacks: false,
            _lock: lock,
        };
        // What can't be read is left for a version that can.
        if unknown == 0 {
            file.shrink().map_err(failed)?;
        }
        journal::sync_directory(directory).map_err(failed)?;
        Ok(file)
    }

    /// Appends records that are encoded.
    fn append(&mut self, bytes: &[u8], records: usize) -> io::Result<()> {
        if self.lacks {
            // All that is known has been entered before it is to be written: these, too.
            self.rewrite()?;
            self.lacks = false;
            return Ok(());
        }
        // Until it is there, it may not be.
        self.lacks = true;
        self.journal.append(bytes)?;
        self.journal.sync()?;
        self.lacks = false;
        self.records += records;
        if let Err(error) = self.shrink() {
            tracing::warn!(%error, path = %self.path.display(), "revocations that are over can't be taken out of their file");
        }
        Ok(())
    }

    /// Takes out what is over, when that is most of it.
    fn shrink(&mut self) -> io::Result<()> {
        let (tokens, users) = self.known.count();
        if self.records > 2 * (tokens + users) + SPARE {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let all = self.known.all((self.now)());
        let mut bytes = Vec::new();
        for revocation in &all {
            journal::encode(&encode(revocation), &mut bytes);
        }
        self.journal = journal::replace(&self.path, &bytes)?;
        self.lacks = true;
        journal::sync_directory(&self.directory)?;
        self.lacks = false;
        self.records = all.len();
        Ok(())
    }
}

/// A revocation as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expire_at: Option<u64>,
}

fn encode(revocation: &Revocation) -> Vec<u8> {
    let record = match revocation {
        Revocation::Token { id, expire_at } => Record {
            token: Some(id.to_hex()),
            user: None,
            channel: None,
            issued_before: None,
            expire_at: *expire_at,
        },
        Revocation::User {
            user,
            issued_before,
            expire_at,
        } => Record {
            token: None,
            user: Some(user.clone()),
            channel: None,
            issued_before: Some(*issued_before),
            expire_at: *expire_at,
        },
        Revocation::UserChannel {
            user,
            channel,
            issued_before,
            expire_at,
        } => Record {
            token: None,
            user: Some(user.clone()),
            channel: Some(channel.clone()),
            issued_before: Some(*issued_before),
            expire_at: *expire_at,
        },
        // There is no other kind. One would be seen by the tests.
        _ => Record {
            token: None,
            user: None,
            channel: None,
            issued_before: None,
            expire_at: None,
        },
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

fn decode(record: &[u8]) -> Option<Revocation> {
    let Record {
        token,
        user,
        channel,
        issued_before,
        expire_at,
    } = serde_json::from_slice(record).ok()?;
    match (token, user, channel, issued_before) {
        (Some(token), None, None, None) => Some(Revocation::Token {
            id: TokenId::from_hex(&token)?,
            expire_at,
        }),
        (None, Some(user), None, Some(issued_before)) => Some(Revocation::User {
            user,
            issued_before,
            expire_at,
        }),
        (None, Some(user), Some(channel), Some(issued_before)) => Some(Revocation::UserChannel {
            user,
            channel,
            issued_before,
            expire_at,
        }),
        _ => None,
    }
}

/// Most that are written at a time.
const TOGETHER: usize = 1024;
/// So many records that are over are not worth writing the file anew.
const SPARE: usize = 1024;

#[cfg(test)]
mod tests {
    use tautline_auth::TokenMark;

    use super::*;
    use crate::events::scratch::Scratch;

    const NOW: Duration = Duration::from_secs(1_000);

    fn now() -> Duration {
        NOW
    }

    fn token(jti: &str, expire_at: Option<u64>) -> Revocation {
        Revocation::Token {
            id: TokenId::of_jti(jti),
            expire_at,
        }
    }

    fn user(user: &str, issued_before: u64) -> Revocation {
        Revocation::User {
            user: user.into(),
            issued_before,
            expire_at: None,
        }
    }

    fn open(directory: &Path) -> (KeptFile, Arc<Revocations>) {
        let known = Arc::new(Revocations::new(100_000));
        let file = KeptFile::open(directory, Arc::clone(&known), now).expect("it opens");
        (file, known)
    }

    fn add(file: &mut KeptFile, revocation: &Revocation) {
        file.known.add(revocation, NOW).expect("there is room");
        let mut bytes = Vec::new();
        journal::encode(&encode(revocation), &mut bytes);
        file.append(&bytes, 1).expect("it can be written");
    }

    fn has(known: &Revocations, jti: &str, user: &str) -> bool {
        known.has(&TokenMark::new(TokenId::of_jti(jti), Some(900)), user, NOW)
    }

    #[test]
    fn what_was_revoked_is_known_to_the_next_process() {
        let scratch = Scratch::new("revocations");
        let (mut file, _) = open(scratch.path());
        add(&mut file, &token("a", None));
        add(&mut file, &token("b", Some(1_001)));
        add(&mut file, &token("over", Some(1_000)));
        add(&mut file, &user("ann \"1\"\n", 901));
        let for_channel = Revocation::UserChannel {
            user: "bob".into(),
            channel: "a".into(),
            issued_before: 901,
            expire_at: None,
        };
        add(&mut file, &for_channel);
        drop(file);
        let (_file, known) = open(scratch.path());
        assert!(has(&known, "a", "") && has(&known, "b", ""));
        assert!(has(&known, "x", "ann \"1\"\n") && !has(&known, "x", "bob"));
        let token = TokenMark::new(TokenId::of_jti("x"), Some(900));
        for (channel, expected) in [("a", true), ("b", false)] {
            let is_revoked = known.has_subscription(&token, "bob", channel, NOW);
            assert_eq!(is_revoked, expected, "{channel}");
        }
        assert_eq!(known.count(), (2, 2));
    }

    #[test]
    fn two_processes_don_t_share_a_directory() {
        let scratch = Scratch::new("revocations");
        let (_file, known) = open(scratch.path());
        let second = KeptFile::open(scratch.path(), known, now);
        assert!(matches!(second, Err(RevocationsError::InUse(_))));
    }

    /// The file is as long as what is in it that counts, and half as much again; and whenever it is written anew, nothing is
    /// lost.
    #[test]
    fn what_is_over_is_taken_out_of_the_file() {
        let scratch = Scratch::new("revocations");
        let (mut file, known) = open(scratch.path());
        add(&mut file, &user("ann", 901));
        for round in 0..5_000 {
            add(
                &mut file,
                &token(&format!("over {}", round % 10), Some(1_001)),
            );
            assert!(file.records <= 2 * 11 + SPARE);
        }
        add(&mut file, &token("last", None));
        assert_eq!(known.count(), (11, 1));
        drop(file);
        let (file, known) = open(scratch.path());
        assert_eq!(known.count(), (11, 1));
        assert!(has(&known, "last", "") && has(&known, "x", "ann"));
        assert!(file.records < 2 * SPARE);
    }

    /// What could not be written is, as soon as that is possible.
    #[test]
    fn what_the_file_lacks_comes_into_it_with_the_next() {
        let scratch = Scratch::new("revocations");
        let (mut file, known) = open(scratch.path());
        known.add(&token("missed", None), NOW).expect("room");
        file.lacks = true;
        add(&mut file, &token("next", None));
        assert!(!file.lacks);
        add(&mut file, &token("behind", None));
        drop(file);
        let (_file, known) = open(scratch.path());
        assert!(
            ["missed", "next", "behind"]
                .iter()
                .all(|jti| has(&known, jti, ""))
        );
    }

    #[test]
    fn what_this_version_can_not_read_is_left_alone() {
        let scratch = Scratch::new("revocations");
        let (mut file, _) = open(scratch.path());
        let mut bytes = Vec::new();
        for record in [&br#"{"channel":"c"}"#[..], br#"{"token":"xyz"}"#, b"{"] {
            journal::encode(record, &mut bytes);
        }
        file.append(&bytes, 3).expect("it can be written");
        add(&mut file, &token("a", None));
        drop(file);
        let (file, known) = open(scratch.path());
        assert!(has(&known, "a", "") && known.count() == (1, 0));
        assert_eq!(file.records, 4);
    }

    #[test]
    fn the_thread_tells_when_it_is_written() {
        let scratch = Scratch::new("revocations");
        let known = Arc::new(Revocations::default());
        let store = Store::start(scratch.path(), Arc::clone(&known), now).expect("it starts");
        let written: Vec<_> = (0..50)
            .map(|index| {
                let revocation = token(&index.to_string(), None);
                known.add(&revocation, NOW).expect("there is room");
                store.add(&revocation)
            })
            .collect();
        for written in written {
            assert_eq!(written.blocking_recv(), Ok(Ok(())));
        }
        let bytes = std::fs::read(scratch.path().join("revocations.log")).expect("a file");
        assert_eq!(journal::Records::new(&bytes).count(), 50);
    }
}
