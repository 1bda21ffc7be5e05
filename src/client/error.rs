//! What can go wrong between the client and a cluster, whose fault it is, and what to do next.

use kafka_protocol::error::ResponseError;
use std::io;
use std::sync::Arc;

/// An error of the client; `hint` says what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    #[error("'{text}' is not a broker address: {reason}")]
    BadAddress { text: String, reason: String },
    #[error("no broker answered: {tried}")]
    Unreachable { tried: String },
    #[error("cannot connect to {addr}: {source}")]
    Connect { addr: String, source: Arc<io::Error> },
    #[error("connection to {addr} broke while {doing}: {source}")]
    Io { addr: String, doing: String, source: Arc<io::Error> },
    #[error("{addr} closed the connection while {doing}")]
    Closed { addr: String, doing: String },
    #[error("{addr} did not answer within {after_ms} ms while {doing}")]
    TimedOut { addr: String, doing: String, after_ms: u128 },
    #[error("{addr} does not speak the Kafka protocol: {found}")]
    NotKafka { addr: String, found: String },
    #[error("{addr} sent an answer to {api} v{version} that cannot be read: {reason}")]
    Malformed { addr: String, api: String, version: i16, reason: String },
    #[error("{addr} does not serve {api} in a version known here (ours: {ours}, its: {theirs})")]
    Unsupported { addr: String, api: String, ours: String, theirs: String },
    #[error("{what}: {}{}", code_name(*code), message.as_deref().filter(|m| !m.is_empty()).map(|m| format!(": {m}")).unwrap_or_default())]
    Broker { what: String, code: ResponseError, message: Option<String>, retriable: bool },
    #[error("{0}")]
    Invalid(String),
    #[error("cannot write what was read: {0}")]
    Output(Arc<io::Error>),
}

impl ClientError {
    /// An answer's error code as an error; None for 0.
    pub fn from_code(what: impl Into<String>, code: i16, message: Option<&str>) -> Option<ClientError> {
        let code = ResponseError::try_from_code(code)?;
        let message = message.filter(|m| !m.is_empty()).map(str::to_owned);
        Some(ClientError::Broker { what: what.into(), code, message, retriable: code.is_retriable() })
    }

    /// An error of the client's own making that stands for a broker's code, such as a leader that is not listed.
    pub fn like(code: ResponseError, what: impl Into<String>, message: &str) -> ClientError {
        let message = Some(message.to_owned());
        ClientError::Broker { what: what.into(), code, message, retriable: code.is_retriable() }
    }

    /// The same error, final unless its code is one of these: "unknown topic" passes for a producer that waits for
    /// a topic, and is the answer for one who asked to delete it.
    pub fn retriable_only_for(self, codes: &[ResponseError]) -> ClientError {
        match self {
            ClientError::Broker { what, code, message, .. } => {
                ClientError::Broker { what, code, message, retriable: codes.contains(&code) }
            }
            other => other,
        }
    }

    pub fn output(error: io::Error) -> ClientError {
        ClientError::Output(Arc::new(error))
    }

    /// The broker's code, if it is the broker that said no.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            ClientError::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether trying again, after fresh metadata, may help.
    pub fn retriable(&self) -> bool {
        match self {
            ClientError::Broker { retriable, .. } => *retriable,
            ClientError::Connect { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Io { .. }
            | ClientError::Closed { .. }
            | ClientError::TimedOut { .. } => true,
            _ => false,
        }
    }

    /// What the operator can do next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            ClientError::BadAddress { .. } => "give --bootstrap host:port[,host:port…], e.g. localhost:9092",
            ClientError::Unreachable { .. } | ClientError::Connect { .. } => {
                "is the broker running, and is --bootstrap (or CORELOG_BOOTSTRAP) its listener's address? \
                 Brokers are then reached at their advertised addresses, which must be reachable from here too"
            }
            ClientError::Io { .. } | ClientError::Closed { .. } => {
                "the broker's log says why; a TLS or SASL listener also closes plain connections: use its PLAINTEXT port"
            }
            ClientError::TimedOut { .. } => "the broker is overloaded or stuck; raise --timeout or look at its log",
            ClientError::NotKafka { .. } => "something else listens there; check the port in --bootstrap",
            ClientError::Malformed { .. } => "please report this with the broker's name and version",
            ClientError::Unsupported { .. } => {
                "the broker is too old, too new, or does not offer this; check its version"
            }
            ClientError::Invalid(_) | ClientError::Output(_) => return None,
            ClientError::Broker { code, .. } => return code_hint(*code),
        })
    }
}

