//! The machine, and the configuration.

use std::process::Command;

use crate::directory::Directory;
use crate::{doctor, finding, told};

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

/// A read-only file system, as a pod has it, is found out before the server is started on it.
#[test]
fn where_nothing_can_be_kept_is_told_of() {
    let directory = Directory::new("doctor-kept");
    let file = directory.file(
        "tautline.toml",
        "[events]\nenabled = true\nendpoint = \"http://127.0.0.1:1/\"\ndirectory = \"/dev/null/events\"\n\
         [revocation]\ndirectory = \"/dev/null\"\n",
    );
    let (status, findings) = doctor(&["--config", file.to_str().unwrap()]);
    for subject in ["events.directory", "revocation.directory"] {
        let (text, remedy) = told(&findings, subject, "fail");
        assert!(text.contains("/dev/null is no directory"), "{text}");
        assert!(remedy.contains("/var/lib/tautline"), "{remedy}");
    }
    assert_eq!(status, Some(1));
}

/// A file that others can read is one in which there are no secrets, and nobody else writes what the server does.
#[test]
fn a_configuration_that_others_can_read_or_change_is_told_of() {
    let directory = Directory::new("doctor-rights");
    let secret = "[http_api]\nkey = \"0123456789abcdef0123456789abcdef\"\n";
    let namespace = "[channel.without_namespace]\nhistory_size = 10\nhistory_ttl = \"1m\"\n";
    for (text, mode, grade, part) in [
        (secret, "644", "warn", "can read the secrets in it"),
        (secret, "640", "", ""),
        (namespace, "644", "", ""),
        (namespace, "646", "fail", "can change what the server does"),
    ] {
        let file = directory.file("tautline.toml", text);
        let status = Command::new("chmod").arg(mode).arg(&file).status();
        assert!(status.unwrap().success());
        let (_, findings) = doctor(&["--config", file.to_str().unwrap()]);
        let file = file.display().to_string();
        let found = findings.iter().find(|one| {
            one["subject"] == "configuration"
                && one["text"]
                    .as_str()
                    .is_some_and(|text| text.contains(&file))
                && one["grade"] != "ok"
        });
        let Some(found) = found else {
            assert_eq!(part, "", "{mode}: {findings:?}");
            continue;
        };
        assert_eq!(found["grade"], grade, "{found}");
        assert!(
            !part.is_empty() && found["text"].as_str().unwrap().contains(part),
            "{mode}: {found}"
        );
        assert!(found["remedy"].as_str().unwrap().contains("chmod o"));
    }
}
