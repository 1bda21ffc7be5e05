//! Metadata (key 3), versions 0 to 12.
//!
//! - All topics are asked for by an empty list in version 0 and by a null list later; an empty list then means none.
//! - From version 12 on, topics may be asked for by id; if any topic is, the names in the same request are ignored, as
//!   Kafka does. Unknown ids are answered with UNKNOWN_TOPIC_ID. In versions 10 and 11, whose schema has the id already,
//!   an id or a null name is refused with INVALID_REQUEST for every topic.
//! - An unknown topic is created if the client allows it (always before version 4) and `auto.create.topics.enable` is
//!   set. Kafka answers LEADER_NOT_AVAILABLE once and lets the client ask again; here the new topic can be used when
//!   its creation is answered, so the answer is the topic itself.
//! - A replica in a log directory that is offline is an offline replica, and does not lead, as in Kafka.
//! - A partition without a live leader has LEADER_NOT_AVAILABLE and leader -1; its epoch, replicas and in-sync replicas
//!   are told all the same. Version 0 leaves dead replicas out and marks the partition with REPLICA_NOT_AVAILABLE.
//! - So is a partition of the asked shard whose log is still being opened after a start: clients ask again until it is.
//! - What is told is the image at the time when all earlier answers of the connection have been sent: a client that
//!   pipelines its requests sees here the topic that it created just before.
//!
//! Omitted: internal topics are not created by being asked for (their coordinators create them), so there they are
//! unknown. LISTENER_NOT_FOUND cannot occur: every broker has one listener.

use super::admin::{Patience, Pending};
use super::authorized_operations as operations;
use super::brokers;
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use crate::cluster::image::{Broker, ClusterImage, Partition, Topic};
use crate::cluster::topic_name;
use crate::controller::handle::{AdminResult, CreatedTopic, NewTopic};
use bytes::Bytes;
use indexmap::IndexSet;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

pub const SERVED: Served = Served { key: ApiKey::Metadata as i16, advertised_min: 0, accepted_min: 0, max: 12, handle };

/// The first version in which topics can be asked for by id.
const BY_ID_SINCE: i16 = 12;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: MetadataRequest| {
        let wanted = match Wanted::of(&request, info.version) {
            Ok(wanted) => wanted,
            Err(code) => return info.reply(&refusal(&request, code)),
        };
        let creation = request.allow_auto_topic_creation.then(|| Creation::start(context, &wanted)).flatten();
        let (context, info) = (Rc::clone(context), info.clone());
        Outcome::Wait(Box::pin(async move {
            let refused = match creation {
                Some(creation) => creation.refused().await,
                None => HashMap::new(),
            };
            let (image, lost) = (context.image(), context.partitions.shared().disks.lost());
            let is_opening = |topic, index| context.partitions.is_opening(topic, PartitionIndex(index));
            let (image, lost, info, is_opening) = (&*image, lost.as_ref(), &info, &is_opening);
            let request = &request;
            info.answer(&Answering { image, lost, is_opening, info, request, refused }.response(&wanted))
        }))
    })
}

/// The topics that a request is about, each once, in the order asked.
enum Wanted {
    All,
    Names(IndexSet<StrBytes>),
    Ids(IndexSet<TopicId>),
}

impl Wanted {
    fn of(request: &MetadataRequest, version: i16) -> Result<Self, ResponseError> {
        let Some(topics) = &request.topics else {
            return Ok(Wanted::All);
        };
        if version == 0 && topics.is_empty() {
            return Ok(Wanted::All);
        }
        if version < BY_ID_SINCE && topics.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil()) {
            return Err(ResponseError::InvalidRequest);
        }
        let ids: IndexSet<_> =
            topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil()).map(TopicId).collect();
        if !ids.is_empty() {
            return Ok(Wanted::Ids(ids));
        }
        // Neither name nor id: Kafka trips over it, and that is what it answers.
        let name = |topic: &TopicName| topic.0.clone();
        let names: Option<IndexSet<_>> = topics.iter().map(|topic| topic.name.as_ref().map(name)).collect();
        names.map(Wanted::Names).ok_or(ResponseError::UnknownServerError)
    }
}

