//! What a configuration leaves open to strangers that is closed by default: nothing that can't be meant, but nothing that
//! should go unsaid.

use tautline_hub::config::ClientOptions;

use super::client::ConnectionOptions;
use super::{AdminOptions, HttpServerOptions, LimitOptions, PrometheusOptions};

/// The tables that have to do with that.
pub(super) struct Open<'a> {
    pub(super) client: &'a ClientOptions,
    pub(super) connections: &'a ConnectionOptions,
    pub(super) http_server: &'a HttpServerOptions,
    pub(super) limits: &'a LimitOptions,
    pub(super) admin: &'a AdminOptions,
    pub(super) prometheus: &'a PrometheusOptions,
}

impl Open<'_> {
    /// Adds a sentence for each thing, which begins with the option.
    pub(super) fn warn(&self, warnings: &mut Vec<String>) {
        let server = self.http_server;
        for (option, networks, what) in [
            (
                "http_server.trusted_proxies",
                &server.trusted_proxies,
                "whoever connects says himself which address he has, so no limit by address holds and no log is true",
            ),
            (
                "limits.exempt",
                &self.limits.exempt,
                "nobody has a limit by address",
            ),
        ] {
            if let Some(network) = networks.iter().find(|network| is_all(network)) {
                warnings.push(format!("{option} has {network}: {what}"));
            }
        }
        let is_public = !server.address.is_loopback();
        let is_apart = !server.internal_listen.is_empty();
        if is_public && !is_apart && self.prometheus.enabled {
            warnings.push(
                "prometheus.enabled is on, on the port that everybody reaches: set http_server.internal_listen, or let a \
                 proxy keep strangers from /metrics"
                    .to_owned(),
            );
        }
        if is_public && !is_apart && self.admin.enabled {
            warnings.push(
                "admin.enabled is on, on the port that everybody reaches: set http_server.internal_listen, or let a proxy \
                 keep strangers from /admin"
                    .to_owned(),
            );
        }
        if is_public
            && !self.connections.user_id_http_header.is_empty()
            && server.trusted_proxies.is_empty()
        {
            warnings.push(format!(
                "client.user_id_http_header is {}: whoever reaches this port may be any user. Let nobody reach it but the \
                 proxy that sets the field, and name that in http_server.trusted_proxies",
                self.connections.user_id_http_header
            ));
        }
        self.warn_of_limits(warnings);
    }

    fn warn_of_limits(&self, warnings: &mut Vec<String>) {
        let LimitOptions {
            address, memory, ..
        } = self.limits;
        let rates = &self.client.rate_limit;
        let off = [
            ("limits.memory.enabled", !memory.enabled),
            ("limits.address.connections", address.connections == 0),
            ("limits.address.handshakes", address.handshakes == 0),
            ("limits.address.connect", address.connect.is_none()),
            ("limits.address.requests", address.requests.is_none()),
            (
                "limits.address.failed_authentications",
                address.failed_authentications.is_none(),
            ),
            (
                "client.rate_limit.client_command.enabled",
                !rates.client_command.enabled,
            ),
        ];
        let off: Vec<_> = off
            .iter()
            .filter_map(|(option, is_off)| is_off.then_some(*option))
            .collect();
        if !off.is_empty() {
            warnings.push(format!(
                "{}: switched off, so a stranger may have as much of it as he likes",
                off.join(", ")
            ));
        }
        let tried = [
            ("limits.dry_run", self.limits.dry_run),
            ("limits.address.dry_run", address.dry_run),
            ("limits.memory.dry_run", memory.dry_run),
        ];
        for (option, is_tried) in tried {
            if is_tried {
                warnings.push(format!(
                    "{option} is on: what is beyond these limits is counted, and happens"
                ));
            }
        }
    }
}

/// Whether a network is all of the internet.
fn is_all(network: &str) -> bool {
    network
        .split_once('/')
        .is_some_and(|(_, prefix)| prefix.trim() == "0")
}
