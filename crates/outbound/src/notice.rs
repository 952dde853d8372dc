//! What a webhook's request looks like: its body, and the signature over it.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// Something that a webhook is told. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPayload {
    /// The same with each try.
    pub id: String,
    /// What happened, such as `pin.pinned`.
    #[serde(rename = "type")]
    pub event: &'static str,
    /// When it happened.
    pub created_at: String,
    /// To what; `None` in a test.
    pub data: Option<WebhookPayloadData>,
}

/// A pin as it was when something happened to it, in the words of the API v3.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the words of the API, explained in its documentation")]
pub struct WebhookPayloadData {
    pub cid: String,
    pub cluster_id: String,
    pub upload_id: String,
    pub status: &'static str,
    pub size: u64,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub original_name: Option<String>,
    pub custom_name: Option<String>,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub error: Option<String>,
    pub error_code: Option<&'static str>,
}

impl WebhookPayload {
    /// The body of the request.
    #[must_use]
    pub fn body(&self) -> String {
        // Plain data with names as keys: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The value of `Pinfold-Signature`: `t=UNIX,v1=HEX`, where the second is the HMAC-SHA256 of `UNIX.BODY` under the
/// secret's bytes.
#[must_use]
pub fn signature(secret: &str, unix_s: i64, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    // HMAC takes keys of any length.
    let digest = mac.map(|mac| mac.chain_update(format!("{unix_s}.{body}")).finalize().into_bytes());
    format!("t={unix_s},v1={}", HEXLOWER.encode(digest.unwrap_or_default().as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_other_tools_compute() {
        // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac whsec_test
        assert_eq!(
            signature("whsec_test", 1_767_225_600, r#"{"a":1}"#),
            "t=1767225600,v1=6d204545ff126a339c00513d93603299c984074ce1331c3537c3f6c976b49019"
        );
        assert_ne!(signature("a", 1, "b"), signature("a", 2, "b"));
        assert_ne!(signature("a", 1, "b"), signature("c", 1, "b"));
    }

    #[test]
    fn a_body_has_the_words_of_the_api() {
        let data = WebhookPayloadData {
            cid: "bafy".to_owned(),
            cluster_id: "cl0-global".to_owned(),
            upload_id: "1".to_owned(),
            status: "pinned",
            size: 5,
            kind: "file",
            original_name: None,
            custom_name: Some("a".to_owned()),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            expires_at: None,
            error: None,
            error_code: None,
        };
        let notice = WebhookPayload {
            id: "2".to_owned(),
            event: "pin.pinned",
            created_at: "2026-01-01T00:00:01.000Z".to_owned(),
            data: Some(data),
        };
        assert_eq!(
            notice.body(),
            concat!(
                r#"{"id":"2","type":"pin.pinned","createdAt":"2026-01-01T00:00:01.000Z","data":{"cid":"bafy","#,
                r#""clusterId":"cl0-global","uploadId":"1","status":"pinned","size":5,"type":"file","#,
                r#""originalName":null,"customName":"a","createdAt":"2026-01-01T00:00:00.000Z","#,
                r#""expiresAt":null,"error":null,"errorCode":null}}"#
            )
        );
    }
}
