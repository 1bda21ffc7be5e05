//! ApiVersions, and the ranges that both advertise.

use super::each_version;
use crate::pair::Pair;
use crate::requests::{api_versions, text};
use anyhow::Result;
use kafka_protocol::messages::ApiVersionsRequest;

pub fn script(pair: &mut Pair) -> Result<()> {
    each_version::<ApiVersionsRequest>(pair, |pair, version| {
        pair.case("api-versions");
        pair.same(version, |_| if version >= 3 { api_versions() } else { ApiVersionsRequest::default() })?;
        if version >= 3 {
            for (name, software_version) in
                [("", "1"), ("a", ""), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a.b-c_", "1")]
            {
                pair.case(format!("api-versions-software-{name:?}-{software_version:?}"));
                pair.same(version, |_| {
                    let request = ApiVersionsRequest::default();
                    request.with_client_software_name(text(name)).with_client_software_version(text(software_version))
                })?;
            }
        }
        Ok(())
    })?;
    pair.case("api-versions-ranges");
    pair.same_ranges();
    // A version from the future is answered in version 0 with the table of what is served: the answer that a client
    // decodes is compared by its first field, the error code.
    pair.case("api-versions-from-the-future");
    pair.same_raw_prefix(18, 99, 2, b"\x01\x01\x00", 2)?;
    pair.same_raw_prefix(18, -1, 2, b"\x01\x01\x00", 2)
}
