//! Requests of producers and consumers, and those that every client starts with.

use super::schema::*;

pub const PRODUCE: Request = Request {
    name: "Produce",
    key: 0,
    version_min: 3,
    version_max: 11,
    flexible_from: 9,
    body: Struct::new(&[
        string("transactional_id").nullable(3),
        int16("acks"),
        int32("timeout_ms"),
        structs("topic_data", &PRODUCE_TOPIC),
    ]),
};
const PRODUCE_TOPIC: Struct = Struct::new(&[string("name"), structs("partition_data", &PRODUCE_PARTITION)]);
const PRODUCE_PARTITION: Struct = Struct::new(&[int32("index"), bytes("records").nullable(0)]);

pub const FETCH: Request = Request {
    name: "Fetch",
    key: 1,
    version_min: 4,
    version_max: 17,
    flexible_from: 12,
    body: Struct::with_tagged(
        &[
            int32("replica_id").to(14),
            int32("max_wait_ms"),
            int32("min_bytes"),
            int32("max_bytes"),
            int8("isolation_level"),
            int32("session_id").from(7),
            int32("session_epoch").from(7),
            structs("topics", &FETCH_TOPIC),
            structs("forgotten_topics_data", &FETCH_FORGOTTEN_TOPIC).from(7),
            string("rack_id").from(11),
        ],
        &[(0, string("cluster_id").nullable(12)), (1, structure("replica_state", &FETCH_REPLICA_STATE).from(15))],
    ),
};
const FETCH_REPLICA_STATE: Struct = Struct::new(&[int32("replica_id"), int64("replica_epoch")]);
const FETCH_TOPIC: Struct =
    Struct::new(&[string("topic").to(12), uuid("topic_id").from(13), structs("partitions", &FETCH_PARTITION)]);
const FETCH_PARTITION: Struct = Struct::with_tagged(
    &[
        int32("partition"),
        int32("current_leader_epoch").from(9),
        int64("fetch_offset"),
        int32("last_fetched_epoch").from(12),
        int64("log_start_offset").from(5),
        int32("partition_max_bytes"),
    ],
    &[(0, uuid("replica_directory_id").from(17))],
);
const FETCH_FORGOTTEN_TOPIC: Struct =
    Struct::new(&[string("topic").to(12), uuid("topic_id").from(13), int32s("partitions")]);

pub const LIST_OFFSETS: Request = Request {
    name: "ListOffsets",
    key: 2,
    version_min: 1,
    version_max: 10,
    flexible_from: 6,
    body: Struct::new(&[
        int32("replica_id"),
        int8("isolation_level").from(2),
        structs("topics", &LIST_OFFSETS_TOPIC),
        int32("timeout_ms").from(10),
    ]),
};
const LIST_OFFSETS_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &LIST_OFFSETS_PARTITION)]);
const LIST_OFFSETS_PARTITION: Struct =
    Struct::new(&[int32("partition_index"), int32("current_leader_epoch").from(4), int64("timestamp")]);

pub const METADATA: Request = Request {
    name: "Metadata",
    key: 3,
    version_min: 0,
    version_max: 12,
    flexible_from: 9,
    body: Struct::new(&[
        structs("topics", &METADATA_TOPIC).nullable(1),
        bool("allow_auto_topic_creation").from(4),
        bool("include_cluster_authorized_operations").from(8).to(10),
        bool("include_topic_authorized_operations").from(8),
    ]),
};
const METADATA_TOPIC: Struct = Struct::new(&[uuid("topic_id").from(10), string("name").nullable(10)]);

pub const API_VERSIONS: Request = Request {
    name: "ApiVersions",
    key: 18,
    version_min: 0,
    version_max: 4,
    flexible_from: 3,
    body: Struct::new(&[string("client_software_name").from(3), string("client_software_version").from(3)]),
};

pub const INIT_PRODUCER_ID: Request = Request {
    name: "InitProducerId",
    key: 22,
    version_min: 0,
    version_max: 5,
    flexible_from: 2,
    body: Struct::new(&[
        string("transactional_id").nullable(0),
        int32("transaction_timeout_ms"),
        int64("producer_id").from(3),
        int16("producer_epoch").from(3),
    ]),
};

pub const OFFSET_FOR_LEADER_EPOCH: Request = Request {
    name: "OffsetForLeaderEpoch",
    key: 23,
    version_min: 2,
    version_max: 4,
    flexible_from: 4,
    body: Struct::new(&[int32("replica_id").from(3), structs("topics", &LEADER_EPOCH_TOPIC)]),
};
const LEADER_EPOCH_TOPIC: Struct = Struct::new(&[string("topic"), structs("partitions", &LEADER_EPOCH_PARTITION)]);
const LEADER_EPOCH_PARTITION: Struct =
    Struct::new(&[int32("partition"), int32("current_leader_epoch").from(2), int32("leader_epoch")]);

pub const FIND_COORDINATOR: Request = Request {
    name: "FindCoordinator",
    key: 10,
    version_min: 0,
    version_max: 6,
    flexible_from: 3,
    body: Struct::new(&[string("key").to(3), int8("key_type").from(1), strings("coordinator_keys").from(4)]),
};
