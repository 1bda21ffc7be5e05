//! DeleteRecords (key 21).
//!
//! Versions: 0-2 (KIP-107). Moves the log start offset up; whole segments below it are removed. The answer comes when the
//! new start is in the checkpoint file, so that a crash does not bring the records back. Records of internal topics
//! are their coordinators' own: INVALID_TOPIC_EXCEPTION.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::Offset;
use crate::cluster::topic_name;
use crate::partition::leader::Partition;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use std::rc::Rc;
use tracing::error;

pub const SERVED: Served = Served { key: 21, advertised_min: 0, accepted_min: 0, max: 2, handle };

/// "Up to the high watermark".
const HIGH_WATERMARK: i64 = -1;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DeleteRecordsRequest| {
        let mut response = DeleteRecordsResponse::default();
        let mut moved = Vec::new();
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
                match raise(context, (&topic.name, asked.partition_index), asked.offset) {
                    Ok(partition) => {
                        let start = partition.ends().log_start;
                        moved.push(partition);
                        answer.with_low_watermark(start.0)
                    }
                    Err(code) => answer.with_low_watermark(-1).with_error_code(code.code()),
                }
            });
            let partitions = partitions.collect();
            let answer = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(partitions));
        }
        if moved.is_empty() {
            return info.reply(&response);
        }
        // Sent now, so that checkpoints are written in the order of the requests.
        let log_dirs = moved.iter().map(|partition: &Rc<Partition>| partition.home().log_dir.clone()).collect();
        let saved = context.checkpoints.save_in(log_dirs, context.partitions.checkpoints());
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let mut saved = saved.await;
            for partition in moved {
                // A log whose directory a power loss takes would be taken for one without a start.
                saved = saved.and(partition.sync_names().await);
                if let Some(failure) = partition.disk_failure() {
                    saved = saved.and(Err(std::io::Error::other(failure.to_string())));
                }
            }
            if let Err(e) = saved {
                error!("log start offsets cannot be saved: {e}");
                let answers = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                let moved = answers.filter(|answer| answer.error_code == 0);
                moved.for_each(|answer| {
                    answer.low_watermark = -1;
                    answer.error_code = ResponseError::KafkaStorageError.code();
                });
            }
            info.answer(&response)
        }))
    })
}

fn raise(context: &ShardContext, (topic, index): (&str, i32), offset: i64) -> Result<Rc<Partition>, ResponseError> {
    let found = leaders::by_name(context, topic, index);
    // Kafka's order: what does not exist is unknown whatever its name, and then the name counts before the leader.
    if topic_name::is_internal(topic) && !matches!(found, Err(ResponseError::UnknownTopicOrPartition)) {
        return Err(ResponseError::InvalidTopicException);
    }
    let partition = found?;
    if !partition.config().cleanup_policy.delete {
        return Err(ResponseError::PolicyViolation);
    }
    if partition.core().failure().is_some() {
        return Err(ResponseError::KafkaStorageError);
    }
    let ends = partition.ends();
    let to = if offset == HIGH_WATERMARK { ends.high_watermark } else { Offset(offset) };
    if to.0 < 0 || to > ends.high_watermark {
        return Err(ResponseError::OffsetOutOfRange);
    }
    partition.delete_records(to);
    Ok(partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker, add_topic};
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn refusals_come_in_kafkas_order() {
        let mut image = testing::image(2);
        add_topic(&mut image, "elsewhere", &[1]);
        add_topic(&mut image, "__consumer_offsets", &[1]);
        let broker = Broker::with(image);
        let cases = [
            ("elsewhere", 0, ResponseError::NotLeaderOrFollower),
            ("elsewhere", 1, ResponseError::UnknownTopicOrPartition),
            ("__consumer_offsets", 0, ResponseError::InvalidTopicException),
            ("__consumer_offsets", 1, ResponseError::UnknownTopicOrPartition),
            ("__transaction_state", 0, ResponseError::UnknownTopicOrPartition),
        ];
        let topics = cases.map(|(name, index, _)| {
            DeleteRecordsTopic::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(vec![DeleteRecordsPartition::default().with_partition_index(index)])
        });
        for version in 0..=SERVED.max {
            let response = broker.ask(version, &DeleteRecordsRequest::default().with_topics(topics.to_vec()));
            for ((name, _, code), told) in cases.iter().zip(&response.topics) {
                let told = &told.partitions[0];
                assert_eq!((told.error_code, told.low_watermark), (code.code(), -1), "{name}");
            }
        }
    }
}
