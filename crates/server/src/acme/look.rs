//! Whether certificates could be ordered, without ordering any.

use http::{Request, StatusCode, header};
use instant_acme::{BodyWrapper, HttpClient as _};
use serde::Deserialize;

use super::Acme;
use super::client::{HttpsClient, Patience};

/// What matters here of a directory (RFC 8555, section 7.1.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    #[allow(dead_code, reason = "that it is there is what is looked for")]
    new_order: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    external_account_required: bool,
}

impl Acme {
    /// Asks the authority for its directory, and returns where that is.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost with the future.
    pub(crate) async fn look(&self) -> Result<String, String> {
        let url = &self.terms.directory_url;
        let tls = self.terms.tls().map_err(|error| error.to_string())?;
        // Authorities want one (RFC 8555, section 6.1).
        let agent = concat!("tautline/", env!("CARGO_PKG_VERSION"));
        let request = Request::get(url).header(header::USER_AGENT, agent);
        let request = request.body(BodyWrapper::default());
        let request = request.map_err(|error| error.to_string())?;
        let client = HttpsClient::new(&tls, url, Patience::default());
        let answer = client.request(request).await;
        let mut answer = answer.map_err(|error| error.to_string())?;
        if answer.parts.status != StatusCode::OK {
            return Err(format!(
                "{url} answers with the status {}",
                answer.parts.status
            ));
        }
        let body = answer.body.into_bytes().await;
        let body = body.map_err(|error| error.to_string())?;
        let directory: Directory = serde_json::from_slice(&body)
            .map_err(|_| format!("what is at {url} is no directory of an ACME authority"))?;
        if directory.meta.external_account_required && self.terms.external.is_none() {
            return Err(format!(
                "the authority of {url} wants to know its subscribers: set external_account_key_id and \
                 external_account_hmac_key to what it has given you"
            ));
        }
        Ok(url.clone())
    }
}
