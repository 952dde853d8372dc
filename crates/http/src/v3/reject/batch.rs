//! Errors of batches: one answer for the whole, which lists the errors of its items.

use axum::http::StatusCode;
use pinfold_service::{BatchError, ItemFault};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Reject, RejectBody};

/// The most errors of a batch that are listed; when there are more, most are alike.
const ITEM_ERRORS_MAX: usize = 100;

/// What is wrong with one item of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ItemError)]
pub(super) struct ItemErrorBody {
    /// Its place in the batch, from 0.
    pub(super) index: usize,
    cid: Option<String>,
    message: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain_until: Option<String>,
}

/// The error of one item of a batch.
pub(in crate::v3) struct ItemReject {
    index: usize,
    cid: Option<String>,
    reject: Reject,
}

impl ItemReject {
    pub(in crate::v3) fn new(index: usize, cid: Option<String>, reject: Reject) -> Self {
        Self { index, cid, reject }
    }

    fn into_body(self) -> ItemErrorBody {
        let RejectBody { message, code, retain_until, .. } = *self.reject.body;
        let code =
            code.unwrap_or(if self.reject.status == StatusCode::NOT_FOUND { "not_found" } else { "invalid" });
        ItemErrorBody { index: self.index, cid: self.cid, message, code, retain_until }
    }
}

impl From<ItemFault> for ItemReject {
    fn from(fault: ItemFault) -> Self {
        Self::new(fault.index, Some(fault.cid.to_string()), fault.error.into())
    }
}

impl Reject {
    /// A batch that was refused as a whole. Its status and code are those that all errors share; if they differ, it is 400
    /// and `batch_refused`.
    pub(in crate::v3) fn of_items(mut faults: Vec<ItemReject>) -> Self {
        faults.sort_by_key(|fault| fault.index);
        let Some(first) = faults.first() else { return Self::internal() };
        let is_one = |what: &dyn Fn(&Reject) -> bool| faults.iter().all(|fault| what(&fault.reject));
        let (status, code) = (first.reject.status, first.reject.body.code);
        let code = code.filter(|_| is_one(&|reject| reject.body.code == code)).unwrap_or("batch_refused");
        let status = if is_one(&|reject| reject.status == status) { status } else { StatusCode::BAD_REQUEST };
        let message = match faults.len() {
            1 => format!(
                "The batch was refused because of item {}: {}",
                first.index, first.reject.body.message
            ),
            count => format!("The batch was refused: {count} items are invalid; see `errors`"),
        };
        let mut reject = Self::new(status, message).code(code);
        reject.body.error_count = Some(faults.len());
        reject.body.errors = faults.into_iter().take(ITEM_ERRORS_MAX).map(ItemReject::into_body).collect();
        reject
    }
}

impl From<BatchError> for Reject {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Items(faults) => Self::of_items(faults.into_iter().map(ItemReject::from).collect()),
            BatchError::Whole(error) => error.into(),
        }
    }
}
