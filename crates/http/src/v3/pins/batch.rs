//! `POST` and `DELETE /files/pin-batch`: many pins in one transaction.

use std::collections::BTreeMap;
use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cid::Cid;
use pinfold_model::{ClusterId, PinState, Timestamp, parse_cid};
use pinfold_service::{BATCH_ITEMS_MAX, PinReceipt, PinRequest, RemovedPin};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{FilesDelete, FilesWrite, RequireScope};
use crate::v3::error_code::ErrorCode;
use crate::v3::extract::{
    ClusterFilter, ClusterFilterParams, ClusterHint, ClusterParams, EXAMPLE_CID, MaybeJson, parse,
};
use crate::v3::openapi::{Guarded, Storage, WithBody};
use crate::v3::options::{PinOptionsBody, filled, parse_cluster};
use crate::v3::pins::reply::PinBody;
use crate::v3::reject::{ItemReject, Reject};

/// The longest text of a CID that is shown in an error, in bytes.
const SHOWN_LENGTH_MAX: usize = 128;

/// The raw values of an array, so that each can be refused on its own. At most as many as a batch may have.
#[derive(Default)]
struct Items(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Items;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_unit<E>(self) -> Result<Items, E> {
                Ok(Items::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = array.next_element()? {
                    if items.len() == BATCH_ITEMS_MAX {
                        return Err(A::Error::custom(format!("a batch has at most {BATCH_ITEMS_MAX} items")));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }

        deserializer.deserialize_any(Bounded)
    }
}

/// Pins to create.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = PinBatch)]
pub(crate) struct PinBatchBody {
    /// 1 to 1,000 items.
    #[serde(default)]
    #[schema(value_type = Vec<PinItem>, min_items = 1, max_items = 1000)]
    items: Items,
    /// Cluster of the items that name none.
    #[schema(example = "cl0-global")]
    cl: Option<String>,
}

/// The CID of an item.
#[derive(Default, Deserialize)]
struct CidField {
    cid: Option<String>,
}

/// A pin to create.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document reads its fields")]
struct PinItem {
    /// CID, version 0 or 1, in any multibase.
    cid: String,
    #[schema(inline)]
    #[serde(flatten)]
    options: PinOptionsBody,
}

/// Pins to remove, as `items` or as `cids`.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RemoveBatch)]
pub(crate) struct RemoveBatchBody {
    /// 1 to 1,000 items.
    #[serde(default)]
    #[schema(value_type = Vec<RemoveItem>, max_items = 1000)]
    items: Items,
    /// CIDs, as a shorter form of `items`.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 1000)]
    cids: Items,
    /// Cluster of the items that name none.
    cl: Option<String>,
}

/// A pin to remove.
#[derive(Default, Deserialize, ToSchema)]
struct RemoveItem {
    /// CID, version 0 or 1, in any multibase.
    #[schema(required)]
    cid: Option<String>,
    /// Cluster of the pin, if the CID is pinned in several clusters.
    cl: Option<String>,
}

/// Pin several CIDs
///
/// Creates up to 1,000 pins, all or none. If an item is refused, `errors` lists every problem and no pin is created. The request
/// does not wait for fetches: 200 means that all content is pinned, 202 that some pins are in progress.
#[utoipa::path(post, path = "/files/pin-batch", operation_id = "createPinBatch", tag = "pins", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = PinBatchBody, example = json!({"items": [{"cid": EXAMPLE_CID, "customName": "hello.txt"}], "cl": "cl0-global"})),
    responses(
        (status = 200, description = "All content is pinned.", body = PinBatchReply, example = json!(PinBatchReply::example())),
        (status = 202, description = "All pins are created, and some are in progress.", body = PinBatchReply, example = json!(PinBatchReply::example_in_progress())),
        Guarded, WithBody, Storage))]
pub(crate) async fn pin_all(
    State(app): State<AppState>,
    caller: RequireScope<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    MaybeJson(body): MaybeJson<PinBatchBody>,
) -> Result<PinBatchReply, Reject> {
    let PinBatchItems { requests, mut faults } = body.parse(hint.as_deref(), app.now());
    if !faults.is_empty() {
        faults.extend(app.service().pins.faults(&caller, &requests).into_iter().map(ItemReject::from));
        return Err(Reject::of_items(faults));
    }
    let requests = requests.into_iter().map(|(_, request)| request).collect();
    Ok(PinBatchReply::new(&app.service().pins.pin_all(&caller, requests).await?))
}

