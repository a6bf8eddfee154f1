//! A configuration, and what it names.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::certificate::{self, Renewed};
use super::files;
use super::finding::Finding;
use crate::acme::Acme;
use crate::cli::args::SetArgs;
use crate::config::{Config, ConfigFile};

pub(super) fn look(file: &Path, settings: &SetArgs) -> Vec<Finding> {
    let config = match ConfigFile::new(file, settings.set.clone()).load() {
        Ok(config) => config,
        // It names file, line and column.
        Err(error) => return vec![Finding::bad("configuration", error.to_string())],
    };
    let now = SystemTime::now();
    // Those about certificates are looked at closer below.
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tls = config.tls.iter();
    let closer: Vec<_> = tls.flat_map(|tls| tls.doubts(since.as_secs())).collect();
    let warnings = config.warnings.iter();
    let warnings =
        warnings.filter(|warning| !closer.iter().any(|doubt| warning.starts_with(doubt)));
    let mut findings: Vec<_> = warnings
        .map(|warning| Finding::doubtful("configuration", warning))
        .collect();
    // What the file itself has, and not what stands elsewhere.
    let values = Config::load(file).map(|config| config.values);
    let has_secrets = values.is_ok_and(|all| all.iter().any(|(_, shown)| shown.contains(SECRET)));
    findings.extend(files::configuration(file, has_secrets));
    if findings.is_empty() {
        findings.push(Finding::good(
            "configuration",
            format!("{} is good", file.display()),
        ));
    }
    if let Some(tls) = &config.tls {
        let files = tls.leaves_of_files().into_iter();
        let ordered = tls.acme().into_iter().flat_map(|acme| acme.leaves());
        let files = files.map(|(place, leaf)| (place, leaf, Renewed::Elsewhere));
        let ordered = ordered.map(|(place, leaf)| (place, leaf, Renewed::Here));
        for (place, der, renewed) in files.chain(ordered) {
            let whose = format!("http_server.tls ({place})");
            findings.push(match der {
                Some(der) => certificate::look("certificate", &whose, &der, renewed, now),
                None => Finding::doubtful("certificate", format!("there is none of {whose} yet"))
                    .remedy("the server orders it when it is started, and says in its log what keeps it from that"),
            });
        }
    }
    let events = config.events.as_ref().map(|events| &*events.directory);
    let revocations = Path::new(&config.revocation.directory);
    let revocations = Some(revocations).filter(|path| !path.as_os_str().is_empty());
    let directories = [
        ("events.directory", events),
        ("revocation.directory", revocations),
    ];
    let directories = directories.into_iter();
    findings.extend(
        directories
            .filter_map(|(option, directory)| files::kept(option, directory?, files::may_write)),
    );
    let tls = config.tls.as_ref();
    let keys = tls.into_iter().flat_map(|tls| tls.key_files());
    findings.extend(keys.filter_map(|(option, file)| files::key(&option, &file)));
    let acme = tls.and_then(|tls| tls.acme());
    if let Some(acme) = acme {
        let (directory, of_authority) = acme.directories();
        findings.extend(files::cache(directory, of_authority, files::may_write));
        findings.push(authority(acme));
    }
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

/// What is shown in the place of one.
const SECRET: &str = "(secret)";
