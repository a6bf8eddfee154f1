//! Who takes part: each server, what it serves, and how it is started for that. A new peer is one more entry here.

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};

use crate::client::upgrade::Dialect;

/// What a load needs a server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends back what comes.
    Echo,
    /// The same, compressed, each message by itself.
    DeflateAlone,
    /// The same, compressed with context takeover.
    DeflateTakeover,
    /// Sends what comes to everybody who is connected.
    Broadcast,
    /// The same, compressed.
    BroadcastDeflate,
    /// Publish and subscribe over the client protocol: one channel.
    Channels,
    /// The same in Protobuf.
    ChannelsProtobuf,
    /// The same with patches in channels of `delta:` and filters in those of `filtered:`.
    ChannelsExtra,
    /// The same with channels and clients in any number: what takes a server that knows the protocol.
    Clients,
    /// The same with two workers.
    TwoWorkers,
    /// The client protocol with long histories.
    Proof,
    /// Echo through axum.
    Axum,
    /// Echo behind TLS 1.3.
    Tls,
    /// No server at all: the engine in a loop.
    Engine,
}

/// A server under test.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: Cow<'static, str>,
    version: Version,
    starts: Cow<'static, [Start]>,
    /// Whether the heap counter sees its allocations.
    pub(crate) heap_is_counted: bool,
    /// Left out unless it is asked for by name.
    on_request: bool,
    /// Where it tells its heap, if it has a collector and an allocator of its own: bytes and blocks.
    pub(crate) tells_its_heap: Option<&'static str>,
}

/// How a peer is started for a service.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    service: Service,
    program: Program,
    /// Behind `--listen ADDRESS`.
    pub(crate) arguments: &'static [&'static str],
    /// How it is spoken to.
    pub(crate) dialect: Dialect,
}

