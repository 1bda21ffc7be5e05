//! Answers, as far as our own client asks for them: a server may be as hostile as a client.
//!
//! The versions are those that the client speaks: it negotiates none that has no table here.

use super::group_responses::*;
use super::schema::*;

/// All answers that the client may decode.
pub static RESPONSES: [Response; 24] = [
    PRODUCE,
    FETCH,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    FIND_COORDINATOR,
    JOIN_GROUP,
    HEARTBEAT,
    LEAVE_GROUP,
    SYNC_GROUP,
    DESCRIBE_GROUPS,
    LIST_GROUPS,
    API_VERSIONS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    INIT_PRODUCER_ID,
    DESCRIBE_CONFIGS,
    DESCRIBE_LOG_DIRS,
    CREATE_PARTITIONS,
    DELETE_GROUPS,
    INCREMENTAL_ALTER_CONFIGS,
    OFFSET_DELETE,
    CONSUMER_GROUP_DESCRIBE,
];

/// Version 13 names topics by their ids, which the client has no need of.
const PRODUCE: Response = Response {
    name: "the answer to Produce",
    key: 0,
    version_min: 3,
    version_max: 12,
    flexible_from: 9,
    body: Struct::with_tagged(
        &[structs("responses", &PRODUCE_TOPIC), int32("throttle_time_ms")],
        &[(0, structs("node_endpoints", &NODE_ENDPOINT).from(10))],
    ),
};
const PRODUCE_TOPIC: Struct = Struct::new(&[string("name"), structs("partition_responses", &PRODUCE_PARTITION)]);
const PRODUCE_PARTITION: Struct = Struct::with_tagged(
    &[
        int32("index"),
        int16("error_code"),
        int64("base_offset"),
        int64("log_append_time_ms"),
        int64("log_start_offset").from(5),
        structs("record_errors", &RECORD_ERROR).from(8),
        string("error_message").from(8).nullable(8),
    ],
    &[(0, structure("current_leader", &LEADER).from(10))],
);
const RECORD_ERROR: Struct = Struct::new(&[int32("batch_index"), string("batch_index_error_message").nullable(8)]);
const LEADER: Struct = Struct::new(&[int32("leader_id"), int32("leader_epoch")]);
const NODE_ENDPOINT: Struct =
    Struct::new(&[int32("node_id"), string("host"), int32("port"), string("rack").nullable(0)]);

/// Version 13 names topics by their ids, which the client has no need of.
const FETCH: Response = Response {
    name: "the answer to Fetch",
    key: 1,
    version_min: 4,
    version_max: 12,
    flexible_from: 12,
    body: Struct::new(&[
        int32("throttle_time_ms"),
        int16("error_code").from(7),
        int32("session_id").from(7),
        structs("responses", &FETCH_TOPIC),
    ]),
};
const FETCH_TOPIC: Struct = Struct::new(&[string("topic"), structs("partitions", &FETCH_PARTITION)]);
const FETCH_PARTITION: Struct = Struct::with_tagged(
    &[
        int32("partition_index"),
        int16("error_code"),
        int64("high_watermark"),
        int64("last_stable_offset"),
        int64("log_start_offset").from(5),
        structs("aborted_transactions", &ABORTED).nullable(4),
        int32("preferred_read_replica").from(11),
        bytes("records").nullable(0),
    ],
    &[
        (0, structure("diverging_epoch", &EPOCH_END).from(12)),
        (1, structure("current_leader", &LEADER).from(12)),
        (2, structure("snapshot_id", &SNAPSHOT).from(12)),
    ],
);
const ABORTED: Struct = Struct::new(&[int64("producer_id"), int64("first_offset")]);
const EPOCH_END: Struct = Struct::new(&[int32("epoch"), int64("end_offset")]);
const SNAPSHOT: Struct = Struct::new(&[int64("end_offset"), int32("epoch")]);

const LIST_OFFSETS: Response = Response {
    name: "the answer to ListOffsets",
    key: 2,
    version_min: 1,
    version_max: 10,
    flexible_from: 6,
    body: Struct::new(&[int32("throttle_time_ms").from(2), structs("topics", &LIST_OFFSETS_TOPIC)]),
};
const LIST_OFFSETS_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &LIST_OFFSETS_PARTITION)]);
const LIST_OFFSETS_PARTITION: Struct = Struct::new(&[
    int32("partition_index"),
    int16("error_code"),
    int64("timestamp"),
    int64("offset"),
    int32("leader_epoch").from(4),
]);

const METADATA: Response = Response {
    name: "the answer to Metadata",
    key: 3,
    version_min: 0,
    version_max: 13,
    flexible_from: 9,
    body: Struct::new(&[
        int32("throttle_time_ms").from(3),
        structs("brokers", &METADATA_BROKER),
        string("cluster_id").from(2).nullable(2),
        int32("controller_id").from(1),
        structs("topics", &METADATA_TOPIC),
        int32("cluster_authorized_operations").from(8).to(10),
        int16("error_code").from(13),
    ]),
};
const METADATA_BROKER: Struct =
    Struct::new(&[int32("node_id"), string("host"), int32("port"), string("rack").from(1).nullable(1)]);
const METADATA_TOPIC: Struct = Struct::new(&[
    int16("error_code"),
    string("name").nullable(12),
    uuid("topic_id").from(10),
    bool("is_internal").from(1),
    structs("partitions", &METADATA_PARTITION),
    int32("topic_authorized_operations").from(8),
]);
const METADATA_PARTITION: Struct = Struct::new(&[
    int16("error_code"),
    int32("partition_index"),
    int32("leader_id"),
    int32("leader_epoch").from(7),
    int32s("replica_nodes"),
    int32s("isr_nodes"),
    int32s("offline_replicas").from(5),
]);

