//! What can be said on the command line, and the text of `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::value::RawValue;
use tautline_hub::config::duration;

use super::client::args::{ApiArgs, ClientCommand};
use super::doctor::DoctorArgs;

/// Tautline, a real-time server: channels with history, lossless resume and presence, over
/// WebSocket.
///
/// Clients use the SDKs of the Centrifugal protocol (JavaScript, Python, Go, Dart, Swift, Java,
/// C#); the application's backend publishes through an HTTP API.
///
/// Without a command, `tautline` is `tautline dev`.
#[derive(Debug, Parser)]
#[command(
    name = "tautline",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) dev: DevArgs,
}

const AFTER_HELP: &str = "\
Examples:
  tautline                                          try it: http://127.0.0.1:8000
  tautline dev --listen 127.0.0.1:9000              the same on another port
  tautline config check tautline.toml               is the configuration right?
  tautline serve --config tautline.toml             run it for real
  tautline token --config tautline.toml --user 7    a token for user 7
  tautline subscribe lobby                          watch a channel of a running server
  tautline publish lobby '{\"text\":\"hello\"}'         publish into it
  tautline lab                                      polling or WebSocket? measured here

Exit status:
  0  done, or stopped by SIGINT or SIGTERM
  1  the server could not start or had to stop
  2  the command line or the configuration is wrong

`tautline <COMMAND> --help` tells more about each command.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a server to try things with, on this machine only
    ///
    /// Nothing needs to be configured: clients connect without a token, every channel is open to
    /// everybody and keeps its last 1000 messages for ten minutes, the API key is `dev`, and there is
    /// a chat page to look at. Channels that begin with `typing:` keep nothing.
    ///
    /// Because it lets everybody in, it listens on the loopback interface only, and refuses pages of
    /// other sites.
    Dev(DevArgs),

    /// Run a server as a configuration file says
    #[command(after_long_help = SERVE_AFTER_HELP)]
    Serve {
        /// The configuration: TOML, or .yaml, .yml or .json
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        settings: SetArgs,
    },

    /// Make a token (JWT) and print it
    ///
    /// With --channel it is a subscription token, which lets the user into that one channel;
    /// otherwise it is a connection token. Signed with HS256.
    ///
    /// The development server's secret changes with each start; ask the server itself:
    ///   curl -d '{"name":"Ann"}' http://127.0.0.1:8000/dev/token
    #[command(verbatim_doc_comment, after_long_help = TOKEN_AFTER_HELP)]
    Token(TokenArgs),

    /// Make a key for the HTTP API and print it
    ///
    /// The server needs its digest only, which is printed on standard error as the configuration has
    /// it. Add `methods` and `channels` there to make it good for less than everything.
    Key {
        /// What the key is called in the configuration and in the audit log
        #[arg(long, value_name = "NAME", default_value = "backend")]
        name: String,
    },

    /// Hash the admin's password, and print it as `admin.password_hash` takes it
    ///
    /// Reads the password from standard input, up to the end of the line:
    ///   tautline password < password.txt
    #[command(verbatim_doc_comment)]
    Password,

    /// Tell what keeps a server from its work, and which line to change
    ///
    /// Looks at this machine: descriptors, settings of the kernel, memory, clock. With --config also at
    /// a configuration and its certificates. With --url at the way to a running server from here,
    /// through all that stands between: whether WebSockets come through, whether streams are held
    /// back, whether pages of other sites are refused, whether the backend's API is kept inside.
    #[command(after_help = DOCTOR_AFTER_HELP)]
    Doctor(DoctorArgs),

    #[command(flatten)]
    Client(ClientCommand),

    /// Work with configuration files
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

const DOCTOR_AFTER_HELP: &str = "\
Examples:
  tautline doctor --config tautline.toml
  tautline doctor --url https://live.example.org --idle 90

Exit status: 0 if a server can do its work, 1 if something has to be mended.";