#[derive(Debug, Clone)]
enum Program {
    /// A binary of this workspace.
    Own(&'static str),
    /// A binary that `benches/run` builds from what is no Rust, and what to do when it is not there.
    Foreign(&'static str, &'static str),
    /// A binary of the main workspace, by its path in the build directory.
    Tautline(&'static str),
    /// `tautline serve` with these options.
    Serve(&'static str),
    /// `peers/bun`.
    Bun,
    /// Given on the command line.
    At(PathBuf),
}

/// Where a peer's version is written down.
#[derive(Debug, Clone, Copy)]
enum Version {
    /// It has none of its own.
    None,
    /// The crate of this name in this workspace's lock file.
    Crate(&'static str),
    /// Behind this text in a file.
    In(&'static str, &'static str),
}

/// What is executed.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    /// Before what says where to listen.
    pub(crate) before: Vec<PathBuf>,
    /// What says where to listen.
    pub(crate) listen: Listen,
}

/// How a server is told where to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listen {
    /// `--listen ADDRESS:PORT`.
    Option,
    /// `--config FILE`, a file of these options and the address.
    File(&'static str),
}

/// The name that ratios refer to.
pub(crate) const BASELINE: &str = "bare";

/// The name of what all this is about.
pub(crate) const OURS: &str = "tautline";

const LOCK: &str = include_str!("../Cargo.lock");
const GWS_MODULES: &str = include_str!("../peers/gws/go.mod");
const BUN_PACKAGE: &str = include_str!("../peers/bun/package.json");
const UWEBSOCKETS_PACKAGE: &str = include_str!("../peers/uwebsockets/requirements.txt");
const CENTRIFUGE_MODULES: &str = include_str!("../peers/centrifuge/go.mod");
const CENTRIFUGE: Program = Program::Foreign("peer-centrifuge", "it takes Go");
const PROOFS: Program = Program::Serve(include_str!("../proofs.toml"));
const TWO_WORKERS: Program = Program::Serve(concat!(
    include_str!("../tautline.toml"),
    "\n[node]\nworkers = 2\n"
));
const SERVE: Program = Program::Serve(include_str!("../tautline.toml"));
/// Where the client protocol is spoken.
const CLIENTS: &str = "/connection/websocket";
const GWS: Program = Program::Foreign("peer-gws", "it takes Go");
const UWEBSOCKETS: Program = Program::Foreign(
    "peer-uwebsockets",
    "it takes a C compiler, libuv1, and `pip install --no-deps --target package -r requirements.txt` \
     in benches/compare/peers/uwebsockets",
);

const TAUTLINE_REMEDY: &str = "benches/run builds it; --tautline DIR says where it is";

const BASE: Peer = Peer {
    name: Cow::Borrowed(BASELINE),
    version: Version::None,
    starts: Cow::Borrowed(&[]),
    heap_is_counted: true,
    on_request: false,
    tells_its_heap: None,
};

const fn raw(service: Service, arguments: &'static [&'static str]) -> Start {
    Start {
        service,
        program: Program::Own("peer-bare"),
        arguments,
        dialect: Dialect::Raw,
    }
}

const fn start(
    service: Service,
    program: Program,
    arguments: &'static [&'static str],
    path: &'static str,
) -> Start {
    Start {
        service,
        program,
        arguments,
        dialect: Dialect::WebSocket(path),
    }
}

/// The services of a library that has no compression.
macro_rules! plain {
    ($program:expr) => {
        Cow::Borrowed(&[
            start(Service::Echo, $program, &[], "/"),
            start(Service::Broadcast, $program, &["--broadcast"], "/"),
        ])
    };
}

/// The services of one that has.
macro_rules! compressing {
    ($program:expr) => {
        Cow::Borrowed(&[
            start(Service::Echo, $program, &[], "/"),
            start(
                Service::DeflateAlone,
                $program,
                &["--deflate", "alone"],
                "/",
            ),
            start(
                Service::DeflateTakeover,
                $program,
                &["--deflate", "takeover"],
                "/",
            ),
            start(Service::Broadcast, $program, &["--broadcast"], "/"),
            start(
                Service::BroadcastDeflate,
                $program,
                &["--broadcast", "--deflate", "alone"],
                "/",
            ),
        ])
    };
}

/// The services of a peer that answers reply by reply.
macro_rules! sending {
    ($program:expr) => {
        Cow::Borrowed(&[start(Service::Echo, $program, &["--send"], "/")])
    };
}

/// All peers, in the order of the tables.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        // Where others compress, it hands on the same messages as they are.
        starts: Cow::Borrowed(&[
            raw(Service::Echo, &[]),
            raw(Service::Broadcast, &["--fanout"]),
            raw(Service::BroadcastDeflate, &["--fanout"]),
            raw(Service::Channels, &["--fanout"]),
        ]),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed(OURS),
        starts: Cow::Borrowed(&[
            start(
                Service::Echo,
                Program::Tautline("examples/echo_server"),
                &[],
                "/",
            ),
            start(
                Service::DeflateAlone,
                Program::Tautline("examples/echo_server"),
                &["--deflate"],
                "/",
            ),
            start(
                Service::DeflateTakeover,
                Program::Tautline("examples/echo_server"),
                &["--deflate"],
                "/",
            ),
            start(
                Service::Broadcast,
                Program::Tautline("examples/broadcast_server"),
                &[],
                "/fanout",
            ),
            start(
                Service::BroadcastDeflate,
                Program::Tautline("examples/broadcast_server"),
                &["--deflate"],
                "/fanout",
            ),
            start(Service::Channels, SERVE, &[], CLIENTS),
            start(Service::ChannelsProtobuf, SERVE, &[], CLIENTS),
            start(Service::ChannelsExtra, SERVE, &[], CLIENTS),
            start(Service::Clients, SERVE, &[], CLIENTS),
            start(Service::TwoWorkers, TWO_WORKERS, &[], CLIENTS),
            start(Service::Proof, PROOFS, &[], CLIENTS),
            start(
                Service::Axum,
                Program::Own("peer-tautline"),
                &["--axum"],
                "/",
            ),
            start(Service::Tls, Program::Own("peer-tautline"), &["--tls"], "/"),
            start(Service::Engine, Program::Own("engine"), &[], "/"),
        ]),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("uwebsockets"),
        version: Version::In(UWEBSOCKETS_PACKAGE, "socketify=="),
        starts: compressing!(UWEBSOCKETS),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("bun"),
        version: Version::In(BUN_PACKAGE, "\"bun\": \""),
        starts: Cow::Borrowed(&[
            start(Service::Echo, Program::Bun, &[], "/echo"),
            start(
                Service::DeflateAlone,
                Program::Bun,
                &["--deflate", "alone"],
                "/echo",
            ),
            start(
                Service::DeflateTakeover,
                Program::Bun,
                &["--deflate", "takeover"],
                "/echo",
            ),
            start(Service::Broadcast, Program::Bun, &[], "/fanout"),
            start(
                Service::BroadcastDeflate,
                Program::Bun,
                &["--deflate", "alone"],
                "/fanout",
            ),
            start(Service::Channels, Program::Bun, &[], CLIENTS),
            start(Service::Clients, Program::Bun, &[], CLIENTS),
        ]),
        heap_is_counted: false,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("fastwebsockets"),
        version: Version::Crate("fastwebsockets"),
        starts: plain!(Program::Own("peer-fastwebsockets")),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("fastwebsockets/send"),
        version: Version::Crate("fastwebsockets"),
        starts: sending!(Program::Own("peer-fastwebsockets")),
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-websockets"),
        version: Version::Crate("tokio-websockets"),
        starts: plain!(Program::Own("peer-tokio-websockets")),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-websockets/send"),
        version: Version::Crate("tokio-websockets"),
        starts: sending!(Program::Own("peer-tokio-websockets")),
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("sockudo-ws"),
        version: Version::Crate("sockudo-ws"),
        starts: compressing!(Program::Own("peer-sockudo-ws")),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("sockudo-ws/send"),
        version: Version::Crate("sockudo-ws"),
        starts: sending!(Program::Own("peer-sockudo-ws")),
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("yawc"),
        version: Version::Crate("yawc"),
        starts: compressing!(Program::Own("peer-yawc")),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("yawc/send"),
        version: Version::Crate("yawc"),
        starts: sending!(Program::Own("peer-yawc")),
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-tungstenite"),
        version: Version::Crate("tokio-tungstenite"),
        starts: plain!(Program::Own("peer-tokio-tungstenite")),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("tokio-tungstenite/send"),
        version: Version::Crate("tokio-tungstenite"),
        starts: sending!(Program::Own("peer-tokio-tungstenite")),
        on_request: true,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("gws"),
        version: Version::In(GWS_MODULES, "github.com/lxzan/gws v"),
        starts: compressing!(GWS),
        heap_is_counted: false,
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("centrifuge"),
        version: Version::In(CENTRIFUGE_MODULES, "github.com/centrifugal/centrifuge v"),
        starts: Cow::Borrowed(&[
            start(Service::Channels, CENTRIFUGE, &[], CLIENTS),
            start(Service::ChannelsProtobuf, CENTRIFUGE, &[], CLIENTS),
            start(Service::ChannelsExtra, CENTRIFUGE, &[], CLIENTS),
            start(Service::Clients, CENTRIFUGE, &[], CLIENTS),
        ]),
        tells_its_heap: Some("/heap"),
        ..BASE
    },
    Peer {
        name: Cow::Borrowed("axum"),
        version: Version::Crate("axum"),
        starts: Cow::Borrowed(&[start(Service::Axum, Program::Own("peer-axum"), &[], "/")]),
        ..BASE
    },
];

