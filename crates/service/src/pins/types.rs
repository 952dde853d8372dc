//! Request and reply types of pins and uploads.

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

/// Whether a request waits until its pin is active or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At most for this time.
    For(Duration),
    No,
}

/// A pin, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinView {
    /// Identifies the pin. Clients know it as `uploadId`.
    pub upload_id: PinId,
    /// The root of the DAG.
    pub cid: Cid,
    pub cluster: ClusterId,
    /// Name of the content at its source.
    pub original_name: Option<PinName>,
    /// Name chosen by the account.
    pub custom_name: Option<PinName>,
    pub kind: PinKind,
    pub state: PinState,
    /// Total size of the distinct blocks; 0 until it is known.
    pub size_bytes: u64,
    pub created_at: Timestamp,
    /// When the pin is removed automatically.
    pub expires_at: Option<Timestamp>,
    /// Until when the pin can't be removed.
    pub retain_until: Option<Timestamp>,
}

/// The result of a pin request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinReceipt {
    /// The pin. Its state is queued or pinning if the request did not wait for the outcome.
    pub view: PinView,
    /// Whether the account had no live pin of this CID in this cluster before.
    pub created: bool,
}

/// Where a page begins: after the pin with this id.
pub type Cursor = PinId;

/// Which pins to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Page number from 1. Ignored if there is a cursor.
    pub page: u32,
    /// Pins per page; clamped to 1 to 100.
    pub limit: u32,
    /// Only pins of this CID.
    pub cid: Option<Cid>,
    /// Only pins with this text in a name or the CID, ignoring case; at most 255 bytes.
    pub search: Option<String>,
    /// Only pins in this state.
    pub state: Option<PinState>,
    /// Only pins of this cluster.
    pub cluster: Option<ClusterId>,
    /// Only pins with (or, if `false`, without) a timelock.
    pub has_expiry: Option<bool>,
    /// Where to continue. A page costs the same wherever it is.
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
    pub pins: Vec<PinView>,
    /// Number of matching pins on all pages.
    pub total: u64,
    /// Where the next page begins; `None` on the last page.
    pub next_cursor: Option<Cursor>,
}

/// Progress of a pin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinProgress {
    /// Distinct blocks that are held.
    pub blocks: u64,
    /// Total size of these blocks.
    pub bytes: u64,
    /// Total size of the DAG, once it is known.
    pub total_bytes: Option<u64>,
    /// Peers that delivered blocks.
    pub peers: u64,
}

/// Status of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinStatus {
    pub view: PinView,
    pub progress: PinProgress,
    /// Why the pin failed, or why the last attempt failed.
    pub error: Option<Failure>,
    pub attempts: u32,
    /// When the next attempt begins, if one is scheduled.
    pub next_try_at: Option<Timestamp>,
    /// Number of blocks that are known to be damaged. They are being fetched again.
    pub damaged_blocks: u64,
    /// The peer ids that hold the pin in its cluster.
    pub allocations: Vec<String>,
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