const SERVE_AFTER_HELP: &str = r#"A configuration to start from (a key that is left out has its default):

  [http_server]
  address = "127.0.0.1"
  port = 8000

  [client]
  # Pages of these sites may connect. Without the list: only those of this server's own origin.
  allowed_origins = ["https://app.example.org"]

  [client.token]
  # Your backend signs its users' tokens with it: openssl rand -hex 32
  hmac_secret_key = "..."

  [http_api]
  # Your backend sends it as X-API-Key: openssl rand -hex 32
  key = "..."

  # Options of channels such as `chat:lobby`.
  [[channel.namespaces]]
  name = "chat"
  presence = true
  history_size = 100
  history_ttl = "10m"
  force_recovery = true
  allow_subscribe_for_client = true
  allow_publish_for_subscriber = true

Variables of the environment count more than the file: TAUTLINE_CLIENT_PING_INTERVAL=20s, or
TAUTLINE_HTTP_API_KEY_FILE=/run/secrets/key for a value that is in a file.

SIGINT and SIGTERM stop the server: it tells its clients, which reconnect to another one, and
exits with status 0."#;

const TOKEN_AFTER_HELP: &str = "\
Examples:
  tautline token --config tautline.toml --user 7
  tautline token --config tautline.toml --user 7 --channel '$orders:7' --ttl 10m
  SECRET=... tautline token --secret-env SECRET --user 7 --info '{\"name\":\"Ann\"}'";

/// What counts more than the file and the environment.
#[derive(Clone, Debug, Args)]
pub(super) struct SetArgs {
    /// Set an option, whatever the file and the environment say: client.ping_interval=20s
    #[arg(long, value_name = "OPTION=VALUE")]
    pub(super) set: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct DevArgs {
    /// Address and port of the loopback interface; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub(super) listen: SocketAddr,

    /// Let pages of this origin connect, too, such as those of the server that you develop them with:
    /// http://localhost:5173; may be there more than once
    #[arg(long, value_name = "ORIGIN")]
    pub(super) allow_origin: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    pub(super) source: SecretSource,

    /// User id; an empty one makes an anonymous user
    #[arg(long, value_name = "ID")]
    pub(super) user: String,

    /// Make a subscription token for this channel
    #[arg(long, value_name = "CHANNEL")]
    pub(super) channel: Option<String>,

    /// How long the token is good for, such as 90s, 10m, 1h30m; 0 for ever
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    pub(super) ttl: Duration,

    /// Id of the token (`jti`), by which it can be revoked
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,

    /// What others are shown about the user: any JSON value
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(super) info: Option<Box<RawValue>>,
}

/// Where the secret comes from. Not from an argument: those can be seen by every user of the
/// machine.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SecretSource {
    /// Take the secret (and issuer and audience) from this configuration
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Take the secret from this environment variable
    #[arg(long, value_name = "VARIABLE")]
    pub(super) secret_env: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration file without running anything
    ///
    /// Prints warnings about what may not be meant. Exit status 0 if `serve` would take the file, 2
    /// if not.
    Check {
        /// The configuration: TOML, or .yaml, .yml or .json
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        settings: SetArgs,
    },

    /// Have a running server read its configuration again, and tell what has changed
    ///
    /// What can't be used is refused, with line and column, and changes nothing. Options that need a restart
    /// are named. SIGHUP does the same.
    Reload {
        #[command(flatten)]
        api: ApiArgs,
    },

    /// Print what each option is, and who says so: the file, the environment, the command line
    ///
    /// Secrets are not shown. Exit status 2 if the configuration is wrong.
    Show {
        /// The configuration: TOML, or .yaml, .yml or .json
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also options that nobody has set, with their defaults
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SetArgs,
    },

    /// Print a file with every option in it, commented out and at its default
    Default,

    /// Print what every option does, as Markdown
    Reference,

    /// Print a JSON Schema of the file, for editors
    Schema,
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error}; expected JSON such as '{{\"name\":\"Ann\"}}'"))
}