/// The answer to a request that is refused as a whole.
fn refusal(request: &MetadataRequest, code: ResponseError) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_error_code(code.code())
    });
    MetadataResponse::default().with_controller_id(wire_id(brokers::NO_BROKER)).with_topics(topics.collect())
}

/// Unknown topics on their way into being; started in stage one, so that a later request of the connection finds them.
struct Creation {
    names: Vec<StrBytes>,
    pending: Pending<CreatedTopic>,
}

impl Creation {
    fn start(context: &Rc<ShardContext>, wanted: &Wanted) -> Option<Self> {
        let Wanted::Names(names) = wanted else {
            return None;
        };
        if !context.config().auto_create_topics_enable {
            return None;
        }
        let image = context.image();
        let creatable = |name: &&StrBytes| {
            image.topic(name).is_none() && topic_name::check(name).is_ok() && !topic_name::is_internal(name)
        };
        let names: Vec<_> = names.iter().filter(creatable).cloned().collect();
        if names.is_empty() {
            return None;
        }
        let topics = names.iter().map(|name| with_defaults(name)).collect();
        let control = context.control.clone();
        let command = async move { control.create_topics(topics, false).await };
        Some(Creation { pending: Pending::send(Patience::DEFAULT, names.len(), command), names })
    }

    /// Why topics could not be created.
    async fn refused(self) -> HashMap<StrBytes, ResponseError> {
        let refused = |(name, result): (StrBytes, AdminResult<CreatedTopic>)| match result.err()?.code {
            // Another client was quicker, or the work takes long: Kafka's way of saying that the topic will be there
            // soon. Where it is there already, nobody looks at this.
            ResponseError::TopicAlreadyExists | ResponseError::RequestTimedOut => {
                Some((name, ResponseError::LeaderNotAvailable))
            }
            code => Some((name, code)),
        };
        let results = self.pending.results().await;
        self.names.into_iter().zip(results).filter_map(refused).collect()
    }
}

/// A topic as the broker's defaults would have it.
fn with_defaults(name: &str) -> NewTopic {
    NewTopic {
        name: name.to_string(),
        partitions: -1,
        replication_factor: -1,
        assignment: BTreeMap::new(),
        settings: Vec::new(),
    }
}

/// One answer in the making.
struct Answering<'a> {
    image: &'a ClusterImage,
    /// Partitions whose replicas lie in log directories that are offline, by their broker.
    lost: Option<&'a HashMap<BrokerId, Arc<HashSet<TopicPartition>>>>,
    info: &'a RequestInfo,
    request: &'a MetadataRequest,
    /// Whether this shard's log of a partition is still being opened.
    is_opening: &'a dyn Fn(TopicId, i32) -> bool,
    /// Topics whose creation was refused.
    refused: HashMap<StrBytes, ResponseError>,
}

