//! OffsetForLeaderEpoch (key 23).
//!
//! Versions: 2-4 (KIP-320): where a leader epoch ended, so that a client or follower sees whether its log parted.

use super::context::ShardContext;
use super::leaders;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::ids::LeaderEpoch;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 23, advertised_min: 2, accepted_min: 2, max: 4, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: OffsetForLeaderEpochRequest| {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let found = end_of(context, &topic.topic, asked);
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                match found {
                    Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                    Ok(None) => answer.with_leader_epoch(-1).with_end_offset(-1),
                    Err(code) => answer.with_error_code(code.code()).with_leader_epoch(-1).with_end_offset(-1),
                }
            });
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
        });
        info.reply(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
    })
}

fn end_of(
    context: &ShardContext,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, ResponseError> {
    let partition = leaders::by_name(context, topic, asked.partition)?;
    leaders::check_epoch(asked.current_leader_epoch, partition.epoch())?;
    let core = partition.core();
    // An offline log has no end that a client could compare its own with: it would take all it read for truncated.
    if core.failure().is_some() {
        return Err(ResponseError::KafkaStorageError);
    }
    let end = core.epochs().end_of(LeaderEpoch(asked.leader_epoch), partition.epoch(), core.written_end());
    Ok(end.map(|end| (end.epoch.0, end.end.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::context::ShardContext;
    use crate::api::testing::{Broker, add_topic, image};
    use crate::base::config::{BrokerConfig, FlushPolicy};
    use crate::base::ids::{BrokerId, PartitionIndex};
    use crate::log::paths;
    use crate::maintenance;
    use crate::partition::checkpoints::CheckpointSender;
    use crate::partition::shared::PartitionShared;
    use crate::partition::table::{FoundLogDir, PartitionTable};
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;
    use kafka_protocol::protocol::StrBytes;
    use std::sync::Arc;

    /// A log that could not be opened answered that its epoch ends at offset 0: consumers went back to the beginning.
    #[test]
    fn an_offline_log_does_not_say_where_it_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = dir.path().join(paths::partition_dir("t", PartitionIndex(0)));
        std::fs::create_dir(&home).expect("made");
        std::fs::write(home.join("00000000000000000000.log.swap"), b"damaged").expect("cannot be opened then");
        let mut image = image(1);
        let id = add_topic(&mut image, "t", &[0]);
        let mut broker = Broker::with(image.clone());
        let key = ("t".to_string(), PartitionIndex(0));
        let found = FoundLogDir {
            path: dir.path().to_path_buf(),
            partitions: [(key, Some(id))].into(),
            ..FoundLogDir::default()
        };
        let (maintenance, _thread) = maintenance::start(maintenance::Settings { plain: true }).expect("started");
        let shared = Rc::new(PartitionShared::new(8, FlushPolicy::Disk, Arc::default(), maintenance));
        let table = PartitionTable::new(BrokerId(0), vec![found], crate::partition::journal::Rings::none(), shared);
        let table = Rc::new(table);
        let config = BrokerConfig::from_texts(Default::default()).expect("defaults are valid");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            table.open_led(&image, &config, false);
            assert!(table.is_opening(id, PartitionIndex(0)));
            table.opened_or_late().await;
        });
        let checkpoints = CheckpointSender::new(0, tokio::sync::mpsc::channel(1).0, Arc::default());
        let control = broker.context.control.clone();
        let context = ShardContext::new(BrokerId(0), control, Arc::new(config), (table, checkpoints), Arc::new(image));
        broker.context = Rc::new(context);

        let asked = OffsetForLeaderPartition::default().with_current_leader_epoch(3).with_leader_epoch(3);
        let topic = TopicName(StrBytes::from_static_str("t"));
        let topic = OffsetForLeaderTopic::default().with_topic(topic).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let answer = broker.ask(4, &request).topics[0].partitions[0].clone();
        let expected = (ResponseError::KafkaStorageError.code(), -1, -1);
        assert_eq!((answer.error_code, answer.leader_epoch, answer.end_offset), expected);
    }
}