impl Peer {
    /// A WebSocket echo server that is not of the table: from `NAME=PROGRAM`. It is taken to know `--deflate`.
    ///
    /// # Errors
    /// Why `text` is not of that form.
    pub(crate) fn ad_hoc(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, program)) if !name.is_empty() && !program.is_empty() => {
                let at = || Program::At(program.into());
                Ok(Self {
                    name: Cow::Owned(name.to_owned()),
                    starts: Cow::Owned(vec![
                        start(Service::Echo, at(), &[], "/"),
                        start(Service::DeflateAlone, at(), &["--deflate"], "/"),
                        start(Service::DeflateTakeover, at(), &["--deflate"], "/"),
                        start(Service::Broadcast, at(), &[], "/fanout"),
                        start(Service::BroadcastDeflate, at(), &["--deflate"], "/fanout"),
                        start(Service::Engine, at(), &[], "/"),
                    ]),
                    ..BASE
                })
            }
            _ => Err("it is NAME=PROGRAM, such as before=/tmp/echo_server".to_owned()),
        }
    }

    /// How it is started for `service`, if it has it.
    pub(crate) fn start(&self, service: Service) -> Option<&Start> {
        self.starts.iter().find(|start| start.service == service)
    }

    /// Its version, where it has one.
    pub(crate) fn version(&self) -> Option<&'static str> {
        match self.version {
            Version::None => None,
            Version::Crate(name) => locked(LOCK, name),
            Version::In(text, before) => {
                let (_, behind) = text.split_once(before)?;
                behind.split(['"', '\n', ' ']).next()
            }
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
}

