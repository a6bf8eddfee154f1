//! A configuration, and what it names.

use std::path::Path;
use std::time::SystemTime;

use super::certificate;
use super::finding::Finding;
use crate::acme::Acme;
use crate::cli::args::SetArgs;
use crate::config::ConfigFile;

pub(super) fn look(file: &Path, settings: &SetArgs) -> Vec<Finding> {
    let config = match ConfigFile::new(file, settings.set.clone()).load() {
        Ok(config) => config,
        // It names file, line and column.
        Err(error) => return vec![Finding::bad("configuration", error.to_string())],
    };
    let warnings = config.warnings.iter();
    let mut findings: Vec<_> = warnings
        .map(|warning| Finding::doubtful("configuration", warning))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::good(
            "configuration",
            format!("{} is good", file.display()),
        ));
    }
    let now = SystemTime::now();
    if let Some(tls) = &config.tls {
        for (place, der) in tls.leaves() {
            let whose = format!("http_server.tls ({place})");
            findings.push(match der {
                Some(der) => certificate::look("certificate", &whose, &der, now),
                None => Finding::doubtful("certificate", format!("there is none of {whose} yet"))
                    .remedy("the server orders it when it is started, and says in its log what keeps it from that"),
            });
        }
    }
    let acme = config.tls.as_ref().and_then(|tls| tls.acme());
    findings.extend(acme.map(|acme| authority(acme)));
    if acme.is_some() && config.listen.port() != 443 {
        let text = format!(
            "authorities look for the server on port 443, and it listens on {}",
            config.listen.port()
        );
        findings.push(
            Finding::doubtful("authority", text)
                .remedy("something has to pass 443 on, with TLS as it comes: a mapping of the container's ports, a socket of systemd"),
        );
    }
    findings
}

/// Whether there is one to order certificates from.
fn authority(acme: &Acme) -> Finding {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let looked = match runtime {
        Ok(runtime) => runtime.block_on(acme.look()),
        Err(error) => Err(error.to_string()),
    };
    match looked {
        Ok(url) => Finding::good("authority", format!("{url} answers")),
        Err(problem) => Finding::bad("authority", problem).remedy(
            "http_server.tls.acme.directory_url, or what keeps this machine from going there",
        ),
    }
}
