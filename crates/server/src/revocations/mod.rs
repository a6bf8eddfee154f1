//! Revoked tokens of a node: entered where all hubs see them, written down, and enforced on who is here.
//!
//! In this order: entered first, so that nobody comes in any more, on whatever worker; then each worker ends what it has. A
//! call is answered when both is done, and what is to be kept is on disk.

mod store;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tautline_auth::{Revocation, Revocations, TokenId};
use tautline_hub::Ended;
use tautline_protocol::ErrorCode;
use tautline_protocol::message::Error;
use tokio::sync::mpsc;

use self::store::{Store, Written};
use crate::worker::thread::Shared;

/// Why revocations can't be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationsError {
    /// A file or the directory can't be used.
    #[error("{path}: {source} (revocation.directory must be a directory that the server may write to)", path = .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process keeps its own there.
    #[error(
        "{path} is in use by another process: each server needs a directory of its own (revocation.directory)",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The system gives no thread.
    #[error("the system gives no thread for revocations: {0}")]
    System(#[source] io::Error),
}

/// What a revocation has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revoked {
    /// Connections that it has ended.
    pub connections: usize,
    /// Subscriptions that it has ended, of connections that stay.
    pub subscriptions: usize,
    /// Whether it outlives this process (`revocation.directory`).
    pub persisted: bool,
}

/// Tokens that are to count no more. Times are in Unix seconds; `expire_at` is when this need not be known any more, as no
/// token of that kind is good any more, `None` for never.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revoke {
    /// Those with this `jti`.
    Token {
        /// The `jti`.
        uid: String,
        /// When it can be forgotten.
        expire_at: Option<u64>,
    },
    /// Those of this user.
    User {
        /// Whose.
        user: String,
        /// Those that were issued (`iat`) before this; `None` for all that were issued so far.
        issued_before: Option<u64>,
        /// When it can be forgotten.
        expire_at: Option<u64>,
    },
    /// The subscription tokens of this user for one channel. Those by which it connects count on, with the channels that they
    /// name.
    UserChannel {
        /// Whose.
        user: String,
        /// The channel.
        channel: String,
        /// Those that were issued (`iat`) before this; `None` for all that were issued so far.
        issued_before: Option<u64>,
        /// When it can be forgotten.
        expire_at: Option<u64>,
    },
    /// Those by which this connection is here, and has its subscriptions.
    Client {
        /// Its id.
        client: String,
        /// When it can be forgotten.
        expire_at: Option<u64>,
    },
}

/// The node's revocations, and where they are kept.
pub(crate) struct RevocationDesk {
    known: Arc<Revocations>,
    store: Option<Store>,
    /// It was said that they are not kept.
    has_warned: AtomicBool,
}

impl RevocationDesk {
    /// Reads those that are kept, if there is a directory for it. `known` is where all hubs look.
    pub(crate) fn start(
        directory: &str,
        known: &Arc<Revocations>,
    ) -> Result<Self, RevocationsError> {
        let store = match directory {
            "" => None,
            directory => Some(Store::start(
                Path::new(directory),
                Arc::clone(known),
                unix_time,
            )?),
        };
        Ok(Self {
            known: Arc::clone(known),
            store,
            has_warned: AtomicBool::new(false),
        })
    }

    /// How many are known of tokens, and of users.
    pub(crate) fn count(&self) -> (usize, usize) {
        self.known.count()
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.known.set_limit(limit);
    }

    /// Forgets those that are over, now and then. Never ends.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep(FORGET_INTERVAL).await;
            self.known.forget_ended(unix_time());
        }
    }

    fn enter(&self, revocation: &Revocation, now: Duration) -> Result<Option<Written>, Error> {
        self.known.add(revocation, now).map_err(|full| {
            let text = format!("{full} (revocation.max_entries)");
            explained(ErrorCode::LimitExceeded, &text)
        })?;
        if self.store.is_none() && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "tokens are revoked in memory only, and count again after a restart: set revocation.directory"
            );
        }
        Ok(self.store.as_ref().map(|store| store.add(revocation)))
    }
}

/// What is heard while a revocation comes about.
enum Told {
    Entered(Result<Option<Written>, Error>),
    Ended(Ended),
}

/// Revokes. It has begun when this returns, and happens whether or not the future is awaited.
///
/// # Errors
///
/// 107 for nobody, for a channel without a name, and for an id, user or channel that is too long; 110 for an `expire_at` that is over; 106 if no more may be known;
/// 100 if it could not be written, in which case it counts until the node ends.
pub(crate) fn revoke(
    shared: &Arc<Shared>,
    what: Revoke,
) -> impl Future<Output = Result<Revoked, Error>> + Send + use<> {
    let (tell, told) = mpsc::unbounded_channel();
    let now = unix_time();
    let begun = check(&what, now).map(|()| begin(shared, what, now, &tell));
    drop(tell);
    let is_kept = shared.revocations.store.is_some();
    async move {
        begun?;
        let mut revoked = gather(told).await?;
        revoked.persisted = is_kept;
        Ok(revoked)
    }
}