/// Remove several pins
///
/// Removes up to 1,000 pins, all or none. If a pin does not exist or is locked, `errors` names it and nothing is removed.
#[utoipa::path(delete, path = "/files/pin-batch", operation_id = "removePinBatch", tag = "pins", security(("key" = ["files:delete"]), ("session" = [])),
    params(ClusterFilterParams),
    request_body(content = RemoveBatchBody, example = json!({"cids": [EXAMPLE_CID]})),
    responses(
        (status = 200, description = "All pins are removed.", body = RemoveBatchReply, example = json!(RemoveBatchReply::example())),
        crate::v3::openapi::Missing, Guarded, WithBody))]
pub(crate) async fn remove_all(
    State(app): State<AppState>,
    caller: RequireScope<FilesDelete>,
    ClusterFilter(hint): ClusterFilter,
    MaybeJson(body): MaybeJson<RemoveBatchBody>,
) -> Result<Json<RemoveBatchReply>, Reject> {
    let pins = body.parse(hint.as_deref())?;
    let removed = app.service().pins.remove_all(&caller, pins).await?;
    Ok(Json(RemoveBatchReply::new(&removed)))
}

/// The valid items with their indexes, and the errors of the others.
struct PinBatchItems {
    requests: Vec<(usize, PinRequest)>,
    faults: Vec<ItemReject>,
}

impl PinBatchBody {
    fn parse(&self, hint: Option<&str>, now: Timestamp) -> PinBatchItems {
        let hint = filled(self.cl.as_deref()).or(hint);
        let (mut requests, mut faults) = (Vec::with_capacity(self.items.0.len()), Vec::new());
        for (index, item) in self.items.0.iter().enumerate() {
            let cid = item_cid(item);
            let body = parse::<PinOptionsBody>(item.get().as_bytes());
            let options = body.and_then(|body| Ok((body.cluster(hint)?, body.parse(now)?)));
            match (cid, options) {
                (Ok(cid), Ok((cluster, options))) => {
                    requests.push((index, PinRequest { cid, cluster, options }));
                }
                (cid, options) => {
                    let shown = shown_cid(item);
                    let rejects = [cid.err(), options.err()].into_iter().flatten();
                    faults.extend(rejects.map(|reject| ItemReject::new(index, shown.clone(), reject)));
                }
            }
        }
        PinBatchItems { requests, faults }
    }
}

impl RemoveBatchBody {
    fn parse(&self, hint: Option<&str>) -> Result<Vec<(Cid, Option<ClusterId>)>, Reject> {
        let hint = filled(self.cl.as_deref()).or(hint);
        if !self.items.0.is_empty() && !self.cids.0.is_empty() {
            return Err(Reject::invalid("Send either `items` or `cids`"));
        }
        let (mut pins, mut faults) = (Vec::new(), Vec::new());
        let items = self.items.0.iter().map(|item| (item, removal(item, hint)));
        let cids = self.cids.0.iter().map(|text| (text, bare_removal(text, hint)));
        for (index, (item, pin)) in items.chain(cids).enumerate() {
            match pin {
                Ok(pin) => pins.push(pin),
                Err(reject) => faults.push(ItemReject::new(index, shown_cid(item), reject)),
            }
        }
        if faults.is_empty() { Ok(pins) } else { Err(Reject::of_items(faults)) }
    }
}

fn item_cid(item: &RawValue) -> Result<Cid, Reject> {
    let CidField { cid } = parse(item.get().as_bytes())?;
    cid_of(cid.as_deref())
}

fn cid_of(text: Option<&str>) -> Result<Cid, Reject> {
    let text =
        filled(text).ok_or_else(|| Reject::invalid("`cid`: a CID is needed").code(ErrorCode::InvalidCid))?;
    parse_cid(text).map_err(|error| Reject::invalid(error.to_string()).code(ErrorCode::InvalidCid))
}

