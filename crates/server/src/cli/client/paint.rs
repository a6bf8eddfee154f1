//! Colours, for a person at a terminal that has them.

use std::io::{self, IsTerminal as _};

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) is_coloured: bool,
}

impl Paint {
    /// For standard output.
    pub(super) fn of_output() -> Self {
        // https://no-color.org: set to anything but nothing.
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            is_coloured: io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
        }
    }

    /// With a number of ECMA-48's SGR, if there is one.
    pub(super) fn with(self, text: &str, code: Option<u8>) -> String {
        match code {
            Some(code) if self.is_coloured && !text.is_empty() => {
                format!("\u{1b}[{code}m{text}\u{1b}[0m")
            }
            _ => text.to_owned(),
        }
    }
}

/// The same for a name each time.
pub(super) fn colour_of(name: &str) -> u8 {
    let sum = name
        .bytes()
        .fold(0_usize, |sum, byte| sum * 31 % 1009 + usize::from(byte));
    COLOURS[sum % COLOURS.len()]
}

pub(super) const DIM: u8 = 2;
pub(super) const BAD: u8 = 31;
pub(super) const GOOD: u8 = 32;
pub(super) const WARNING: u8 = 33;
/// Cyan, blue, magenta, and the bright ones of these: none that says good or bad.
const COLOURS: [u8; 6] = [36, 34, 35, 96, 94, 95];
