//! Produce (key 0).
//!
//! Versions: advertised 0-11, accepted 3-11 (older librdkafka compresses only where v0 is advertised, KAFKA-18659).
//!
//! Stage one checks every batch (`record::admission`), gives it its offsets and queues it; stage two waits until all
//! partitions of the request are as safe as `acks` asks. acks=all means on disk, unless `log.flush.policy=os`.
//! A request of acks=0 has no answer, but is waited for like any other, so that a client cannot queue without bound;
//! when a partition refuses its batch, the connection is closed, as in Kafka.
//!
//! Omissions: transactions are refused (TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients take as fatal).
//! `timeout_ms` is not applied: with one replica there is nothing but this broker's own disk to wait for.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::clock::now_ms;
use crate::base::ids::PartitionIndex;
use crate::base::metrics::ShardMetrics;
use crate::cluster::topic_name;
use crate::log::core::AppendError;
use crate::log::producers::ProducerError;
use crate::partition::leader::{Acks, Partition};
use crate::partition::waiters::{AppendWait, Lost};
use crate::record::admission::{self, AdmissionError, AdmissionRules, Scope};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub const SERVED: Served = Served { key: 0, advertised_min: 0, accepted_min: 3, max: 11, handle };

/// The client id by which Kafka knows its own tools.
const ADMIN_CLIENT: &str = "__admin_client";
/// Answers carry the leader's address from this version on (KIP-951).
const LEADER_HINTS_SINCE: i16 = 10;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ProduceRequest| serve(context, info, request))
}

fn serve(context: &Rc<ShardContext>, info: &RequestInfo, request: ProduceRequest) -> Outcome {
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let wait = AppendWait::new();
    let mut response = ProduceResponse::default();
    match (whole_request_error(info, &request), acks) {
        (Some(refusal), _) => refuse_all(context, &request, &mut response, (refusal.0, refusal.1.as_deref())),
        (None, None) => refuse_all(context, &request, &mut response, (ResponseError::InvalidRequiredAcks, None)),
        (None, Some(acks)) => append_all(context, info, &request, acks, &wait, &mut response),
    }
    if acks == Some(Acks::None) {
        return no_answer(info, wait, &response);
    }
    if wait.is_done() {
        return info.reply(&response);
    }
    let (info, metrics) = (info.clone(), Arc::clone(&context.metrics));
    Outcome::Wait(Box::pin(async move {
        mark_failed(&metrics, &mut response, &wait.done().await);
        info.answer(&response)
    }))
}

/// Faults for which Kafka refuses the request as a whole, with the code that every partition gets.
fn whole_request_error(info: &RequestInfo, request: &ProduceRequest) -> Option<(ResponseError, Option<String>)> {
    let records = request.topic_data.iter().flat_map(|topic| &topic.partition_data).filter_map(|p| p.records.as_ref());
    for records in records {
        match admission::check_request(records, info.version) {
            Ok(header) if header.is_transactional() => {
                return Some((ResponseError::TransactionalIdAuthorizationFailed, None));
            }
            Err(e) if e.scope == Scope::Request => {
                let message = e.error_message().map(str::to_string);
                return Some((e.code, message));
            }
            _ => {}
        }
    }
    None
}

fn append_all(
    context: &Rc<ShardContext>,
    info: &RequestInfo,
    request: &ProduceRequest,
    acks: Acks,
    wait: &Rc<AppendWait>,
    response: &mut ProduceResponse,
) {
    let now_ms = now_ms();
    let mut place = 0;
    for topic in &request.topic_data {
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let none = Bytes::new();
            let records = data.records.as_ref().unwrap_or(&none);
            let answer = match leaders::by_name(context, &topic.name, data.index) {
                Err(ResponseError::NotLeaderOrFollower) => {
                    // Kafka looks at the records before it looks at who leads.
                    match admission::check_request(records, info.version) {
                        Err(e) => refused(data.index, &e, None),
                        Ok(_) => not_leader(context, info, (&topic.name, data.index), response),
                    }
                }
                Err(code) => failed(data.index, code),
                // Only the broker itself writes there; Kafka lets its own administrative client do so, too.
                Ok(_) if topic_name::is_internal(&topic.name) && info.client_id.as_deref() != Some(ADMIN_CLIENT) => {
                    failed(data.index, ResponseError::InvalidTopicException)
                }
                Ok(partition) => append(&partition, info, records, acks, now_ms, (wait, place)),
            };
            context.metrics.error(answer.error_code);
            answers.push(answer);
            place += 1;
        }
        response
            .responses
            .push(TopicProduceResponse::default().with_name(topic.name.clone()).with_partition_responses(answers));
    }
}

