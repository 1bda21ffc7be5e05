//! The producer against a scripted broker on a real socket.

use super::*;
use crate::client::admin::topic_name;
use crate::client::cluster::{Cluster, Options};
use crate::client::fake::{Act, FakeBroker, Seen, answer, decode};
use crate::record::batch::BatchHeader;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse,
};
use std::sync::{Arc, Mutex};

fn options() -> ProducerOptions {
    ProducerOptions {
        acks: Acks::All,
        compression: Compression::NONE,
        batch_bytes: 100,
        linger: Duration::ZERO,
        buffer_bytes: 1 << 20,
        delivery_timeout: Duration::from_secs(20),
        idempotent: true,
        create_topic: false,
    }
}

fn lines(n: u64) -> impl FnOnce(&mut Feeder) -> Result<(), String> + Send {
    move |feeder| {
        let record = |line| NewRecord {
            key: Some(Bytes::from("k")),
            value: Some(Bytes::from(format!("value {line:04}"))),
            headers: Vec::new(),
            timestamp_ms: 1,
            partition: None,
            line,
        };
        feeder.give((1..=n).map(record).collect());
        Ok(())
    }
}

fn identity(seen: &Seen) -> Act {
    let response = InitProducerIdResponse::default().with_producer_id(5.into()).with_producer_epoch(0);
    answer::<InitProducerIdRequest>(&response, seen.version)
}

/// An answer with this code for every partition of the request.
fn produced(seen: &Seen, code: i16) -> Act {
    let request: ProduceRequest = decode::<ProduceRequest>(seen);
    let topic = |t: &kafka_protocol::messages::produce_request::TopicProduceData| {
        let partition = |p: &kafka_protocol::messages::produce_request::PartitionProduceData| {
            PartitionProduceResponse::default().with_index(p.index).with_error_code(code).with_base_offset(7)
        };
        TopicProduceResponse::default()
            .with_name(t.name.clone())
            .with_partition_responses(t.partition_data.iter().map(partition).collect())
    };
    let response = ProduceResponse::default().with_responses(request.topic_data.iter().map(topic).collect());
    answer::<ProduceRequest>(&response, seen.version)
}

fn sequence(seen: &Seen) -> i32 {
    let request: ProduceRequest = decode::<ProduceRequest>(seen);
    let records = request.topic_data[0].partition_data[0].records.clone().expect("records");
    BatchHeader::parse(&records).expect("a batch").base_sequence
}

/// Runs a producer of `n` lines against the script for Produce; gives the summary and the sequences seen.
fn run(
    n: u64,
    options: &ProducerOptions,
    mut script: impl FnMut(usize, &Seen) -> Act + Send + 'static,
) -> (Summary, Vec<i32>, FakeBroker) {
    let sequences = Arc::new(Mutex::new(Vec::new()));
    let noted = sequences.clone();
    let broker = FakeBroker::start(1, move |seen| match seen.key {
        ApiKey::InitProducerId => Some(identity(seen)),
        ApiKey::Produce => {
            let mut noted = noted.lock().expect("no panic");
            noted.push(sequence(seen));
            Some(script(noted.len(), seen))
        }
        _ => None,
    });
    let summary =
        produce(&mut broker.cluster(), "t", options, lines(n), &mut |_| {}, &mut |_| {}).expect("it could begin");
    let sequences = sequences.lock().expect("no panic").clone();
    (summary, sequences, broker)
}

#[test]
fn a_moved_leader_costs_a_metadata_request_and_a_retry() {
    let (summary, sequences, broker) = run(1, &options(), |nth, seen| {
        produced(seen, if nth == 1 { ResponseError::NotLeaderOrFollower.code() } else { 0 })
    });
    assert!(summary.complete(), "{summary:?}");
    assert_eq!(summary.delivered_records, 1);
    assert_eq!(sequences, [0, 0]);
    assert!(broker.asked(ApiKey::Metadata) >= 3, "bootstrap, topic, and again after the refusal");
}

