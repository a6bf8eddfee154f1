//! `tautline token`.

use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tautline_auth::{Secret, Signer, TokenClaims};

use super::args::{SecretSource, TokenArgs};
use super::error::CliError;
use crate::config::{Config, Overrides, TokenOptions};

/// Signs a token and prints it, alone, so that it can be piped.
pub(super) fn run(args: &TokenArgs) -> Result<(), CliError> {
    let options = token_options(&args.source)?;
    let Some(secret) = &options.hmac_secret_key else {
        return Err(CliError::Usage(
            "the configuration has no client.token.hmac_secret_key to sign with".into(),
        ));
    };
    let signer = Signer::hs256(secret).map_err(|error| CliError::Usage(error.to_string()))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let token = signer.sign(&TokenClaims {
        user: &args.user,
        expires_at: (!args.ttl.is_zero()).then(|| now.saturating_add(args.ttl).as_secs()),
        issued_at: Some(now.as_secs()),
        id: args.id.as_deref(),
        channel: args.channel.as_deref(),
        info: args.info.as_deref(),
        issuer: options.issuer.as_deref(),
        audience: options.audience.as_deref(),
    });
    let token = token.map_err(|error| CliError::Failure(error.to_string()))?;
    writeln!(io::stdout(), "{token}")?;
    Ok(())
}

fn token_options(source: &SecretSource) -> Result<TokenOptions, CliError> {
    if let Some(file) = &source.config {
        let overrides = Overrides::from_environment(std::env::vars_os())?;
        return Ok(Config::load_with(file, &overrides)?.token);
    }
    // One of the two is there; the command line was refused otherwise.
    let variable = source.secret_env.as_deref().unwrap_or_default();
    let secret = std::env::var(variable).map_err(|error| {
        CliError::Usage(format!(
            "the environment variable {variable} has no secret: {error}"
        ))
    })?;
    Ok(TokenOptions {
        hmac_secret_key: Some(Secret::from(secret)),
        ..TokenOptions::default()
    })
}