fn append(
    partition: &Rc<Partition>,
    info: &RequestInfo,
    records: &Bytes,
    acks: Acks,
    now_ms: i64,
    wait: (&Rc<AppendWait>, u32),
) -> PartitionProduceResponse {
    let index = partition.index().0;
    let config = partition.config();
    let rules = AdmissionRules {
        topic: &partition.topic,
        partition: partition.index(),
        config: &config,
        produce_version: info.version,
        validate_records: true,
    };
    let log_start = partition.ends().log_start.0;
    let admitted = match admission::admit(records, &rules, now_ms) {
        Ok(admitted) => admitted,
        Err(e) => return refused(index, &e, Some(log_start)),
    };
    let log_append_time_ms = admitted.log_append_time_ms;
    match partition.append(admitted.header, admitted.bytes, acks, wait) {
        Ok(appended) => PartitionProduceResponse::default()
            .with_index(index)
            .with_base_offset(appended.base_offset.0)
            .with_log_append_time_ms(appended.duplicate_timestamp_ms.unwrap_or(log_append_time_ms))
            .with_log_start_offset(log_start),
        Err(AppendError::Failed(_)) => failed(index, ResponseError::KafkaStorageError),
        Err(AppendError::Producer(e)) => {
            let code = match e {
                ProducerError::StaleEpoch { .. } => ResponseError::InvalidProducerEpoch,
                _ => ResponseError::OutOfOrderSequenceNumber,
            };
            failed(index, code).with_log_start_offset(log_start)
        }
    }
}

/// acks=0: a fault closes the connection; otherwise the answer is nothing, once the records are written.
fn no_answer(info: &RequestInfo, wait: Rc<AppendWait>, response: &ProduceResponse) -> Outcome {
    let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    if let Some(fault) = answers.find(|answer| answer.error_code != 0) {
        return Outcome::Close(format!(
            "a produce request of acks=0 from {} failed with error {}",
            info.peer_addr, fault.error_code
        ));
    }
    if wait.is_done() {
        return Outcome::Nothing;
    }
    Outcome::Wait(Box::pin(async move {
        wait.done().await;
        Ok(Default::default())
    }))
}

fn refuse_all(
    context: &ShardContext,
    request: &ProduceRequest,
    response: &mut ProduceResponse,
    (code, message): (ResponseError, Option<&str>),
) {
    let message = message.map(|text| StrBytes::from_string(text.to_string()));
    response.responses = request
        .topic_data
        .iter()
        .map(|topic| {
            let answers = topic.partition_data.iter().map(|data| {
                context.metrics.error(code.code());
                failed(data.index, code).with_error_message(message.clone())
            });
            TopicProduceResponse::default().with_name(topic.name.clone()).with_partition_responses(answers.collect())
        })
        .collect();
}

fn failed(index: i32, code: ResponseError) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

fn refused(index: i32, error: &AdmissionError, log_start: Option<i64>) -> PartitionProduceResponse {
    let record_errors = error.record_errors.iter().map(|record| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record.batch_index)
            .with_batch_index_error_message(Some(StrBytes::from_string(record.message.clone())))
    });
    let log_start = log_start.filter(|_| error.tells_log_start_offset());
    failed(index, error.code)
        .with_log_start_offset(log_start.unwrap_or(-1))
        .with_record_errors(record_errors.collect())
        .with_error_message(error.error_message().map(|text| StrBytes::from_string(text.to_string())))
}

fn not_leader(
    context: &Rc<ShardContext>,
    info: &RequestInfo,
    (topic, index): (&str, i32),
    response: &mut ProduceResponse,
) -> PartitionProduceResponse {
    let answer = failed(index, ResponseError::NotLeaderOrFollower);
    if info.version < LEADER_HINTS_SINCE {
        return answer;
    }
    let Some(hint) = context.leader_hint(info, topic, PartitionIndex(index)) else { return answer };
    let leader = kafka_protocol::messages::BrokerId(hint.leader.0);
    if response.node_endpoints.iter().all(|known| known.node_id != leader) {
        let endpoint = NodeEndpoint::default().with_node_id(leader).with_host(hint.host).with_port(hint.port);
        response.node_endpoints.push(endpoint.with_rack(hint.rack));
    }
    answer.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(leader).with_leader_epoch(hint.leader_epoch))
}

/// Partitions that failed or went while their batch was on its way.
fn mark_failed(metrics: &ShardMetrics, response: &mut ProduceResponse, lost: &[(u32, Lost)]) {
    if lost.is_empty() {
        return;
    }
    let lost: HashMap<u32, Lost> = lost.iter().copied().collect();
    let answers = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
    for (place, answer) in (0..).zip(answers) {
        if let Some(lost) = lost.get(&place) {
            let code = match lost {
                Lost::Failed => ResponseError::KafkaStorageError,
                Lost::Deleted => ResponseError::UnknownTopicOrPartition,
                Lost::Moved => ResponseError::NotLeaderOrFollower,
            };
            *answer = failed(answer.index, code);
            metrics.error(answer.error_code);
        }
    }
}
