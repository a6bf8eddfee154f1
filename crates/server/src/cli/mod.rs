//! The command line: `tautline dev`, `serve`, `token`, `key`, `config` and `doctor`, and the commands that
//! ask a running server (`client`, with `lab`).
//!
//! What is meant for a program or a pipe goes to standard output, everything else to standard
//! error. Exit status: 0 for success, 1 if the server could not do its work, 2 if the command line
//! or the configuration is wrong.

mod args;
mod banner;
mod client;
mod doctor;
mod error;
mod key;
mod logging;
mod token;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tautline_hub::Entropy as _;

use self::args::{Cli, Command, ConfigCommand, DevArgs, SetArgs};
use self::error::CliError;
use crate::config::{Config, ConfigFile, Reference, Shown};
use crate::embed::Node;
use crate::entropy::OsEntropy;
use crate::http::admin::Password;
use crate::node;

/// Does what the command line says, and returns the exit status.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with status 0.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            return if error.print().is_ok() {
                ExitCode::from(status)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    let result = match cli.command {
        None => dev(&cli.dev),
        Some(Command::Dev(args)) => dev(&args),
        Some(Command::Serve { config, settings }) => serve(&config, &settings),
        Some(Command::Token(args)) => token::run(&args),
        Some(Command::Key { name }) => key::run(&name),
        Some(Command::Password) => password(),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Client(command)) => client::run(&command),
        Some(Command::Config { command }) => match command {
            ConfigCommand::Check { file, settings } => check(&file, &settings),
            ConfigCommand::Reload { api } => client::reload(&api),
            ConfigCommand::Show {
                file,
                all,
                json,
                settings,
            } => show(&file, all, json, &settings),
            ConfigCommand::Default => print(&Reference::built_in().default_file()),
            ConfigCommand::Reference => print(&Reference::built_in().markdown()),
            ConfigCommand::Schema => print(&format!("{:#}\n", Reference::built_in().schema())),
        },
    };
    match result {
        Ok(()) | Err(CliError::NobodyReads) => ExitCode::SUCCESS,
        Err(error) => {
            // There may be words of a server's in it, or of a file's.
            let told = client::show::clean_lines(&error.to_string());
            logging::say(format!("error: {told}"));
            error.exit_code()
        }
    }
}

fn dev(args: &DevArgs) -> Result<(), CliError> {
    let config = Config::dev_for(args.listen, &args.allow_origin)?;
    let log = logging::install(&config.log)?;
    let ready = |address: SocketAddr| {
        // The server is up whether or not anybody reads this.
        let _ = io::stdout().write_all(banner::dev(address).as_bytes());
    };
    let node = Node::builder(config).logging_to(log.queue());
    node::run(node, ready).map_err(|error| CliError::run(&error, "--listen"))
}

fn serve(file: &Path, settings: &SetArgs) -> Result<(), CliError> {
    let file = ConfigFile::new(file, settings.set.clone());
    let config = file.load()?;
    check_alone(&config)?;
    let log = logging::install(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let ready = |address: SocketAddr| tracing::info!(%address, "listening");
    let node = Node::builder(config).reload_from(file);
    let (control, node) = (log.control(), node.logging_to(log.queue()));
    let node = node.when_applied(Box::new(move |config| control.set(&config.log)));
    node::run(node, ready).map_err(|error| CliError::run(&error, "http_server.port"))
}

/// Makes a password to what a configuration can have in its place.
fn password() -> Result<(), CliError> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MAX_PASSWORD + 3)
        .read_line(&mut line)
        .map_err(|error| CliError::Failure(format!("can't read the password: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    // One that was cut would be another.
    let is_long = password.len() as u64 > MAX_PASSWORD;
    if password.len() < MIN_PASSWORD || is_long {
        let text = format!(
            "expected a password of {MIN_PASSWORD} to {MAX_PASSWORD} bytes on standard input"
        );
        return Err(CliError::Usage(text));
    }
    let mut salt = [0; 16];
    let entropy = OsEntropy::new();
    let mut entropy =
        entropy.map_err(|error| CliError::Failure(format!("no randomness: {error}")))?;
    entropy.fill(&mut salt);
    print(&format!("{}\n", Password::hash(password.as_bytes(), salt)))
}

fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::NobodyReads),
        result => Ok(result?),
    }
}

/// Whether a server can do all of it that is nothing but a server.
fn check_alone(config: &Config) -> Result<(), CliError> {
    if config.wants_event_handler() {
        let text = "events.endpoint must be set where events.enabled is, to a URL such as \
                    https://app.example.com/tautline/events";
        return Err(CliError::Usage(text.to_owned()));
    }
    Ok(())
}

fn check(file: &Path, settings: &SetArgs) -> Result<(), CliError> {
    let config = ConfigFile::new(file, settings.set.clone()).load()?;
    check_alone(&config)?;
    for warning in &config.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    writeln!(io::stdout(), "{}: good", file.display())?;
    Ok(())
}

fn show(file: &Path, all: bool, json: bool, settings: &SetArgs) -> Result<(), CliError> {
    let (config, shown) = ConfigFile::new(file, settings.set.clone()).show(all)?;
    for warning in &config.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    if json {
        let json = serde_json::to_string_pretty(&shown).map_err(io::Error::other)?;
        return print(&format!("{json}\n"));
    }
    let mut text = String::new();
    for Shown {
        option,
        value,
        from,
        ..
    } in &shown
    {
        text.push_str(&format!("{option} = {value}  # {from}\n"));
    }
    print(&text)
}

const MIN_PASSWORD: usize = 12;
/// A login has room for that.
const MAX_PASSWORD: u64 = 4000;
