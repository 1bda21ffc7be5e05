//! DeleteTopics (key 20), versions 1 to 6.
//!
//! - From version 6 on a topic may be named by its id (KIP-516), which then is in the answer together with the name; a
//!   topic named by its name is answered without its id. Name and id at once refuse the whole request.
//! - `delete.topic.enable` = false refuses everything: INVALID_REQUEST before version 3, TOPIC_DELETION_DISABLED since.
//! - `timeout.ms` of 0 or less: see `admin::Patience`.
//! - Error messages (version 5) stay null, as in a Kafka of ZooKeeper mode.
//!
//! Omitted: version 0 (removed by KIP-896); quotas (KIP-599).

use super::admin::{self, Patience, Pending};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::TopicId;
use crate::cluster::image::ClusterImage;
use crate::controller::handle::TopicRef;
use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::DeleteTopics as i16, advertised_min: 1, accepted_min: 1, max: 6, handle };

/// The first version that names topics in its newer way, by name or id.
const BY_ID_SINCE: i16 = 6;

/// The first version whose clients know TOPIC_DELETION_DISABLED.
const DISABLED_SINCE: i16 = 3;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DeleteTopicsRequest| {
        let patience = Patience::of_request(request.timeout_ms, false);
        let topics = topics_of(request, info.version);
        if !context.config().delete_topic_enable {
            let code = match info.version {
                ..DISABLED_SINCE => ResponseError::InvalidRequest,
                _ => ResponseError::TopicDeletionDisabled,
            };
            return info.reply(&all_refused(topics, code));
        }
        if topics.iter().any(|topic| topic.name.is_some() && !topic.topic_id.is_nil()) {
            return info.reply(&all_refused(topics, ResponseError::InvalidRequest));
        }
        delete(context, info, topics, patience)
    })
}

fn delete(
    context: &Rc<ShardContext>,
    info: &RequestInfo,
    topics: Vec<DeleteTopicState>,
    patience: Patience,
) -> Outcome {
    let image = context.image();
    let mut answers: Vec<_> = topics.iter().map(|topic| first_answer(&image, topic)).collect();
    // Each topic once, however often and by whichever handle it is named: to the answers that wait for it.
    let mut waiting: IndexMap<(Option<TopicName>, TopicId), Vec<usize>> = IndexMap::new();
    let mut references = Vec::new();
    for (index, (topic, answer)) in topics.iter().zip(&answers).enumerate().filter(|(_, (_, a))| a.error_code == 0) {
        let id = if answer.name.is_some() { TopicId::ZERO } else { TopicId(answer.topic_id) };
        let indexes = waiting.entry((answer.name.clone(), id)).or_default();
        if indexes.is_empty() {
            references.push(match &topic.name {
                Some(name) => TopicRef::Name(name.to_string()),
                None => TopicRef::Id(TopicId(topic.topic_id)),
            });
        }
        indexes.push(index);
    }
    let pending = (!references.is_empty()).then(|| {
        let control = context.control.clone();
        Pending::send(patience, references.len(), async move { control.delete_topics(references).await })
    });
    let info = info.clone();
    Outcome::Wait(Box::pin(async move {
        if let Some(pending) = pending {
            for (result, indexes) in pending.results().await.into_iter().zip(waiting.into_values()) {
                let code = admin::code(patience.told(result).as_ref().err());
                for index in indexes {
                    answers[index].error_code = code;
                }
            }
        }
        info.answer(&DeleteTopicsResponse::default().with_responses(answers))
    }))
}

/// The topics in their newer form.
fn topics_of(request: DeleteTopicsRequest, version: i16) -> Vec<DeleteTopicState> {
    if version >= BY_ID_SINCE {
        return request.topics;
    }
    request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
}

fn all_refused(topics: Vec<DeleteTopicState>, code: ResponseError) -> DeleteTopicsResponse {
    let refused = |topic: DeleteTopicState| {
        DeletableTopicResult::default().with_name(topic.name).with_topic_id(topic.topic_id).with_error_code(code.code())
    };
    DeleteTopicsResponse::default().with_responses(topics.into_iter().map(refused).collect())
}

