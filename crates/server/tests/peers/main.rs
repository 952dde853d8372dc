//! The real `pinfold` with other implementations: Kubo, Helia, the six samples of the original API page, and its SDK.
//!
//! Everything here is a separate process on loopback with free ports and a temporary folder. `ci/peers` installs the
//! peers. A missing peer fails its test with a message that says so, so a successful run has used every one of them.
//!
//! `cargo test -p pinfold-server --features foreign-peers --test peers`
//!
//! | file | owns |
//! | --- | --- |
//! | `cache.rs` | paths of the programs that `ci/peers` installs |
//! | `program.rs` | a child process that ends with its test |
//! | `kubo.rs`, `helia.rs`, `pinfold.rs` | one driver for each kind of node |
//! | `data.rs`, `vector.rs` | bytes and folders to transfer, and the published CIDs |
//! | `exchange.rs`, `routing.rs`, `import.rs`, `samples.rs`, `sdk.rs`, `fuzz.rs`, `tours.rs`, `api_page.rs`, `openapi_clients.rs`, `webhooks.rs` | the tests |

mod api_page;
mod cache;
mod data;
mod exchange;
mod fuzz;
mod helia;
mod import;
mod kubo;
mod openapi_clients;
mod pinfold;
mod program;
mod routing;
mod samples;
mod sdk;
mod tours;
mod vector;
#[path = "../../../outbound/tests/support/webhook_receiver.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
#[allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod webhook_receiver;
mod webhooks;

/// The transport between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// TCP, secured with TLS 1.3.
    TcpTls,
    /// TCP, secured with Noise.
    TcpNoise,
    /// QUIC v1, which includes TLS 1.3.
    Quic,
    /// WebSocket over TCP, secured with Noise.
    WebSocket,
}

impl Over {
    /// A loopback address to listen on, with a port chosen by the system.
    pub(crate) fn listen(self) -> &'static str {
        match self {
            Self::TcpTls | Self::TcpNoise => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::WebSocket => "/ip4/127.0.0.1/tcp/0/ws",
        }
    }

    /// Whether a multiaddr of a node uses this transport.
    pub(crate) fn fits(self, address: &str) -> bool {
        let websocket = address.contains("/ws");
        match self {
            Self::TcpTls | Self::TcpNoise => address.contains("/tcp/") && !websocket,
            Self::Quic => address.contains("/quic-v1") && !address.contains("/webtransport"),
            Self::WebSocket => websocket,
        }
    }
}
