//! An IPFS node: it finds, fetches, verifies, stores and serves DAGs of blocks.
//!
//! The crate is independent of the others: it knows nothing of accounts, pins or HTTP. Its modules, from the disk up:
//!
//! - [`block`]: a [`Block`] is bytes that were verified against their CID;
//! - [`blocks`]: block storage, and the *holds* that protect blocks from deletion;
//! - [`dag`]: the links of a block;
//! - [`unixfs`] and [`car`]: importing and reading files, directories and CAR files;
//! - [`identity`] and [`config`]: the node's key and its settings;
//! - [`swarm`]: libp2p transports, connections and the DHT;
//! - [`exchange`]: bitswap, client and server;
//! - [`sources`]: ways of finding providers of a DAG;
//! - [`fetch`]: fetches whole DAGs into holds;
//! - [`node`]: everything behind one handle.

pub mod block;
pub mod blocks;
pub mod car;
pub mod config;
pub mod dag;
pub mod exchange;
pub mod fetch;
pub mod identity;
pub mod node;
pub mod sources;
pub mod swarm;
pub mod unixfs;

pub use block::{Block, BlockError};
pub use blocks::{Blocks, BlocksError, HoldId, HoldName, HoldStats};
pub use config::{Bootstrap, Lan, NodeConfig};
pub use fetch::{
    Cut, FetchError, FetchLimits, FetchRequest, Progress, ProgressReading, Reach, Survey, SurveyRequest,
};
pub use identity::{Identity, IdentityError};
pub use node::Node;
pub use swarm::{DialError, PeerEvent, PeerInfo, StartError, SwarmHandle};
