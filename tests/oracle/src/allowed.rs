//! The differences between Corelog and Kafka 3.9 that are meant, each with its reason. Any other fails the test.
//!
//! Patterns: `*` stands for any text, `|` separates alternatives. A path is the field's, as in the report
//! (`topics[plain].error_code`); unordered lists are addressed by key, others by index.

use crate::diff::FieldDifference;
use crate::report::Exchange;

pub struct Allowed {
    /// Patterns for the API's name,
    pub api: &'static str,
    /// the case's name,
    pub case: &'static str,
    /// the field's path,
    pub path: &'static str,
    /// and both values.
    pub kafka: &'static str,
    pub corelog: &'static str,
    pub reason: &'static str,
}

/// Each difference that may be; the first that fits counts. A run names those that never occurred: rules to be removed.
#[rustfmt::skip]
pub const ALLOWED: &[Allowed] = &[
    // What is served.
    allow("ApiVersions", "*", "api_keys[*]*", "*", "*",
        "only what is served is advertised; the case api-versions-ranges holds the served ranges against Kafka's"),
    allow("Ranges", "api-versions-ranges", "Fetch", "0-17", "4-17", FLOORS),
    allow("Ranges", "api-versions-ranges", "ListOffsets", "0-9", "1-9", FLOORS),
    allow("Ranges", "api-versions-ranges", "CreateTopics", "0-7", "2-7", FLOORS),
    allow("Ranges", "api-versions-ranges", "DeleteTopics", "0-6", "1-6", FLOORS),
    allow("Ranges", "api-versions-ranges", "OffsetForLeaderEpoch", "0-4", "2-4", FLOORS),
    allow("Ranges", "api-versions-ranges", "DescribeConfigs", "0-4", "1-4", FLOORS),
    allow("Ranges", "api-versions-ranges", "DescribeLogDirs", "0-4", "1-4", FLOORS),
    allow("Ranges", "api-versions-ranges", "OffsetCommit", "0-9", "2-9", FLOORS),
    allow("Ranges", "api-versions-ranges", "OffsetFetch", "0-9", "1-9", FLOORS),
    allow("Ranges", "api-versions-ranges", "ConsumerGroupHeartbeat|ConsumerGroupDescribe", "0-0", "0-1",
        "the new group protocol was a preview in 3.9; Corelog serves it as Apache Kafka 4 does"),
    allow("FindCoordinator", "find-coordinator-type-1|find-coordinator-type-2|find-coordinator-type-3|find-coordinator-type--1", "error_code|coordinators[*].error_code",
        "15 CoordinatorNotAvailable", "42 InvalidRequest",
        "there are no transactions yet; a retriable error would make clients wait for ever"),
    allow("FindCoordinator", "find-coordinator-type-1", "error_code",
        "15 CoordinatorNotAvailable", "53 TransactionalIdAuthorizationFailed",
        "there are no transactions yet; below version 4 librdkafka asks, which takes no other code as fatal"),
    allow("FindCoordinator", "find-coordinator-type-*", "error_message|coordinators[*].error_message",
        "*", "*not supported by this broker*", "the message says what is missing"),
    allow("OffsetCommit", "group-note-too-long", "topics[plain].partitions[0].error_code", "25 UnknownMemberId", "12 OffsetMetadataTooLarge", NO_GROUP),
    allow("ListGroups", "group-note-too-long", "groups[takes-nothing-2]", "*", "<absent>", NO_GROUP),
    allow("DescribeGroups", "group-note-too-long", "groups[takes-nothing-2].group_state", "\"Empty\"", "\"Dead\"", NO_GROUP),
    allow("DeleteGroups", "group-note-too-long", "results[0].error_code", "0 NONE", "69 GroupIdNotFound", NO_GROUP),

    // The new group protocol, against Apache Kafka 4.
    allow("CreateTopics", "prepare", "topics[*].configs[*]*", "*", "*", "settings and their defaults are held against Kafka 3.9's"),
    allow("OffsetCommit", "new-group-unknown", "topics[*].partitions[*].error_code", "69 GroupIdNotFound", "22 IllegalGeneration",
        "as Kafka 3.9 does; clients join again for it, and take the other for a failure"),
    allow("OffsetFetch", "new-group-commit", "groups[*].error_code", "-1 UnknownServerError", "25 UnknownMemberId", INTERNAL),
    allow("ConsumerGroupDescribe", "new-group-unknown", "groups[*#1]", "*69 GroupIdNotFound*", "<absent>",
        "a group that is named several times is described once: what an answer takes must not follow from repetition"),
    allow("ConsumerGroupDescribe", "new-group-*", "groups[*].members[*].subscribed_topic_names[*]", "\"*\"", "\"*\"", "a set"),
    allow("ConsumerGroupHeartbeat", "new-group-pattern-*|new-group-refused", "error_message", "*is not a valid regular expression*", "*is not a valid regular expression*",
        "another implementation of regular expressions explains in its own words what is wrong"),
    allow("ConsumerGroupHeartbeat|ConsumerGroupDescribe", "new-group-pattern*", "*epoch", "*", "*", PATTERNS),
    allow("ConsumerGroupHeartbeat", "new-group-pattern*", "assignment*", "*", "*", PATTERNS),
    allow("ConsumerGroupHeartbeat|ConsumerGroupDescribe", "new-group-upgrade", "*assignment.topic_partitions[*].partitions[*]", "*", "*", WHICH),
    allow("SyncGroup", "new-group-upgrade", "assignment", "b*", "b*", WHICH),

    // Topics.
    allow("Metadata", "metadata-auto-create*", "topics[*].error_code", "5 LeaderNotAvailable", "0 NONE", AT_ONCE),
    allow("Metadata", "metadata-auto-create*", "topics[*].topic_id", "0000*", "<id *", AT_ONCE),
    allow("Metadata", "metadata-auto-create*", "topics[*].partitions[0]", "<absent>", "{error_code: 0 NONE, *", AT_ONCE),
    allow("CreateTopics", "create-partitions-1-factor-*", "topics[*].error_message",
        "*available brokers*", "*available machines*",
        "every core is a broker, and replicas never share a machine: the message names machines"),
    allow("CreateTopics", "create-assigned-unknown-broker|create-assigned-negative-broker|create-assigned-no-brokers",
        "topics[*].*", "*", "*",
        "Kafka with ZooKeeper creates partitions that no broker can lead; Kafka with KRaft refuses them, and so does Corelog"),
    allow("CreateTopics", "create-assigned-negative-partition", "topics[*].*", "*", "39 InvalidReplicaAssignment|\"partitions should be a consecutive 0-based integer sequence\"",
        INTERNAL),
    allow("CreateTopics", "create-assigned-broker-twice", "topics[*].error_message",
        "\"Duplicate replica assignment found: HashMap(*", "\"Duplicate replica assignment found: 0 -> *",
        "Kafka's text shows its collections"),

    // Records in.
    allow("Produce", "produce-null-records", "", "<no answer>", "*", NO_ANSWER),
    allow("Produce", "produce-no-partitions", "responses[plain]", "<absent>", "*partition_responses: []}", EMPTY_TOPIC),
    allow("Produce|Fetch|ListOffsets", "produce-partition-twice|produce-topic-twice", "*", "*", "*",
        "of several batches for one partition Kafka keeps the last and forgets the others; Corelog appends and answers each"),
    allow("Fetch", "produce-recoded-to-gzip|generated-*", "responses[*].partitions[*].records.batches[*].payload_crc", "*", "*",
        "another implementation of the codec compresses to other bytes; the records themselves are compared"),
    allow("Produce", "broken-deltas-*", "responses[plain].partition_responses[*].*", "*", "87 InvalidRecord|-1|*Offset delta*", BAD_DELTAS),
    allow("Produce", "broken-length-2147483647|broken-body-empty-Snappy|broken-body-garbage",
        "responses[plain].partition_responses[*].error_code", "-1 UnknownServerError", "87 InvalidRecord", INTERNAL),

    // Records out.
    allow("Fetch", "fetch-partition-limit-negative", "responses[*].partitions[*].*", "-1*|<absent>", "*", INTERNAL),
    allow("Fetch", "fetch-isolation-unknown", "*", "*", "*", INTERNAL),
    allow("ListOffsets", "list-offsets-isolation-unknown", "topics[plain].partitions[*].*", "-1*", "*", INTERNAL),
    allow("Fetch", "fetch-twice", "responses[*].partitions[*].*|responses[*].partitions[*]", "*", "*",
        "of a partition that is named several times Kafka answers the last, Corelog each"),
    allow("Fetch", "generated-*", "responses[*].partitions[*].aborted_transactions", "null", "[]",
        "Kafka loses the (empty) list where a limit leaves no room for the first batch; both mean none"),
    allow("Fetch", "session-topic-deleted", "responses[*].partitions[*].error_code", "3 UnknownTopicOrPartition", "100 UnknownTopicId",
        "Kafka's session remembers the deleted topic's name; to a client that fetches by id both say: refresh"),
    allow("ListOffsets", "list-offsets-greatest-deleted", "topics[plain].partitions[*].*", "*", "*",
        "Kafka may name the record with the greatest timestamp although it is deleted; Corelog looks at what is left"),
    allow("OffsetForLeaderEpoch", "leader-epoch-negative", "topics[plain].partitions[*].leader_epoch", "-2", "-1", NO_EPOCH),
    allow("OffsetForLeaderEpoch", "leader-epoch-negative", "topics[plain].partitions[*].end_offset", "0", "-1", NO_EPOCH),
    allow("DeleteRecords", "delete-records-twice", "topics[plain].partitions[*]*", "*", "*",
        "of several offsets for one partition Kafka takes the last, Corelog one after the other"),
    allow("DeleteRecords", "delete-records-nothing", "topics[plain]", "<absent>", "{name: \"plain\", partitions: []}", EMPTY_TOPIC),
    allow("DescribeLogDirs", "describe-log-dirs-all", "results[*].topics[__consumer_offsets]*", "*", "*",
        "how many records a group leaves, and in which batches, is each coordinator's own affair"),
    allow("DescribeLogDirs", "describe-log-dirs-all", "results[*].topics[plain].partitions[*].partition_size", "*", "*",
        "holds what the allowed differences of Produce left; describe-log-dirs-some compares sizes"),
    allow("DescribeLogDirs", "describe-log-dirs-all", "results[*].topics[recoded-to-gzip].partitions[*].partition_size", "*", "*",
        "another implementation of the codec compresses to other sizes"),

    // Settings.
    allow("DescribeConfigs", "describe-configs-broker*", "*.configs[cores]|*.configs[shards]|*.configs[log.flush.policy]|*.configs[log.flush.method]|*.configs[log.journal.bytes]|*.configs[log.scrub.*]|*.configs[shard.advertised.listeners]", "<absent>", "*",
        "Corelog's own settings"),
    allow("DescribeConfigs", "describe-configs-broker*", "*.configs[log.dir]*value", "\"/tmp/kafka-logs\"", "\"./corelog-data\"",
        "the default directory is Corelog's own"),
    allow("DescribeConfigs", "describe-configs-broker*", "*.configs[socket.*.buffer.bytes]*value", "\"102400\"", "\"-1\"",
        "the kernel tunes socket buffers better than a fixed size"),
    allow("DescribeConfigs", "describe-configs-broker*", "*.configs[zookeeper.connect]*", "*", "null|5|<absent>",
        "Corelog runs with its embedded store here"),
    allow("DescribeConfigs", "describe-configs-documentation", "*.documentation", "*", "*", "documentation is in our own words"),
    allow("AlterConfigs", "alter-resource-twice", "", "<no answer>", "*", NO_ANSWER),
    allow("IncrementalAlterConfigs", "incremental-*unknown-operation|incremental-*negative-operation", "responses[*].*",
        "-1 UnknownServerError|null", "42 InvalidRequest|\"Unknown operations type*", INTERNAL),
];

