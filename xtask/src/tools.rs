//! What the suites need beyond Cargo: found, or installed where that is allowed and possible.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::go;
use crate::java;
use crate::node::{self, Node};
use crate::process;
use crate::python;

const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Something a suite can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Caddy,
    Chromium,
    Clippy,
    Go,
    Haproxy,
    Java,
    Nginx,
    Node,
    Openssl,
    Promtool,
    Python,
    Rustfmt,
}

/// What was found of what was asked for.
#[derive(Default)]
pub(crate) struct Tools {
    caddy: Option<PathBuf>,
    chromium: Option<PathBuf>,
    go: Option<PathBuf>,
    haproxy: Option<PathBuf>,
    maven: Option<PathBuf>,
    nginx: Option<PathBuf>,
    node: Option<Node>,
    promtool: Option<PathBuf>,
    python: Option<PathBuf>,
}

impl Tools {
    /// Finds all of `needs`, after installing what is missing if `context` allows it.
    ///
    /// # Errors
    ///
    /// Names everything that is missing, and how to get each.
    pub(crate) fn prepare(context: &Context, needs: &[Need]) -> Result<Self, Error> {
        let mut needs = needs.to_vec();
        needs.sort();
        needs.dedup();
        // Where there is no Node.js or Go, Python can bring one.
        if needs.contains(&Need::Node) && node::find(context).is_none()
            || needs.contains(&Need::Go) && go::find(context).is_none()
        {
            needs.push(Need::Python);
        }
        let missing: Vec<_> = needs
            .iter()
            .copied()
            .filter(|&need| !Self::has(context, need))
            .collect();
        if !missing.is_empty() && context.install {
            install(context, &missing);
        }
        let mut tools = Self {
            caddy: find_daemon("caddy", "CADDY"),
            chromium: find_chromium(),
            haproxy: find_daemon("haproxy", "HAPROXY"),
            nginx: find_daemon("nginx", "NGINX"),
            go: go::find(context),
            maven: needs.contains(&Need::Java).then(java::find).flatten(),
            node: node::find(context),
            promtool: find_daemon("promtool", "PROMTOOL"),
            python: python::find(),
        };
        if needs.contains(&Need::Node)
            && tools.node.is_none()
            && context.install
            && let Some(python) = &tools.python
        {
            tools.node = Some(node::install(context, python)?);
        }
        if needs.contains(&Need::Go)
            && tools.go.is_none()
            && context.install
            && let Some(python) = &tools.python
        {
            tools.go = Some(go::install(context, python)?);
        }
        let still: Vec<_> = needs
            .into_iter()
            .filter(|&need| match need {
                Need::Node => tools.node.is_none(),
                Need::Go => tools.go.is_none(),
                other => !Self::has(context, other),
            })
            .map(|need| format!("  {}", how_to_get(need)))
            .collect();
        if still.is_empty() {
            return Ok(tools);
        }
        let allowed = if context.install {
            "could not be installed"
        } else {
            "is missing, and --no-install forbids to install it"
        };
        Err(Error::new(format!(
            "What the tests need {allowed}:\n{}",
            still.join("\n")
        )))
    }

