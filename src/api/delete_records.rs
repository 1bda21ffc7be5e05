//! DeleteRecords (key 21).
//!
//! Versions: 0-2 (KIP-107). Moves the log start offset up; whole segments below it are removed. The answer comes when the
//! new start is in the checkpoint file, so that a crash does not bring the records back.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::Offset;
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
        let mut moved = false;
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
                match raise(context, (&topic.name, asked.partition_index), asked.offset) {
                    Ok(start) => {
                        moved = true;
                        answer.with_low_watermark(start.0)
                    }
                    Err(code) => answer.with_low_watermark(-1).with_error_code(code.code()),
                }
            });
            let partitions = partitions.collect();
            let answer = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(partitions));
        }
        if !moved {
            return info.reply(&response);
        }
        // Sent now, so that checkpoints are written in the order of the requests.
        let saved = context.checkpoints.save(context.partitions.checkpoints());
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            if let Err(e) = saved.await {
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

fn raise(context: &ShardContext, (topic, index): (&str, i32), offset: i64) -> Result<Offset, ResponseError> {
    let partition = leaders::by_name(context, topic, index)?;
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
    Ok(partition.ends().log_start)
}
