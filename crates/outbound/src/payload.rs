//! The body of a webhook request.

use serde::Serialize;

/// An event as it is sent to a webhook: `{"type", "timestamp", "data"}`.
#[derive(Debug, Clone, Serialize)]
pub struct WebhookPayload {
    /// The event type, such as `pin.pinned`.
    #[serde(rename = "type")]
    pub event: &'static str,
    /// When the event occurred, in RFC 3339 and UTC. The same in each attempt.
    pub timestamp: String,
    /// The pin that the event is about. `None` in a test.
    pub data: Option<WebhookPayloadData>,
}

/// A pin as it was when the event occurred. Field names are those of API v3.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPayloadData {
    pub cid: String,
    pub cluster_id: String,
    pub upload_id: String,
    pub status: &'static str,
    /// In bytes.
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
        // Serialization does not fail: all keys are strings and all values are plain data.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_uses_the_field_names_of_the_api() {
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
        let payload = WebhookPayload {
            event: "pin.pinned",
            timestamp: "2026-01-01T00:00:01.000Z".to_owned(),
            data: Some(data),
        };
        assert_eq!(
            payload.body(),
            concat!(
                r#"{"type":"pin.pinned","timestamp":"2026-01-01T00:00:01.000Z","data":{"cid":"bafy","#,
                r#""clusterId":"cl0-global","uploadId":"1","status":"pinned","size":5,"type":"file","#,
                r#""originalName":null,"customName":"a","createdAt":"2026-01-01T00:00:00.000Z","#,
                r#""expiresAt":null,"error":null,"errorCode":null}}"#
            )
        );
    }
}
