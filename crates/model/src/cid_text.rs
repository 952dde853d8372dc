//! Parsing and validation of CIDs.
//!
//! A [`Cid`] returned by [`parse_cid`] has a codec whose links this service can follow and a hash that it can verify.
//! Its canonical text is its `Display`: base58btc for version 0, base32 for version 1.

use cid::{Cid, Version, multibase};

/// Maximum length of a CID text in bytes. A CIDv1 with a 64-byte digest has 550 bytes in base2.
pub const CID_TEXT_LEN_MAX: usize = 600;

const DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;

/// The text is not a CID that can be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// The text is not a CID.
    #[error("Invalid CID")]
    Invalid,
    /// The codec is not supported. The codec defines how blocks link to other blocks, so the DAG could not be traversed.
    #[error(
        "Invalid CID: the codec {0:#x} is not supported (dag-pb, raw, dag-cbor, dag-json, json and cbor are)"
    )]
    UnknownCodec(u64),
    /// The hash function is not supported, so blocks could not be verified.
    #[error(
        "Invalid CID: the hash {0:#x} is not supported (sha2-256, sha2-512, blake2b-256, blake3 and identity are)"
    )]
    UnknownHash(u64),
    /// The length of the digest does not match the hash function.
    #[error("Invalid CID: a digest of {length} bytes does not belong to the hash {hash:#x}")]
    DigestLength {
        /// The multihash code.
        hash: u64,
        /// Length of the digest in bytes.
        length: usize,
    },
}

/// Parses a CIDv0 or a CIDv1 in any multibase.
///
/// # Errors
/// [`CidError`] if the text is not a CID, or if its codec or hash function is not supported.
pub fn parse_cid(text: &str) -> Result<Cid, CidError> {
    if text.len() > CID_TEXT_LEN_MAX {
        return Err(CidError::Invalid);
    }
    let bytes = decode(text)?;
    let cid = Cid::try_from(bytes.as_slice()).map_err(|_| CidError::Invalid)?;
    // Reject trailing bytes: otherwise several texts would denote the same CID.
    if cid.to_bytes() != bytes {
        return Err(CidError::Invalid);
    }
    check_codec(&cid)?;
    check_hash(&cid)?;
    Ok(cid)
}

fn decode(text: &str) -> Result<Vec<u8>, CidError> {
    let is_v0 = text.len() == 46 && text.starts_with("Qm");
    let bytes = if is_v0 {
        multibase::Base::Base58Btc.decode(text)
    } else {
        multibase::decode(text).map(|(_, bytes)| bytes)
    };
    bytes.map_err(|_| CidError::Invalid)
}

fn check_codec(cid: &Cid) -> Result<(), CidError> {
    match cid.codec() {
        // dag-pb, raw, dag-cbor, dag-json, json, cbor
        DAG_PB | 0x55 | 0x71 | 0x0129 | 0x0200 | 0x51 => Ok(()),
        other => Err(CidError::UnknownCodec(other)),
    }
}

fn check_hash(cid: &Cid) -> Result<(), CidError> {
    let (hash, length) = (cid.hash().code(), cid.hash().digest().len());
    let fits = match hash {
        0x00 => true,
        SHA2_256 | 0xb220 | 0x1e => length == 32,
        0x13 => length == 64,
        other => return Err(CidError::UnknownHash(other)),
    };
    if !fits {
        return Err(CidError::DigestLength { hash, length });
    }
    match cid.version() {
        Version::V0 if hash != SHA2_256 => Err(CidError::Invalid),
        Version::V0 | Version::V1 => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cid::multihash::Multihash;
    use multibase::Base;
    use proptest::prelude::*;

    use super::*;

    const V1: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
    const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    fn cid(codec: u64, hash: u64, length: usize) -> Cid {
        Cid::new_v1(codec, Multihash::wrap(hash, &vec![7; length]).unwrap())
    }

    #[test]
    fn all_bases_parse_to_the_canonical_text() {
        let bytes = parse_cid(V1).unwrap().to_bytes();
        for base in
            [Base::Base16Lower, Base::Base32Upper, Base::Base36Lower, Base::Base58Btc, Base::Base64Url]
        {
            let text = multibase::encode(base, &bytes);
            assert_eq!(parse_cid(&text).unwrap().to_string(), V1, "{text}");
        }
        assert_eq!(parse_cid(V0).unwrap().to_string(), V0);
    }

    #[test]
    fn invalid_text_is_rejected() {
        for bad in ["", "b", "Qm", "hello", "/ipfs/bafy", " bafy", &format!("{V1}a"), &"b".repeat(700)] {
            assert_eq!(parse_cid(bad), Err(CidError::Invalid), "{bad:?}");
        }
        let path = format!("/ipfs/{V1}");
        assert_eq!(parse_cid(&path), Err(CidError::Invalid));
    }

    #[test]
    fn unsupported_codec_hash_and_digest_length_are_rejected() {
        assert_eq!(parse_cid(&cid(0x72, 0x12, 32).to_string()), Err(CidError::UnknownCodec(0x72)));
        assert_eq!(parse_cid(&cid(0x55, 0x11, 20).to_string()), Err(CidError::UnknownHash(0x11)));
        let short = CidError::DigestLength { hash: 0x12, length: 20 };
        assert_eq!(parse_cid(&cid(0x55, 0x12, 20).to_string()), Err(short));
        for (hash, length) in [(0x13, 64), (0xb220, 32), (0x1e, 32), (0x00, 5)] {
            assert!(parse_cid(&cid(0x71, hash, length).to_string()).is_ok(), "{hash:#x}");
        }
    }

    #[test]
    fn trailing_bytes_are_rejected() {
        let mut bytes = parse_cid(V1).unwrap().to_bytes();
        bytes.push(0);
        assert_eq!(parse_cid(&multibase::encode(Base::Base32Lower, bytes)), Err(CidError::Invalid));
    }

    proptest! {
        #[test]
        fn arbitrary_text_round_trips_or_is_rejected(text in "\\PC{0,80}") {
            if let Ok(cid) = parse_cid(&text) {
                prop_assert_eq!(parse_cid(&cid.to_string()), Ok(cid));
            }
        }
    }
}
