//! TLS 1.3 as libp2p uses it, with AES-128-GCM first where the processor has AES.
//!
//! Certificates and their verification come from `libp2p-tls`; only the settings of the handshake are set here. Two
//! `libp2p-tls` peers negotiate ChaCha20, which costs two to three times as much on a processor with AES instructions.
//! Sessions are not resumed: all peers have the same (absent) server name, so one peer's ticket would be offered to
//! another.
//!
//! Follows <https://github.com/libp2p/specs/blob/master/tls/tls.md>.

mod verifier;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, CommonState, ServerConfig, SupportedCipherSuite};

use verifier::PeerVerifier;

/// The protocol name of TLS.
pub(crate) const PROTOCOL: &str = "/tls/1.0.0";
const ALPN: &[u8] = b"libp2p";

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// No certificate could be made for the node's key.
    #[error(transparent)]
    Certificate(#[from] certificate::GenError),
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] rustls::Error),
}

/// The TLS upgrade, for both directions.
#[derive(Clone)]
pub(crate) struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Generates a certificate that proves possession of `identity`.
    pub(crate) fn new(identity: &Keypair) -> Result<Self, SetupError> {
        let (certificate, key) = certificate::generate(identity)?;
        let key = ring::sign::any_ecdsa_type(&key)?;
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        let provider =
            Arc::new(CryptoProvider { cipher_suites: cipher_suites(), ..ring::default_provider() });
        let versions = &[&rustls::version::TLS13];

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::new(PeerVerifier))
            .with_cert_resolver(certified.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.ignore_client_order = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier))
            .with_client_cert_resolver(certified);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The cipher suites of TLS 1.3, the fastest one on this processor first.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256 as AES_128, TLS13_AES_256_GCM_SHA384 as AES_256,
        TLS13_CHACHA20_POLY1305_SHA256 as CHACHA20,
    };
    if has_aes() { vec![AES_128, AES_256, CHACHA20] } else { vec![CHACHA20, AES_128, AES_256] }
}

fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The identity that the remote side proved.
fn peer_of(state: &CommonState) -> io::Result<PeerId> {
    let Some([certificate]) = state.peer_certificates() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not exactly one certificate"));
    };
    let certificate =
        certificate::parse(certificate).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(certificate.peer_id())
}

impl UpgradeInfo for Tls {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl<C> InboundConnectionUpgrade<C> for Tls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Tls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // The specification forbids a server name; an IP address is never sent as one.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let stream = TlsConnector::from(self.client).connect(name, socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    /// Shakes hands over a pipe; yields the peer that each side saw, and the agreed cipher.
    async fn shake<S, C>(server: S, client: C) -> ((PeerId, PeerId), CipherSuite)
    where
        S: InboundConnectionUpgrade<Pipe, Output = (PeerId, TlsStream<Pipe>), Error: std::fmt::Debug>,
        C: OutboundConnectionUpgrade<Pipe, Output = (PeerId, TlsStream<Pipe>), Error: std::fmt::Debug>,
        S: UpgradeInfo<Info = &'static str>,
        C: UpgradeInfo<Info = &'static str>,
    {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (accepted, connected) = futures::join!(
            server.upgrade_inbound(near.compat(), PROTOCOL),
            client.upgrade_outbound(far.compat(), PROTOCOL),
        );
        let ((seen_by_server, stream), (seen_by_client, _)) = (accepted.unwrap(), connected.unwrap());
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        ((seen_by_server, seen_by_client), suite)
    }

    type Pipe = tokio_util::compat::Compat<tokio::io::DuplexStream>;

    fn expected() -> CipherSuite {
        cipher_suites()[0].suite()
    }

    #[tokio::test]
    async fn both_sides_are_authenticated_and_use_the_fastest_cipher() {
        let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (seen, suite) = shake(Tls::new(&alice).unwrap(), Tls::new(&bob).unwrap()).await;
        assert_eq!(seen, (bob.public().to_peer_id(), alice.public().to_peer_id()));
        assert_eq!(suite, expected());
        if cfg!(target_arch = "x86_64") && has_aes() {
            assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }

    #[tokio::test]
    async fn inbound_libp2p_tls_peer_gets_the_fastest_cipher() {
        let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let stock = libp2p::tls::Config::new(&bob).unwrap();
        let (seen, suite) = shake(Tls::new(&alice).unwrap(), stock).await;
        assert_eq!(seen, (bob.public().to_peer_id(), alice.public().to_peer_id()));
        assert_eq!(suite, expected());
    }

    #[tokio::test]
    async fn libp2p_tls_peer_can_be_dialled() {
        let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let stock = libp2p::tls::Config::new(&alice).unwrap();
        let (seen, _) = shake(stock, Tls::new(&bob).unwrap()).await;
        assert_eq!(seen, (bob.public().to_peer_id(), alice.public().to_peer_id()));
    }

    #[tokio::test]
    async fn peer_without_libp2p_certificate_is_refused() {
        let alice = Keypair::generate_ed25519();
        let mut anonymous = Tls::new(&Keypair::generate_ed25519()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        anonymous.client = Arc::new(client);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (accepted, _) = futures::join!(
            Tls::new(&alice).unwrap().upgrade_inbound(near.compat(), PROTOCOL),
            anonymous.upgrade_outbound(far.compat(), PROTOCOL),
        );
        assert!(accepted.is_err());
    }
}