/// What to do about a broker's error code, where something can be said.
pub fn code_hint(code: ResponseError) -> Option<&'static str> {
    use ResponseError as E;
    Some(match code {
        E::UnknownTopicOrPartition => "`corelog topic list` shows what exists; `corelog topic create` makes it",
        E::InvalidTopicException => {
            "a topic's name has 1 to 249 of ASCII letters, digits, '.', '_' and '-', and is not '.' or '..'"
        }
        E::TopicAlreadyExists => "choose another name, or pass --if-not-exists to accept the one that is there",
        E::InvalidReplicationFactor => "there are not enough machines alive; lower --replication-factor",
        E::InvalidPartitions => "partitions can only be added: ask for more than there are, and at least 1",
        E::MessageTooLarge => "raise the limit: `corelog topic alter TOPIC --set max.message.bytes=N`",
        E::RecordListTooLarge => "a batch must fit a segment: `corelog topic alter TOPIC --set segment.bytes=N`",
        E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than min.insync.replicas asks: `corelog topic describe TOPIC` shows the ISR"
        }
        E::OffsetOutOfRange => "the records are gone or not yet there; see --reset",
        E::InvalidTimestamp => "the topic's message.timestamp.before.max.ms / after.max.ms bound a record's timestamp",
        E::InvalidRecord => "a compacted topic needs a key in every record: use -K or --key-field",
        E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed => "the broker's ACLs do not allow this",
        E::TopicDeletionDisabled => "set delete.topic.enable=true on the brokers",
        E::NotController | E::NotLeaderOrFollower | E::LeaderNotAvailable => {
            "the cluster is electing; try again, or raise --timeout"
        }
        E::KafkaStorageError => "the broker's disk failed; its log says which",
        E::GroupIdNotFound => "`corelog group list` shows what exists",
        E::NonEmptyGroup | E::GroupSubscribedToTopic => {
            "stop its members first; `corelog group describe` with --members shows them"
        }
        E::InvalidGroupId => "a group's name is at least one character",
        E::UnknownMemberId => "`corelog group describe` with --members shows who is there",
        E::InconsistentGroupProtocol => "the group's members share out by other assignors: see --assignor",
        E::GroupMaxSizeReached => "the group is full: the broker's group.max.size says how many members it may have",
        E::InvalidSessionTimeout => {
            "the broker's group.min.session.timeout.ms and group.max.session.timeout.ms bound it"
        }
        E::GroupAuthorizationFailed => "the broker's ACLs do not allow this",
        E::CoordinatorLoadInProgress => "the coordinator is reading its log; try again, or raise --timeout",
        E::UnsupportedCompressionType => "choose another --compression",
        _ => return None,
    })
}

/// Kafka's own spelling of an error code, e.g. `NOT_LEADER_OR_FOLLOWER`.
pub fn code_name(code: ResponseError) -> String {
    if let ResponseError::Unknown(n) = code {
        return format!("error code {n}");
    }
    let camel = format!("{code:?}");
    let mut name = String::with_capacity(camel.len() + 8);
    for (at, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_errors_bear_kafkas_names_and_a_hint() {
        let error = ClientError::from_code("create topic t", 36, Some("Topic 't' already exists.")).expect("an error");
        assert_eq!(error.to_string(), "create topic t: TOPIC_ALREADY_EXISTS: Topic 't' already exists.");
        assert!(error.hint().is_some_and(|h| h.contains("--if-not-exists")));
        assert!(!error.retriable());
        assert!(ClientError::from_code("x", 6, None).is_some_and(|e| e.retriable()));
        assert!(ClientError::from_code("x", 0, None).is_none());
        assert_eq!(ClientError::from_code("x", 999, None).expect("an error").to_string(), "x: error code 999");
    }
}