#[test]
fn a_cut_connection_is_made_again_and_the_broker_recognises_the_batch() {
    let (summary, sequences, _) = run(1, &options(), |nth, seen| match nth {
        1 => Act::Hang,
        _ => produced(seen, ResponseError::DuplicateSequenceNumber.code()),
    });
    assert!(summary.complete(), "{summary:?}");
    assert_eq!((summary.delivered_records, summary.retries), (1, 1));
    assert_eq!(sequences, [0, 0], "the same sequence both times");
}

#[test]
fn many_batches_are_under_way_at_once_and_in_order() {
    let (summary, sequences, _) = run(40, &options(), |_, seen| produced(seen, 0));
    assert!(summary.complete());
    assert_eq!(summary.partitions.get(&0).map(|t| t.records), Some(40));
    assert!(sequences.len() > 5 && sequences.is_sorted(), "{sequences:?}");
}

#[test]
fn a_final_refusal_names_the_lines_and_spares_the_others() {
    let mut refused = false;
    let (summary, _, _) = run(1, &options(), move |_, seen| {
        let code = if refused { 0 } else { ResponseError::InvalidRecord.code() };
        refused = true;
        produced(seen, code)
    });
    assert!(!summary.complete());
    let failure = summary.failures.first().expect("one failure");
    assert_eq!((failure.lines.as_slice(), failure.reason.as_str()), ([1].as_slice(), "INVALID_RECORD"));
    assert_eq!((summary.lost_records, summary.unconfirmed_records), (1, 0));
}

#[test]
fn what_is_never_confirmed_is_reported_as_such() {
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..options() };
    let (summary, _, _) = run(1, &options, |_, seen| produced(seen, ResponseError::NotEnoughReplicas.code()));
    assert!(!summary.complete());
    assert_eq!(summary.unconfirmed_records, 1);
    assert!(summary.stopped.as_deref().is_some_and(|s| s.contains("NOT_ENOUGH_REPLICAS")), "{summary:?}");
}

/// A partition's index sizes tables, and the count of partitions is one more than the largest.
#[test]
fn a_topic_with_an_impossible_partition_is_refused() {
    for index in [i32::MAX, i32::MAX - 1, -1, i32::MIN] {
        let broker = FakeBroker::start(1, move |seen| {
            (seen.key == ApiKey::Metadata).then(|| {
                let partition = MetadataResponsePartition::default().with_partition_index(index);
                let topic =
                    MetadataResponseTopic::default().with_name(Some(topic_name("t"))).with_partitions(vec![partition]);
                answer::<MetadataRequest>(&MetadataResponse::default().with_topics(vec![topic]), seen.version)
            })
        });
        let error = produce(&mut broker.cluster(), "t", &options(), lines(1), &mut |_| {}, &mut |_| {})
            .expect_err("impossible");
        assert!(error.to_string().contains(&format!("speaks of a partition {index}")), "{error}");
    }
}

#[test]
fn a_missing_topic_fails_at_once_unless_it_may_be_created() {
    let broker = FakeBroker::start(1, |_| None);
    let error = produce(&mut broker.cluster(), "missing", &options(), lines(1), &mut |_| {}, &mut |_| {})
        .expect_err("no topic");
    assert_eq!(error.code(), Some(ResponseError::UnknownTopicOrPartition));
}

/// It waited for half a minute without a word.
#[test]
fn waiting_for_a_topic_is_told_once() {
    let broker = FakeBroker::start(1, |_| None);
    let patience = Duration::from_millis(2500);
    let mut cluster = Cluster::connect(Options { retry_for: patience, ..broker.options() }).expect("it answers");
    let options = ProducerOptions { create_topic: true, ..options() };
    let mut told = Vec::new();
    let notice = &mut |text: &str| told.push(text.to_owned());
    let error = produce(&mut cluster, "missing", &options, lines(1), &mut |_| {}, notice).expect_err("no topic");
    assert_eq!(error.code(), Some(ResponseError::UnknownTopicOrPartition));
    assert!(told.len() == 1 && told[0].starts_with("waiting for topic missing: "), "{told:?}");
}
