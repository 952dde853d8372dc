//! Links of valid and hostile blocks.

use bytes::Bytes;
use cid::{Cid, Version};
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use proptest::prelude::*;

use super::*;

fn raw(text: &'static str) -> Cid {
    *Block::hash(Version::V1, RAW, 0x12, Bytes::from_static(text.as_bytes())).unwrap().cid()
}

fn block(codec: u64, data: Vec<u8>) -> Block {
    Block::hash(Version::V1, codec, 0x12, data.into()).unwrap()
}

fn cids(codec: u64, data: Vec<u8>) -> Result<Vec<Cid>, DagError> {
    Ok(links(&block(codec, data))?.into_iter().map(|link| link.cid).collect())
}

#[test]
fn directory_links_have_size_hints() {
    // A dag-pb node with two links, as `ipfs object` has written them for years.
    let node = pb::PbNode {
        links: vec![
            pb::PbLink { cid: raw("a"), name: Some("a"), tsize: Some(1) },
            pb::PbLink { cid: raw("b"), name: Some(""), tsize: None },
        ],
        data: Some(&[8, 1]),
    };
    let block = block(DAG_PB, node.encode());
    let expected = [Link { cid: raw("a"), size_hint: Some(1) }, Link { cid: raw("b"), size_hint: None }];
    assert_eq!(links(&block).unwrap(), expected);
}

#[test]
fn empty_directory_has_the_well_known_cid() {
    let node = pb::PbNode { links: vec![], data: Some(&[8, 1]) };
    let block = Block::hash(Version::V0, DAG_PB, 0x12, node.encode().into()).unwrap();
    assert_eq!(block.cid().to_string(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    assert_eq!(links(&block).unwrap(), []);
}

#[test]
fn nested_links_in_dag_cbor_and_dag_json_are_found() {
    let value =
        ipld!({"a": [raw("1"), {"b": raw("2")}], "c": Ipld::Bytes(vec![1]), "d": [null, 1, -5, 1.5, true]});
    let expected = vec![raw("1"), raw("2")];
    let cbor = serde_ipld_dagcbor::to_vec(&value).unwrap();
    assert_eq!(cids(DAG_CBOR, cbor.clone()).unwrap(), expected);
    assert_eq!(cids(CBOR, cbor).unwrap(), []);
    let json = serde_ipld_dagjson::to_vec(&value).unwrap();
    assert_eq!(cids(DAG_JSON, json.clone()).unwrap(), expected);
    assert_eq!(cids(JSON, json).unwrap(), []);
    assert_eq!(cids(RAW, b"anything".to_vec()).unwrap(), []);
}

#[test]
fn indefinite_length_cbor_is_accepted() {
    let mut bytes = vec![0x9f, 0x5f, 0x41, 1, 0xff, 0xd8, 42, 0x58, 37, 0];
    bytes.extend(raw("x").to_bytes());
    bytes.push(0xff);
    assert_eq!(cids(DAG_CBOR, bytes).unwrap(), vec![raw("x")]);
}

#[test]
fn deep_nesting_is_refused_without_stack_overflow() {
    assert_eq!(cids(DAG_CBOR, vec![0x81; 1 << 20]), Err(DagError::TooDeep));
    assert_eq!(cids(DAG_CBOR, vec![0xc1; 1 << 20]), Err(DagError::TooDeep));
    assert_eq!(cids(DAG_CBOR, vec![0x9f; 1 << 20]), Err(DagError::TooDeep));
    assert_eq!(cids(DAG_JSON, vec![b'['; 1 << 20]), Err(DagError::Malformed("dag-json")));
    assert!(cids(DAG_JSON, b"{\"a\":".repeat(1 << 16)).is_err());
}

#[test]
fn too_many_links_are_refused() {
    let inline = [0xd8, 42, 0x45, 0, 1, 0x55, 0, 0];
    let mut bytes = vec![0x9f];
    bytes.extend(inline.repeat(LINKS_MAX + 1));
    bytes.push(0xff);
    assert_eq!(cids(DAG_CBOR, bytes), Err(DagError::TooManyLinks));
    let link = [0x12, 6, 0x0a, 4, 1, 0x55, 0, 0];
    assert_eq!(cids(DAG_PB, link.repeat(LINKS_MAX + 1)), Err(DagError::TooManyLinks));
}

#[test]
fn malformed_blocks_are_refused() {
    for (codec, bytes) in [
        (DAG_PB, &[0x12, 5, 1][..]),
        (DAG_PB, &[0x12, 2, 0x12, 0]),
        (DAG_PB, &[0x1a, 0]),
        (DAG_PB, &[0x0a, 0, 0x0a, 0]),
        (DAG_CBOR, &[]),
        (DAG_CBOR, &[0, 0]),
        (DAG_CBOR, &[0xff]),
        (DAG_CBOR, &[0xd8, 42, 0x41, 1]),
        (DAG_CBOR, &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (DAG_CBOR, &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (DAG_JSON, b"{"),
        (0x99, b""),
    ] {
        assert!(cids(codec, bytes.to_vec()).is_err(), "{codec:#x} {bytes:x?}");
    }
}

#[test]
fn supported_codecs_can_be_decoded() {
    for codec in 0..0x400 {
        let walked = links(&block(codec, vec![0xf6]));
        assert_eq!(is_supported_codec(codec), !matches!(walked, Err(DagError::UnknownCodec(_))));
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for codec in [RAW, DAG_PB, DAG_CBOR, DAG_JSON, CBOR, JSON] {
            let _ = links(&block(codec, bytes.clone()));
        }
    }

    #[test]
    fn dag_pb_round_trips(
        names in proptest::collection::vec((proptest::option::of(".{0,12}"), any::<Option<u64>>()), 0..8),
        data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
    ) {
        let links = names
            .iter()
            .map(|(name, tsize)| pb::PbLink { cid: raw("x"), name: name.as_deref(), tsize: *tsize })
            .collect();
        let node = pb::PbNode { links, data: data.as_deref() };
        let bytes = node.encode();
        prop_assert_eq!(pb::PbNode::decode(&bytes).unwrap(), node);
    }
}
