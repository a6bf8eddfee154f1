//! A configuration, and what it names.

use std::path::Path;
use std::time::SystemTime;

use super::certificate;
use super::finding::Finding;
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
            findings.push(certificate::look("certificate", &whose, &der, now));
        }
    }
    findings
}