fn removal(item: &RawValue, hint: Option<&str>) -> Result<(Cid, Option<ClusterId>), Reject> {
    let RemoveItem { cid, cl } = parse(item.get().as_bytes())?;
    Ok((cid_of(cid.as_deref())?, parse_cluster(filled(cl.as_deref()).or(hint))?))
}

fn bare_removal(text: &RawValue, hint: Option<&str>) -> Result<(Cid, Option<ClusterId>), Reject> {
    let text: Option<String> = serde_json::from_str(text.get()).ok();
    Ok((cid_of(text.as_deref())?, parse_cluster(hint)?))
}

/// What an item calls its CID, for the error that is about it.
fn shown_cid(item: &RawValue) -> Option<String> {
    let text = match serde_json::from_str(item.get()) {
        Ok(CidField { cid }) => cid?,
        Err(_) => serde_json::from_str(item.get()).ok()?,
    };
    let end = (0..=SHOWN_LENGTH_MAX).rev().find(|end| text.is_char_boundary(*end))?;
    Some(text.get(..end).unwrap_or(&text).to_owned())
}

/// Result of a batch of pins.
#[derive(Serialize, ToSchema)]
#[schema(as = PinBatchResult)]
pub(crate) struct PinBatchReply {
    /// The pins, in the order of the items.
    results: Vec<PinnedItem>,
    /// Number of items.
    total: usize,
    /// Number of pins for each `status`.
    #[serde(rename = "byStatus")]
    by_status: BTreeMap<&'static str, usize>,
}

/// One pin of a batch.
#[derive(Serialize, ToSchema)]
struct PinnedItem {
    /// Index in the batch, from 0.
    index: usize,
    /// Whether the pin is new.
    created: bool,
    #[serde(flatten)]
    pin: PinBody,
}

impl PinBatchReply {
    fn new(receipts: &[PinReceipt]) -> Self {
        let mut by_status = BTreeMap::new();
        for receipt in receipts {
            *by_status.entry(receipt.view.state.as_str()).or_default() += 1;
        }
        let item = |(index, receipt): (usize, &PinReceipt)| {
            let pin = PinBody::new(&receipt.view, receipt.view.size_bytes);
            PinnedItem { index, created: receipt.created, pin }
        };
        Self { results: receipts.iter().enumerate().map(item).collect(), total: receipts.len(), by_status }
    }

    fn of_one(pin: PinBody, state: PinState) -> Self {
        let results = vec![PinnedItem { index: 0, created: true, pin }];
        Self { results, total: 1, by_status: [(state.as_str(), 1)].into() }
    }

    fn example() -> Self {
        Self::of_one(PinBody::example(), PinState::Pinned)
    }

    fn example_in_progress() -> Self {
        Self::of_one(PinBody::example_in_progress(), PinState::Pinning)
    }
}

impl IntoResponse for PinBatchReply {
    fn into_response(self) -> Response {
        let pinned = self.by_status.get(PinState::Pinned.as_str()).copied().unwrap_or_default();
        let status = if pinned == self.total { StatusCode::OK } else { StatusCode::ACCEPTED };
        (status, Json(self)).into_response()
    }
}

/// Result of a batch of removals.
#[derive(Serialize, ToSchema)]
#[schema(as = RemoveBatchResult)]
pub(crate) struct RemoveBatchReply {
    removed: bool,
    /// The removed pins, in the order of the items.
    results: Vec<RemovedItem>,
    /// Number of items.
    total: usize,
}

/// One removed pin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RemovedItem {
    /// Index in the batch, from 0.
    index: usize,
    cid: String,
    cluster_id: String,
    removed: bool,
}

impl RemoveBatchReply {
    fn new(pins: &[RemovedPin]) -> Self {
        let item = |(index, pin): (usize, &RemovedPin)| {
            RemovedItem::new(index, pin.cid.to_string(), pin.cluster.to_string())
        };
        Self { removed: true, results: pins.iter().enumerate().map(item).collect(), total: pins.len() }
    }

    fn example() -> Self {
        let results = vec![RemovedItem::new(0, EXAMPLE_CID.to_owned(), "cl0-global".to_owned())];
        Self { removed: true, results, total: 1 }
    }
}

impl RemovedItem {
    fn new(index: usize, cid: String, cluster_id: String) -> Self {
        Self { index, cid, cluster_id, removed: true }
    }
}