/// The answer as far as it is known before the controller is asked.
fn first_answer(image: &ClusterImage, topic: &DeleteTopicState) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
    if topic.name.is_some() {
        return answer;
    }
    if topic.topic_id.is_nil() {
        // Neither name nor id: to Kafka, a topic that nobody is authorized for.
        return answer.with_error_code(ResponseError::TopicAuthorizationFailed.code());
    }
    match image.topic_by_id(TopicId(topic.topic_id)) {
        Some(known) => answer.with_name(Some(TopicName(StrBytes::from_string(known.name.to_string())))),
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker, add_topic};
    use crate::controller::handle::{AdminError, AdminResult, Command};

    fn named(names: &[&'static str]) -> DeleteTopicsRequest {
        let names = names.iter().map(|name| TopicName(StrBytes::from_static_str(name))).collect();
        DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(5000)
    }

    fn newer(topics: &[(Option<&'static str>, TopicId)]) -> DeleteTopicsRequest {
        let topic = |(name, id): &(Option<&'static str>, TopicId)| {
            let name = name.map(|name| TopicName(StrBytes::from_static_str(name)));
            DeleteTopicState::default().with_name(name).with_topic_id(id.0)
        };
        DeleteTopicsRequest::default().with_topics(topics.iter().map(topic).collect()).with_timeout_ms(5000)
    }

    /// A control plane that knows one topic, `orders` with this id.
    fn only_orders(orders: TopicId) -> impl FnMut(Command) {
        move |command| {
            let Command::DeleteTopics { topics, reply } = command else { panic!("another command") };
            let refused = |code| Err(AdminError { code, message: Some("not told".into()) });
            let delete = |topic: &TopicRef| -> AdminResult<(String, TopicId)> {
                match topic {
                    TopicRef::Name(name) if name == "orders" => Ok((name.clone(), orders)),
                    TopicRef::Id(id) if *id == orders => Ok(("orders".into(), orders)),
                    TopicRef::Name(_) => refused(ResponseError::UnknownTopicOrPartition),
                    TopicRef::Id(_) => refused(ResponseError::UnknownTopicId),
                }
            };
            assert!(reply.send(topics.iter().map(delete).collect()).is_ok());
        }
    }

    fn told(response: &DeleteTopicsResponse) -> Vec<(Option<&str>, i16)> {
        assert!(response.responses.iter().all(|answer| answer.error_message.is_none()));
        response
            .responses
            .iter()
            .map(|answer| (answer.name.as_ref().map(|n| n.0.as_str()), answer.error_code))
            .collect()
    }

    fn broker_with_orders() -> (Broker, TopicId) {
        let mut image = testing::image(1);
        let orders = add_topic(&mut image, "orders", &[0]);
        (Broker::with(image), orders)
    }

    #[test]
    fn names_are_deleted_in_every_version() {
        for version in SERVED.accepted_min..BY_ID_SINCE {
            let (broker, orders) = broker_with_orders();
            let response = broker.ask_with(version, &named(&["orders", "nobody", "orders"]), only_orders(orders));
            assert_eq!(told(&response), [(Some("orders"), 0), (Some("nobody"), 3), (Some("orders"), 0)]);
        }
    }

    #[test]
    fn ids_are_deleted_and_answered_with_their_names() {
        let (broker, orders) = broker_with_orders();
        let stranger = TopicId::random();
        let request =
            newer(&[(None, orders), (None, stranger), (Some("orders"), TopicId::ZERO), (None, TopicId::ZERO)]);
        let response = broker.ask_with(6, &request, only_orders(orders));
        assert_eq!(told(&response), [(Some("orders"), 0), (None, 100), (Some("orders"), 0), (None, 29)]);
        let ids: Vec<_> = response.responses.iter().map(|answer| TopicId(answer.topic_id)).collect();
        assert_eq!(ids, [orders, stranger, TopicId::ZERO, TopicId::ZERO]);
    }

    #[test]
    fn name_and_id_at_once_refuse_the_whole_request() {
        let (broker, orders) = broker_with_orders();
        let response = broker.ask(6, &newer(&[(Some("orders"), orders), (None, orders)]));
        assert_eq!(told(&response), [(Some("orders"), 42), (None, 42)]);
    }

    #[test]
    fn deletion_can_be_switched_off() {
        let (mut broker, _) = broker_with_orders();
        broker.configure(&[("delete.topic.enable", "false")]);
        assert_eq!(told(&broker.ask(2, &named(&["orders"]))), [(Some("orders"), 42)]);
        assert_eq!(told(&broker.ask(3, &named(&["orders"]))), [(Some("orders"), 73)]);
    }

    #[test]
    fn who_does_not_wait_is_told_so() {
        let (broker, orders) = broker_with_orders();
        let response = broker.ask_with(4, &named(&["orders", "nobody"]).with_timeout_ms(0), only_orders(orders));
        assert_eq!(told(&response), [(Some("orders"), 7), (Some("nobody"), 3)]);
        let mut kept = Vec::new();
        let response = broker.ask_with(4, &named(&["orders"]).with_timeout_ms(5), |command| kept.push(command));
        assert_eq!(told(&response), [(Some("orders"), 7)]);
        assert_eq!(kept.len(), 1);
    }
}
