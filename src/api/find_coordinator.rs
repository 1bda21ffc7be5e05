//! FindCoordinator (key 10), versions 0 to 6; from version 4 on for many keys at once (KIP-699).
//!
//! A group's coordinator is the broker that leads its partition of `__consumer_offsets`. The topic is made when it is first asked for,
//! and the answer waits for that. There is none (COORDINATOR_NOT_AVAILABLE) while that partition's log directory is offline.
//!
//! Transactions are not served yet: their keys are refused with INVALID_REQUEST and a message: clients do not repeat that, while
//! COORDINATOR_NOT_AVAILABLE would have them ask for ever. A transactional id asked for below version 4 is refused with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED instead: librdkafka, which asks so, repeats any other code until its own time is up,
//! and shows our message with this one. Clients that ask in batches (Java) take INVALID_REQUEST as fatal, with our message, of
//! which the other code would rob them.

use super::admin::{self, Patience, Pending, refusal};
use super::brokers::{NO_BROKER, advertised_host};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::config::groups::GroupConfig;
use crate::base::ids::{BrokerId, TopicPartition};
use crate::cluster::image::ClusterImage;
use crate::controller::handle::{AdminError, CreatedTopic, NewTopic};
use crate::group::coordinator::{OFFSETS_TOPIC, partition_of};
use crate::wire::errors::message_of;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::FindCoordinator as i16, advertised_min: 0, accepted_min: 0, max: 6, handle };

/// The first version that asks for many keys.
const BATCHED_SINCE: i16 = 4;
/// A port where there is none.
const NO_PORT: i32 = -1;
/// Whose coordinator is wanted.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// What Kafka says where nothing is wrong.
const NO_MESSAGE: &str = "NONE";

/// Where a coordinator is.
struct Found {
    node: i32,
    host: StrBytes,
    port: i32,
}

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: FindCoordinatorRequest| {
        if request.key_type != GROUP || context.offsets_partitions().is_some() {
            return info.reply(&answer(context, info, request));
        }
        let making = make_topic(context);
        let (context, info) = (Rc::clone(context), info.clone());
        Outcome::Wait(Box::pin(async move {
            for refused in making.results().await.into_iter().filter_map(Result::err) {
                // Somebody else may have been quicker; what is missing then shows below.
                if refused.code != ResponseError::TopicAlreadyExists {
                    tracing::warn!("{OFFSETS_TOPIC} cannot be created: {:?} {:?}", refused.code, refused.message);
                }
            }
            info.answer(&answer(&context, &info, request))
        }))
    })
}

fn answer(context: &ShardContext, info: &RequestInfo, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let image = context.image();
    let find = |key: &StrBytes| match request.key_type {
        GROUP => find_group(context, &image, info, key),
        kind => Err(refused(kind, info.version)),
    };
    let none = || Found { node: NO_BROKER.0, host: StrBytes::default(), port: NO_PORT };
    if info.version >= BATCHED_SINCE {
        let answers = request.coordinator_keys.iter().map(|key| {
            let (found, error) = match find(key) {
                Ok(found) => (found, None),
                Err(error) => (none(), Some(error)),
            };
            let no_message = error.is_none().then(StrBytes::default);
            Coordinator::default()
                .with_key(key.clone())
                .with_error_code(admin::code(error.as_ref()))
                .with_error_message(admin::message(error.as_ref()).or(no_message))
                .with_node_id(kafka_protocol::messages::BrokerId(found.node))
                .with_host(found.host)
                .with_port(found.port)
        });
        return FindCoordinatorResponse::default().with_coordinators(answers.collect());
    }
    let (found, error) = match find(&request.key) {
        Ok(found) => (found, None),
        Err(error) => (none(), Some(error)),
    };
    let no_message = error.is_none().then(|| StrBytes::from_static_str(NO_MESSAGE));
    FindCoordinatorResponse::default()
        .with_error_code(admin::code(error.as_ref()))
        .with_error_message(admin::message(error.as_ref()).or(no_message))
        .with_node_id(kafka_protocol::messages::BrokerId(found.node))
        .with_host(found.host)
        .with_port(found.port)
}

fn find_group(
    context: &ShardContext,
    image: &ClusterImage,
    info: &RequestInfo,
    group: &str,
) -> Result<Found, AdminError> {
    let unavailable = || AdminError { code: ResponseError::CoordinatorNotAvailable, message: None };
    let partitions = context.offsets_partitions().ok_or_else(unavailable)?;
    let topic = image.topic(OFFSETS_TOPIC).ok_or_else(unavailable)?;
    let index = partition_of(group, partitions);
    let place = TopicPartition { topic: topic.id, partition: index };
    let lost = context.partitions.shared().disks.lost();
    // As in Metadata: whose log directory is offline leads nothing there.
    let is_lost = |id: &BrokerId| lost.as_ref().and_then(|lost| lost.get(id)).is_some_and(|all| all.contains(&place));
    let leader = topic.partition(index).and_then(|partition| partition.leader).filter(|leader| !is_lost(leader));
    let broker = leader.and_then(|leader| image.brokers.get(&leader)).ok_or_else(unavailable)?;
    Ok(Found { node: broker.id.0, host: advertised_host(broker, info.local_addr), port: i32::from(broker.port) })
}

