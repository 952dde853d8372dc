//! Pins as words of this crate: what is wished, what is shown.

use std::time::Duration;

use cid::Cid;
use pinfold_model::{ClusterId, Failure, PinId, PinKind, PinName, PinOptions, PinState, Timestamp};
use pinfold_store::PinRecord;

/// A request to create or update a pin.
#[derive(Debug, Clone)]
pub struct PinRequest {
    /// The root of the DAG.
    pub cid: Cid,
    /// `None` selects the default cluster.
    pub cluster: Option<ClusterId>,
    pub options: PinOptions,
}

impl PinRequest {
    /// Requests a pin without options in the default cluster.
    #[must_use]
    pub fn new(cid: Cid) -> Self {
        Self { cid, cluster: None, options: PinOptions::default() }
    }

    /// The same request with these options.
    #[must_use]
    pub fn with(self, options: PinOptions) -> Self {
        Self { options, ..self }
    }
}

/// What an upload becomes: a pin request whose CID is not known yet.
#[derive(Debug, Clone, Default)]
pub struct UploadRequest {
    /// `None` selects the default cluster.
    pub cluster: Option<ClusterId>,
    pub options: PinOptions,
}

/// Whether a request waits until the pin is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At most so long.
    For(Duration),
    /// Not at all.
    No,
}

/// A pin, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinView {
    /// Names the pin; clients know it as `uploadId`.
    pub upload_id: PinId,
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it is.
    pub cluster: ClusterId,
    /// What the content was called where it came from.
    pub original_name: Option<PinName>,
    /// What the account calls it.
    pub custom_name: Option<PinName>,
    /// What it is.
    pub kind: PinKind,
    /// How it stands.
    pub state: PinState,
    /// The bytes of its distinct blocks; 0 until they are known.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Until when it can't be removed.
    pub retain_until: Option<Timestamp>,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinReceipt {
    /// The pin. Its state is pinned, or queued or pinning when the wait was over first.
    pub view: PinView,
    /// Whether the account did not pin this CID in that cluster before.
    pub created: bool,
}

/// Where a keyset page goes on: after the pin with this id.
pub type Cursor = PinId;

/// Which pins to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// The page, from 1. Ignored when there is a cursor.
    pub page: u32,
    /// Pins on a page, 1 to 100; others are moved to the nearer end.
    pub limit: u32,
    /// Only pins of this CID.
    pub cid: Option<Cid>,
    /// Only pins whose names or CID have this text in them, in any case; at most 255 bytes.
    pub search: Option<String>,
    /// Only pins that stand so.
    pub state: Option<PinState>,
    /// Only pins of this cluster.
    pub cluster: Option<ClusterId>,
    /// Only pins that end by themselves (or, `false`, do not).
    pub has_expiry: Option<bool>,
    /// Where to go on; a page costs the same wherever it is.
    pub cursor: Option<Cursor>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            page: 1,
            limit: 20,
            cid: None,
            search: None,
            state: None,
            cluster: None,
            has_expiry: None,
            cursor: None,
        }
    }
}

/// A page of pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinPage {
    /// The pins.
    pub pins: Vec<PinView>,
    /// How many pins match, on all pages.
    pub total: u64,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<Cursor>,
}

/// How far a pin is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinProgress {
    /// Distinct blocks that are held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the whole DAG, once known.
    pub total_bytes: Option<u64>,
    /// Peers that delivered something.
    pub peers: u64,
}

/// All that is known of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinStatus {
    /// The pin.
    pub view: PinView,
    /// How far it is.
    pub progress: PinProgress,
    /// Why it failed, or why the last try did.
    pub error: Option<Failure>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, if it waits for that.
    pub next_try_at: Option<Timestamp>,
    /// How many of its blocks are known to be damaged; they are being fetched again.
    pub damaged_blocks: u64,
    /// The peer ids that hold it in its cluster.
    pub allocations: Vec<String>,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<&PinRecord> for PinView {
    fn from(pin: &PinRecord) -> Self {
        Self {
            upload_id: pin.id,
            cid: pin.placement.cid,
            cluster: pin.placement.cluster.clone(),
            original_name: pin.original_name.clone(),
            custom_name: pin.custom_name.clone(),
            kind: pin.placement.kind,
            state: pin.state(),
            size_bytes: pin.charged_bytes,
            created_at: pin.created_at,
            expires_at: pin.expires_at,
            retain_until: pin.retain_until,
        }
    }
}
