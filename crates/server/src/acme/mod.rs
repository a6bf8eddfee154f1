//! Certificates that the server gets by itself, from an authority that speaks ACME (RFC 8555).
//!
//! Each name has a certificate of its own. It is ordered when there is none, and again after two thirds of its time, or when
//! the authority would like it (RFC 9773); the authority sees by a handshake on the TLS port that the name is this server's (`tls-alpn-01`, RFC 8737). One order is under way
//! at a time, and one process at a time has the turn for a directory. Whatever goes wrong, the certificate that there is stays in use.
//!
//! - `schedule`: when which name has its turn; no clock, no sockets;
//! - `order`: one order; `client`: HTTP for it; `challenge`: what the authority is shown;
//! - `store`: what is kept, and for whom to read;
//! - `look`: whether it can work at all, for the doctor;
//! - `absent`: what stands in the place of all this where it isn't built in.
//!
//! The ACME library speaks the protocol (nonces, signatures, states of orders); when, for whom, and what becomes of it is here.

mod challenge;
mod client;
#[cfg(test)]
mod hostile;
mod look;
mod order;
mod schedule;
mod store;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use tautline_hub::Entropy;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use self::challenge::Challenges;
use self::order::{Authority, Failure, OrderError, Remote, Terms, on_disk};
use self::schedule::{Errand, Schedule, Validity, is_due};
use self::store::Store;
use crate::config::AcmeOptions;
use crate::entropy::OsEntropy;
use crate::http::metrics::AcmeNumbers;
use crate::tls::{TlsError, is_good_for, validity};

/// The certificates, and what it takes to renew them.
#[derive(Debug)]
pub(crate) struct Acme {
    names: Vec<Name>,
    terms: Terms,
    /// Of all authorities.
    cache: PathBuf,
    store: Store,
    challenges: Challenges,
    /// Outlives a reload that changes nothing here, and is held by whoever runs.
    schedule: tokio::sync::Mutex<Option<Schedule>>,
}

/// A name, and how it stands with it.
#[derive(Debug)]
struct Name {
    domain: String,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    certificate: Option<Ordered>,
    issued: u64,
    failed: u64,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
struct Ordered {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

/// How a turn ended well.
enum Turn {
    /// There is a new certificate.
    Renewed(Validity),
    /// Another process has the turn.
    Taken,
}

/// What time it is, and when it is later.
trait Clock {
    /// Unix time.
    fn now(&self) -> Duration;

    /// Returns at that time or later, or before, so that it is looked at again: a clock may be set back.
    async fn sleep_until(&self, at: Duration);
}

impl Acme {
    /// Takes options that were [checked](crate::config::check_acme), and reads what is kept. Nothing is written yet, and
    /// nobody is asked.
    ///
    /// # Errors
    ///
    /// Naming the option that can't be as it is.
    pub(crate) fn new(options: &AcmeOptions) -> Result<Self, TlsError> {
        let url = options.directory_url.parse::<Uri>().unwrap_or_default();
        let host = url.host().unwrap_or_default();
        let cache = Path::new(&options.cache_directory);
        let store = Store::new(cache, host, &options.directory_url);
        let names = options.domains.iter().map(|domain| Name {
            domain: domain.clone(),
            state: RwLock::new(State {
                certificate: kept(&store, domain),
                ..State::default()
            }),
        });
        let contact = options.contact.iter();
        Ok(Self {
            names: names.collect(),
            terms: Terms {
                directory_url: options.directory_url.clone(),
                contact: contact.map(|address| format!("mailto:{address}")).collect(),
                profile: options.profile.clone(),
                external: external(options)?,
                tls: options
                    .directory_ca_pem
                    .as_deref()
                    .map(trusting)
                    .transpose()?,
            },
            cache: cache.to_owned(),
            store,
            challenges: Challenges::default(),
            schedule: tokio::sync::Mutex::default(),
        })
    }

    /// Orders what is missing, and renews the rest in time. Never ends.
    pub(crate) async fn run(&self) -> Infallible {
        let authority = Remote {
            terms: &self.terms,
            store: &self.store,
            challenges: &self.challenges,
        };
        match OsEntropy::new() {
            Ok(mut entropy) => self.run_with(&authority, &SystemClock, &mut entropy).await,
            Err(error) => {
                tracing::error!(%error, "the system gives no randomness: no certificates are ordered");
                std::future::pending().await
            }
        }
    }

