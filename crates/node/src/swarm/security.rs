//! The security upgrade of a byte stream: TLS, which Kubo and Helia prefer, then Noise.

use std::io;

use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::TlsStream;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise};

use super::tls::{self, SetupError, Tls};

const NOISE: &str = "/noise";

/// Why the handshakes could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    /// TLS has no certificate.
    #[error("TLS: {0}")]
    Tls(#[from] SetupError),
    /// Noise has no static key.
    #[error("Noise: {0}")]
    Noise(#[from] noise::Error),
}

/// Offers TLS, then Noise; accepts both.
#[derive(Clone)]
pub(crate) struct Security {
    tls: Tls,
    noise: noise::Config,
}

impl Security {
    pub(crate) fn new(identity: &Keypair) -> Result<Self, SecurityError> {
        Ok(Self { tls: Tls::new(identity)?, noise: noise::Config::new(identity)? })
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<Self::Info, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [tls::PROTOCOL, NOISE].into_iter()
    }
}

type Secured<C> = (PeerId, Either<TlsStream<C>, noise::Output<C>>);

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, protocol: Self::Info) -> Self::Future {
        async move {
            if protocol == NOISE {
                let upgrade = self.noise.upgrade_inbound(socket, protocol);
                let (peer, stream) = upgrade.await.map_err(io::Error::other)?;
                return Ok((peer, Either::Right(stream)));
            }
            let (peer, stream) = self.tls.upgrade_inbound(socket, protocol).await?;
            Ok((peer, Either::Left(stream)))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, protocol: Self::Info) -> Self::Future {
        async move {
            if protocol == NOISE {
                let upgrade = self.noise.upgrade_outbound(socket, protocol);
                let (peer, stream) = upgrade.await.map_err(io::Error::other)?;
                return Ok((peer, Either::Right(stream)));
            }
            let (peer, stream) = self.tls.upgrade_outbound(socket, protocol).await?;
            Ok((peer, Either::Left(stream)))
        }
        .boxed()
    }
}
