//! `POST /files/pin/:cid?dryRun=true`: what a pin would come to.

use axum::Json;
use axum::response::{IntoResponse, Response};
use pinfold_service::{Cut, DryRun, PinRequest, QuotaEffect, Reach, Survey};
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{FilesWrite, RequireScope};
use crate::prefer::{PREFERENCE_APPLIED, Preference};
use crate::v3::extract::EXAMPLE_CID;
use crate::v3::reject::Reject;

/// Says what a pin would come to, within the time that the client wants to wait and the server allows.
pub(crate) async fn dry_run(
    app: &AppState,
    caller: &RequireScope<FilesWrite>,
    wish: &PinRequest,
    preference: Preference,
) -> Result<Response, Reject> {
    let time_max = app.settings().dry_run_time;
    let (time, applied) = preference.settle(time_max, time_max);
    let looked = app.until_stopping(app.service().pins.dry_run(caller, wish, time)).await;
    let run = looked.ok_or_else(Reject::stopping)??;
    let headers: axum::http::HeaderMap =
        applied.map(|value| (PREFERENCE_APPLIED, value)).into_iter().collect();
    Ok((headers, Json(DryRunReply::new(&run))).into_response())
}

/// What a pin would come to. Nothing was written, and nothing is charged.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DryRun)]
pub(crate) struct DryRunReply {
    dry_run: bool,
    cid: String,
    cluster_id: String,
    /// Whether you have it pinned there already.
    pinned: bool,
    /// How your pin of it stands, if you have one.
    status: Option<&'static str>,
    upload_id: Option<String>,
    /// The bytes of the distinct blocks that are known: all of them if `complete`.
    size: u64,
    /// The bytes that the root claims for the whole DAG, repeated blocks counted each time. Nobody has proven it.
    claimed_size: Option<u64>,
    blocks: SurveyedBlocks,
    /// Whether every block is on the server: a pin would be done at once.
    complete: bool,
    /// Why not all that is here was counted: `time` or `blocks`.
    cut: Option<&'static str>,
    /// `here`; `found` (a peer sent the root); `announced` (peers are said to have it); `not_found` in this time.
    availability: &'static str,
    /// How many peers are said to have it, if they were asked for.
    providers: Option<u64>,
    quota: QuotaBody,
}

/// The blocks of a DAG, as far as they are known.
#[derive(Serialize, ToSchema)]
struct SurveyedBlocks {
    here: u64,
    /// Linked to, and not here. What they link to is not known.
    missing: u64,
}

/// What a pin would do to your storage.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QuotaBody {
    /// The bytes that would be charged, as far as they are known.
    charge: u64,
    /// Whether `charge` is all of it.
    exact: bool,
    used: u64,
    limit: u64,
    left: u64,
    /// Whether it fits; null if that depends on blocks that are not here.
    fits: Option<bool>,
}

impl DryRunReply {
    fn new(run: &DryRun) -> Self {
        let Survey { blocks, bytes, missing, cut, reach, claimed_bytes } = run.dag;
        let (availability, providers) = match reach {
            Reach::Here => ("here", None),
            Reach::Delivered => ("found", None),
            Reach::Announced { providers } => ("announced", Some(providers)),
            Reach::Nowhere => ("not_found", None),
        };
        let state = run.pin.as_ref().map(|pin| pin.state);
        Self {
            dry_run: true,
            cid: run.cid.to_string(),
            cluster_id: run.cluster.to_string(),
            pinned: state == Some(pinfold_model::PinState::Pinned),
            status: state.map(pinfold_model::PinState::as_str),
            upload_id: run.pin.as_ref().map(|pin| pin.upload_id.to_string()),
            size: bytes,
            claimed_size: claimed_bytes,
            blocks: SurveyedBlocks { here: blocks, missing },
            complete: run.dag.is_whole(),
            cut: cut.map(|cut| match cut {
                Cut::Time => "time",
                Cut::Blocks => "blocks",
            }),
            availability,
            providers,
            quota: QuotaBody::new(&run.quota),
        }
    }

    pub(crate) fn example() -> Self {
        Self {
            dry_run: true,
            cid: EXAMPLE_CID.to_owned(),
            cluster_id: "cl0-global".to_owned(),
            pinned: false,
            status: None,
            upload_id: None,
            size: 262_158,
            claimed_size: Some(4_194_304),
            blocks: SurveyedBlocks { here: 1, missing: 15 },
            complete: false,
            cut: None,
            availability: "here",
            providers: None,
            quota: QuotaBody {
                charge: 262_158,
                exact: false,
                used: 0,
                limit: 1 << 30,
                left: 1 << 30,
                fits: None,
            },
        }
    }
}

impl QuotaBody {
    fn new(quota: &QuotaEffect) -> Self {
        Self {
            charge: quota.charge_bytes,
            exact: quota.is_exact,
            used: quota.used_bytes,
            limit: quota.limit_bytes,
            left: quota.left_bytes,
            fits: quota.fits,
        }
    }
}
