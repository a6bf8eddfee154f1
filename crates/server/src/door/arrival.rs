//! A connection that was accepted: whether it may stay, and whom it is from.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::admission::{AddressPermit, Admission, OverLimit};
use super::websocket::GOODBYE;
use crate::http::HEAD_TIMEOUT;
use crate::http::counters::Dropped;
use crate::proxy_protocol::{self, ProxyHeader};
use crate::worker::thread::Shared;

/// A connection that may stay, of which nothing was read yet.
pub(crate) struct Arrival {
    io: TcpStream,
    peer: SocketAddr,
    permit: Option<AddressPermit>,
    /// The proxy at its other end says whom it is from.
    is_announced: bool,
}

impl Arrival {
    /// Takes a connection from `peer`, unless there is too much from there.
    ///
    /// # Errors
    ///
    /// The connection, which may be told.
    pub(crate) fn new(
        shared: &Shared,
        io: TcpStream,
        peer: SocketAddr,
    ) -> Result<Self, TurnedAway> {
        let admission = &shared.admission;
        let rules = admission.rules();
        let (mut permit, mut is_announced) = (None, false);
        if rules.trust.proxies.contains(peer.ip()) {
            is_announced = rules.proxy_protocol;
        } else {
            permit = match admission.connection(peer.ip()) {
                Ok(permit) => permit,
                Err(over) => return Err(TurnedAway::new(shared, io, over)),
            };
        }
        Ok(Self {
            io,
            peer,
            permit,
            is_announced,
        })
    }

    /// Hears whom the connection is from, where a proxy says so.
    ///
    /// # Errors
    ///
    /// When nothing comes of it: why it was dropped, if nobody was told.
    pub(crate) async fn announced(
        mut self,
        shared: &Shared,
    ) -> Result<(TcpStream, SocketAddr, Option<AddressPermit>), Option<Dropped>> {
        if self.is_announced {
            let reading = proxy_protocol::read(&mut self.io);
            match tokio::time::timeout(HEAD_TIMEOUT, reading).await {
                Ok(Ok(ProxyHeader::Own)) => {}
                Ok(Ok(ProxyHeader::For(client))) => {
                    self.peer = client;
                    match shared.admission.connection(client.ip()) {
                        Ok(permit) => self.permit = permit,
                        Err(over) => {
                            return Err(TurnedAway::new(shared, self.io, over).tell().await);
                        }
                    }
                }
                Ok(Err(error)) => {
                    let proxy = self.peer;
                    tracing::debug!(%error, %proxy, "a proxy did not say whom a connection is from");
                    return Err(Some(Dropped::ProxyHeader));
                }
                Err(_elapsed) => return Err(Some(Dropped::ProxyHeader)),
            }
        }
        Ok((self.io, self.peer, self.permit))
    }
}

/// A connection that may not stay.
pub(crate) struct TurnedAway {
    io: TcpStream,
    /// What its client is told: nothing where that would need TLS.
    said: Option<Vec<u8>>,
    admission: Arc<Admission>,
}

impl TurnedAway {
    pub(crate) fn new(shared: &Shared, io: TcpStream, over: OverLimit) -> Self {
        Self {
            io,
            said: shared.live.borrow().tls.is_none().then(|| over.http1()),
            admission: Arc::clone(&shared.admission),
        }
    }

    /// Tells the client, if it isn't one of too many, and closes the connection. Returns what it is counted as where it
    /// is one of too many.
    pub(crate) async fn tell(self) -> Option<Dropped> {
        let Self {
            mut io,
            said,
            admission,
        } = self;
        let said = said?;
        let Some(_goodbye) = admission.goodbye() else {
            return Some(Dropped::Untold);
        };
        let say = async {
            io.write_all(&said).await?;
            io.shutdown().await?;
            let mut sink = [0; 512];
            while io.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(GOODBYE, say).await;
        None
    }
}
