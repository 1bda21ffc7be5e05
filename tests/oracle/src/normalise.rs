//! What must differ between two brokers, and by what it is replaced before the answers are compared.
//!
//! Two tables say it all: fields whose values each broker chooses itself, and lists that have no order. A broker's own
//! values are learned from its answers (`Known`), so "the id of topic t" equals "the id of topic t", and a wrong one shows.

use crate::batches;
use crate::tree::Tree;
use kafka_protocol::error::ResponseError;
use std::time::{SystemTime, UNIX_EPOCH};

/// Fields whose values differ from broker to broker, by name, in whatever message they stand.
const MEANINGS: &[(&[&str], Meaning)] = &[
    (
        &[
            "node_id",
            "broker_id",
            "leader_id",
            "controller_id",
            "broker_ids",
            "replica_nodes",
            "isr_nodes",
            "offline_replicas",
            "preferred_read_replica",
        ],
        Meaning::Broker,
    ),
    (&["port"], Meaning::Port),
    (&["cluster_id"], Meaning::ClusterId),
    (&["topic_id"], Meaning::TopicId),
    (&["producer_id"], Meaning::Producer),
    (&["session_id"], Meaning::Session),
    (&["member_id", "leader"], Meaning::Member),
    (&["log_dir"], Meaning::LogDir),
    (&["total_bytes", "usable_bytes"], Meaning::DiskSpace),
    // Broker-chosen only under LogAppendTime; a client's own times lie far from now, so they are compared as they are.
    (&["log_append_time_ms", "max_timestamp", "base_timestamp", "timestamp"], Meaning::Time),
    (&["error_code"], Meaning::ErrorCode),
    (&["records"], Meaning::Records),
];

/// Lists that are sets or maps in the broker, by the type of their elements, with what tells the elements apart: the
/// fields together, or after a `|` another one where those before it are empty.
pub const UNORDERED: &[(&str, &[&str])] = &[
    ("ApiVersion", &["api_key"]),
    ("MetadataResponseBroker", &["node_id"]),
    ("MetadataResponseTopic", &["name", "|", "topic_id"]),
    ("MetadataResponsePartition", &["partition_index"]),
    ("TopicProduceResponse", &["name"]),
    ("PartitionProduceResponse", &["index"]),
    ("FetchableTopicResponse", &["topic", "topic_id"]),
    ("PartitionData", &["partition_index"]),
    ("ListOffsetsTopicResponse", &["name"]),
    ("ListOffsetsPartitionResponse", &["partition_index"]),
    ("OffsetCommitResponseTopic", &["name"]),
    ("OffsetCommitResponsePartition", &["partition_index"]),
    ("OffsetFetchResponseTopic", &["name"]),
    ("OffsetFetchResponseTopics", &["name"]),
    ("ListedGroup", &["group_id"]),
    ("CreatableTopicResult", &["name"]),
    ("CreatableTopicConfigs", &["name"]),
    ("DeletableTopicResult", &["name", "|", "topic_id"]),
    ("CreatePartitionsTopicResult", &["name"]),
    ("DeleteRecordsTopicResult", &["name"]),
    ("DeleteRecordsPartitionResult", &["partition_index"]),
    ("DescribeConfigsResult", &["resource_type", "resource_name"]),
    ("DescribeConfigsResourceResult", &["name"]),
    ("AlterConfigsResourceResponse", &["resource_type", "resource_name"]),
    ("DescribeClusterBroker", &["broker_id"]),
    ("DescribeLogDirsResult", &["log_dir"]),
    ("DescribeLogDirsTopic", &["name"]),
    ("DescribeLogDirsPartition", &["partition_index"]),
    ("OffsetForLeaderTopicResult", &["topic"]),
    ("Coordinator", &["key"]),
    ("DescribedGroup", &["group_id"]),
    ("DescribedGroupMember", &["member_id"]),
    ("JoinGroupResponseMember", &["member_id"]),
    ("TopicPartitions", &["topic_id"]),
    // Of ConsumerGroupDescribe.
    ("Member", &["member_id"]),
];

