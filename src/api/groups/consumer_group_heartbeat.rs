//! ConsumerGroupHeartbeat (key 68, KIP-848).
//!
//! Versions: 0-1. In version 0 a member without an id is given one, from 1 on it makes up its own (KIP-1082) and may subscribe to a
//! pattern, which is held against the topics on another thread first (`coordinator::patterns`). What changes the group is answered when it
//! is as safe as acks=all promises, and so is what follows from it; the heartbeat of a group at rest is answered at once.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{slice_of, text};
use crate::base::ids::{TopicId, Uuid};
use crate::group::consumer::assign::Partitions;
use crate::group::consumer::member::JOINS;
use crate::group::consumer::pattern::NO_MATCHES;
use crate::group::consumer::{Beaten, Heartbeat, Refusal};
use crate::group::coordinator::{Answered, Slice};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;
use tokio::sync::oneshot::Receiver;

pub const SERVED: Served = Served { key: 68, advertised_min: 0, accepted_min: 0, max: 1, handle };

const OWN_MEMBER_ID_SINCE: i16 = 1;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ConsumerGroupHeartbeatRequest| {
        let interval_ms = context.groups.settings().consumer.heartbeat_ms;
        let (slice, heartbeat) = match read(context, info, &request) {
            Ok(read) => read,
            Err(refusal) => return info.reply(&refused(refusal)),
        };
        let group = &heartbeat.group_id;
        if slice.wants_patterns(group, &heartbeat) {
            let group = group.clone();
            let begun = slice.begin_with_patterns(&group, heartbeat, &context.partitions.shared().maintenance);
            let info = info.clone();
            return Outcome::Wait(Box::pin(async move {
                match beaten(begun).await {
                    Ok(beaten) => info.answer(&response(beaten, interval_ms)),
                    Err(refusal) => info.answer(&refused(refusal)),
                }
            }));
        }
        match slice.heartbeat(group, &heartbeat, &NO_MATCHES) {
            Err(refusal) => info.reply(&refused(refusal)),
            Ok(answered) if answered.is_ready() => match super::super::now_or_never(answered.wait()) {
                Some(Ok(beaten)) => info.reply(&response(beaten, interval_ms)),
                Some(Err(error)) => info.reply(&refused(Refusal::new(error, ""))),
                None => info.reply(&refused(Refusal::new(ResponseError::UnknownServerError, ""))),
            },
            Ok(answered) => {
                let info = info.clone();
                Outcome::Wait(Box::pin(async move {
                    match answered.wait().await {
                        Ok(beaten) => info.answer(&response(beaten, interval_ms)),
                        Err(error) => info.answer(&refused(Refusal::new(error, ""))),
                    }
                }))
            }
        }
    })
}

/// One that needs patterns held against the topics before it can be decided.
async fn beaten(begun: Receiver<Result<Answered<Beaten>, Refusal>>) -> Result<Beaten, Refusal> {
    let refused = |error| Refusal::new(error, "");
    let answered = begun.await.unwrap_or_else(|_| Err(refused(ResponseError::NotCoordinator)))?;
    answered.wait().await.map_err(refused)
}

fn read(
    context: &ShardContext,
    info: &RequestInfo,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<(Rc<Slice>, Heartbeat), Refusal> {
    let slice = slice_of(context, &request.group_id, false).map_err(|error| match error {
        ResponseError::InvalidGroupId => Refusal::new(ResponseError::InvalidRequest, "GroupId can't be empty."),
        error => Refusal::new(error, ""),
    })?;
    let owned_text = |text: &Option<StrBytes>| text.as_ref().map(StrBytes::to_string);
    let member_id = match request.member_id.is_empty() {
        // Kafka's form of an id of its own.
        true if info.version < OWN_MEMBER_ID_SINCE && request.member_epoch == JOINS => {
            TopicId(Uuid::new_v4()).to_string()
        }
        _ => request.member_id.to_string(),
    };
    let names = request.subscribed_topic_names.as_ref();
    let heartbeat = Heartbeat {
        group_id: request.group_id.to_string(),
        member_id,
        epoch: request.member_epoch,
        instance_id: owned_text(&request.instance_id),
        rack_id: owned_text(&request.rack_id),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|ms| *ms != -1),
        topics: names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        regex: owned_text(&request.subscribed_topic_regex),
        assignor: owned_text(&request.server_assignor),
        owned: request.topic_partitions.as_deref().map(partitions),
        client_id: info.client_id.as_ref().map(StrBytes::to_string).unwrap_or_default(),
        client_host: format!("/{}", info.peer_addr.ip()),
    };
    Ok((slice, heartbeat))
}

fn partitions(owned: &[Owned]) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in owned.iter().filter(|topic| !topic.partitions.is_empty()) {
        partitions.entry(TopicId(topic.topic_id)).or_default().extend(&topic.partitions);
    }
    partitions
}

fn response(beaten: Beaten, interval_ms: i32) -> ConsumerGroupHeartbeatResponse {
    let topic = |(topic, partitions): (TopicId, std::collections::BTreeSet<i32>)| {
        TopicPartitions::default().with_topic_id(topic.0).with_partitions(partitions.into_iter().collect())
    };
    let assignment = beaten
        .assignment
        .map(|assigned| Assignment::default().with_topic_partitions(assigned.into_iter().map(topic).collect()));
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(&beaten.member_id)))
        .with_member_epoch(beaten.epoch)
        // Who has left is told none.
        .with_heartbeat_interval_ms(if beaten.epoch < JOINS { 0 } else { interval_ms })
        .with_assignment(assignment)
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    let Refusal { error, message } = refusal;
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(message).filter(|message| !message.is_empty()).map(|message| text(&message)))
}
