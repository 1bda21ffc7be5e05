//! Which APIs are served in which versions, and where a request goes.
//!
//! As in Kafka, a request of an API or version that is not served closes the connection: what its answer would have
//! to look like is not known. ApiVersions alone is answered in any version (KIP-511), for by it clients learn the rest.

use super::context::ShardContext;
use super::groups::{
    consumer_group_describe, consumer_group_heartbeat, delete_groups, describe_groups, heartbeat, join_group,
    leave_group, list_groups, offset_commit, offset_delete, offset_fetch, sync_group,
};
use super::{
    Outcome, RequestInfo, alter_configs, api_versions, create_partitions, create_topics, delete_records, delete_topics,
    describe_cluster, describe_configs, describe_log_dirs, fetch, find_coordinator, incremental_alter_configs,
    init_producer_id, list_offsets, metadata, offset_for_leader_epoch, produce,
};
use crate::wire::{frame, guard};
use bytes::Bytes;
use std::net::SocketAddr;
use std::rc::Rc;

/// One served API; every file under `api/` that serves one has a `pub const SERVED: Served`.
pub struct Served {
    pub key: i16,
    /// What ApiVersions says: for Produce lower than what is accepted (KAFKA-18659).
    pub advertised_min: i16,
    pub accepted_min: i16,
    pub max: i16,
    /// Decodes the body in `info.version` and runs stage one. The body has passed the guard of `wire`.
    pub handle: fn(&Rc<ShardContext>, &RequestInfo, Bytes) -> Outcome,
}

/// Every served API, by key in ascending order.
pub const APIS: &[Served] = &[
    produce::SERVED,
    fetch::SERVED,
    list_offsets::SERVED,
    metadata::SERVED,
    offset_commit::SERVED,
    offset_fetch::SERVED,
    find_coordinator::SERVED,
    join_group::SERVED,
    heartbeat::SERVED,
    leave_group::SERVED,
    sync_group::SERVED,
    describe_groups::SERVED,
    list_groups::SERVED,
    api_versions::SERVED,
    create_topics::SERVED,
    delete_topics::SERVED,
    delete_records::SERVED,
    init_producer_id::SERVED,
    offset_for_leader_epoch::SERVED,
    describe_configs::SERVED,
    alter_configs::SERVED,
    describe_log_dirs::SERVED,
    create_partitions::SERVED,
    delete_groups::SERVED,
    incremental_alter_configs::SERVED,
    offset_delete::SERVED,
    describe_cluster::SERVED,
    consumer_group_heartbeat::SERVED,
    consumer_group_describe::SERVED,
];

/// The API of this key, if it is served.
pub fn served(key: i16) -> Option<&'static Served> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().and_then(|index| APIS.get(index))
}

/// Handles one request: `frame` is what follows its size.
pub fn dispatch(context: &Rc<ShardContext>, local_addr: SocketAddr, peer_addr: SocketAddr, frame: Bytes) -> Outcome {
    let incoming = match frame::decode_header(frame) {
        Ok(incoming) => incoming,
        Err(error) => return Outcome::Close(format!("{error} (from {peer_addr})")),
    };
    let info = RequestInfo {
        key: incoming.key,
        version: incoming.version,
        correlation_id: incoming.correlation_id,
        client_id: incoming.client_id,
        local_addr,
        peer_addr,
    };
    context.assert_owner();
    let Some(api) = served(info.key) else {
        return Outcome::Close(format!("API key {} (version {}) is not served, {peer_addr}", info.key, info.version));
    };
    if !(api.accepted_min..=api.max).contains(&info.version) {
        if api.key == api_versions::SERVED.key {
            return api_versions::unsupported_version(&info);
        }
        return Outcome::Close(format!(
            "API key {} is served in versions {} to {}, {peer_addr} asked in version {}",
            info.key, api.accepted_min, api.max, info.version
        ));
    }
    context.metrics.request(api.key);
    if let Err(error) = guard::check(info.key, info.version, &incoming.body) {
        return Outcome::Close(format!("{error} (from {peer_addr})"));
    }
    (api.handle)(context, &info, incoming.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::Broker;
    use proptest::prelude::*;

    #[test]
    fn table_is_sorted_and_its_ranges_are_sane() {
        assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
        for api in APIS {
            assert!(0 <= api.advertised_min && api.advertised_min <= api.accepted_min && api.accepted_min <= api.max);
            assert_eq!(served(api.key).map(|found| found.max), Some(api.max));
        }
    }

    #[test]
    fn what_is_not_served_closes_the_connection() {
        let broker = Broker::empty();
        for (key, version, reason) in [
            (3, 99, "API key 3 is served in versions 0 to 12"),
            (3, -1, "API key 3 is served in versions 0 to 12"),
            (24, 0, "API key 24 (version 0) is not served"),
            (4711, 0, "API key 4711"),
        ] {
            let mut frame = Vec::new();
            frame.extend_from_slice(&i16::to_be_bytes(key));
            frame.extend_from_slice(&i16::to_be_bytes(version));
            frame.extend_from_slice(&[0, 0, 0, 9, 0xff, 0xff, 0, 0, 0, 0]);
            match broker.dispatch(frame.into()) {
                Outcome::Close(found) => assert!(found.contains(reason), "{found}"),
                _ => panic!("key {key} version {version} was answered"),
            }
        }
    }

    #[test]
    fn half_a_request_closes_the_connection() {
        let broker = Broker::empty();
        let whole: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 9, 0xff, 0xff, 0, 0, 0, 1, 0, 1, b'a', 1];
        assert!(!matches!(broker.dispatch(whole.into()), Outcome::Close(_)));
        for length in 0..whole.len() {
            let outcome = broker.dispatch(Bytes::copy_from_slice(&whole[..length]));
            assert!(matches!(outcome, Outcome::Close(_)), "{length} bytes were understood");
        }
    }

    #[test]
    fn a_hostile_length_closes_the_connection_before_memory_is_given_to_it() {
        let frame: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 9, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
        assert!(matches!(Broker::empty().dispatch(frame.into()), Outcome::Close(_)));
    }

    proptest! {
        /// Whatever stands in a body, there is an answer or an end, and no panic.
        #[test]
        fn any_body_is_answered_or_closes_the_connection(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            spliced in 0..200_usize,
        ) {
            let broker = Broker::empty();
            for api in APIS {
                for version in api.accepted_min..=api.max {
                    let mut frame = [api.key.to_be_bytes(), version.to_be_bytes()].concat();
                    frame.extend_from_slice(&[0, 0, 0, 9, 0, 1, b'c', 0]);
                    // Few and short arrays make more bodies decodable.
                    frame.extend(body.iter().enumerate().map(|(at, byte)| if at < spliced { byte & 3 } else { *byte }));
                    broker.dispatch(frame.into());
                }
            }
        }
    }
}
