//! Bodies that are no messages: cut short, with absurd lengths, of APIs and versions that do not exist.

use crate::pair::Pair;
use anyhow::Result;

/// Key, version, header version, body.
const BODIES: &[(&str, i16, i16, i16, &[u8])] = &[
    ("metadata-v4-cut", 3, 4, 1, &[0, 0, 0, 1, 0, 5, b'a']),
    ("metadata-v4-huge-count", 3, 4, 1, &[0x7f, 0xff, 0xff, 0xff, 0]),
    ("metadata-v4-negative-string", 3, 4, 1, &[0, 0, 0, 1, 0xff, 0xfe, 0]),
    ("metadata-v4-null-string", 3, 4, 1, &[0, 0, 0, 1, 0xff, 0xff, 0]),
    ("metadata-v9-cut", 3, 9, 2, &[2, 6, b'a']),
    ("metadata-v9-huge-count", 3, 9, 2, &[0xff, 0xff, 0xff, 0xff, 0x07]),
    ("metadata-v9-endless-varint", 3, 9, 2, &[0xff; 12]),
    ("metadata-empty", 3, 4, 1, &[]),
    ("produce-v9-empty", 0, 9, 2, &[]),
    ("produce-v7-cut", 0, 7, 1, &[0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 9]),
    ("produce-v7-huge-count", 0, 7, 1, &[0xff, 0xff, 0, 1, 0, 0, 0, 9, 0x7f, 0xff, 0xff, 0xff]),
    ("fetch-v4-empty", 1, 4, 1, &[]),
    ("list-offsets-v2-huge-count", 2, 2, 1, &[0xff, 0xff, 0xff, 0xff, 0, 0x7f, 0xff, 0xff, 0xff]),
    ("create-topics-v5-cut", 19, 5, 2, &[2, 3, b'a']),
    ("metadata-version-99", 3, 99, 2, &[0; 8]),
    ("metadata-version-negative", 3, -1, 1, &[0; 8]),
    ("no-such-api", 999, 0, 1, &[0; 8]),
    ("negative-api", -5, 0, 1, &[0; 8]),
];

pub fn script(pair: &mut Pair) -> Result<()> {
    for &(name, key, version, header_version, body) in BODIES {
        pair.case(format!("malformed-{name}"));
        pair.same_raw(key, version, header_version, body)?;
    }
    Ok(())
}