const NO_GROUP: &str = "a commit with nothing but notes that are too long begins a group in Kafka; Corelog refuses it without asking a group";
const PATTERNS: &str =
    "Kafka resolves patterns behind the answer and raises the epoch once more; Corelog resolves them within it";
const WHICH: &str =
    "which of the partitions a member keeps is the assignor's choice; that each has one owner, the simulation shows";
const FLOORS: &str = "versions that Kafka 4 removed (KIP-896) and no client in use asks for";
const AT_ONCE: &str =
    "Kafka creates topics behind the answer and lets clients ask again; Corelog answers when the topic is there";
const INTERNAL: &str =
    "Kafka runs into an exception of its own and tells UNKNOWN_SERVER_ERROR; Corelog gives a meaningful answer";
const NO_ANSWER: &str = "Kafka runs into an exception of its own and never answers";
const EMPTY_TOPIC: &str = "a topic named without partitions: Corelog repeats it, Kafka leaves it out";
const BAD_DELTAS: &str = "offset deltas that do not count up: Kafka stores such a batch, and consumers then see offsets that are not \
    the next batch's; or fails at it in an exception of its own if it is compressed. Corelog refuses it";
const NO_EPOCH: &str = "a negative epoch is none: Corelog says that it is unknown";

const fn allow(
    api: &'static str,
    case: &'static str,
    path: &'static str,
    kafka: &'static str,
    corelog: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { api, case, path, kafka, corelog, reason }
}

impl Allowed {
    pub fn allows(&self, exchange: &Exchange, difference: &FieldDifference) -> bool {
        matches(self.api, &exchange.api)
            && matches(self.case, &exchange.case)
            && matches(self.path, &difference.path)
            && matches(self.kafka, &difference.oracle)
            && matches(self.corelog, &difference.subject)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    pattern.split('|').any(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(&pattern[..star]) else { return false };
    let pattern = &pattern[star + 1..];
    loop {
        if glob(pattern, rest) {
            return true;
        }
        let Some((_, shorter)) = rest.split_first() else { return false };
        rest = shorter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("*", "") && matches("a*c", "abc") && matches("a*c", "ac") && matches("x|a*", "ab"));
        assert!(!matches("a*c", "abd") && !matches("a", "ab") && !matches("", "a"));
        assert!(matches("topics[*].error_code", "topics[plain].error_code"));
    }
}