impl Start {
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
            Program::Foreign(name, remedy) => (own_dir().join(name), vec![], *remedy),
            Program::Tautline(path) => (tautline_dir.join(path), vec![], TAUTLINE_REMEDY),
            Program::Serve(_) => (
                tautline_dir.join("tautline"),
                vec!["serve".into()],
                TAUTLINE_REMEDY,
            ),
            Program::Bun => (
                here.join("peers/bun/node_modules/.bin/bun"),
                vec![here.join("peers/bun/server.js")],
                "npm ci, in benches/compare/peers/bun",
            ),
            Program::At(program) => (program.clone(), vec![], "--also names it"),
        };
        let listen = match self.program {
            Program::Serve(options) => Listen::File(options),
            _ => Listen::Option,
        };
        if program.is_file() {
            Ok(CommandLine {
                program,
                before,
                listen,
            })
        } else {
            Err(format!("{} is not there ({remedy})", program.display()))
        }
    }
}

/// The version of a crate in `lock`. Where there are several, because one peer uses a crate that is another
/// peer by itself, it is the one that a program of ours names.
fn locked<'l>(lock: &'l str, name: &str) -> Option<&'l str> {
    let ours = lock
        .split("[[package]]\n")
        .filter(|package| package.starts_with("name = \"peer-"));
    let named = format!("\n \"{name} ");
    let version = ours.filter_map(|package| package.split_once(&named)).next();
    let only = || lock.split_once(&format!("name = \"{name}\"\nversion = \""));
    let (_, behind) = version.or_else(only)?;
    behind.split('"').next()
}

/// The directory of this program, where cargo puts the peers too.
pub(crate) fn own_dir() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    own.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Prints every peer, what it serves, and whether it was found.
pub(crate) fn print_list(tautline_dir: &Path) {
    for peer in PEERS {
        let version = peer.version().unwrap_or_default();
        println!("{} {version}", peer.name);
        for start in peer.starts.iter() {
            let state = match start.locate(tautline_dir) {
                Ok(_) if peer.on_request => "found, on request".to_owned(),
                Ok(_) => "found".to_owned(),
                Err(missing) => missing,
            };
            println!("    {:<18} {state}", format!("{:?}", start.service));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_tells_its_version() {
        for peer in PEERS {
            let version = peer.version();
            if peer.name == BASELINE || peer.name == OURS {
                assert_eq!(version, None);
            } else {
                let version = version.unwrap_or_default();
                assert!(
                    version.starts_with(|first: char| first.is_ascii_digit()),
                    "{}: {version:?}",
                    peer.name
                );
            }
        }
    }

    #[test]
    fn a_peer_has_the_version_that_its_program_uses() {
        let lock = "\
[[package]]
name = \"axum\"
version = \"0.8.9\"
dependencies = [
 \"tokio-tungstenite 0.29.0\",
]

[[package]]
name = \"peer-tokio-tungstenite\"
version = \"0.0.0\"
dependencies = [
 \"peer-kit\",
 \"tokio-tungstenite 0.30.0\",
]

[[package]]
name = \"tokio-tungstenite\"
version = \"0.29.0\"

[[package]]
name = \"tokio-tungstenite\"
version = \"0.30.0\"
";
        assert_eq!(locked(lock, "tokio-tungstenite"), Some("0.30.0"));
        assert_eq!(locked(lock, "axum"), Some("0.8.9"));
        assert_eq!(locked(lock, "yawc"), None);
    }
}
