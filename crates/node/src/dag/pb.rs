//! dag-pb: nodes with links in protobuf (<https://ipld.io/specs/codecs/dag-pb/spec/>).
//!
//! Decoding borrows from the block and is bounded by [`LINKS_MAX`]. Unlike the spec, it accepts the fields of a node or
//! link in any order. Encoding writes the canonical form, links before data.

use cid::Cid;
use unsigned_varint::{decode, encode};

use super::{DagError, LINKS_MAX, exact_cid};

/// A decoded node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PbNode<'a> {
    pub links: Vec<PbLink<'a>>,
    /// The data field, which contains the UnixFS message.
    pub data: Option<&'a [u8]>,
}

/// A link of a [`PbNode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PbLink<'a> {
    pub cid: Cid,
    /// A name that is not valid UTF-8 is refused when decoding.
    pub name: Option<&'a str>,
    /// The size of the linked DAG in bytes, as the node claims it.
    pub tsize: Option<u64>,
}

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// Reads the fields one by one.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, DagError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.number()?),
            LENGTH_DELIMITED => {
                let length =
                    usize::try_from(self.number()?).map_err(|_| DagError::Malformed("dag-pb length"))?;
                let (bytes, rest) =
                    self.0.split_at_checked(length).ok_or(DagError::Malformed("dag-pb ends early"))?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(DagError::Malformed("dag-pb wire type")),
        };
        Ok(Some((key >> 3, value)))
    }

    /// A protobuf varint. Non-minimal forms are accepted, as protobuf allows them.
    fn number(&mut self) -> Result<u64, DagError> {
        if let Ok((number, rest)) = decode::u64(self.0) {
            self.0 = rest;
            return Ok(number);
        }
        let mut number = 0_u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(DagError::Malformed("dag-pb number"))
    }
}

impl<'a> PbNode<'a> {
    /// Decodes a dag-pb block.
    ///
    /// # Errors
    /// [`DagError::Malformed`], [`DagError::TooManyLinks`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DagError> {
        let mut node = Self::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(data)) if node.data.is_none() => node.data = Some(data),
                (2, Value::Bytes(link)) => {
                    if node.links.len() == LINKS_MAX {
                        return Err(DagError::TooManyLinks);
                    }
                    node.links.push(PbLink::decode(link)?);
                }
                _ => return Err(DagError::Malformed("dag-pb node field")),
            }
        }
        Ok(node)
    }

    /// Encodes the node in canonical form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = self.links.iter().map(|link| link.encoded_len() + 6).sum::<usize>();
        let mut out = Vec::with_capacity(length + self.data.map_or(0, <[u8]>::len) + 6);
        for link in &self.links {
            write_key(&mut out, 2, LENGTH_DELIMITED);
            write_number(&mut out, link.encoded_len() as u64);
            link.encode(&mut out);
        }
        if let Some(data) = self.data {
            write_bytes(&mut out, 1, data);
        }
        out
    }
}

impl<'a> PbLink<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, DagError> {
        let (mut cid, mut name, mut tsize) = (None, None, None);
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) if cid.is_none() => cid = Some(exact_cid(bytes)?),
                (2, Value::Bytes(bytes)) if name.is_none() => {
                    let text =
                        std::str::from_utf8(bytes).map_err(|_| DagError::Malformed("dag-pb link name"))?;
                    name = Some(text);
                }
                (3, Value::Number(number)) if tsize.is_none() => tsize = Some(number),
                _ => return Err(DagError::Malformed("dag-pb link field")),
            }
        }
        let cid = cid.ok_or(DagError::Malformed("dag-pb link without a CID"))?;
        Ok(Self { cid, name, tsize })
    }

    fn encoded_len(&self) -> usize {
        let cid = self.cid.encoded_len();
        let name = self.name.map_or(0, |name| 1 + number_len(name.len() as u64) + name.len());
        1 + number_len(cid as u64) + cid + name + self.tsize.map_or(0, |tsize| 1 + number_len(tsize))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, 1, &self.cid.to_bytes());
        if let Some(name) = self.name {
            write_bytes(out, 2, name.as_bytes());
        }
        if let Some(tsize) = self.tsize {
            write_key(out, 3, VARINT);
            write_number(out, tsize);
        }
    }
}

fn number_len(number: u64) -> usize {
    encode::u64(number, &mut encode::u64_buffer()).len()
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(encode::u64(number, &mut encode::u64_buffer()));
}

fn write_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    write_number(out, field << 3 | wire_type);
}

fn write_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    write_key(out, field, LENGTH_DELIMITED);
    write_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
