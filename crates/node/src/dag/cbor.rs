//! Finds the links of a dag-cbor block (<https://ipld.io/specs/codecs/dag-cbor/spec/>).
//!
//! It traverses the CBOR items with an explicit stack, so that nesting uses no call stack, and only interprets tag 42.
//! Like Kubo's decoder it accepts indefinite lengths, which the spec forbids to write. Other tags are skipped.

use super::{DEPTH_MAX, DagError, LINKS_MAX, Link, exact_cid};

const TAG_CID: u64 = 42;

/// The remaining content of an open array, map, tag or indefinite-length string.
enum Open {
    Items(u64),
    UntilBreak,
}

struct Head {
    major: u8,
    /// The argument; `None` for an indefinite length (or a break, in major type 7).
    argument: Option<u64>,
}

/// The links in order of appearance.
pub(super) fn links(bytes: &[u8]) -> Result<Vec<Link>, DagError> {
    let mut found = Vec::new();
    let mut rest = bytes;
    let mut open = vec![Open::Items(1)];
    while !open.is_empty() {
        let head = head(&mut rest)?;
        if head.major == 7 && head.argument.is_none() {
            close(&mut open)?;
        } else {
            begin(&mut open)?;
            item(&head, &mut rest, &mut open, &mut found)?;
        }
        while matches!(open.last(), Some(Open::Items(0))) {
            open.pop();
        }
        if open.len() > DEPTH_MAX {
            return Err(DagError::TooDeep);
        }
    }
    if rest.is_empty() { Ok(found) } else { Err(DagError::Malformed("bytes after the dag-cbor item")) }
}

/// Counts an item of the innermost open container.
fn begin(open: &mut [Open]) -> Result<(), DagError> {
    match open.last_mut() {
        Some(Open::Items(left)) if *left > 0 => *left -= 1,
        Some(Open::UntilBreak) => {}
        Some(Open::Items(_)) | None => return Err(DagError::Malformed("dag-cbor item out of place")),
    }
    Ok(())
}

/// Handles a break, which ends the innermost item of indefinite length.
fn close(open: &mut Vec<Open>) -> Result<(), DagError> {
    match open.pop() {
        Some(Open::UntilBreak) => Ok(()),
        Some(Open::Items(_)) | None => Err(DagError::Malformed("dag-cbor break out of place")),
    }
}

fn item(head: &Head, rest: &mut &[u8], open: &mut Vec<Open>, found: &mut Vec<Link>) -> Result<(), DagError> {
    match (head.major, head.argument) {
        (0 | 1 | 7, Some(_)) => {}
        (2 | 3, Some(length)) => {
            take(rest, length)?;
        }
        (4, Some(items)) => open.push(Open::Items(items)),
        (5, Some(pairs)) => {
            open.push(Open::Items(pairs.checked_mul(2).ok_or(DagError::Malformed("dag-cbor map length"))?));
        }
        (6, Some(TAG_CID)) => {
            if found.len() == LINKS_MAX {
                return Err(DagError::TooManyLinks);
            }
            found.push(Link { cid: link(rest)?, size_hint: None });
        }
        (6, Some(_)) => open.push(Open::Items(1)),
        (2..=5, None) => open.push(Open::UntilBreak),
        _ => return Err(DagError::Malformed("dag-cbor head")),
    }
    Ok(())
}

/// The byte string after tag 42: a zero, then the CID.
fn link(rest: &mut &[u8]) -> Result<cid::Cid, DagError> {
    let head = head(rest)?;
    let (2, Some(length)) = (head.major, head.argument) else {
        return Err(DagError::Malformed("dag-cbor link is not a byte string"));
    };
    match take(rest, length)?.split_first() {
        Some((0, cid)) => exact_cid(cid),
        _ => Err(DagError::Malformed("dag-cbor link without its zero")),
    }
}

fn head(rest: &mut &[u8]) -> Result<Head, DagError> {
    let first = take(rest, 1)?[0];
    let argument = match first & 0x1f {
        small @ 0..=23 => Some(u64::from(small)),
        long @ 24..=27 => {
            let bytes = take(rest, 1 << (long - 24))?;
            Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        31 => None,
        _ => return Err(DagError::Malformed("dag-cbor reserved length")),
    };
    Ok(Head { major: first >> 5, argument })
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], DagError> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = split.ok_or(DagError::Malformed("dag-cbor ends early"))?;
    *rest = left;
    Ok(taken)
}
