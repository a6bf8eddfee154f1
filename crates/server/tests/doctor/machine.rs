//! The machine, and the configuration.

use crate::directory::Directory;
use crate::{doctor, finding};

#[test]
fn a_configuration_is_looked_at_with_the_machine() {
    let directory = Directory::new("doctors-machine");
    let file = directory.file("tautline.toml", "[client]\nalowed_origins = []\n");
    let name = file.display().to_string();
    let (status, findings) = doctor(&["--config", &name]);
    let configuration = finding(&findings, "configuration");
    assert_eq!(configuration["grade"], "fail");
    let text = configuration["text"].as_str().unwrap();
    assert!(text.contains("did you mean `allowed_origins`?"), "{text}");
    assert_eq!(status, Some(1));
    #[cfg(unix)]
    finding(&findings, "descriptors");

    directory.file("tautline.toml", "");
    let (_, findings) = doctor(&["--config", &name]);
    assert_ne!(finding(&findings, "configuration")["grade"], "fail");
}

#[test]
fn what_is_doubtful_in_a_configuration_is_told() {
    let directory = Directory::new("doctors-doubtful");
    let file = directory.file(
        "tautline.toml",
        "http_server.address = \"0.0.0.0\"\nclient.allowed_origins = [\"*\"]\n",
    );
    let (status, findings) = doctor(&["--config", &file.display().to_string()]);
    let configuration = findings
        .iter()
        .filter(|one| one["subject"] == "configuration");
    let configuration: Vec<_> = configuration.collect();
    assert!(!configuration.is_empty());
    assert!(
        configuration.iter().all(|one| one["grade"] == "warn"),
        "{configuration:?}"
    );
    assert_eq!(status, Some(0));
}
