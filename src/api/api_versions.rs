//! ApiVersions (key 18), versions 0 to 4.
//!
//! Answers with the table of `registry`, which is all that this broker serves. A version that does not exist (yet) is
//! answered in version 0 with UNSUPPORTED_VERSION and the range of ApiVersions itself (KIP-511). From version 3 on the
//! client names its software; a name or version that is not made of letters, digits, dots and hyphens is an
//! INVALID_REQUEST.
//!
//! Features (KIP-584) are answered as a Kafka 3.9 of ZooKeeper mode does: none supported, none finalized, epoch 0.

use super::context::ShardContext;
use super::registry::{self, Served};
use super::{Outcome, RequestInfo};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::ApiVersions as i16, advertised_min: 0, accepted_min: 0, max: 4, handle };

/// The first version in which the client names its software.
const NAMED_SINCE: i16 = 3;

fn handle(_: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ApiVersionsRequest| {
        let names = [&request.client_software_name, &request.client_software_version];
        if info.version >= NAMED_SINCE && !names.iter().all(|name| is_software_name(name)) {
            return info.reply(&ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code()));
        }
        let table = registry::APIS.iter().map(entry).collect();
        info.reply(&ApiVersionsResponse::default().with_api_keys(table).with_finalized_features_epoch(0))
    })
}

/// The answer to a version that is not served. Its body is not looked at.
pub fn unsupported_version(info: &RequestInfo) -> Outcome {
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(vec![entry(&SERVED)]);
    RequestInfo { version: 0, ..info.clone() }.reply(&response)
}

fn entry(api: &Served) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key).with_min_version(api.advertised_min).with_max_version(api.max)
}

/// Letters, digits, dots and hyphens, with a letter or digit at both ends.
fn is_software_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric())) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker};
    use kafka_protocol::protocol::StrBytes;

    fn request(name: &'static str, version: &'static str) -> ApiVersionsRequest {
        ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(name))
            .with_client_software_version(StrBytes::from_static_str(version))
    }

    #[test]
    fn every_version_tells_the_whole_table() {
        let broker = Broker::empty();
        for version in 0..=SERVED.max {
            let response: ApiVersionsResponse = broker.ask(version, &request("librdkafka", "2.3.0-rc1"));
            assert_eq!(response.error_code, 0);
            let told: Vec<_> =
                response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
            let served: Vec<_> = registry::APIS.iter().map(|api| (api.key, api.advertised_min, api.max)).collect();
            assert_eq!(told, served);
            assert_eq!(response.finalized_features_epoch, if version >= 3 { 0 } else { -1 });
            assert!(response.supported_features.is_empty() && response.finalized_features.is_empty());
        }
    }

    #[test]
    fn bad_software_names_are_refused_from_version_3_on() {
        let broker = Broker::empty();
        for (name, version) in [("", "1"), ("a", ""), ("-a", "1"), ("a", "1."), ("a b", "1"), ("é", "1")] {
            let response: ApiVersionsResponse = broker.ask(4, &request(name, version));
            assert_eq!(response.error_code, ResponseError::InvalidRequest.code(), "{name:?} {version:?}");
            assert!(response.api_keys.is_empty());
        }
        let response: ApiVersionsResponse = broker.ask(2, &ApiVersionsRequest::default());
        assert_eq!(response.error_code, 0);
    }

    #[test]
    fn unknown_versions_are_answered_in_version_0_with_the_range() {
        let broker = Broker::empty();
        // A body that no version of today could decode.
        for version in [5_i16, i16::MAX, -1] {
            let mut frame = vec![0, 18];
            frame.extend_from_slice(&version.to_be_bytes());
            frame.extend_from_slice(&testing::CORRELATION_ID.to_be_bytes());
            frame.extend_from_slice(&[0xff, 0xff, 0, 0xde, 0xad]);
            let response: ApiVersionsResponse = broker.decode_reply(0, broker.dispatch(frame.into()));
            assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
            let told: Vec<_> =
                response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
            assert_eq!(told, [(18, 0, 4)]);
        }
    }
}
