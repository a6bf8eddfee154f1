//! The `tautline` binary. What it is made of is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tautline::cli::main()
}
