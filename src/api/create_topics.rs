//! CreateTopics (key 19), versions 2 to 7.
//!
//! - Counts of -1 stand for the broker's defaults; in their place each partition's replicas may be given.
//! - A name that appears more than once is refused for each appearance, the other topics are created.
//! - From version 5 on the answer has the topic's counts and settings (KIP-525), from version 7 on its id.
//! - What is answered without an error can be used at once, on every shard of this node.
//! - `timeout.ms` of 0 or less: see `admin::Patience`.
//!
//! Checks and placement are the controller's. Omitted: versions 0 and 1 (removed by KIP-896); quotas on changes of the
//! cluster (KIP-599), so that THROTTLING_QUOTA_EXCEEDED does not occur.

use super::admin::{self, Patience, Pending, refusal};
use super::config_entries::created;
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::config::describe::describe_topic;
use crate::base::ids::{BrokerId, TopicId};
use crate::controller::handle::{AdminError, AdminResult, CreatedTopic, NewTopic};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse};
use std::collections::HashMap;
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::CreateTopics as i16, advertised_min: 2, accepted_min: 2, max: 7, handle };

/// Kafka's own topic for its KRaft metadata: never a client's to create.
const CLUSTER_METADATA: &str = "__cluster_metadata";

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: CreateTopicsRequest| {
        let patience = Patience::of_request(request.timeout_ms, request.validate_only);
        let refusals = refusals(&request.topics);
        let accepted = request.topics.iter().zip(&refusals).filter(|(_, refused)| refused.is_none());
        let topics: Vec<_> = accepted.map(|(topic, _)| new_topic(topic)).collect();
        let pending = (!topics.is_empty()).then(|| {
            let (control, validate_only) = (context.control.clone(), request.validate_only);
            let count = topics.len();
            Pending::send(patience, count, async move { control.create_topics(topics, validate_only).await })
        });
        let (context, info) = (Rc::clone(context), info.clone());
        Outcome::Wait(Box::pin(async move {
            let results = match pending {
                Some(pending) => pending.results().await,
                None => Vec::new(),
            };
            let mut results = results.into_iter();
            let answers = request.topics.iter().zip(refusals).map(|(topic, refused)| {
                let answer = CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
                match refused.map(Err).or_else(|| results.next()) {
                    Some(result) => told(&context, answer, result, patience, request.validate_only),
                    None => answer,
                }
            });
            info.answer(&CreateTopicsResponse::default().with_topics(answers.collect()))
        }))
    })
}

/// Why topics are refused whatever the controller would say; one item a topic.
fn refusals(topics: &[CreatableTopic]) -> Vec<Option<AdminError>> {
    let mut appearances = HashMap::new();
    for topic in topics {
        *appearances.entry(&topic.name).or_insert(0) += 1;
    }
    let refused = |topic: &CreatableTopic| {
        if topic.name.as_str() == CLUSTER_METADATA {
            return Some(format!("Creation of internal topic {CLUSTER_METADATA} is prohibited."));
        }
        (appearances.get(&topic.name) > Some(&1)).then(|| "Found multiple entries for this topic.".to_string())
    };
    let error = |message| refusal(ResponseError::InvalidRequest, message);
    topics.iter().map(|topic| refused(topic).map(error)).collect()
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let replicas = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| BrokerId(id.0)).collect();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        // Of a partition that is listed twice, the later one counts, as in Kafka.
        assignment: topic
            .assignments
            .iter()
            .map(|given| (given.partition_index, replicas(&given.broker_ids)))
            .collect(),
        settings: topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map(|value| value.to_string())))
            .collect(),
    }
}