impl Answering<'_> {
    fn response(&self, wanted: &Wanted) -> MetadataResponse {
        let topics = match wanted {
            Wanted::All => self.image.topics.values().map(|topic| self.known(topic)).collect(),
            Wanted::Names(names) => names.iter().map(|name| self.by_name(name)).collect(),
            Wanted::Ids(ids) => ids.iter().map(|id| self.by_id(*id)).collect(),
        };
        // The request has the field in versions 8 to 10 only (KIP-700 moved it to DescribeCluster).
        let cluster_operations = match self.request.include_cluster_authorized_operations {
            true => operations::CLUSTER,
            false => operations::NOT_ASKED,
        };
        MetadataResponse::default()
            .with_brokers(self.brokers())
            .with_cluster_id(Some(StrBytes::from_string(self.image.cluster_id.clone())))
            .with_controller_id(wire_id(brokers::controller(self.image)))
            .with_topics(topics)
            .with_cluster_authorized_operations(cluster_operations)
    }

    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let entry = |broker: &Broker| {
            MetadataResponseBroker::default()
                .with_node_id(wire_id(broker.id))
                .with_host(brokers::advertised_host(broker, self.info.local_addr))
                .with_port(i32::from(broker.port))
                .with_rack(brokers::rack(broker))
        };
        self.image.brokers.values().map(entry).collect()
    }

    fn by_name(&self, name: &StrBytes) -> MetadataResponseTopic {
        if let Some(topic) = self.image.topic(name) {
            return self.known(topic);
        }
        let code = match self.refused.get(name) {
            Some(code) => *code,
            None if topic_name::check(name).is_err() => ResponseError::InvalidTopicException,
            None => ResponseError::UnknownTopicOrPartition,
        };
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(TopicName(name.clone())))
            .with_is_internal(topic_name::is_internal(name))
            .with_topic_authorized_operations(self.topic_operations())
    }

    fn by_id(&self, id: TopicId) -> MetadataResponseTopic {
        match self.image.topic_by_id(id) {
            Some(topic) => self.known(topic),
            None => MetadataResponseTopic::default()
                .with_error_code(ResponseError::UnknownTopicId.code())
                .with_name(None)
                .with_topic_id(id.0),
        }
    }

    fn known(&self, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().zip(0..);
        let partitions = partitions.map(|(partition, index)| self.partition(topic.id, index, partition));
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
            .with_topic_id(topic.id.0)
            .with_is_internal(topic.is_internal)
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(self.topic_operations())
    }

    fn partition(&self, topic: TopicId, index: i32, partition: &Partition) -> MetadataResponsePartition {
        let alive = |id: &BrokerId| self.image.brokers.contains_key(id);
        let place = TopicPartition { topic, partition: PartitionIndex(index) };
        let lost = |id: &BrokerId| self.lost.is_some_and(|lost| lost.get(id).is_some_and(|all| all.contains(&place)));
        let is_led = |id: &BrokerId| alive(id) && !lost(id) && !(self.is_opening)(topic, index);
        let leader = partition.leader.filter(is_led);
        let told = |ids: &[BrokerId]| -> Vec<_> {
            ids.iter().filter(|id| self.info.version > 0 || alive(id)).map(|id| wire_id(*id)).collect()
        };
        let (replicas, isr) = (told(&partition.replicas), told(&partition.isr));
        let error_code = if leader.is_none() {
            ResponseError::LeaderNotAvailable.code()
        } else if replicas.len() < partition.replicas.len() || isr.len() < partition.isr.len() {
            ResponseError::ReplicaNotAvailable.code()
        } else {
            0
        };
        let LeaderEpoch(leader_epoch) = partition.leader_epoch;
        let offline = partition.replicas.iter().filter(|id| !alive(id) || lost(id)).map(|id| wire_id(*id));
        MetadataResponsePartition::default()
            .with_error_code(error_code)
            .with_partition_index(index)
            .with_leader_id(wire_id(leader.unwrap_or(brokers::NO_BROKER)))
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(replicas)
            .with_isr_nodes(isr)
            .with_offline_replicas(offline.collect())
    }

    fn topic_operations(&self) -> i32 {
        match self.request.include_topic_authorized_operations {
            true => operations::TOPIC,
            false => operations::NOT_ASKED,
        }
    }
}

