//! Answers of consumer groups' APIs, as far as our own client asks for them.

use super::schema::*;

/// From version 10 on topics are named by their ids, which the client has no need of.
pub const OFFSET_COMMIT: Response = Response {
    name: "the answer to OffsetCommit",
    key: 8,
    version_min: 2,
    version_max: 9,
    flexible_from: 8,
    body: Struct::new(&[int32("throttle_time_ms").from(3), structs("topics", &COMMITTED_TOPIC)]),
};
const COMMITTED_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &PARTITION_ERROR)]);
const PARTITION_ERROR: Struct = Struct::new(&[int32("partition_index"), int16("error_code")]);

/// Before version 2 a group could not be asked for all that it has; from 10 on topics are named by their ids.
pub const OFFSET_FETCH: Response = Response {
    name: "the answer to OffsetFetch",
    key: 9,
    version_min: 2,
    version_max: 9,
    flexible_from: 6,
    body: Struct::new(&[
        int32("throttle_time_ms").from(3),
        structs("topics", &FETCHED_TOPIC).to(7),
        int16("error_code").to(7),
        structs("groups", &FETCHED_GROUP).from(8),
    ]),
};
const FETCHED_GROUP: Struct =
    Struct::new(&[string("group_id"), structs("topics", &FETCHED_TOPIC), int16("error_code")]);
const FETCHED_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &FETCHED_PARTITION)]);
const FETCHED_PARTITION: Struct = Struct::new(&[
    int32("partition_index"),
    int64("committed_offset"),
    int32("committed_leader_epoch").from(5),
    string("metadata").nullable(0),
    int16("error_code"),
]);

pub const FIND_COORDINATOR: Response = Response {
    name: "the answer to FindCoordinator",
    key: 10,
    version_min: 0,
    version_max: 6,
    flexible_from: 3,
    body: Struct::new(&[
        int32("throttle_time_ms").from(1),
        int16("error_code").to(3),
        string("error_message").from(1).to(3).nullable(1),
        int32("node_id").to(3),
        string("host").to(3),
        int32("port").to(3),
        structs("coordinators", &COORDINATOR).from(4),
    ]),
};
const COORDINATOR: Struct = Struct::new(&[
    string("key"),
    int32("node_id"),
    string("host"),
    int32("port"),
    int16("error_code"),
    string("error_message").nullable(4),
]);

pub const JOIN_GROUP: Response = Response {
    name: "the answer to JoinGroup",
    key: 11,
    version_min: 0,
    version_max: 9,
    flexible_from: 6,
    body: Struct::new(&[
        int32("throttle_time_ms").from(2),
        int16("error_code"),
        int32("generation_id"),
        string("protocol_type").from(7).nullable(7),
        string("protocol_name").nullable(7),
        string("leader"),
        bool("skip_assignment").from(9),
        string("member_id"),
        structs("members", &JOINED_MEMBER),
    ]),
};
const JOINED_MEMBER: Struct =
    Struct::new(&[string("member_id"), string("group_instance_id").from(5).nullable(5), bytes("metadata")]);

pub const HEARTBEAT: Response = Response {
    name: "the answer to Heartbeat",
    key: 12,
    version_min: 0,
    version_max: 4,
    flexible_from: 4,
    body: Struct::new(&[int32("throttle_time_ms").from(1), int16("error_code")]),
};

pub const LEAVE_GROUP: Response = Response {
    name: "the answer to LeaveGroup",
    key: 13,
    version_min: 0,
    version_max: 5,
    flexible_from: 4,
    body: Struct::new(&[
        int32("throttle_time_ms").from(1),
        int16("error_code"),
        structs("members", &LEFT_MEMBER).from(3),
    ]),
};
const LEFT_MEMBER: Struct =
    Struct::new(&[string("member_id"), string("group_instance_id").nullable(3), int16("error_code")]);

