//! The digest of a multipart form, independent of its boundary.
//!
//! Clients choose a new random boundary for each attempt, so the bytes of two attempts differ. The digest therefore covers
//! what is between the boundaries (heads and contents), section by section, up to the closing one. It streams, and buffers
//! at most the length of a boundary.

use data_encoding::HEXLOWER;
use memchr::memmem::Finder;
use sha2::{Digest, Sha256};

/// Follows the closing boundary, and no other.
const CLOSING: &[u8] = b"--";

/// The digest of a form that is being read.
pub(crate) struct MultipartDigest {
    delimiter: Finder<'static>,
    /// Bytes that may be the start of a delimiter.
    held: Vec<u8>,
    section: Sha256,
    sections: Sha256,
    is_closed: bool,
}

impl MultipartDigest {
    /// An empty digest of a form with this boundary.
    pub(crate) fn new(boundary: &str) -> Self {
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        // The first delimiter may be at the very start.
        Self {
            delimiter,
            held: b"\r\n".to_vec(),
            section: Sha256::new(),
            sections: Sha256::new(),
            is_closed: false,
        }
    }

    /// Adds the next bytes, in chunks of any size.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        if self.is_closed {
            return;
        }
        self.held.extend_from_slice(chunk);
        let mut from = 0;
        while let Some(at) = self.delimiter.find(&self.held[from..]).map(|at| from + at) {
            let end = at + self.delimiter.needle().len();
            // The next two bytes say whether it is the closing one.
            let Some(after) = self.held.get(end..end + CLOSING.len()) else {
                self.take(from, at);
                return;
            };
            self.is_closed = after == CLOSING;
            self.section.update(&self.held[from..at]);
            self.sections.update(self.section.finalize_reset());
            if self.is_closed {
                self.held = Vec::new();
                return;
            }
            from = end;
        }
        let open = self.held.len().saturating_sub(self.delimiter.needle().len() - 1);
        self.take(from, open.max(from));
    }

    /// Hashes bytes that can't be part of a delimiter, and drops them.
    fn take(&mut self, from: usize, to: usize) {
        self.section.update(&self.held[from..to]);
        self.held.drain(..to);
    }

    /// The hash, once the closing boundary was read.
    pub(crate) fn hash(&self) -> Option<String> {
        self.is_closed.then(|| HEXLOWER.encode(&self.sections.clone().finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(boundary: &str, parts: &[&str]) -> String {
        let parts: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}\r\n")).collect();
        format!("{parts}--{boundary}--\r\n")
    }

    fn hash_in_chunks(boundary: &str, text: &str, size: usize) -> Option<String> {
        let mut digest = MultipartDigest::new(boundary);
        for chunk in text.as_bytes().chunks(size) {
            digest.update(chunk);
            assert!(digest.held.len() <= size + boundary.len() + 8, "it buffers no more than it must");
        }
        digest.hash()
    }

    #[test]
    fn hash_is_independent_of_boundary_and_chunks() {
        let parts = ["a: b\r\n\r\nhello", "c: d\r\n\r\n\r\n--\r\n--x\r\n-- ", "e: f\r\n\r\n"];
        let expected = hash_in_chunks("x1", &form("x1", &parts), 1_000).expect("it ends");
        for size in 1..60 {
            for boundary in ["x1", "another-boundary", "---------------------------7"] {
                let hash = hash_in_chunks(boundary, &form(boundary, &parts), size);
                assert_eq!(hash.as_ref(), Some(&expected), "{boundary} {size}");
            }
        }
        let with_epilogue = format!("{}an epilogue is ignored", form("x1", &parts));
        assert_eq!(hash_in_chunks("x1", &with_epilogue, 7), Some(expected));
    }

    #[test]
    fn different_forms_have_different_hashes() {
        let all = [
            form("x", &["a\r\n\r\nhello"]),
            form("x", &["a\r\n\r\nhello "]),
            form("x", &["b\r\n\r\nhello"]),
            form("x", &["a\r\n\r\nhello", "a\r\n\r\nhello"]),
            form("x", &["a\r\n\r\nhel", "lo"]),
            form("x", &[]),
        ];
        let hashes: Vec<_> = all.iter().map(|text| hash_in_chunks("x", text, 5).expect("it ends")).collect();
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[i + 1..].contains(hash), "{}", all[i]);
        }
    }

    #[test]
    fn form_without_closing_boundary_has_no_hash() {
        let whole = form("x", &["a\r\n\r\nhello"]);
        for length in 0..whole.len() - 2 {
            assert_eq!(hash_in_chunks("x", &whole[..length], 4), None, "{length}");
        }
    }
}
