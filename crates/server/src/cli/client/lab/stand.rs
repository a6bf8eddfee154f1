//! What is measured: nodes of one's own, a thread for each way, or a server elsewhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::LabArgs;
use super::cpu::{self, ThreadId};
use super::ways::Way;
use crate::cli::client::args::{ApiArgs, ServerArgs};
use crate::cli::client::call::{Server, call};
use crate::cli::error::CliError;
use crate::config::Config;
use crate::{Node, Publish};

/// Where the clients connect, and what publishes.
pub(super) enum Stand {
    /// A node for each way, in the order of [`Way::ALL`], so that its CPU time can be told; and one without
    /// clients, for what publishing alone costs.
    Own {
        nodes: Vec<OwnNode>,
        idle: OwnNode,
    },
    Other {
        server: Arc<Server>,
        api: ApiArgs,
    },
}

pub(super) struct OwnNode {
    node: Node,
    server: Arc<Server>,
    threads: Vec<ThreadId>,
}

impl Stand {
    pub(super) fn new(args: &LabArgs) -> Result<Self, CliError> {
        if let Some(url) = &args.url {
            let server = ServerArgs::at(url.clone());
            return Ok(Self::Other {
                server: Arc::new(Server::new(url)?),
                api: ApiArgs {
                    server,
                    key: args.key.clone(),
                },
            });
        }
        let nodes = Way::ALL.iter().map(|_| OwnNode::start());
        Ok(Self::Own {
            nodes: nodes.collect::<Result<_, _>>()?,
            idle: OwnNode::start()?,
        })
    }

    /// Where clients of this way connect.
    pub(super) fn server(&self, way: usize) -> Option<Arc<Server>> {
        match self {
            Self::Own { nodes, .. } => nodes.get(way).map(|node| Arc::clone(&node.server)),
            Self::Other { server, .. } => Some(Arc::clone(server)),
        }
    }

    /// Publishes one message to all, each copy with the time at which it is.
    pub(super) async fn publish(
        &self,
        channel: &str,
        start: Instant,
        message: impl Fn(u128) -> String,
    ) -> Result<(), CliError> {
        match self {
            Self::Own { nodes, idle } => {
                for node in nodes.iter().chain([idle]) {
                    let publish = Publish {
                        channel: channel.to_owned(),
                        data: message(start.elapsed().as_nanos()).into_bytes().into(),
                        ..Publish::default()
                    };
                    let published = node.node.handle().publish(publish).await;
                    published.map_err(|error| {
                        CliError::Failure(format!("can't publish: {}", error.message))
                    })?;
                }
                Ok(())
            }
            Self::Other { api, .. } => {
                let data = message(start.elapsed().as_nanos());
                let data: serde_json::Value = serde_json::from_str(&data)
                    .map_err(|error| CliError::Failure(error.to_string()))?;
                let parameters = json!({"channel": channel, "data": data});
                call(api, "publish", &parameters).await.map(|_| ())
            }
        }
    }

    /// What the clients of a way have cost the server so far.
    pub(super) fn cpu(&self, way: usize) -> Option<Duration> {
        match self {
            Self::Own { nodes, idle } => Some(nodes.get(way)?.cpu()?.saturating_sub(idle.cpu()?)),
            Self::Other { .. } => None,
        }
    }
}

impl OwnNode {
    /// Open to everybody on this machine, as in development; one thread.
    fn start() -> Result<Self, CliError> {
        let mut config = Config::dev(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        config.node.workers = 1;
        let before = cpu::all();
        let node = Node::builder(config).start();
        let node = node.map_err(|error| CliError::Failure(error.to_string()))?;
        let threads = cpu::all().difference(&before).cloned().collect();
        let address = node.address();
        let address =
            address.ok_or_else(|| CliError::Failure("the node does not listen".to_owned()))?;
        Ok(Self {
            node,
            server: Arc::new(Server::new(&format!("http://{address}"))?),
            threads,
        })
    }

    fn cpu(&self) -> Option<Duration> {
        let used = self.threads.iter().map(cpu::used);
        let used: Vec<_> = used.collect::<Option<_>>()?;
        (!used.is_empty()).then(|| used.iter().sum())
    }
}