const API_VERSIONS: Response = Response {
    name: "the answer to ApiVersions",
    key: super::API_VERSIONS_KEY,
    version_min: 0,
    version_max: 4,
    flexible_from: 3,
    body: Struct::with_tagged(
        &[int16("error_code"), structs("api_keys", &API_VERSION), int32("throttle_time_ms").from(1)],
        &[
            (0, structs("supported_features", &FEATURE)),
            (1, int64("finalized_features_epoch")),
            (2, structs("finalized_features", &FEATURE)),
            (3, bool("zk_migration_ready")),
        ],
    ),
};
const API_VERSION: Struct = Struct::new(&[int16("api_key"), int16("min_version"), int16("max_version")]);
const FEATURE: Struct = Struct::new(&[string("name"), int16("one bound"), int16("the other bound")]);

const CREATE_TOPICS: Response = Response {
    name: "the answer to CreateTopics",
    key: 19,
    version_min: 2,
    version_max: 7,
    flexible_from: 5,
    body: Struct::new(&[int32("throttle_time_ms"), structs("topics", &CREATED_TOPIC)]),
};
const CREATED_TOPIC: Struct = Struct::with_tagged(
    &[
        string("name"),
        uuid("topic_id").from(7),
        int16("error_code"),
        string("error_message").nullable(0),
        int32("num_partitions").from(5),
        int16("replication_factor").from(5),
        structs("configs", &CREATED_CONFIG).from(5).nullable(5),
    ],
    &[(0, int16("topic_config_error_code").from(5))],
);
const CREATED_CONFIG: Struct = Struct::new(&[
    string("name"),
    string("value").nullable(5),
    bool("read_only"),
    int8("config_source"),
    bool("is_sensitive"),
]);

const DELETE_TOPICS: Response = Response {
    name: "the answer to DeleteTopics",
    key: 20,
    version_min: 1,
    version_max: 6,
    flexible_from: 4,
    body: Struct::new(&[int32("throttle_time_ms"), structs("responses", &DELETED_TOPIC)]),
};
const DELETED_TOPIC: Struct = Struct::new(&[
    string("name").nullable(6),
    uuid("topic_id").from(6),
    int16("error_code"),
    string("error_message").from(5).nullable(5),
]);

const INIT_PRODUCER_ID: Response = Response {
    name: "the answer to InitProducerId",
    key: 22,
    version_min: 0,
    version_max: 5,
    flexible_from: 2,
    body: Struct::new(&[int32("throttle_time_ms"), int16("error_code"), int64("producer_id"), int16("producer_epoch")]),
};

const DESCRIBE_CONFIGS: Response = Response {
    name: "the answer to DescribeConfigs",
    key: 32,
    version_min: 1,
    version_max: 4,
    flexible_from: 4,
    body: Struct::new(&[int32("throttle_time_ms"), structs("results", &DESCRIBED_RESOURCE)]),
};
const DESCRIBED_RESOURCE: Struct = Struct::new(&[
    int16("error_code"),
    string("error_message").nullable(0),
    int8("resource_type"),
    string("resource_name"),
    structs("configs", &DESCRIBED_CONFIG),
]);
const DESCRIBED_CONFIG: Struct = Struct::new(&[
    string("name"),
    string("value").nullable(0),
    bool("read_only"),
    int8("config_source"),
    bool("is_sensitive"),
    structs("synonyms", &SYNONYM),
    int8("config_type").from(3),
    string("documentation").from(3).nullable(3),
]);
const SYNONYM: Struct = Struct::new(&[string("name"), string("value").nullable(0), int8("source")]);

const DESCRIBE_LOG_DIRS: Response = Response {
    name: "the answer to DescribeLogDirs",
    key: 35,
    version_min: 1,
    version_max: 4,
    flexible_from: 2,
    body: Struct::new(&[int32("throttle_time_ms"), int16("error_code").from(3), structs("results", &LOG_DIR)]),
};
const LOG_DIR: Struct = Struct::new(&[
    int16("error_code"),
    string("log_dir"),
    structs("topics", &LOG_DIR_TOPIC),
    int64("total_bytes").from(4),
    int64("usable_bytes").from(4),
]);
const LOG_DIR_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &LOG_DIR_PARTITION)]);
const LOG_DIR_PARTITION: Struct =
    Struct::new(&[int32("partition_index"), int64("partition_size"), int64("offset_lag"), bool("is_future_key")]);

const CREATE_PARTITIONS: Response = Response {
    name: "the answer to CreatePartitions",
    key: 37,
    version_min: 0,
    version_max: 3,
    flexible_from: 2,
    body: Struct::new(&[int32("throttle_time_ms"), structs("results", &GROWN_TOPIC)]),
};
const GROWN_TOPIC: Struct = Struct::new(&[string("name"), int16("error_code"), string("error_message").nullable(0)]);

const INCREMENTAL_ALTER_CONFIGS: Response = Response {
    name: "the answer to IncrementalAlterConfigs",
    key: 44,
    version_min: 0,
    version_max: 1,
    flexible_from: 1,
    body: Struct::new(&[int32("throttle_time_ms"), structs("responses", &ALTERED_RESOURCE)]),
};
const ALTERED_RESOURCE: Struct = Struct::new(&[
    int16("error_code"),
    string("error_message").nullable(0),
    int8("resource_type"),
    string("resource_name"),
]);
