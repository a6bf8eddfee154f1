//! One order: from a name to a certificate, by RFC 8555.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tautline_websocket::conn::tls_config;
use thiserror::Error;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::challenge::Challenges;
use super::client::{HttpsClient, Patience};
use super::schedule::Advice;
use super::store::Store;

/// Who signs certificates.
pub(super) trait Authority {
    /// Orders a certificate for a name: its chain and its key, in PEM. An authority which wants to know is told what it
    /// replaces.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the order up; the authority forgets it after a while.
    async fn order(
        &self,
        domain: &str,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<String, Failure>;

    /// When it would like a certificate to be renewed (RFC 9773); `None` from one that doesn't say such things.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost with the future.
    async fn advice(&self, leaf: &CertificateDer<'_>) -> Result<Option<Advice>, OrderError>;
}

/// Why there is no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum OrderError {
    #[error("{}", describe(.0))]
    Refused(Problem),
    #[error(
        "the authority could not see that the name is this server's: {0}. It connects to port 443 of each address that \
         the name has in the DNS, which must come here without anything on the way that ends TLS"
    )]
    NotProved(String),
    #[error(
        "the authority does not offer tls-alpn-01 for this name, which is all that the server can prove it by"
    )]
    NoChallenge,
    #[error("{0}")]
    Failed(String),
    #[error("what the authority has sent can't be used: {0}")]
    Unusable(String),
    #[error("the order took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error(
        "{directory}: {source} (http_server.tls.acme.cache_directory must be a directory that the server may write to)"
    )]
    Store {
        directory: String,
        source: io::Error,
    },
}

impl From<instant_acme::Error> for OrderError {
    fn from(error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::Refused(problem),
            other => failed(other),
        }
    }
}

/// That there is no certificate, and for how long the authority wants to be left alone.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: OrderError,
    /// `None` where it said nothing of that.
    pub(super) again: Option<Duration>,
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        Self { error, again: None }
    }
}

impl OrderError {
    /// Whether it came before anything of this server's was looked at.
    fn is_early(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Failed(_))
    }

    /// Whether the authority was asked too often, by whatever it counts: to ask again at once is of no use then.
    fn is_of_limit(&self) -> bool {
        let Self::Refused(problem) = self else {
            return false;
        };
        let kind = problem.r#type.as_deref();
        kind.is_some_and(|kind| kind.ends_with(":rateLimited")) || problem.status == Some(429)
    }

    /// Whether the account is one that the authority has thrown away.
    fn is_of_lost_account(&self) -> bool {
        let Self::Refused(problem) = self else {
            return false;
        };
        let kind = problem.r#type.as_deref();
        kind.is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }
}

/// Who asks, and for what.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) directory_url: String,
    /// URLs of mail addresses.
    pub(super) contact: Vec<String>,
    pub(super) profile: Option<String>,
    /// Id and key.
    pub(super) external: Option<(String, Vec<u8>)>,
    /// Whom to trust; `None` for the certificate roots of the system.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Terms {
    /// What TLS with the authority goes by.
    pub(super) fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        self.tls.clone().map_or_else(tls_config, Ok)
    }
}

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    /// As the ACME library writes them.
    credentials: Value,
}

/// An authority at a URL.
pub(super) struct Remote<'a> {
    pub(super) terms: &'a Terms,
    pub(super) store: &'a Store,
    pub(super) challenges: &'a Challenges,
}