    async fn run_with(
        &self,
        authority: &impl Authority,
        clock: &impl Clock,
        entropy: &mut dyn Entropy,
    ) -> Infallible {
        let mut schedule = self.schedule.lock().await;
        let schedule = schedule.get_or_insert_with(|| {
            let have = self.names.iter().map(Name::validity);
            Schedule::new(have, entropy)
        });
        loop {
            schedule.set_back(clock.now());
            // There is one name at least.
            let Some((place, errand, at)) = schedule.next() else {
                return std::future::pending().await;
            };
            let name = &self.names[place];
            if errand == Errand::Ask {
                // Asked at the start there is nothing to wait for.
                if at > clock.now() {
                    clock.sleep_until(at).await;
                    if at > clock.now() {
                        continue;
                    }
                }
                let advice = match name.leaf() {
                    Some(leaf) => authority.advice(&leaf).await,
                    None => Ok(None),
                };
                let now = clock.now();
                match advice {
                    Ok(advice) => {
                        let is_news = schedule.advised(place, advice, now, entropy);
                        let passed = advice.is_some_and(|advice| advice.until <= now);
                        if is_news && passed {
                            tracing::warn!(
                                domain = name.domain,
                                "the authority wants the certificate to be replaced at once"
                            );
                        }
                    }
                    Err(error) => {
                        tracing::debug!(domain = name.domain, %error, "the authority could not be asked");
                        schedule.not_advised(place, now);
                    }
                }
                continue;
            }
            clock.sleep_until(at).await;
            if at > clock.now() {
                continue;
            }
            let replaced = name.leaf().filter(|_| schedule.is_advised(place));
            let turn = self.take_turn(name, replaced, authority, clock).await;
            let now = clock.now();
            match turn {
                Ok(Turn::Renewed(validity)) => schedule.renewed(place, validity, now, entropy),
                Ok(Turn::Taken) => schedule.postponed(place, now),
                Err(Failure { error, again }) => {
                    name.write().failed += 1;
                    let pause = schedule.failed(place, now, again, entropy);
                    name.tell(&error, now, pause);
                }
            }
        }
    }

    async fn take_turn(
        &self,
        name: &Name,
        replaced: Option<CertificateDer<'static>>,
        authority: &impl Authority,
        clock: &impl Clock,
    ) -> Result<Turn, Failure> {
        let domain = name.domain.clone();
        let look = move |store: &Store| Ok((store.lock()?, kept(store, &domain)));
        let (lock, kept) = on_disk(&self.store, look).await?;
        // Another process may have been here meanwhile.
        if let Some(kept) = kept
            && !is_due(kept.validity, clock.now())
            && name.validity() != Some(kept.validity)
        {
            tracing::info!(
                domain = name.domain,
                "a certificate that another process has ordered is in use"
            );
            return Ok(name.take_over(kept));
        }
        let Some(_lock) = lock else {
            return Ok(Turn::Taken);
        };
        let pem = authority.order(&name.domain, replaced.as_ref()).await?;
        let ordered = read(pem.as_bytes(), &name.domain).map_err(OrderError::Unusable)?;
        if ordered.validity.until <= clock.now() {
            let problem = "the certificate has expired already; is this machine's clock right?";
            return Err(OrderError::Unusable(problem.to_owned()).into());
        }
        name.write().issued += 1;
        // Kept before anybody sees it: whatever happens to the process then, it doesn't order again.
        let domain = name.domain.clone();
        let keep = move |store: &Store| store.keep_certificate(&domain, pem.as_bytes());
        if let Err(error) = on_disk(&self.store, keep).await {
            tracing::error!(
                domain = name.domain, %error,
                "the new certificate can't be kept: after a restart, another one has to be ordered"
            );
        }
        tracing::info!(domain = name.domain, "a new certificate is in use");
        Ok(name.take_over(ordered))
    }

    /// The certificate of a name.
    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut names = self.names.iter();
        let found = names.find(|one| one.domain.eq_ignore_ascii_case(name))?;
        found.certified()
    }

    /// For clients who name nobody.
    pub(crate) fn first(&self) -> Option<Arc<CertifiedKey>> {
        self.names.iter().find_map(Name::certified)
    }

    /// Whether an authority may come to see a proof.
    pub(crate) fn is_asked(&self) -> bool {
        self.challenges.is_asked()
    }

    /// What to answer an authority with who comes for that.
    pub(crate) fn answer(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        self.challenges.of(hello)
    }