fn begin(shared: &Arc<Shared>, what: Revoke, now: Duration, tell: &mpsc::UnboundedSender<Told>) {
    let desk = &shared.revocations;
    // Those of this second as well: whoever gets one in it is asked to fetch another.
    let before = |time: Option<u64>| time.unwrap_or(now.as_secs() + 1);
    let (revocation, user) = match what {
        Revoke::Token { uid, expire_at } => {
            let id = TokenId::of_jti(&uid);
            (Revocation::Token { id, expire_at }, None)
        }
        Revoke::User {
            user,
            issued_before,
            expire_at,
        } => {
            let revocation = Revocation::User {
                user: user.clone(),
                issued_before: before(issued_before),
                expire_at,
            };
            (revocation, Some(user))
        }
        Revoke::UserChannel {
            user,
            channel,
            issued_before,
            expire_at,
        } => {
            let revocation = Revocation::UserChannel {
                user: user.clone(),
                channel,
                issued_before: before(issued_before),
                expire_at,
            };
            (revocation, Some(user))
        }
        Revoke::Client { client, expire_at } => {
            return begin_client(shared, &client, expire_at, tell);
        }
    };
    let entered = desk.enter(&revocation, now);
    let is_entered = entered.is_ok();
    // Whoever doesn't wait for it need not hear of it; here as below.
    drop(tell.send(Told::Entered(entered)));
    if is_entered {
        enforce(shared, user.as_deref(), tell);
    }
}

/// Which tokens those of a connection are is known where it is.
fn begin_client(
    shared: &Arc<Shared>,
    client: &str,
    expire_at: Option<u64>,
    tell: &mpsc::UnboundedSender<Told>,
) {
    for mailbox in &shared.mailboxes {
        let (shared, client, tell) = (Arc::clone(shared), client.to_owned(), tell.clone());
        mailbox.call(Box::new(move |now, state| {
            let Some(marks) = state.hub.tokens_of(&client) else {
                return;
            };
            for mark in marks {
                let id = mark.id();
                let revocation = Revocation::Token { id, expire_at };
                let entered = shared.revocations.enter(&revocation, now.unix);
                drop(tell.send(Told::Entered(entered)));
            }
            // By whatever it is here, it goes.
            let ended = state.hub.end_revoked(now, &client, &mut state.connections);
            drop(tell.send(Told::Ended(ended)));
            enforce(&shared, None, &tell);
        }));
    }
}

/// Has each worker end what it has by tokens that are revoked.
fn enforce(shared: &Arc<Shared>, user: Option<&str>, tell: &mpsc::UnboundedSender<Told>) {
    for mailbox in &shared.mailboxes {
        let (user, tell) = (user.map(str::to_owned), tell.clone());
        mailbox.call(Box::new(move |now, state| {
            let (user, out) = (user.as_deref(), &mut state.connections);
            let ended = state.hub.enforce_revocations(now, user, out);
            drop(tell.send(Told::Ended(ended)));
        }));
    }
}

/// Waits for all that has begun.
async fn gather(mut told: mpsc::UnboundedReceiver<Told>) -> Result<Revoked, Error> {
    let (mut revoked, mut all_written, mut failure) = (Revoked::default(), Vec::new(), None);
    while let Some(told) = told.recv().await {
        match told {
            Told::Ended(ended) => {
                revoked.connections += ended.connections;
                revoked.subscriptions += ended.subscriptions;
            }
            Told::Entered(Ok(written)) => all_written.extend(written),
            Told::Entered(Err(error)) => failure = Some(error),
        }
    }
    for written in all_written {
        let gone = Err("the thread that writes has ended".to_owned());
        if let Err(error) = written.await.unwrap_or(gone) {
            let text = format!("revoked until a restart, as it can't be written: {error}");
            failure.get_or_insert(explained(ErrorCode::Internal, &text));
        }
    }
    failure.map_or(Ok(revoked), Err)
}

fn check(what: &Revoke, now: Duration) -> Result<(), Error> {
    let (name, text, channel, expire_at) = match what {
        Revoke::Token { uid, expire_at } => ("uid", uid, None, expire_at),
        Revoke::User {
            user, expire_at, ..
        } => ("user", user, None, expire_at),
        Revoke::UserChannel {
            user,
            channel,
            expire_at,
            ..
        } => ("user", user, Some(channel), expire_at),
        Revoke::Client { client, expire_at } => ("client", client, None, expire_at),
    };
    check_name(name, text, "")?;
    if let Some(channel) = channel {
        let of_all = "; leave it out to revoke all tokens of the user";
        check_name("channel", channel, of_all)?;
    }
    if expire_at.is_some_and(|end| end <= now.as_secs()) {
        let text = "expire_at is over already: leave it out if you don't know until when such tokens are good";
        return Err(explained(ErrorCode::Expired, text));
    }
    Ok(())
}

fn check_name(name: &str, text: &str, hint: &str) -> Result<(), Error> {
    let length = text.len();
    if (1..=MAX_NAME).contains(&length) {
        return Ok(());
    }
    let text = format!("{name} has {length} bytes, expected 1 to {MAX_NAME}{hint}");
    Err(explained(ErrorCode::BadRequest, &text))
}

fn explained(code: ErrorCode, text: &str) -> Error {
    Error {
        message: Cow::Owned(format!("{}: {text}", code.message())),
        ..code.into()
    }
}

fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Longest id, user or channel, in bytes.
const MAX_NAME: usize = 1024;
