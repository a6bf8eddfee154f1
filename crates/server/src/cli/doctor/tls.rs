//! TLS on the way to a server: whether a browser would shake hands, and what to do where it would not.

use std::io;
use std::time::SystemTime;

use tokio_rustls::rustls::{CertificateError, Error};

use super::certificate::{self, Renewed};
use super::finding::Finding;
use super::way;
use crate::cli::client::call::Server;

/// Looks at it. Whether HTTP/2 is offered in it; `None` where nothing comes through.
pub(super) async fn look(server: &Server, findings: &mut Vec<Finding>) -> Option<bool> {
    let stream = match way::shake_hands(server).await {
        Ok(stream) => stream,
        Err(error) => {
            findings.push(failed(&error, server.host()));
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    if let Some(leaf) = session.peer_certificates().and_then(|all| all.first()) {
        let now = SystemTime::now();
        let whose = server.host();
        // Who looks after it can't be seen from here.
        findings.push(certificate::look(
            "certificate",
            whose,
            leaf,
            Renewed::Elsewhere,
            now,
        ));
    }
    let has_http2 = session.alpn_protocol() == Some(b"h2");
    let text = match has_http2 {
        true => "offered",
        false => {
            "not offered: it works without, but of the streams of HTTP a browser has six at a time"
        }
    };
    findings.push(Finding::good("HTTP/2", text));
    Some(has_http2)
}

/// Why hands are not shaken with a host.
fn failed(error: &io::Error, host: &str) -> Finding {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let no_tls = || {
        Finding::bad("TLS", "what answers there speaks no TLS").remedy(
            "doctor --url http://…, if it isn't meant to; else nginx: listen 443 ssl; the server: http_server.tls.enabled",
        )
    };
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => no_tls(),
            _ => unreachable("TLS", error.to_string(), error),
        };
    };
    match inner {
        Error::InvalidCertificate(problem) => refused(problem, host),
        Error::InvalidMessage(_) => no_tls(),
        Error::AlertReceived(alert) => {
            let why = alert.as_str().unwrap_or("for no reason that is known");
            let text = format!("it ends the handshake ({why})");
            Finding::bad("TLS", text).remedy(
                "TLS 1.2 or 1.3, and a certificate for this name: nginx: ssl_protocols TLSv1.2 TLSv1.3;\n\
                 where clients have to show a certificate (http_server.tls.client_ca_pem), browsers need one, too",
            )
        }
        other => Finding::bad("TLS", other.to_string()),
    }
}

/// Why a browser wouldn't take the certificate of a host.
fn refused(problem: &CertificateError, host: &str) -> Finding {
    use CertificateError as Problem;
    let (text, remedy) = match problem {
        Problem::Expired | Problem::ExpiredContext { .. } => (
            format!("the certificate of {host} has expired"),
            "renew it (certbot renew), and have what shows it read it again (nginx -s reload); the server does so by itself",
        ),
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => (
            format!(
                "the certificate of {host} is not good yet, or the clock of this machine is wrong"
            ),
            "timedatectl set-ntp true",
        ),
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => (
            format!("the certificate is for another name than {host}"),
            "a certificate that names it, or a URL with a name that it has; nginx: server_name, and the ssl_certificate beside it",
        ),
        Problem::UnknownIssuer => (
            format!(
                "nobody whom this machine trusts has signed the certificate of {host}, or those in between are missing"
            ),
            "nginx: ssl_certificate …/fullchain.pem; the server: http_server.tls.cert_pem with the whole chain;\n\
             where the authority is your own: SSL_CERT_FILE=ca.pem tautline doctor …",
        ),
        // What is a certificate of an authority can't be a server's, too.
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            format!("the certificate of {host} is self-signed: no browser takes it"),
            "one of an authority: http_server.tls.acme.enabled = true, or certbot for what stands in front",
        ),
        other => (
            format!("the certificate of {host} is refused: {other}"),
            "openssl s_client -connect HOST:443 -showcerts shows it",
        ),
    };
    Finding::bad("TLS", text).remedy(remedy)
}

/// Nothing comes there at all.
pub(super) fn unreachable(subject: &'static str, text: String, error: &io::Error) -> Finding {
    let finding = Finding::bad(subject, text);
    match error.kind() {
        io::ErrorKind::ConnectionRefused => finding.remedy(
            "nobody listens there: is it running (systemctl status tautline), and where \
             (http_server.address = \"0.0.0.0\" for others than its own machine, http_server.port)?",
        ),
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => {
            finding.remedy("a firewall, a security group, or another address than the server's")
        }
        _ => finding,
    }
}
