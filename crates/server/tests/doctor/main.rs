//! `tautline doctor` beside real servers, and behind what spoils their connections.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod addresses;
#[path = "../support/authority.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod authority;
mod certificates;
#[path = "../support/directory.rs"]
mod directory;
mod front;
mod machine;
#[path = "../support/process.rs"]
mod process;
mod way;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What the doctor found, by its subject, and the exit status.
fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    doctor_trusting(None, arguments)
}

/// The same, with the certificates of whom it trusts.
fn doctor_trusting(roots: Option<&Path>, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    if let Some(roots) = roots {
        command.env("SSL_CERT_FILE", roots);
    }
    let output = command
        .args(["doctor", "--json"])
        .args(arguments)
        .env_remove("TAUTLINE_TOKEN")
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), lines.collect())
}

#[track_caller]
fn finding<'f>(findings: &'f [Value], subject: &str) -> &'f Value {
    let found = findings
        .iter()
        .find(|finding| finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing of {subject}: {findings:?}"))
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// What a finding says, and which line it says to change.
#[track_caller]
fn told<'f>(findings: &'f [Value], subject: &str, grade: &str) -> (&'f str, &'f str) {
    let finding = finding(findings, subject);
    assert_eq!(finding["grade"], grade, "{findings:?}");
    (
        finding["text"].as_str().unwrap(),
        finding["remedy"].as_str().unwrap_or_default(),
    )
}
