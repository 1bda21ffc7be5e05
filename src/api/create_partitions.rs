//! CreatePartitions (key 37), versions 0 to 3.
//!
//! - `count` is the new total; the replicas of the added partitions may be given.
//! - A topic that is named more than once is refused, and answered once.
//! - Internal topics keep their partitions: which of them has a group follows from their number. Kafka lets them grow, and groups lose what they
//!   have committed at the brokers' next start.
//! - `timeout.ms` of 0 or less: see `admin::Patience`.
//!
//! Checks and placement are the controller's. Omitted: quotas (KIP-599).

use super::admin::{self, Patience, Pending, refusal};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::BrokerId;
use crate::controller::handle::{AdminResult, MorePartitions};
use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::CreatePartitions as i16, advertised_min: 0, accepted_min: 0, max: 3, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: CreatePartitionsRequest| {
        let patience = Patience::of_request(request.timeout_ms, request.validate_only);
        let mut by_name: IndexMap<TopicName, Vec<CreatePartitionsTopic>> = IndexMap::new();
        for topic in request.topics {
            by_name.entry(topic.name.clone()).or_default().push(topic);
        }
        let (once, repeated): (Vec<_>, Vec<_>) = by_name.into_iter().partition(|(_, entries)| entries.len() == 1);
        let names: Vec<_> = once.iter().map(|(name, _)| name.clone()).collect();
        let topics: Vec<_> = once.into_iter().flat_map(|(_, entries)| entries).map(more_partitions).collect();
        let pending = (!topics.is_empty()).then(|| {
            let (control, validate_only) = (context.control.clone(), request.validate_only);
            Pending::send(patience, topics.len(), async move { control.create_partitions(topics, validate_only).await })
        });
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let results = match pending {
                Some(pending) => pending.results().await,
                None => Vec::new(),
            };
            let duplicate = || Err(refusal(ResponseError::InvalidRequest, "Duplicate topic in request."));
            let told = names.into_iter().zip(results).map(|(name, result)| answer(name, patience.told(result)));
            let refused = repeated.into_iter().map(|(name, _)| answer(name, duplicate()));
            info.answer(&CreatePartitionsResponse::default().with_results(told.chain(refused).collect()))
        }))
    })
}

fn more_partitions(topic: CreatePartitionsTopic) -> MorePartitions {
    let replicas = |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|id| BrokerId(id.0)).collect();
    MorePartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignment: topic
            .assignments
            .map(|assignments| assignments.into_iter().map(|given| replicas(given.broker_ids)).collect()),
    }
}

fn answer(name: TopicName, result: AdminResult<()>) -> CreatePartitionsTopicResult {
    let error = result.as_ref().err();
    CreatePartitionsTopicResult::default()
        .with_name(name)
        .with_error_code(admin::code(error))
        .with_error_message(admin::message(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::Broker;
    use crate::controller::handle::Command;
    use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
    use kafka_protocol::protocol::StrBytes;

    fn topic(name: &'static str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_count(count)
            .with_assignments(None)
    }

    fn request(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
        CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(5000)
    }

    /// A control plane in which every topic has two partitions.
    fn adding(command: Command) {
        let Command::CreatePartitions { topics, reply, .. } = command else { panic!("another command") };
        let add = |topic: &MorePartitions| match topic.count {
            3.. => Ok(()),
            _ => Err(refusal(ResponseError::InvalidPartitions, "Topic already has 2 partitions.")),
        };
        assert!(reply.send(topics.iter().map(add).collect()).is_ok());
    }

    fn told(response: &CreatePartitionsResponse) -> Vec<(&str, i16, Option<&str>)> {
        response.results.iter().map(|r| (r.name.as_str(), r.error_code, r.error_message.as_deref())).collect()
    }

    #[test]
    fn every_version_answers_each_topic_once() {
        for version in 0..=SERVED.max {
            let topics = vec![topic("grown", 3), topic("twice", 3), topic("same", 2), topic("twice", 4)];
            let response = Broker::empty().ask_with(version, &request(topics), adding);
            let same = Some("Topic already has 2 partitions.");
            let twice = Some("Duplicate topic in request.");
            assert_eq!(told(&response), [("grown", 0, None), ("same", 37, same), ("twice", 42, twice)]);
        }
    }

    #[test]
    fn replicas_and_validation_reach_the_controller() {
        let replicas =
            |id| CreatePartitionsAssignment::default().with_broker_ids(vec![kafka_protocol::messages::BrokerId(id)]);
        let asked = topic("grown", 4).with_assignments(Some(vec![replicas(7), replicas(8)]));
        let mut seen = Vec::new();
        Broker::empty().ask_with(3, &request(vec![asked]).with_validate_only(true), |command| {
            if let Command::CreatePartitions { topics, validate_only: true, .. } = &command {
                seen = topics.clone();
            }
            adding(command);
        });
        assert_eq!((seen[0].topic.as_str(), seen[0].count), ("grown", 4));
        assert_eq!(seen[0].assignment, Some(vec![vec![BrokerId(7)], vec![BrokerId(8)]]));
    }

    #[test]
    fn who_does_not_wait_is_told_so_unless_it_only_validates() {
        let asked = request(vec![topic("grown", 3)]).with_timeout_ms(-1);
        assert_eq!(told(&Broker::empty().ask_with(3, &asked, adding)), [("grown", 7, None)]);
        let asked = asked.with_validate_only(true);
        assert_eq!(told(&Broker::empty().ask_with(3, &asked, adding)), [("grown", 0, None)]);
    }
}
