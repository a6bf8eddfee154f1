//! `tautline key`.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tautline_auth::KeyDigest;

use super::error::CliError;

/// Makes a key, and prints it on standard output; on standard error, what belongs into the
/// configuration.
pub(super) fn run(name: &str) -> Result<(), CliError> {
    let mut bytes = [0; KEY_LEN];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::Failure(format!("the system gives no randomness: {error}")))?;
    let key = URL_SAFE_NO_PAD.encode(bytes);
    let digest = KeyDigest::of(key.as_bytes()).to_hex();
    // As TOML writes a text.
    let name = toml::Value::from(name);
    writeln!(
        io::stderr(),
        "The key is for your backend and isn't told again; this is for the configuration:\n\n\
         [[http_api.keys]]\nname = {name}\nsha256 = \"{digest}\"\n"
    )?;
    writeln!(io::stdout(), "{key}")?;
    Ok(())
}

/// Nobody guesses so many random bytes.
const KEY_LEN: usize = 32;