fn wire_id(id: BrokerId) -> kafka_protocol::messages::BrokerId {
    kafka_protocol::messages::BrokerId(id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, add_topic};
    use crate::controller::handle::{AdminError, Command};
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use std::sync::Arc;

    fn named(names: &[&str]) -> MetadataRequest {
        let topic = |name: &&str| {
            let name = StrBytes::from_string(name.to_string());
            MetadataRequestTopic::default().with_name(Some(TopicName(name)))
        };
        MetadataRequest::default()
            .with_topics(Some(names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(true)
    }

    fn by_id(ids: &[TopicId]) -> MetadataRequest {
        let topic = |id: &TopicId| MetadataRequestTopic::default().with_name(None).with_topic_id(id.0);
        MetadataRequest::default().with_topics(Some(ids.iter().map(topic).collect()))
    }

    fn told(response: &MetadataResponse) -> Vec<(&str, i16)> {
        response
            .topics
            .iter()
            .map(|topic| (topic.name.as_ref().map_or("(null)", |name| name.0.as_str()), topic.error_code))
            .collect()
    }

    /// Two shards; `orders` with a partition on each, `logs` with one.
    fn two_shards() -> (testing::Broker, TopicId) {
        let mut image = testing::image(2);
        let orders = add_topic(&mut image, "orders", &[0, 1]);
        add_topic(&mut image, "logs", &[1]);
        (testing::Broker::with(image), orders)
    }

    #[test]
    fn every_version_tells_brokers_and_partitions() {
        let (broker, orders) = two_shards();
        for version in 0..=SERVED.max {
            let response = broker.ask(version, &named(&["orders"]));
            let brokers: Vec<_> = response.brokers.iter().map(|b| (b.node_id.0, b.host.as_str(), b.port)).collect();
            assert_eq!(brokers, [(0, "127.0.0.1", 9092), (1, "127.0.0.1", 9093)]);
            assert_eq!(response.cluster_id.as_deref(), if version >= 2 { Some("a-cluster") } else { None });
            assert_eq!(response.controller_id.0, if version >= 1 { 0 } else { -1 });
            assert_eq!(told(&response), [("orders", 0)]);
            let topic = &response.topics[0];
            assert_eq!(topic.topic_id, if version >= 10 { orders.0 } else { TopicId::ZERO.0 });
            assert_eq!(topic.topic_authorized_operations, operations::NOT_ASKED);
            let leaders: Vec<_> = topic.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
            assert_eq!(leaders, [(0, 0), (1, 1)]);
            let epoch = if version >= 7 { 3 } else { -1 };
            assert!(topic.partitions.iter().all(|p| p.leader_epoch == epoch && p.error_code == 0));
        }
    }

    #[test]
    fn empty_and_null_lists_mean_all_or_none_by_version() {
        let (broker, _) = two_shards();
        let names = |version, topics| {
            let response = broker.ask(version, &MetadataRequest::default().with_topics(topics));
            response.topics.len()
        };
        assert_eq!(names(0, Some(vec![])), 2);
        for version in 1..=SERVED.max {
            assert_eq!(names(version, Some(vec![])), 0);
            assert_eq!(names(version, None), 2);
        }
    }

    #[test]
    fn ids_find_their_topics_and_shadow_names() {
        let (broker, orders) = two_shards();
        let stranger = TopicId::random();
        let mut request = by_id(&[orders, stranger, orders]);
        request.topics.as_mut().expect("topics").extend(named(&["logs"]).topics.into_iter().flatten());
        let response = broker.ask(12, &request);
        assert_eq!(told(&response), [("orders", 0), ("(null)", ResponseError::UnknownTopicId.code())]);
        assert_eq!(response.topics[1].topic_id, stranger.0);
        for version in [10, 11] {
            let response = broker.ask(version, &request);
            assert!(response.topics.iter().all(|topic| topic.error_code == ResponseError::InvalidRequest.code()));
            assert_eq!((response.topics.len(), response.brokers.len()), (4, 0));
        }
    }

    #[test]
    fn a_topic_without_name_and_id_is_answered_as_kafka_does() {
        let (broker, _) = two_shards();
        assert_eq!(told(&broker.ask(12, &by_id(&[TopicId::ZERO]))), [("", -1)]);
    }

    #[test]
    fn unknown_and_impossible_names_have_their_own_errors() {
        let (broker, _) = two_shards();
        let request = named(&["nobody", "a b", "orders", "__consumer_offsets"]).with_allow_auto_topic_creation(false);
        let response = broker.ask(9, &request);
        assert_eq!(told(&response), [("nobody", 3), ("a b", 17), ("orders", 0), ("__consumer_offsets", 3)]);
        assert!(response.topics[3].is_internal);
    }

    #[test]
    fn unknown_topics_are_created_when_the_client_allows_it() {
        for version in [0, 3, 4, 12] {
            let (broker, _) = two_shards();
            let response =
                broker.ask_with(version, &named(&["new", "orders", "a b", "__consumer_offsets"]), |command| {
                    let Command::CreateTopics { topics, validate_only: false, reply } = command else {
                        panic!("another command");
                    };
                    let asked: Vec<_> =
                        topics.iter().map(|t| (t.name.as_str(), t.partitions, t.replication_factor)).collect();
                    assert_eq!(asked, [("new", -1, -1)]);
                    let mut image = (*broker.context.image()).clone();
                    let id = add_topic(&mut image, "new", &[1]);
                    broker.context.set_image(Arc::new(image));
                    let created = CreatedTopic { id, partitions: 1, replication_factor: 1, settings: BTreeMap::new() };
                    assert!(reply.send(vec![Ok(created)]).is_ok());
                });
            assert_eq!(told(&response), [("new", 0), ("orders", 0), ("a b", 17), ("__consumer_offsets", 3)]);
            assert_eq!(response.topics[0].partitions[0].leader_id.0, 1);
        }
    }

    #[test]
    fn nothing_is_created_against_the_will_of_client_or_operator() {
        let (broker, _) = two_shards();
        assert_eq!(told(&broker.ask(4, &named(&["new"]).with_allow_auto_topic_creation(false))), [("new", 3)]);
        let (mut broker, _) = two_shards();
        broker.configure(&[("auto.create.topics.enable", "false")]);
        assert_eq!(told(&broker.ask(4, &named(&["new"]))), [("new", 3)]);
    }

    #[test]
    fn a_refused_creation_is_told_by_its_code() {
        let (broker, _) = two_shards();
        let refused = |code| Err(AdminError { code, message: None });
        let response = broker.ask_with(8, &named(&["a", "b"]), |command| {
            let Command::CreateTopics { reply, .. } = command else { panic!("another command") };
            let answers =
                vec![refused(ResponseError::InvalidReplicationFactor), refused(ResponseError::TopicAlreadyExists)];
            assert!(reply.send(answers).is_ok());
        });
        assert_eq!(told(&response), [("a", 38), ("b", 5)]);
    }

    #[test]
    fn creation_begins_before_the_answers_turn() {
        let (broker, _) = two_shards();
        let first = broker.dispatch(testing::frame(4, &named(&["first"])));
        let second = broker.dispatch(testing::frame(4, &named(&["second"])));
        let mut seen = Vec::new();
        let mut refuse = |command| {
            let Command::CreateTopics { topics, reply, .. } = command else { panic!("another command") };
            seen.push(topics[0].name.clone());
            let refusal = AdminError { code: ResponseError::PolicyViolation, message: None };
            assert!(reply.send(vec![Err(refusal)]).is_ok());
        };
        // The second answer is awaited alone: the first creation must not wait for it.
        broker.settle(second, &mut refuse);
        broker.settle(first, &mut refuse);
        assert_eq!(seen, ["first", "second"]);
    }

    #[test]
    fn partitions_without_a_live_leader_are_told_as_such() {
        let mut image = testing::image(2);
        add_topic(&mut image, "lost", &[5]);
        let mut topic = (*image.topics["lost"]).clone();
        topic.partitions.push(Partition { leader: Some(BrokerId(1)), ..topic.partitions[0].clone() });
        topic.partitions[1].replicas = vec![BrokerId(1), BrokerId(5)];
        topic.partitions.push(Partition { leader: None, ..topic.partitions[1].clone() });
        image.topics.insert("lost".into(), Arc::new(topic));
        let broker = testing::Broker::with(image);
        let partitions = |version| {
            let response = broker.ask(version, &named(&["lost"]));
            let ids = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
            let told = |p: &MetadataResponsePartition| {
                (p.error_code, p.leader_id.0, ids(&p.replica_nodes), ids(&p.isr_nodes), ids(&p.offline_replicas))
            };
            response.topics[0].partitions.iter().map(told).collect::<Vec<_>>()
        };
        let lost = (5, -1, vec![5], vec![5], vec![5]);
        assert_eq!(partitions(5), [lost, (0, 1, vec![1, 5], vec![5], vec![5]), (5, -1, vec![1, 5], vec![5], vec![5])]);
        let (empty, one) = (Vec::new, vec![1]);
        assert_eq!(
            partitions(0),
            [(5, -1, empty(), empty(), empty()), (9, 1, one.clone(), empty(), empty()), (5, -1, one, empty(), empty())]
        );
    }

    #[test]
    fn authorized_operations_are_told_when_asked_for() {
        let (broker, _) = two_shards();
        for version in 8..=SERVED.max {
            let request = named(&["orders", "a b"])
                .with_include_topic_authorized_operations(true)
                .with_include_cluster_authorized_operations(version <= 10);
            let response = broker.ask(version, &request);
            assert!(response.topics.iter().all(|topic| topic.topic_authorized_operations == 3576));
            let cluster = if version <= 10 { 8096 } else { operations::NOT_ASKED };
            assert_eq!(response.cluster_authorized_operations, cluster);
        }
    }
}
