//! What comes through what stands between a client and a server: nginx, HAProxy and Caddy, with the recipes of
//! `deploy/` and without, and a hostile proxy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{add, client};
use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::server::{Server, free_address};
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(15 * 60);
const CERTIFICATE_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let folder = node.install_packages(context, "tests/proxies")?;
    client::build(context, tools)?;
    let certificate = Certificate::make(context)?;
    let server = Server::start(context, "proxies")?;
    // The tests themselves are what the tunnel leads to.
    let upstream = free_address()?;
    let file = "tests/proxies/tunnels.toml";
    let tunnels = Server::configured_with(context, "proxies-tunnels", file, Some(upstream))?;
    let configured = |name: &str| {
        Server::configured(
            context,
            &format!("proxies-{name}"),
            &format!("tests/proxies/{name}.toml"),
        )
    };
    let (addresses, announced) = (configured("addresses")?, configured("addresses-announced")?);
    let mut command = node.command("npm", &folder);
    command
        .arg("test")
        .env("NGINX", tools.nginx()?)
        .env("HAPROXY", tools.haproxy()?)
        .env("CADDY", tools.caddy()?)
        .env("TLS_CERT", &certificate.chain)
        .env("TLS_KEY", &certificate.key)
        .env("TLS_BOTH", &certificate.both)
        .env("NODE_EXTRA_CA_CERTS", &certificate.chain);
    command
        .env("TAUTLINE_TUNNELS", tunnels.url())
        .env("TAUTLINE_UPSTREAM", upstream.to_string())
        .env("TAUTLINE_ADDRESSES", addresses.url())
        .env("TAUTLINE_ANNOUNCED", announced.url());
    server.tell(&mut command);
    let what = "behind nginx, HAProxy, Caddy and a hostile proxy";
    add(context, report, what, Runner::Node, &mut command, LIMIT)?;
    report.check("SIGTERM ends the server", server.stop());
    report.check("SIGTERM ends the server with a tunnel", tunnels.stop());
    report.check("SIGTERM ends the server with limits", addresses.stop());
    report.check(
        "SIGTERM ends the server with the PROXY protocol",
        announced.stop(),
    );
    Ok(())
}

/// A certificate that a proxy on this machine shows, as files.
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    /// Both in one, as HAProxy wants it.
    both: PathBuf,
}

impl Certificate {
    fn make(context: &Context) -> Result<Self, Error> {
        let folder = context.scratch("proxies")?;
        let (chain, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "7"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .arg("-out")
            .arg(&chain)
            .arg("-keyout")
            .arg(&key);
        let made = process::run(&context.children, &mut command, CERTIFICATE_LIMIT)?;
        if !made.success {
            let problem = format!("openssl, which makes a certificate, {}", made.ending);
            return Err(Error::new(problem));
        }
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(Error::context(format!("can't read {}", path.display())))
        };
        let both = folder.join("both.pem");
        std::fs::write(&both, read(&chain)? + &read(&key)?)
            .map_err(Error::context(format!("can't write {}", both.display())))?;
        Ok(Self { chain, key, both })
    }
}