    /// Each name, with its certificate if there is one.
    pub(crate) fn leaves(&self) -> Vec<(String, Option<CertificateDer<'static>>)> {
        let names = self.names.iter();
        names
            .map(|name| (name.domain.clone(), name.leaf()))
            .collect()
    }

    /// Where things are kept: the directory of the option, and the one of the authority in it.
    pub(crate) fn directories(&self) -> (&Path, &Path) {
        (&self.cache, self.store.directory())
    }

    /// What was counted.
    pub(crate) fn numbers(&self) -> Vec<AcmeNumbers> {
        let names = self.names.iter().map(|name| {
            let state = name.state.read().unwrap_or_else(PoisonError::into_inner);
            AcmeNumbers {
                domain: name.domain.clone(),
                issued: state.issued,
                failed: state.failed,
            }
        });
        names.collect()
    }
}

impl Name {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let ordered = state.certificate.as_ref()?;
        Some(Arc::clone(&ordered.certified))
    }

    fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.certified()?.cert.first().cloned()
    }

    fn validity(&self) -> Option<Validity> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.certificate.as_ref().map(|ordered| ordered.validity)
    }

    fn take_over(&self, ordered: Ordered) -> Turn {
        let validity = ordered.validity;
        self.write().certificate = Some(ordered);
        Turn::Renewed(validity)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, error: &OrderError, now: Duration, pause: Duration) {
        let (domain, minutes) = (&self.domain, pause.as_secs().div_ceil(60));
        match self
            .validity()
            .and_then(|validity| validity.until.checked_sub(now))
        {
            Some(left) => tracing::warn!(
                domain, %error, hours_left = left.as_secs() / 3600, next_attempt_in_minutes = minutes,
                "no new certificate; the one that there is stays in use"
            ),
            None => tracing::error!(
                domain, %error, next_attempt_in_minutes = minutes,
                "no certificate: clients can't connect by this name"
            ),
        }
    }
}

/// The certificate of a name that is kept, if it is any good.
fn kept(store: &Store, domain: &str) -> Option<Ordered> {
    let warn = |problem: String| {
        let directory = store.directory().display();
        tracing::warn!(domain, %directory, problem, "a certificate that was kept can't be used");
    };
    let pem = store.certificate(domain);
    let pem = pem.map_err(|error| warn(error.to_string())).ok()??;
    read(&pem, domain).map_err(warn).ok()
}

/// A certificate and its key, for a name.
fn read(pem: &[u8], domain: &str) -> Result<Ordered, String> {
    let chain = crate::pem::certificates(pem)?;
    let (from, until) = validity(&chain[0]).ok_or("the certificate can't be read")?;
    let certified = crate::pem::certified(chain, pem)?;
    let name = ServerName::try_from(domain).map_err(|error| error.to_string())?;
    if !is_good_for(&certified, &name) {
        return Err(format!("the certificate is not for {domain}"));
    }
    Ok(Ordered {
        certified: Arc::new(certified),
        validity: Validity {
            from: Duration::from_secs(from),
            until: Duration::from_secs(until),
        },
    })
}

fn external(options: &AcmeOptions) -> Result<Option<(String, Vec<u8>)>, TlsError> {
    let (Some(id), Some(key)) = (
        &options.external_account_key_id,
        &options.external_account_hmac_key,
    ) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(key.expose());
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    let key = key.map_err(|_| TlsError {
        option: "acme.external_account_hmac_key".to_owned(),
        problem: "is not in base64url, in which authorities give it".to_owned(),
    })?;
    Ok(Some((id.clone(), key)))
}

/// What trusts some authorities alone.
fn trusting(text: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let error = |problem: String| TlsError {
        option: "acme.directory_ca_pem".to_owned(),
        problem,
    };
    let pem = crate::pem::read(text).map_err(|failed| error(failed.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in crate::pem::certificates(&pem).map_err(error)? {
        let added = roots.add(certificate);
        added.map_err(|failed| error(format!("is no authority's certificate: {failed}")))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|failed| error(format!("can't be used: {failed}")))?;
    Ok(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// The system's.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default()
    }

    async fn sleep_until(&self, at: Duration) {
        // In steps: it may be set, and goes on while the machine sleeps.
        if let Some(left) = at.checked_sub(self.now()) {
            tokio::time::sleep(left.min(STEP)).await;
        }
    }
}

const STEP: Duration = Duration::from_secs(60);
