//! Who takes part: each server, how it is started, and which loads it knows. A new peer is one more entry here.

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};

use crate::client::upgrade::Dialect;

/// A server under test.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: Cow<'static, str>,
    program: Program,
    /// Behind `--listen ADDRESS`.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) echo: Option<Dialect>,
    pub(crate) fanout: Option<Fanout>,
    /// Whether the heap counter sees its allocations.
    pub(crate) heap_is_counted: bool,
    /// Left out unless it is asked for by name.
    on_request: bool,
}

/// How a peer's fan-out is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fanout {
    pub(crate) dialect: Dialect,
    pub(crate) channel: &'static str,
}

#[derive(Debug, Clone)]
enum Program {
    /// A binary of this workspace.
    Own(&'static str),
    /// A binary of the main workspace, by its path in the build directory.
    Tautline {
        path: &'static str,
        before: &'static [&'static str],
    },
    /// `peers/bun`.
    Bun,
    /// Given on the command line.
    At(PathBuf),
}

/// What is executed.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    /// Before `--listen`.
    pub(crate) before: Vec<PathBuf>,
}

/// The name that ratios refer to.
pub(crate) const BASELINE: &str = "bare";

const ECHO: Option<Dialect> = Some(Dialect::WebSocket("/"));
const BASE: Peer = Peer {
    name: Cow::Borrowed(BASELINE),
    program: Program::Own("peer-bare"),
    arguments: &[],
    echo: None,
    fanout: None,
    heap_is_counted: true,
    on_request: false,
};

/// All peers, in the order of the tables.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        echo: Some(Dialect::Raw),
        ..BASE
    },
    Peer {
        arguments: &["--fanout"],
        fanout: Some(Fanout {
            dialect: Dialect::Raw,
            channel: "bench",
        }),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tautline"),
        program: Program::Tautline {
            path: "examples/echo_server",
            before: &[],
        },
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tautline"),
        program: Program::Tautline {
            path: "tautline",
            before: &["dev"],
        },
        // The one namespace of `tautline dev` that keeps neither history nor presence.
        fanout: Some(Fanout {
            dialect: Dialect::WebSocket("/connection/websocket"),
            channel: "typing:bench",
        }),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("fastwebsockets"),
        program: Program::Own("peer-fastwebsockets"),
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("fastwebsockets/send"),
        program: Program::Own("peer-fastwebsockets"),
        arguments: &["--send"],
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-websockets"),
        program: Program::Own("peer-tokio-websockets"),
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-websockets/send"),
        program: Program::Own("peer-tokio-websockets"),
        arguments: &["--send"],
        echo: ECHO,
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("sockudo-ws"),
        program: Program::Own("peer-sockudo-ws"),
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("sockudo-ws/send"),
        program: Program::Own("peer-sockudo-ws"),
        arguments: &["--send"],
        echo: ECHO,
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("yawc"),
        program: Program::Own("peer-yawc"),
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("yawc/send"),
        program: Program::Own("peer-yawc"),
        arguments: &["--send"],
        echo: ECHO,
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-tungstenite"),
        program: Program::Own("peer-tokio-tungstenite"),
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-tungstenite/send"),
        program: Program::Own("peer-tokio-tungstenite"),
        arguments: &["--send"],
        echo: ECHO,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("bun"),
        program: Program::Bun,
        echo: Some(Dialect::WebSocket("/echo")),
        fanout: Some(Fanout {
            dialect: Dialect::WebSocket("/connection/websocket"),
            channel: "bench",
        }),
        heap_is_counted: false,
        ..BASE
    },
];

impl Peer {
    /// A WebSocket echo server that is not of the table: from `NAME=PROGRAM`.
    ///
    /// # Errors
    /// Why `text` is not of that form.
    pub(crate) fn ad_hoc(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, program)) if !name.is_empty() && !program.is_empty() => Ok(Self {
                name: Cow::Owned(name.to_owned()),
                program: Program::At(program.into()),
                echo: ECHO,
                ..BASE
            }),
            _ => Err("it is NAME=PROGRAM, such as before=/tmp/echo_server".to_owned()),
        }
    }

    /// Whether it takes part, given the names that were asked for.
    pub(crate) fn is_wanted(&self, names: &[String]) -> bool {
        if names.is_empty() {
            !self.on_request
        } else {
            names.iter().any(|name| *name == self.name)
        }
    }

    /// What to execute.
    ///
    /// # Errors
    /// What is missing and how to get it.
    pub(crate) fn locate(&self, tautline_dir: &Path) -> Result<CommandLine, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (program, before, remedy) = match &self.program {
            Program::Own(name) => (
                own_dir().join(name),
                vec![],
                "cargo build --release --workspace, in benches/compare",
            ),
            Program::Tautline { path, before } => (
                tautline_dir.join(path),
                before.iter().map(PathBuf::from).collect(),
                "benches/run builds it; --tautline DIR says where it is",
            ),
            Program::Bun => (
                here.join("peers/bun/node_modules/.bin/bun"),
                vec![here.join("peers/bun/server.js")],
                "npm ci, in benches/compare/peers/bun",
            ),
            Program::At(program) => (program.clone(), vec![], "--also names it"),
        };
        if program.is_file() {
            Ok(CommandLine { program, before })
        } else {
            Err(format!("{} is not there ({remedy})", program.display()))
        }
    }

    fn loads(&self) -> &'static str {
        match (&self.echo, &self.fanout) {
            (Some(_), Some(_)) => "echo idle fanout",
            (Some(_), None) => "echo idle",
            _ => "fanout",
        }
    }
}

/// The directory of this program, where cargo puts the peers too.
pub(crate) fn own_dir() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    own.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Prints every peer and whether it was found.
pub(crate) fn print_list(tautline_dir: &Path) {
    for peer in PEERS {
        let state = match peer.locate(tautline_dir) {
            Ok(_) if peer.on_request => "found, on request".to_owned(),
            Ok(_) => "found".to_owned(),
            Err(missing) => missing,
        };
        println!("{:<24} {:<17} {state}", peer.name, peer.loads());
    }
}
