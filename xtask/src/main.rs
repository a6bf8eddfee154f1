//! Development tasks of the workspace: `cargo xtask --help` lists them.
//!
//! Everything that a test needs beyond Rust is found or installed here, every server is started
//! and stopped here, and every suite's result is counted here, so that one command and its last
//! line tell whether the project works.

#![allow(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]

mod advisories;
mod args;
mod context;
mod error;
mod go;
mod java;
mod node;
mod process;
mod python;
mod requirements;
mod server;
mod suites;
mod summary;
mod tools;

use std::process::ExitCode;

use args::Action;
use context::Context;
use error::Error;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let action = match args::parse(&arguments) {
        Ok(action) => action,
        Err(problem) => {
            eprintln!("{problem}\nTry: cargo xtask --help");
            return ExitCode::from(2);
        }
    };
    match run(&action) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; `false` when a test fails.
fn run(action: &Action) -> Result<bool, Error> {
    match action {
        Action::Help => {
            print!("{}", args::HELP);
            Ok(true)
        }
        Action::Page { install } => {
            let context = Context::new(*install)?;
            suites::page::rebuild(&context)?;
            Ok(true)
        }
        Action::Requirements { all } => {
            let findings = requirements::Findings::collect(&context::root()?)?;
            if *all {
                println!("{}", findings.table());
            }
            print!("{}", findings.summary());
            let problems = findings.problems();
            for problem in &problems {
                println!("{problem}");
            }
            Ok(problems.is_empty())
        }
        Action::Test {
            suites,
            cases,
            install,
        } => {
            let context = Context::new(*install)?;
            let reports = suites::run(&context, suites, cases);
            Ok(summary::conclude(&reports))
        }
    }
}
