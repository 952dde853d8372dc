//! `GET /users/me/referrals`: the account's referral code, and the times of the sign-ups with it.

use axum::Json;
use axum::extract::State;
use pinfold_model::Referral;
use pinfold_service::ReferralPage;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{ReferralsRead, RequireScope};
use crate::v3::extract::QueryOf;
use crate::v3::openapi::Guarded;
use crate::v3::query::{Pagination, number};
use crate::v3::reject::Reject;

/// The largest page.
const LIMIT_MAX: u32 = 100;

/// Which page; empty counts as left out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReferralsQuery {
    /// The page, from 1.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    page: Option<String>,
    /// Referrals on a page, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 20)]
    limit: Option<String>,
}

/// See your referrals
///
/// Whoever signs up with your `referralCode` is counted here, with the time, and without a name.
#[utoipa::path(get, path = "/users/me/referrals", operation_id = "listReferrals", tag = "users", security(("key" = ["referrals:read"]), ("session" = [])),
    params(ReferralsQuery),
    responses((status = 200, description = "Your code, and who came by it, newest first.", body = ReferralsReply, example = json!(ReferralsReply::example())), Guarded))]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<ReferralsRead>,
    QueryOf(query): QueryOf<ReferralsQuery>,
) -> Result<Json<ReferralsReply>, Reject> {
    let page = number("page", query.page.as_deref(), 1)?;
    let limit = number("limit", query.limit.as_deref(), 20)?.min(LIMIT_MAX);
    let referrals = app.service().referrals.list(&caller, page, limit).await?;
    Ok(Json(ReferralsReply::new(referrals, page, limit)))
}

/// The account's referrals.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferralsReply {
    referral_code: String,
    referrals: Vec<ReferralItem>,
    /// Number of referred accounts; counted up to 10,000.
    total: u64,
    pagination: Pagination,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReferralItem {
    /// When the referred account was created.
    created_at: String,
}

impl ReferralsReply {
    fn new(page: ReferralPage, number: u32, limit: u32) -> Self {
        let item = |referral: &Referral| ReferralItem { created_at: referral.at.to_string() };
        Self {
            referral_code: page.code,
            referrals: page.referrals.iter().map(item).collect(),
            total: page.total,
            pagination: Pagination::new(number, limit, Some(page.total)),
        }
    }

    fn example() -> Self {
        Self {
            referral_code: "k3qzm7ab".to_owned(),
            referrals: vec![ReferralItem { created_at: "2026-01-01T00:00:00.000Z".to_owned() }],
            total: 1,
            pagination: Pagination::new(1, 20, Some(1)),
        }
    }
}
