//! `POST /files/pin/:cid?dryRun=true`: the estimate of a pin.

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

/// Estimates a pin within the time that the client asks for and the server allows.
pub(crate) async fn dry_run(
    app: &AppState,
    caller: &RequireScope<FilesWrite>,
    request: &PinRequest,
    preference: Preference,
) -> Result<Response, Reject> {
    let time_max = app.settings().dry_run_time;
    let (time, applied) = preference.resolve(time_max, time_max);
    let looked = app.until_stopping(app.service().pins.dry_run(caller, request, time)).await;
    let run = looked.ok_or_else(Reject::stopping)??;
    let headers: axum::http::HeaderMap =
        applied.map(|value| (PREFERENCE_APPLIED, value)).into_iter().collect();
    Ok((headers, Json(DryRunReply::new(&run))).into_response())
}

/// Estimate of a pin. Nothing was stored or charged.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DryRun)]
pub(crate) struct DryRunReply {
    dry_run: bool,
    cid: String,
    cluster_id: String,
    /// Whether the account already has the content pinned in this cluster.
    pinned: bool,
    /// Status of the account's pin, if there is one.
    status: Option<&'static str>,
    upload_id: Option<String>,
    /// Bytes of the known distinct blocks; the whole DAG if `complete`.
    size: u64,
    /// Bytes of the whole DAG as the root block claims, with repeated blocks counted each time. Not verified.
    claimed_size: Option<u64>,
    blocks: SurveyedBlocks,
    /// Whether every block is on the server, so that a pin would complete immediately.
    complete: bool,
    /// Why the count is incomplete: `time` or `blocks`.
    cut: Option<&'static str>,
    /// `here`: stored on the server; `found`: a peer sent the root; `announced`: providers are known; `not_found`: none of these
    /// within the time limit.
    availability: &'static str,
    /// Number of known providers, if they were looked up.
    providers: Option<u64>,
    quota: QuotaBody,
}

/// Known blocks of a DAG.
#[derive(Serialize, ToSchema)]
struct SurveyedBlocks {
    here: u64,
    /// Blocks that are linked to and not on the server. Their own links are not counted.
    missing: u64,
}

/// Effect of the pin on the account's storage.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QuotaBody {
    /// Bytes that would be charged, as far as known.
    charge: u64,
    /// Whether `charge` is the final size.
    exact: bool,
    used: u64,
    limit: u64,
    left: u64,
    /// Whether the pin fits; `null` if that depends on blocks that are not on the server.
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
