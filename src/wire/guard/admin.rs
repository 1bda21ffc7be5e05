//! Requests of administrators: topics, configs, the cluster.

use super::schema::*;

pub const CREATE_TOPICS: Request = Request {
    name: "CreateTopics",
    key: 19,
    version_min: 2,
    version_max: 7,
    flexible_from: 5,
    body: Struct::new(&[structs("topics", &CREATABLE_TOPIC), int32("timeout_ms"), bool("validate_only")]),
};
const CREATABLE_TOPIC: Struct = Struct::new(&[
    string("name"),
    int32("num_partitions"),
    int16("replication_factor"),
    structs("assignments", &CREATABLE_ASSIGNMENT),
    structs("configs", &NAMED_CONFIG),
]);
const CREATABLE_ASSIGNMENT: Struct = Struct::new(&[int32("partition_index"), int32s("broker_ids")]);
const NAMED_CONFIG: Struct = Struct::new(&[string("name"), string("value").nullable(0)]);

pub const DELETE_TOPICS: Request = Request {
    name: "DeleteTopics",
    key: 20,
    version_min: 1,
    version_max: 6,
    flexible_from: 4,
    body: Struct::new(&[
        structs("topics", &DELETE_TOPICS_TOPIC).from(6),
        strings("topic_names").to(5),
        int32("timeout_ms"),
    ]),
};
const DELETE_TOPICS_TOPIC: Struct = Struct::new(&[string("name").nullable(6), uuid("topic_id")]);

pub const CREATE_PARTITIONS: Request = Request {
    name: "CreatePartitions",
    key: 37,
    version_min: 0,
    version_max: 3,
    flexible_from: 2,
    body: Struct::new(&[structs("topics", &CREATE_PARTITIONS_TOPIC), int32("timeout_ms"), bool("validate_only")]),
};
const CREATE_PARTITIONS_TOPIC: Struct =
    Struct::new(&[string("name"), int32("count"), structs("assignments", &CREATE_PARTITIONS_ASSIGNMENT).nullable(0)]);
const CREATE_PARTITIONS_ASSIGNMENT: Struct = Struct::new(&[int32s("broker_ids")]);

pub const DELETE_RECORDS: Request = Request {
    name: "DeleteRecords",
    key: 21,
    version_min: 0,
    version_max: 2,
    flexible_from: 2,
    body: Struct::new(&[structs("topics", &DELETE_RECORDS_TOPIC), int32("timeout_ms")]),
};
const DELETE_RECORDS_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &DELETE_RECORDS_PARTITION)]);
const DELETE_RECORDS_PARTITION: Struct = Struct::new(&[int32("partition_index"), int64("offset")]);

pub const DESCRIBE_CONFIGS: Request = Request {
    name: "DescribeConfigs",
    key: 32,
    version_min: 1,
    version_max: 4,
    flexible_from: 4,
    body: Struct::new(&[
        structs("resources", &DESCRIBE_CONFIGS_RESOURCE),
        bool("include_synonyms"),
        bool("include_documentation").from(3),
    ]),
};
const DESCRIBE_CONFIGS_RESOURCE: Struct =
    Struct::new(&[int8("resource_type"), string("resource_name"), strings("configuration_keys").nullable(0)]);

pub const ALTER_CONFIGS: Request = Request {
    name: "AlterConfigs",
    key: 33,
    version_min: 0,
    version_max: 2,
    flexible_from: 2,
    body: Struct::new(&[structs("resources", &ALTER_CONFIGS_RESOURCE), bool("validate_only")]),
};
const ALTER_CONFIGS_RESOURCE: Struct =
    Struct::new(&[int8("resource_type"), string("resource_name"), structs("configs", &NAMED_CONFIG)]);

pub const INCREMENTAL_ALTER_CONFIGS: Request = Request {
    name: "IncrementalAlterConfigs",
    key: 44,
    version_min: 0,
    version_max: 1,
    flexible_from: 1,
    body: Struct::new(&[structs("resources", &INCREMENTAL_RESOURCE), bool("validate_only")]),
};
const INCREMENTAL_RESOURCE: Struct =
    Struct::new(&[int8("resource_type"), string("resource_name"), structs("configs", &INCREMENTAL_CONFIG)]);
const INCREMENTAL_CONFIG: Struct =
    Struct::new(&[string("name"), int8("config_operation"), string("value").nullable(0)]);

pub const DESCRIBE_CLUSTER: Request = Request {
    name: "DescribeCluster",
    key: 60,
    version_min: 0,
    version_max: 1,
    flexible_from: 0,
    body: Struct::new(&[bool("include_cluster_authorized_operations"), int8("endpoint_type").from(1)]),
};

pub const DESCRIBE_LOG_DIRS: Request = Request {
    name: "DescribeLogDirs",
    key: 35,
    version_min: 1,
    version_max: 4,
    flexible_from: 2,
    body: Struct::new(&[structs("topics", &DESCRIBE_LOG_DIRS_TOPIC).nullable(0)]),
};
const DESCRIBE_LOG_DIRS_TOPIC: Struct = Struct::new(&[string("topic"), int32s("partitions")]);