fn told(
    context: &ShardContext,
    answer: CreatableTopicResult,
    result: AdminResult<CreatedTopic>,
    patience: Patience,
    validate_only: bool,
) -> CreatableTopicResult {
    // The id is told even to those who did not wait; counts and settings are not.
    let id = result.as_ref().ok().filter(|_| !validate_only).map_or(TopicId::ZERO, |created| created.id);
    let answer = answer.with_topic_id(id.0);
    let topic = match patience.told(result) {
        Ok(topic) => topic,
        Err(error) => {
            return answer.with_error_code(admin::code(Some(&error))).with_error_message(admin::message(Some(&error)));
        }
    };
    let answer = answer.with_num_partitions(topic.partitions).with_replication_factor(topic.replication_factor);
    match describe_topic(&context.config(), &topic.settings) {
        Ok(entries) => answer.with_configs(Some(entries.into_iter().map(created).collect())),
        Err(_) => answer.with_topic_config_error_code(ResponseError::InvalidConfig.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker};
    use crate::controller::handle::Command;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};
    use kafka_protocol::protocol::StrBytes;
    use std::collections::BTreeMap;

    fn topic(name: &'static str) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(3)
            .with_replication_factor(1)
    }

    fn request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
        CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(5000)
    }

    fn id_of(name: &str) -> TopicId {
        TopicId(crate::base::ids::Uuid::from_u128(name.len() as u128))
    }

    /// A control plane that creates all but `refused`, with the settings asked for.
    fn creating(command: Command) {
        let Command::CreateTopics { topics, reply, .. } = command else { panic!("another command") };
        let create = |topic: &NewTopic| {
            if topic.name == "refused" {
                return Err(refusal(ResponseError::InvalidPartitions, "too few"));
            }
            let own = topic.settings.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()));
            let id = id_of(&topic.name);
            Ok(CreatedTopic { id, partitions: topic.partitions, replication_factor: 1, settings: own.collect() })
        };
        assert!(reply.send(topics.iter().map(create).collect()).is_ok());
    }

    fn told(response: &CreateTopicsResponse) -> Vec<(&str, i16, Option<&str>)> {
        let answer = |topic: &CreatableTopicResult| topic.error_code;
        response.topics.iter().map(|t| (t.name.as_str(), answer(t), t.error_message.as_deref())).collect()
    }

    #[test]
    fn every_version_creates_and_tells_what_it_can() {
        for version in SERVED.accepted_min..=SERVED.max {
            let own = CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str("retention.ms"))
                .with_value(Some(StrBytes::from_static_str("-1")));
            let asked = request(vec![topic("orders").with_configs(vec![own]), topic("refused")]);
            let response = Broker::empty().ask_with(version, &asked, creating);
            assert_eq!(told(&response), [("orders", 0, None), ("refused", 37, Some("too few"))]);
            let [created, refused] = &response.topics[..] else { panic!("two answers") };
            let counts = |topic: &CreatableTopicResult| (topic.num_partitions, topic.replication_factor);
            assert_eq!(counts(created), if version >= 5 { (3, 1) } else { (-1, -1) });
            assert_eq!(counts(refused), (-1, -1));
            assert_eq!(TopicId(created.topic_id), if version >= 7 { id_of("orders") } else { TopicId::ZERO });
            assert_eq!(TopicId(refused.topic_id), TopicId::ZERO);
            let settings = created.configs.as_deref().unwrap_or_default();
            assert_eq!(refused.configs.as_ref().map(Vec::len), Some(0));
            if version < 5 {
                assert!(settings.is_empty());
                continue;
            }
            let of = |name: &str| {
                let found = settings.iter().find(|entry| &*entry.name == name).expect("a setting of every topic");
                (found.value.as_deref(), found.config_source, found.read_only)
            };
            assert_eq!(of("retention.ms"), (Some("-1"), 1, false));
            assert_eq!(of("segment.bytes"), (Some("1073741824"), 5, false));
        }
    }

    #[test]
    fn names_that_appear_twice_are_refused_each_time() {
        let asked = request(vec![topic("twice"), topic("orders"), topic("twice"), topic(CLUSTER_METADATA)]);
        let response = Broker::empty().ask_with(4, &asked, |command| {
            let Command::CreateTopics { topics, .. } = &command else { panic!("another command") };
            assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["orders"]);
            creating(command);
        });
        let twice = Some("Found multiple entries for this topic.");
        let internal = Some("Creation of internal topic __cluster_metadata is prohibited.");
        let expected =
            [("twice", 42, twice), ("orders", 0, None), ("twice", 42, twice), ("__cluster_metadata", 42, internal)];
        assert_eq!(told(&response), expected);
    }

    #[test]
    fn what_the_client_asks_for_reaches_the_controller() {
        let replicas = |index, ids: &[i32]| {
            CreatableReplicaAssignment::default()
                .with_partition_index(index)
                .with_broker_ids(ids.iter().map(|id| kafka_protocol::messages::BrokerId(*id)).collect())
        };
        let null = CreatableTopicConfig::default().with_name(StrBytes::from_static_str("flush.ms")).with_value(None);
        let asked = topic("orders")
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![replicas(1, &[7]), replicas(0, &[8]), replicas(1, &[9, 1009])])
            .with_configs(vec![null]);
        let mut seen = Vec::new();
        let response = Broker::empty().ask_with(7, &request(vec![asked]).with_validate_only(true), |command| {
            if let Command::CreateTopics { topics, validate_only: true, .. } = &command {
                seen = topics.clone();
            }
            creating(command);
        });
        assert_eq!((seen[0].partitions, seen[0].replication_factor), (-1, -1));
        let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
        assert_eq!(seen[0].assignment, BTreeMap::from([(0, ids(&[8])), (1, ids(&[9, 1009]))]));
        assert_eq!(seen[0].settings, [("flush.ms".to_string(), None)]);
        assert_eq!(TopicId(response.topics[0].topic_id), TopicId::ZERO, "nothing was created");
    }

    #[test]
    fn who_does_not_wait_is_told_so_but_learns_what_is_refused() {
        let asked = request(vec![topic("orders"), topic("refused")]).with_timeout_ms(0);
        let response = Broker::empty().ask_with(7, &asked, creating);
        assert_eq!(told(&response), [("orders", 7, None), ("refused", 37, Some("too few"))]);
        assert_eq!(TopicId(response.topics[0].topic_id), id_of("orders"));
        assert_eq!(response.topics[0].num_partitions, -1);
        let response = Broker::empty().ask_with(7, &asked.with_validate_only(true), creating);
        assert_eq!(told(&response), [("orders", 0, None), ("refused", 37, Some("too few"))]);
    }

    #[test]
    fn slow_work_goes_on_after_its_client_has_been_answered() {
        let mut kept = Vec::new();
        let broker = Broker::empty();
        let response =
            broker.ask_with(7, &request(vec![topic("slow")]).with_timeout_ms(5), |command| kept.push(command));
        assert_eq!(told(&response), [("slow", 7, None)]);
        assert!(matches!(&kept[..], [Command::CreateTopics { topics, .. }] if topics[0].name == "slow"));
    }

    #[test]
    fn a_control_plane_that_is_gone_is_told_for_every_topic() {
        let broker = Broker::empty();
        let response = broker.ask_with(7, &request(vec![topic("a"), topic("b")]), drop);
        assert!(told(&response).iter().all(|(_, code, _)| *code == ResponseError::NotController.code()));
        assert_eq!(response.topics.len(), 2);
    }

    #[test]
    fn pipelined_changes_reach_the_controller_in_order() {
        let broker = Broker::empty();
        let outcomes =
            ["first", "second", "third"].map(|name| broker.dispatch(testing::frame(7, &request(vec![topic(name)]))));
        let mut seen = Vec::new();
        let mut note = |command: Command| {
            if let Command::CreateTopics { topics, .. } = &command {
                seen.push(topics[0].name.clone());
            }
            creating(command);
        };
        // The last one is awaited first: what came before must not wait for its own turn.
        for outcome in outcomes.into_iter().rev() {
            broker.settle(outcome, &mut note);
        }
        assert_eq!(seen, ["first", "second", "third"]);
    }
}
