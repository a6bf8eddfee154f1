//! What an operator can set about sessions and channels.
//!
//! [`ClientOptions`] and [`ChannelOptions`] are the `[client]` and `[channel]` tables of a
//! configuration file as far as the hub knows them. [`HubConfig::new`] checks them and is the only
//! way to a hub, so a hub never meets options that contradict each other.

mod channel;
mod client;
pub mod duration;

use std::sync::Arc;

use hashbrown::HashMap;
use tautline_auth::Verifier;

pub use channel::{ChannelOptions, DataFormat, NamespaceOptions};
pub use client::ClientOptions;

/// What all hubs of a process go by. Checked, and fixed for the life of the process.
pub struct HubConfig {
    pub(crate) client: ClientOptions,
    pub(crate) channel: ChannelOptions,
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// Where in `channel.namespaces` a namespace is.
    namespaces: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
}

impl HubConfig {
    /// Checks the options. Without a `verifier` every token is invalid.
    ///
    /// # Errors
    ///
    /// The first option that can't be as it is, and why.
    pub fn new(
        client: ClientOptions,
        channel: ChannelOptions,
        verifier: Option<Arc<Verifier>>,
    ) -> Result<Self, ConfigError> {
        client.check()?;
        channel.check()?;
        let namespaces = channel.namespaces.iter().enumerate();
        let namespaces = namespaces.map(|(index, options)| (options.name.as_str().into(), index));
        Ok(Self {
            namespaces: namespaces.collect(),
            client,
            channel,
            verifier,
        })
    }

    /// The options of a namespace; those of channels without one for `None`.
    pub(crate) fn namespace(&self, name: Option<&str>) -> Option<&NamespaceOptions> {
        match name {
            None => Some(&self.channel.without_namespace),
            Some(name) => self
                .namespaces
                .get(name)
                .map(|&index| &self.channel.namespaces[index]),
        }
    }
}

/// An option that can't be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct ConfigError {
    /// Path of the option in a configuration file, such as `client.pong_timeout`.
    pub option: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl ConfigError {
    fn new(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            problem: problem.into(),
        }
    }
}
