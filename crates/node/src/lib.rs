//! An IPFS node: it finds, fetches, verifies, stores and serves DAGs of blocks.
//!
//! The crate stands alone: it knows nothing of accounts, pins or HTTP. Its parts, from the disk up:
//!
//! - [`block`]: a [`Block`] is bytes that were proven to match their CID;
//! - [`blocks`]: where blocks live, and the *holds* that keep them;
//! - [`dag`]: which CIDs a block links to;
//! - [`unixfs`]: files and directories as DAGs, both ways;
//! - [`identity`] and [`config`]: who a node is and what it is told;
//! - [`net`]: the libp2p swarm, its transports, peers and the DHT;
//! - [`bitswap`]: the block exchange, client and server;
//! - [`source`]: who may have a DAG;
//! - [`fetch`]: the walker that brings a whole DAG under a hold;
//! - [`node`]: all of it behind one handle.

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