#[derive(Clone, Copy)]
enum Meaning {
    Broker,
    Port,
    ClusterId,
    TopicId,
    Producer,
    Session,
    Member,
    LogDir,
    DiskSpace,
    Time,
    ErrorCode,
    Records,
}

/// What one broker has said of itself so far.
#[derive(Default)]
pub struct Known {
    /// Broker id and port, in ascending order.
    brokers: Vec<(i64, i64)>,
    cluster_id: Option<String>,
    /// Id and name, in the order seen: a topic made again has a second id.
    topic_ids: Vec<(String, String)>,
    /// Ids, each with the number of the exchange that gave it.
    producers: Vec<(i64, usize)>,
    sessions: Vec<(i64, usize)>,
    /// Ids of group members that the broker made up, each with the number of the exchange that told it first.
    members: Vec<(String, usize)>,
    log_dirs: Vec<String>,
    /// Texts that name this broker's own places, such as its directory, and what replaces them.
    places: Vec<(String, &'static str)>,
    /// Milliseconds since 1970 when the run began.
    began_ms: i64,
}

impl Known {
    pub fn new(places: Vec<(String, &'static str)>) -> Known {
        Known { places, began_ms: now_ms(), ..Known::default() }
    }

    /// Replaces what must differ and sorts what has no order.
    /// `exchange` is the same number for both brokers.
    pub fn normalise(&mut self, answer: Tree, exchange: usize) -> Tree {
        self.learn(&answer, exchange);
        sorted(self.replaced("", answer))
    }

    /// The same within a text: own places, topic ids, and the bounds of time that move with the clock.
    fn text(&self, mut text: String) -> String {
        for (place, name) in &self.places {
            text = text.replace(place.as_str(), name);
        }
        // A broker's id in messages that tell it.
        if ["expected 1", "Duplicate brokers", "Duplicate replica"].iter().any(|start| text.contains(start)) {
            for (id, _) in &self.brokers {
                text = text.replace(&format!(" {id}, {id} "), " <broker>, <broker> ");
                text = text.replace(&format!("expected {id}"), "expected <broker>");
            }
        }
        const BOUNDS: &str = "should be within [";
        if let Some(start) = text.find(BOUNDS).map(|at| at + BOUNDS.len())
            && let Some(length) = text[start..].find(']')
        {
            text.replace_range(start..start + length, "<bounds>");
        }
        for (id, name) in &self.topic_ids {
            text = text.replace(id.as_str(), &format!("<id of {name}>"));
        }
        text
    }

    pub fn broker_ids(&self) -> Vec<i32> {
        self.brokers.iter().filter_map(|&(id, _)| i32::try_from(id).ok()).collect()
    }

    fn learn(&mut self, tree: &Tree, exchange: usize) {
        match tree {
            Tree::List(items) => items.iter().for_each(|item| self.learn(item, exchange)),
            Tree::Struct(name, fields) => {
                let number = |field| tree.field(field).and_then(Tree::as_i64);
                let text = |field| tree.field(field).and_then(Tree::as_text).map(str::to_owned);
                if let (Some(id), Some(port), true) =
                    (number("node_id").or(number("broker_id")), number("port"), name.ends_with("Broker"))
                    && !self.brokers.contains(&(id, port))
                {
                    self.brokers.push((id, port));
                    self.brokers.sort_unstable();
                }
                if let (Some(topic), Some(Tree::Word(id))) = (text("name"), tree.field("topic_id"))
                    && !is_zero_id(id)
                    && !self.topic_ids.iter().any(|(known, _)| known == id)
                {
                    self.topic_ids.push((id.clone(), topic));
                }
                if let Some(id) = text("cluster_id") {
                    self.cluster_id.get_or_insert(id);
                }
                for (field, seen) in [("producer_id", &mut self.producers), ("session_id", &mut self.sessions)] {
                    if let Some(id) = number(field)
                        && (field == "session_id" && id > 0 && name == "FetchResponse"
                            || field == "producer_id" && id >= 0 && name == "InitProducerIdResponse")
                        && !seen.iter().any(|&(known, _)| known == id)
                    {
                        seen.push((id, exchange));
                    }
                }
                if let Some(id) = text("member_id")
                    && name == "JoinGroupResponse"
                    && chosen_part(&id).is_some()
                    && !self.members.iter().any(|(known, _)| *known == id)
                {
                    self.members.push((id, exchange));
                }
                if let Some(dir) = text("log_dir")
                    && !dir.is_empty()
                    && !self.log_dirs.contains(&dir)
                {
                    self.log_dirs.push(dir);
                }
                fields.iter().for_each(|(_, value)| self.learn(value, exchange));
            }
            _ => {}
        }
    }

    fn replaced(&self, field: &str, tree: Tree) -> Tree {
        match tree {
            Tree::List(items) => Tree::List(items.into_iter().map(|item| self.replaced(field, item)).collect()),
            Tree::Struct(name, fields) => {
                // A resource's name is a broker's id where the type says so.
                let of_broker = fields.iter().any(|(field, value)| field == "resource_type" && *value == Tree::word(4));
                let fields = fields.into_iter().map(|(field, value)| {
                    if field == "resource_name" && of_broker {
                        let id = value.as_text().map(Tree::word);
                        return (field, id.map_or(value, |id| self.meaning(Meaning::Broker, id)));
                    }
                    let value = self.replaced(&field, value);
                    (field, value)
                });
                Tree::Struct(name, fields.collect())
            }
            leaf => match MEANINGS.iter().find(|(fields, _)| fields.contains(&field)) {
                Some(&(_, meaning)) => self.meaning(meaning, leaf),
                None => match leaf {
                    Tree::Text(text) => Tree::Text(self.text(text)),
                    leaf => leaf,
                },
            },
        }
    }

    fn meaning(&self, meaning: Meaning, leaf: Tree) -> Tree {
        let number = leaf.as_i64();
        let position = |seen: &[i64]| number.and_then(|number| seen.iter().position(|&known| known == number));
        let given =
            |seen: &[(i64, usize)]| seen.iter().find(|(id, _)| Some(*id) == number).map(|(_, exchange)| *exchange);
        let brokers = |part: fn(&(i64, i64)) -> i64| self.brokers.iter().map(part).collect::<Vec<_>>();
        let replaced = match meaning {
            Meaning::Broker => position(&brokers(|broker| broker.0)).map(|index| format!("<broker {index}>")),
            Meaning::Port => position(&brokers(|broker| broker.1)).map(|index| format!("<port {index}>")),
            Meaning::Producer => given(&self.producers).map(|exchange| format!("<producer of exchange {exchange}>")),
            Meaning::Session => given(&self.sessions).map(|exchange| format!("<session of exchange {exchange}>")),
            Meaning::Member => leaf.as_text().and_then(|id| {
                let chosen = chosen_part(id)?;
                let known = self.members.iter().find(|(known, _)| known == id);
                // Others may be told of a member before its own answer comes.
                Some(known.map_or(format!("<{chosen}>"), |(_, exchange)| format!("<{chosen} of exchange {exchange}>")))
            }),
            Meaning::ClusterId => {
                leaf.as_text().filter(|&id| self.cluster_id.as_deref() == Some(id)).map(|_| "<cluster id>".into())
            }
            Meaning::LogDir => {
                let index = leaf.as_text().and_then(|dir| self.log_dirs.iter().position(|known| known == dir));
                index.map(|index| format!("<log dir {index}>"))
            }
            Meaning::TopicId => match &leaf {
                Tree::Word(id) => self.topic_name(id),
                _ => None,
            },
            Meaning::DiskSpace => number.filter(|&bytes| bytes > 0).map(|_| "<disk space>".into()),
            Meaning::Time => {
                number.filter(|time| (self.began_ms - 1_000..=now_ms() + 1_000).contains(time)).map(|_| "<now>".into())
            }
            Meaning::ErrorCode => number.and_then(|code| i16::try_from(code).ok()).map(error_name),
            Meaning::Records => match &leaf {
                Tree::Bytes(bytes) => return self.replaced("", batches::describe(bytes)),
                _ => None,
            },
        };
        replaced.map_or(leaf, Tree::Word)
    }

    fn topic_name(&self, id: &str) -> Option<String> {
        let (_, name) = self.topic_ids.iter().find(|(known, _)| known == id)?;
        let nth = self.topic_ids.iter().filter(|(_, other)| other == name).position(|(known, _)| known == id)?;
        Some(format!("<id {nth} of {name}>"))
    }
}

/// `NONE`, or the code and its name.
pub fn error_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "0 NONE".into(),
        Some(error) => format!("{code} {error:?}"),
    }
}

