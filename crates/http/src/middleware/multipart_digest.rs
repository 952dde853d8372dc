//! The hash of a multipart form, whatever boundary its client made up this time.
//!
//! Clients take a new random boundary for each try, so the bytes of two tries differ. Hashed is therefore what stands
//! between the boundaries (heads and contents), piece by piece, up to the closing one. It streams: held back is never
//! more than a boundary's length.

use data_encoding::HEXLOWER;
use memchr::memmem::Finder;
use sha2::{Digest, Sha256};

/// What tells the closing boundary from the others.
const CLOSING: &[u8] = b"--";

/// A form that is being hashed.
pub(crate) struct FormPrint {
    delimiter: Finder<'static>,
    /// Bytes that may be the beginning of a delimiter.
    held: Vec<u8>,
    piece: Sha256,
    pieces: Sha256,
    is_closed: bool,
}

impl FormPrint {
    /// A form with this boundary.
    pub(crate) fn new(boundary: &str) -> Self {
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        // The first delimiter may stand at the very beginning.
        Self {
            delimiter,
            held: b"\r\n".to_vec(),
            piece: Sha256::new(),
            pieces: Sha256::new(),
            is_closed: false,
        }
    }

    /// Takes what comes next, in whatever chunks.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        if self.is_closed {
            return;
        }
        self.held.extend_from_slice(chunk);
        let mut from = 0;
        while let Some(at) = self.delimiter.find(&self.held[from..]).map(|at| from + at) {
            let end = at + self.delimiter.needle().len();
            // Two more bytes say whether it is the last.
            let Some(after) = self.held.get(end..end + CLOSING.len()) else {
                self.take(from, at);
                return;
            };
            self.is_closed = after == CLOSING;
            self.piece.update(&self.held[from..at]);
            self.pieces.update(self.piece.finalize_reset());
            if self.is_closed {
                self.held = Vec::new();
                return;
            }
            from = end;
        }
        let open = self.held.len().saturating_sub(self.delimiter.needle().len() - 1);
        self.take(from, open.max(from));
    }

    /// Hashes what can be no delimiter, and lets go of what stands before it too.
    fn take(&mut self, from: usize, to: usize) {
        self.piece.update(&self.held[from..to]);
        self.held.drain(..to);
    }

    /// The hash, if the form has come to its end.
    pub(crate) fn hash(&self) -> Option<String> {
        self.is_closed.then(|| HEXLOWER.encode(&self.pieces.clone().finalize()))
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
        let mut print = FormPrint::new(boundary);
        for chunk in text.as_bytes().chunks(size) {
            print.update(chunk);
            assert!(print.held.len() <= size + boundary.len() + 8, "it holds no more than it must");
        }
        print.hash()
    }

    #[test]
    fn a_form_is_the_same_under_another_boundary_and_in_other_chunks() {
        let parts = ["a: b\r\n\r\nhello", "c: d\r\n\r\n\r\n--\r\n--x\r\n-- ", "e: f\r\n\r\n"];
        let expected = hash_in_chunks("x1", &form("x1", &parts), 1_000).expect("it ends");
        for size in 1..60 {
            for boundary in ["x1", "another-boundary", "---------------------------7"] {
                let hash = hash_in_chunks(boundary, &form(boundary, &parts), size);
                assert_eq!(hash.as_ref(), Some(&expected), "{boundary} {size}");
            }
        }
        let with_epilogue = format!("{}what follows counts not", form("x1", &parts));
        assert_eq!(hash_in_chunks("x1", &with_epilogue, 7), Some(expected));
    }

    #[test]
    fn another_form_is_another() {
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
    fn a_form_without_its_end_has_no_hash() {
        let whole = form("x", &["a\r\n\r\nhello"]);
        for length in 0..whole.len() - 2 {
            assert_eq!(hash_in_chunks("x", &whole[..length], 4), None, "{length}");
        }
    }
}
