//! The signature of a webhook request.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The signature of one attempt as it is in `webhook-signature`: `v1,` and the base64 of the HMAC-SHA256 of
/// `ID.UNIX_S.BODY`.
///
/// The id must not contain a full stop: a receiver could otherwise read a part of the id as the timestamp.
#[must_use]
pub fn sign(key: &[u8], id: &str, unix_s: i64, body: &str) -> String {
    debug_assert!(!id.contains('.'), "the id is a part of the signed text, which is delimited by full stops");
    let mac = Hmac::<Sha256>::new_from_slice(key);
    // `new_from_slice` does not fail: HMAC takes keys of any length.
    let digest = mac.map(|mac| mac.chain_update(format!("{id}.{unix_s}.{body}")).finalize().into_bytes());
    format!("v1,{}", BASE64.encode(digest.unwrap_or_default().as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_the_one_openssl_computes() {
        // printf 'msg_1.1767225600.{"a":1}' | openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef01234567 -binary | base64
        let signature = sign(b"0123456789abcdef01234567", "msg_1", 1_767_225_600, r#"{"a":1}"#);
        assert_eq!(signature, "v1,nT3LmN3/rCpSmTpSWkHSPb63GtGA0NX1d+wAjH8f6xI=");
    }

    #[test]
    fn signature_covers_key_id_timestamp_and_body() {
        let signature = sign(b"k", "a", 1, "b");
        for other in [
            sign(b"l", "a", 1, "b"),
            sign(b"k", "c", 1, "b"),
            sign(b"k", "a", 2, "b"),
            sign(b"k", "a", 1, "d"),
        ] {
            assert_ne!(signature, other);
        }
    }
}
