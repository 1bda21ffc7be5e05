//! Requests of consumer groups: the classic protocol, KIP-848's, and committed offsets.

use super::schema::*;

pub const OFFSET_COMMIT: Request = Request {
    name: "OffsetCommit",
    key: 8,
    version_min: 2,
    version_max: 9,
    flexible_from: 8,
    body: Struct::new(&[
        string("group_id"),
        int32("generation_id_or_member_epoch"),
        string("member_id"),
        string("group_instance_id").from(7).nullable(7),
        int64("retention_time_ms").to(4),
        structs("topics", &OFFSET_COMMIT_TOPIC),
    ]),
};
const OFFSET_COMMIT_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &OFFSET_COMMIT_PARTITION)]);
const OFFSET_COMMIT_PARTITION: Struct = Struct::new(&[
    int32("partition_index"),
    int64("committed_offset"),
    int32("committed_leader_epoch").from(6),
    string("committed_metadata").nullable(0),
]);

pub const OFFSET_FETCH: Request = Request {
    name: "OffsetFetch",
    key: 9,
    version_min: 1,
    version_max: 9,
    flexible_from: 6,
    body: Struct::new(&[
        string("group_id").to(7),
        structs("topics", &OFFSET_FETCH_TOPIC).to(7).nullable(2),
        structs("groups", &OFFSET_FETCH_GROUP).from(8),
        bool("require_stable").from(7),
    ]),
};
const OFFSET_FETCH_TOPIC: Struct = Struct::new(&[string("name"), int32s("partition_indexes")]);
const OFFSET_FETCH_GROUP: Struct = Struct::new(&[
    string("group_id"),
    string("member_id").from(9).nullable(9),
    int32("member_epoch").from(9),
    structs("topics", &OFFSET_FETCH_TOPIC).nullable(8),
]);

pub const OFFSET_DELETE: Request = Request {
    name: "OffsetDelete",
    key: 47,
    version_min: 0,
    version_max: 0,
    flexible_from: 1,
    body: Struct::new(&[string("group_id"), structs("topics", &OFFSET_DELETE_TOPIC)]),
};
const OFFSET_DELETE_TOPIC: Struct = Struct::new(&[string("name"), structs("partitions", &OFFSET_DELETE_PARTITION)]);
const OFFSET_DELETE_PARTITION: Struct = Struct::new(&[int32("partition_index")]);

pub const JOIN_GROUP: Request = Request {
    name: "JoinGroup",
    key: 11,
    version_min: 0,
    version_max: 9,
    flexible_from: 6,
    body: Struct::new(&[
        string("group_id"),
        int32("session_timeout_ms"),
        int32("rebalance_timeout_ms").from(1),
        string("member_id"),
        string("group_instance_id").from(5).nullable(5),
        string("protocol_type"),
        structs("protocols", &JOIN_GROUP_PROTOCOL),
        string("reason").from(8).nullable(8),
    ]),
};
const JOIN_GROUP_PROTOCOL: Struct = Struct::new(&[string("name"), bytes("metadata")]);

pub const HEARTBEAT: Request = Request {
    name: "Heartbeat",
    key: 12,
    version_min: 0,
    version_max: 4,
    flexible_from: 4,
    body: Struct::new(&[
        string("group_id"),
        int32("generation_id"),
        string("member_id"),
        string("group_instance_id").from(3).nullable(3),
    ]),
};

pub const LEAVE_GROUP: Request = Request {
    name: "LeaveGroup",
    key: 13,
    version_min: 0,
    version_max: 5,
    flexible_from: 4,
    body: Struct::new(&[
        string("group_id"),
        string("member_id").to(2),
        structs("members", &LEAVE_GROUP_MEMBER).from(3),
    ]),
};
const LEAVE_GROUP_MEMBER: Struct =
    Struct::new(&[string("member_id"), string("group_instance_id").nullable(3), string("reason").from(5).nullable(5)]);

pub const SYNC_GROUP: Request = Request {
    name: "SyncGroup",
    key: 14,
    version_min: 0,
    version_max: 5,
    flexible_from: 4,
    body: Struct::new(&[
        string("group_id"),
        int32("generation_id"),
        string("member_id"),
        string("group_instance_id").from(3).nullable(3),
        string("protocol_type").from(5).nullable(5),
        string("protocol_name").from(5).nullable(5),
        structs("assignments", &SYNC_GROUP_ASSIGNMENT),
    ]),
};
const SYNC_GROUP_ASSIGNMENT: Struct = Struct::new(&[string("member_id"), bytes("assignment")]);

pub const DESCRIBE_GROUPS: Request = Request {
    name: "DescribeGroups",
    key: 15,
    version_min: 0,
    version_max: 5,
    flexible_from: 5,
    body: Struct::new(&[strings("groups"), bool("include_authorized_operations").from(3)]),
};

pub const LIST_GROUPS: Request = Request {
    name: "ListGroups",
    key: 16,
    version_min: 0,
    version_max: 5,
    flexible_from: 3,
    body: Struct::new(&[strings("states_filter").from(4), strings("types_filter").from(5)]),
};

pub const DELETE_GROUPS: Request = Request {
    name: "DeleteGroups",
    key: 42,
    version_min: 0,
    version_max: 2,
    flexible_from: 2,
    body: Struct::new(&[strings("groups_names")]),
};

pub const CONSUMER_GROUP_HEARTBEAT: Request = Request {
    name: "ConsumerGroupHeartbeat",
    key: 68,
    version_min: 0,
    version_max: 1,
    flexible_from: 0,
    body: Struct::new(&[
        string("group_id"),
        string("member_id"),
        int32("member_epoch"),
        string("instance_id").nullable(0),
        string("rack_id").nullable(0),
        int32("rebalance_timeout_ms"),
        strings("subscribed_topic_names").nullable(0),
        string("subscribed_topic_regex").from(1).nullable(1),
        string("server_assignor").nullable(0),
        structs("topic_partitions", &CONSUMER_GROUP_TOPIC).nullable(0),
    ]),
};
const CONSUMER_GROUP_TOPIC: Struct = Struct::new(&[uuid("topic_id"), int32s("partitions")]);

pub const CONSUMER_GROUP_DESCRIBE: Request = Request {
    name: "ConsumerGroupDescribe",
    key: 69,
    version_min: 0,
    version_max: 1,
    flexible_from: 0,
    body: Struct::new(&[strings("group_ids"), bool("include_authorized_operations")]),
};