/// What tells the elements of an unordered list apart; none for lists whose order counts.
pub fn keys_of(items: &[Tree]) -> Option<Vec<String>> {
    let Some(Tree::Struct(name, _)) = items.first() else { return None };
    let (_, fields) = UNORDERED.iter().find(|(element, _)| element == name)?;
    let key = |item: &Tree| {
        let mut parts: Vec<String> = Vec::new();
        for field in *fields {
            match item.field(field) {
                _ if *field == "|" && !parts.is_empty() => break,
                Some(Tree::Text(text)) if !text.is_empty() => parts.push(text.clone()),
                Some(Tree::Word(word)) if !is_zero_id(word) => parts.push(word.clone()),
                _ => {}
            }
        }
        parts.join("/")
    };
    Some(items.iter().map(key).collect())
}

fn sorted(tree: Tree) -> Tree {
    match tree {
        Tree::List(items) => {
            let items: Vec<Tree> = merged(items).into_iter().map(sorted).collect();
            let Some(keys) = keys_of(&items) else { return Tree::List(items) };
            let mut keyed: Vec<_> = keys.into_iter().zip(items).collect();
            keyed.sort_by(|(left, _), (right, _)| left.cmp(right));
            Tree::List(keyed.into_iter().map(|(_, item)| item).collect())
        }
        Tree::Struct(name, fields) => {
            Tree::Struct(name, fields.into_iter().map(|(field, value)| (field, sorted(value))).collect())
        }
        leaf => leaf,
    }
}