/// Has the topic of groups and offsets made. Fewer machines than its replication factor asks for are enough.
fn make_topic(context: &Rc<ShardContext>) -> Pending<CreatedTopic> {
    let GroupConfig { topic_partitions, topic_replication_factor, topic_segment_bytes, .. } = context.config().groups;
    let nodes: BTreeSet<_> = context.image().brokers.keys().map(|broker| broker.node()).collect();
    let alive = i16::try_from(nodes.len()).unwrap_or(i16::MAX).max(1);
    let settings = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", topic_segment_bytes.to_string()),
    ];
    let topic = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: topic_partitions,
        replication_factor: topic_replication_factor.min(alive),
        assignment: BTreeMap::new(),
        settings: settings.map(|(name, value)| (name.to_owned(), Some(value))).to_vec(),
    };
    let control = context.control.clone();
    Pending::send(Patience::DEFAULT, 1, async move { control.create_topics(vec![topic], false).await })
}

/// Why there is no coordinator for keys of this type: a transactional id (1), a share group (2).
fn refused(key_type: i8, version: i16) -> AdminError {
    let unserved_with = |code, what| refusal(code, format!("{what} are not supported by this broker"));
    let unserved = |what| unserved_with(ResponseError::InvalidRequest, what);
    match key_type {
        TRANSACTION if version < BATCHED_SINCE => {
            unserved_with(ResponseError::TransactionalIdAuthorizationFailed, "Transactions")
        }
        TRANSACTION => unserved("Transactions"),
        SHARE => unserved("Share groups"),
        // Kafka's own words for an error that has none.
        _ => refusal(ResponseError::InvalidRequest, message_of(ResponseError::InvalidRequest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{Broker, add_topic, image};
    use crate::base::config::BrokerConfig;
    use crate::base::disks::LogDirs;
    use crate::base::ids::PartitionIndex;
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn many_keys_are_answered_each() {
        let broker = Broker::empty();
        for version in BATCHED_SINCE..=SERVED.max {
            let keys = ["a", "b"].map(StrBytes::from_static_str);
            let request = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(keys.to_vec());
            let told = broker.ask(version, &request).coordinators;
            let told: Vec<_> = told.iter().map(|c| (c.key.as_str(), c.error_code, c.node_id.0, c.port)).collect();
            assert_eq!(told, [("a", 42, -1, -1), ("b", 42, -1, -1)]);
        }
    }

    /// librdkafka asked again until its own time was up.
    #[test]
    fn a_transactional_producer_fails_at_once() {
        let broker = Broker::empty();
        for version in 1..BATCHED_SINCE {
            let response = broker.ask(version, &FindCoordinatorRequest::default().with_key_type(1));
            assert_eq!(response.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
            assert_eq!(response.error_message.as_deref(), Some("Transactions are not supported by this broker"));
        }
    }

    #[test]
    fn an_unknown_kind_of_key_is_refused_in_kafkas_words() {
        let response = Broker::empty().ask(2, &FindCoordinatorRequest::default().with_key_type(9));
        assert_eq!(response.error_code, 42);
        assert!(response.error_message.is_some_and(|message| message.starts_with("This most likely occurs because")));
    }

    /// Clients were sent to a shard that could take nothing, and back here, for ever.
    #[test]
    fn a_group_whose_log_directory_is_offline_has_no_coordinator() {
        let mut image = image(2);
        let topic = add_topic(&mut image, OFFSETS_TOPIC, &[0, 1]);
        let disks = Arc::new(LogDirs::new([("/lost".into(), None)]));
        let mut broker = Broker::empty();
        let config = BrokerConfig::from_texts(BTreeMap::new()).expect("defaults");
        broker.context =
            ShardContext::on_disks_for_tests(image, broker.context.control.clone(), config, Arc::clone(&disks));
        let nodes = || {
            let keys = ["a", "b"].map(StrBytes::from_static_str);
            let request = FindCoordinatorRequest::default().with_coordinator_keys(keys.to_vec());
            let told = broker.ask(SERVED.max, &request).coordinators;
            told.iter().map(|c| (c.error_code, c.node_id.0)).collect::<Vec<_>>()
        };
        // Java's hash of "a" is 97.
        assert_eq!(nodes(), [(0, 1), (0, 0)]);
        let place = TopicPartition { topic, partition: PartitionIndex(1) };
        disks.take_offline(Path::new("/lost"), "it failed");
        disks.set_lost(BrokerId(1), [place].into());
        assert_eq!(nodes(), [(ResponseError::CoordinatorNotAvailable.code(), -1), (0, 0)]);
    }
}