    fn has(context: &Context, need: Need) -> bool {
        match need {
            Need::Caddy => find_daemon("caddy", "CADDY").is_some(),
            Need::Chromium => find_chromium().is_some(),
            Need::Clippy => answers(context.cargo(["clippy", "--version"])),
            Need::Haproxy => find_daemon("haproxy", "HAPROXY").is_some(),
            Need::Nginx => find_daemon("nginx", "NGINX").is_some(),
            Need::Go => go::find(context).is_some(),
            Need::Java => java::find().is_some(),
            Need::Node => node::find(context).is_some(),
            Need::Openssl => {
                let mut command = Command::new("openssl");
                command.arg("version");
                answers(command)
            }
            Need::Promtool => find_daemon("promtool", "PROMTOOL").is_some(),
            Need::Python => python::find().is_some(),
            Need::Rustfmt => answers(context.cargo(["fmt", "--version"])),
        }
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn caddy(&self) -> Result<&PathBuf, Error> {
        self.caddy.as_ref().ok_or_else(|| not_prepared("Caddy"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn chromium(&self) -> Result<&PathBuf, Error> {
        self.chromium
            .as_ref()
            .ok_or_else(|| not_prepared("Chromium"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn go(&self) -> Result<&PathBuf, Error> {
        self.go.as_ref().ok_or_else(|| not_prepared("Go"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn haproxy(&self) -> Result<&PathBuf, Error> {
        self.haproxy.as_ref().ok_or_else(|| not_prepared("HAProxy"))
    }

    /// Maven, with a JDK behind it.
    ///
    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn maven(&self) -> Result<&PathBuf, Error> {
        self.maven.as_ref().ok_or_else(|| not_prepared("Java"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn nginx(&self) -> Result<&PathBuf, Error> {
        self.nginx.as_ref().ok_or_else(|| not_prepared("nginx"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn node(&self) -> Result<&Node, Error> {
        self.node.as_ref().ok_or_else(|| not_prepared("Node.js"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn promtool(&self) -> Result<&PathBuf, Error> {
        self.promtool
            .as_ref()
            .ok_or_else(|| not_prepared("promtool"))
    }

    /// # Errors
    ///
    /// When the suite did not say that it needs it.
    pub(crate) fn python(&self) -> Result<&PathBuf, Error> {
        self.python.as_ref().ok_or_else(|| not_prepared("Python"))
    }
}

fn not_prepared(what: &str) -> Error {
    Error::new(format!(
        "{what} was not prepared: a suite's needs are incomplete"
    ))
}

fn how_to_get(need: Need) -> &'static str {
    match need {
        Need::Caddy => {
            "Caddy: apt-get install caddy, or your system's package; CADDY=/path/to/it names one"
        }
        Need::Chromium => {
            "Chromium: apt-get install chromium, or your system's package; CHROMIUM=/path/to/it names one"
        }
        Need::Clippy => "Clippy: rustup component add clippy",
        Need::Haproxy => {
            "HAProxy: apt-get install haproxy, or your system's package; HAPROXY=/path/to/it names one"
        }
        Need::Java => {
            "A JDK, 17 or newer, and Maven: apt-get install default-jdk-headless maven, or your system's \
             packages; MAVEN=/path/to/mvn names one"
        }
        Need::Nginx => {
            "nginx: apt-get install nginx-light, or your system's package; NGINX=/path/to/it names one"
        }
        Need::Go => {
            "Go 1.25 or newer: https://go.dev, your system's package, or Python 3.10 with venv and \
             leave to install"
        }
        Need::Node => {
            "Node.js 20 or newer with npm: https://nodejs.org, your system's package, or Python 3.10 \
             with venv and leave to install"
        }
        Need::Openssl => "OpenSSL's command: apt-get install openssl, or your system's package",
        Need::Promtool => {
            "promtool: apt-get install prometheus, or your system's package; PROMTOOL=/path/to/it names one"
        }
        Need::Python => {
            "Python 3.10 or newer with venv: apt-get install python3 python3-venv, or your system's \
             package; PYTHON3=/path/to/it names one"
        }
        Need::Rustfmt => "rustfmt: rustup component add rustfmt",
    }
}

/// Whether a command can be run, and succeeds.
pub(crate) fn answers(mut command: Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A program that is for the system's administrator, and so mostly not on a user's path: the one that
/// `variable` names, or the one of this name.
fn find_daemon(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| {
            let mut command = Command::new(program);
            // Caddy's is a command, and promtool's has a long name only.
            command.arg(match name {
                "caddy" => "version",
                "promtool" => "--version",
                _ => "-v",
            });
            program.is_file() && answers(command)
        })
}

fn find_chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        // Ubuntu's package can be a stub that only names another installer: it has to answer.
        .find(|program| {
            let mut command = Command::new(program);
            command.arg("--version");
            program.is_file() && answers(command)
        })
}

/// Does what it can; the caller looks at what has come of it.
fn install(context: &Context, missing: &[Need]) {
    let components: Vec<_> = missing
        .iter()
        .filter_map(|need| match need {
            Need::Clippy => Some("clippy"),
            Need::Rustfmt => Some("rustfmt"),
            _ => None,
        })
        .collect();
    if !components.is_empty() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add"]).args(components);
        try_to(context, &mut rustup);
    }

    let packages: Vec<_> = missing
        .iter()
        .flat_map(|need| match need {
            Need::Caddy => &["caddy"][..],
            // The fonts are only recommended by it, but a page without letters proves little.
            Need::Chromium => &["chromium", "fonts-liberation"][..],
            Need::Python => &["python3", "python3-venv"][..],
            Need::Haproxy => &["haproxy"],
            Need::Java => &["default-jdk-headless", "maven"],
            Need::Nginx => &["nginx-light"],
            Need::Openssl => &["openssl"],
            Need::Promtool => &["prometheus"],
            Need::Clippy | Need::Go | Need::Node | Need::Rustfmt => &[],
        })
        .copied()
        .collect();
    if packages.is_empty() {
        return;
    }
    let Some(apt) = apt_get() else {
        return;
    };
    let command = |arguments: &[&str]| {
        let (program, before) = apt.split_first().unwrap_or((&"apt-get", &[]));
        let mut command = Command::new(program);
        command.args(before).args(arguments);
        command
    };
    if try_to(context, &mut command(&["-q", "update"])) {
        let install = ["-q", "install", "-y", "--no-install-recommends"];
        try_to(context, command(&install).args(packages));
    }
}

/// How to call apt-get here: as root, through a sudo that asks nothing, or not at all.
fn apt_get() -> Option<Vec<&'static str>> {
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let mut version = Command::new("apt-get");
    version.arg("--version");
    if !answers(version) {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(apt.to_vec());
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]);
    answers(sudo).then(|| [&["sudo", "-n"], &apt[..]].concat())
}

fn try_to(context: &Context, command: &mut Command) -> bool {
    match process::run(&context.children, command, INSTALL_LIMIT) {
        Ok(finished) if finished.success => true,
        Ok(finished) => {
            println!("{} {}", process::describe(command), finished.ending);
            false
        }
        Err(error) => {
            println!("{error}");
            false
        }
    }
}