/// Fetch answers name a topic anew whenever another came in between: its partitions are brought together.
fn merged(items: Vec<Tree>) -> Vec<Tree> {
    let is_fetched = |item: &Tree| matches!(item, Tree::Struct(name, _) if name == "FetchableTopicResponse");
    if !items.first().is_some_and(is_fetched) {
        return items;
    }
    let mut out: Vec<Tree> = Vec::new();
    for item in items {
        let same =
            |other: &&mut Tree| ["topic", "topic_id"].iter().all(|field| other.field(field) == item.field(field));
        let Some(Tree::List(more)) = item.field("partitions").cloned() else { continue };
        match out.iter_mut().find(same) {
            Some(Tree::Struct(_, fields)) => {
                let partitions = fields.iter_mut().find(|(name, _)| name == "partitions");
                if let Some((_, Tree::List(partitions))) = partitions {
                    partitions.extend(more);
                }
            }
            _ => out.push(item),
        }
    }
    out
}

/// Of a member's id that a broker made up, what comes before its own part: the client's id, or the member's instance.
fn chosen_part(id: &str) -> Option<&str> {
    let (chosen, own) = id.split_at_checked(id.len().checked_sub(OWN_ID_LEN)?)?;
    let is_own = own.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    chosen.strip_suffix('-').filter(|_| is_own)
}

/// Characters of a UUID as text.
const OWN_ID_LEN: usize = 36;

fn is_zero_id(id: &str) -> bool {
    id == "00000000-0000-0000-0000-000000000000"
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}
