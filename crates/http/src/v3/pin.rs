//! `POST /files/pin/:cid` and the two routes that remove a pin.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cid::Cid;
use pinfold_service::{Caller, PinReceipt, PinWish, Wait};
use serde::Serialize;

use super::extract::{CidText, ClusterHint, MaybeJson};
use super::gate::{Allowed, FilesDelete, FilesWrite};
use super::reject::Reject;
use super::reply::PinReply;
use super::terms::{Terms, TermsBody, parse_cluster};
use crate::AppState;
use crate::prefer::Preference;

/// Pins content that is on IPFS already.
pub(super) async fn pin(
    State(app): State<AppState>,
    caller: Allowed<FilesWrite>,
    CidText(cid): CidText,
    ClusterHint(hint): ClusterHint,
    preference: Preference,
    MaybeJson(body): MaybeJson<TermsBody>,
) -> Result<PinReply, Reject> {
    let wish = wish(cid, body.parse(hint.as_deref(), app.now())?);
    let (wait, applied) = preference.settle(app.settings().wait_default, app.settings().wait_max);
    let receipt = pin_and_wait(&app, &caller, wish, wait).await?;
    Ok(PinReply::of_pin(&receipt).applied(applied))
}

fn wish(cid: Cid, terms: Terms) -> PinWish {
    PinWish {
        original_name: terms.original_name,
        custom_name: terms.custom_name,
        cluster: terms.cluster,
        timelock: terms.timelock,
        ..PinWish::new(cid)
    }
}

/// Pins, and waits for the outcome unless the server stops: then the pin stays as it is, to be gone on with by
/// the next start, and the receipt says how far it came.
async fn pin_and_wait(
    app: &AppState,
    caller: &Caller,
    wish: PinWish,
    wait: Duration,
) -> Result<PinReceipt, Reject> {
    let pins = &app.service().pins;
    if wait.is_zero() {
        return Ok(pins.pin(caller, wish, Wait::No).await?);
    }
    match app.until_stopping(pins.pin(caller, wish.clone(), Wait::For(wait))).await {
        Some(outcome) => Ok(outcome?),
        None => Ok(pins.pin(caller, wish, Wait::No).await?),
    }
}

/// A removed pin.
#[derive(Serialize)]
pub(super) struct RemovedReply {
    cid: String,
    removed: bool,
}

/// Removes a pin. It is gone when this is answered; its space comes back soon after.
pub(super) async fn remove(
    State(app): State<AppState>,
    caller: Allowed<FilesDelete>,
    CidText(cid): CidText,
    ClusterHint(hint): ClusterHint,
) -> Result<Json<RemovedReply>, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    app.service().pins.remove(&caller, &cid, cluster.as_ref()).await?;
    Ok(Json(RemovedReply { cid: cid.to_string(), removed: true }))
}