impl Authority for Remote<'_> {
    async fn order(
        &self,
        domain: &str,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<String, Failure> {
        let asked_for = Patience::default();
        let order = self.order_as_known(domain, replaced, &asked_for);
        let ordered = tokio::time::timeout(PATIENCE, order).await;
        let ordered = ordered.unwrap_or(Err(OrderError::TimedOut(PATIENCE)));
        ordered.map_err(|error| Failure {
            error,
            again: asked_for.take(),
        })
    }

    async fn advice(&self, leaf: &CertificateDer<'_>) -> Result<Option<Advice>, OrderError> {
        // One which has no number that it can be called by.
        let Ok(certificate) = CertificateIdentifier::try_from(leaf) else {
            return Ok(None);
        };
        let account = self.account(&Patience::default()).await?;
        let (info, again) = match account.renewal_info(&certificate).await {
            Ok(answer) => answer,
            Err(instant_acme::Error::Unsupported(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or(0));
        let window = info.suggested_window;
        Ok(Some(Advice {
            from: seconds(window.start.unix_timestamp()),
            until: seconds(window.end.unix_timestamp()),
            again,
        }))
    }
}

impl Remote<'_> {
    async fn order_as_known(
        &self,
        domain: &str,
        replaced: Option<&CertificateDer<'_>>,
        asked_for: &Patience,
    ) -> Result<String, OrderError> {
        let account = self.account(asked_for).await?;
        let replaced = replaced.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        let ordered = self.order_with(&account, domain, replaced.clone()).await;
        match ordered {
            Err(error)
                if replaced.is_some()
                    && !error.is_of_lost_account()
                    && !error.is_of_limit()
                    && error.is_early() =>
            {
                // Such as one that was replaced already (RFC 9773, section 5): that is no reason to have none.
                tracing::debug!(domain, %error, "ordered anew without saying what it replaces");
                self.order_with(&account, domain, None).await
            }
            Err(error) if error.is_of_lost_account() => {
                tracing::warn!(
                    directory = self.terms.directory_url,
                    "the authority doesn't know the account any more; a new one is made"
                );
                self.on_disk(Store::forget_account).await?;
                let account = self.account(asked_for).await?;
                self.order_with(&account, domain, None).await
            }
            other => other,
        }
    }

    /// The account that there is, or a new one.
    async fn account(&self, asked_for: &Patience) -> Result<Account, OrderError> {
        let tls = self.terms.tls().map_err(failed)?;
        let client = HttpsClient::new(&tls, &self.terms.directory_url, asked_for.clone());
        let builder = Account::builder_with_http(Box::new(client));
        let contact: Vec<_> = self.terms.contact.iter().map(String::as_str).collect();
        let kept = self.on_disk(Store::account).await?;
        let kept = kept.and_then(|json| match read(&json) {
            Ok(kept) => Some(kept),
            Err(error) => {
                // There is no harm in another one.
                tracing::warn!(%error, "account.json can't be read; a new account is made");
                None
            }
        });
        let (account, credentials) = match kept {
            Some((kept, credentials)) => {
                let account = builder.from_credentials(credentials).await?;
                if kept.contact == self.terms.contact {
                    return Ok(account);
                }
                let told = account.update_contacts(&contact).await;
                match told.map_err(OrderError::from) {
                    // The order finds out, too, and then there is a new one.
                    Err(error) if error.is_of_lost_account() => return Ok(account),
                    other => other?,
                }
                (account, kept.credentials)
            }
            None => {
                // One that can't be kept would be the first of many: each attempt, of each name, would make another.
                self.on_disk(Store::has_room).await?;
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let external = self.terms.external.as_ref();
                let external = external.map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
                let url = self.terms.directory_url.clone();
                let (account, credentials) = builder.create(&new, url, external.as_ref()).await?;
                let credentials = serde_json::to_value(&credentials).map_err(failed)?;
                (account, credentials)
            }
        };
        let kept = Kept {
            contact: self.terms.contact.clone(),
            credentials,
        };
        let kept = serde_json::to_vec(&kept).map_err(failed)?;
        self.on_disk(move |store| store.keep_account(&kept)).await?;
        Ok(account)
    }

    async fn order_with(
        &self,
        account: &Account,
        domain: &str,
        replaced: Option<CertificateIdentifier<'_>>,
    ) -> Result<String, OrderError> {
        let identifiers = [Identifier::Dns(domain.to_owned())];
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &self.terms.profile {
            new = new.profile(profile);
        }
        if let Some(replaced) = replaced {
            new = new.replaces(replaced);
        }
        let mut order = account.new_order(&new).await?;
        let proofs = self.prove(&mut order, domain).await?;
        let polled = order.poll_ready(&POLLING).await;
        if !matches!(polled, Ok(OrderStatus::Ready)) {
            if let Some(problem) = unproved(&mut order).await {
                return Err(OrderError::NotProved(problem));
            }
            polled?;
            return Err(OrderError::Failed(
                "the authority has given the order up".to_owned(),
            ));
        }
        drop(proofs);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new([domain.to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(failed)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&POLLING).await?;
        Ok(format!("{}{chain}", key.serialize_pem()))
    }

    /// Has the authority come and look, where it hasn't done so yet.
    async fn prove(
        &self,
        order: &mut Order,
        domain: &str,
    ) -> Result<Vec<impl Drop + use<'_>>, OrderError> {
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or(OrderError::NoChallenge)?;
            let digest = challenge.key_authorization().digest();
            let proof = self.challenges.answer(domain, digest.as_ref());
            proofs.push(proof.map_err(OrderError::Failed)?);
            challenge.set_ready().await?;
        }
        Ok(proofs)
    }

    /// Does something with the files, where waiting for the disk keeps nobody else waiting.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, OrderError> {
        on_disk(self.store, work).await
    }
}

/// The account of a file.
fn read(json: &[u8]) -> serde_json::Result<(Kept, AccountCredentials)> {
    let kept: Kept = serde_json::from_slice(json)?;
    let credentials = serde_json::from_value(kept.credentials.clone())?;
    Ok((kept, credentials))
}

/// There may be words of the authority's in it.
fn failed(error: impl std::fmt::Display) -> OrderError {
    OrderError::Failed(told(&error.to_string()))
}

/// Does something with the files, on a thread for such things.
pub(super) async fn on_disk<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
) -> Result<T, OrderError> {
    let with = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&with)).await;
    let done = done.map_err(io::Error::other).and_then(|done| done);
    done.map_err(|source| OrderError::Store {
        directory: store.directory().display().to_string(),
        source,
    })
}

/// What an authority has against a challenge.
async fn unproved(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        let mut problems = state.challenges.iter().filter_map(|one| one.error.as_ref());
        if let Some(problem) = problems.next() {
            return Some(describe(problem));
        }
    }
    None
}

fn describe(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
    let kind = kind.rsplit(':').next().unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => format!("{} ({kind})", detail.trim_end_matches('.')),
        None => format!("the authority refuses it ({kind})"),
    };
    for part in problem
        .subproblems
        .iter()
        .filter_map(|part| part.detail.as_ref())
    {
        text.push_str("; ");
        text.push_str(part);
    }
    told(&text)
}

/// What comes from outside, and goes into a log.
fn told(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_control())
        .take(MAX_TEXT)
        .collect()
}

const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// For all of an order.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const MAX_TEXT: usize = 1000;