pub const SYNC_GROUP: Response = Response {
    name: "the answer to SyncGroup",
    key: 14,
    version_min: 0,
    version_max: 5,
    flexible_from: 4,
    body: Struct::new(&[
        int32("throttle_time_ms").from(1),
        int16("error_code"),
        string("protocol_type").from(5).nullable(5),
        string("protocol_name").from(5).nullable(5),
        bytes("assignment"),
    ]),
};

pub const DESCRIBE_GROUPS: Response = Response {
    name: "the answer to DescribeGroups",
    key: 15,
    version_min: 0,
    version_max: 6,
    flexible_from: 5,
    body: Struct::new(&[int32("throttle_time_ms").from(1), structs("groups", &DESCRIBED_GROUP)]),
};
const DESCRIBED_GROUP: Struct = Struct::new(&[
    int16("error_code"),
    string("error_message").from(6).nullable(6),
    string("group_id"),
    string("group_state"),
    string("protocol_type"),
    string("protocol_data"),
    structs("members", &DESCRIBED_MEMBER),
    int32("authorized_operations").from(3),
]);
const DESCRIBED_MEMBER: Struct = Struct::new(&[
    string("member_id"),
    string("group_instance_id").from(4).nullable(4),
    string("client_id"),
    string("client_host"),
    bytes("member_metadata"),
    bytes("member_assignment"),
]);

pub const LIST_GROUPS: Response = Response {
    name: "the answer to ListGroups",
    key: 16,
    version_min: 0,
    version_max: 5,
    flexible_from: 3,
    body: Struct::new(&[int32("throttle_time_ms").from(1), int16("error_code"), structs("groups", &LISTED_GROUP)]),
};
const LISTED_GROUP: Struct = Struct::new(&[
    string("group_id"),
    string("protocol_type"),
    string("group_state").from(4),
    string("group_type").from(5),
]);

pub const DELETE_GROUPS: Response = Response {
    name: "the answer to DeleteGroups",
    key: 42,
    version_min: 0,
    version_max: 2,
    flexible_from: 2,
    body: Struct::new(&[int32("throttle_time_ms"), structs("results", &DELETED_GROUP)]),
};
const DELETED_GROUP: Struct = Struct::new(&[string("group_id"), int16("error_code")]);

pub const OFFSET_DELETE: Response = Response {
    name: "the answer to OffsetDelete",
    key: 47,
    version_min: 0,
    version_max: 0,
    flexible_from: 1,
    body: Struct::new(&[int16("error_code"), int32("throttle_time_ms"), structs("topics", &COMMITTED_TOPIC)]),
};

pub const CONSUMER_GROUP_DESCRIBE: Response = Response {
    name: "the answer to ConsumerGroupDescribe",
    key: 69,
    version_min: 0,
    version_max: 1,
    flexible_from: 0,
    body: Struct::new(&[int32("throttle_time_ms"), structs("groups", &CONSUMER_GROUP)]),
};
const CONSUMER_GROUP: Struct = Struct::new(&[
    int16("error_code"),
    string("error_message").nullable(0),
    string("group_id"),
    string("group_state"),
    int32("group_epoch"),
    int32("assignment_epoch"),
    string("assignor_name"),
    structs("members", &CONSUMER_GROUP_MEMBER),
    int32("authorized_operations"),
]);
const CONSUMER_GROUP_MEMBER: Struct = Struct::new(&[
    string("member_id"),
    string("instance_id").nullable(0),
    string("rack_id").nullable(0),
    int32("member_epoch"),
    string("client_id"),
    string("client_host"),
    strings("subscribed_topic_names"),
    string("subscribed_topic_regex").nullable(0),
    structure("assignment", &ASSIGNMENT),
    structure("target_assignment", &ASSIGNMENT),
    int8("member_type").from(1),
]);
const ASSIGNMENT: Struct = Struct::new(&[structs("topic_partitions", &ASSIGNED_TOPIC)]);
const ASSIGNED_TOPIC: Struct = Struct::new(&[uuid("topic_id"), string("topic_name"), int32s("partitions")]);
