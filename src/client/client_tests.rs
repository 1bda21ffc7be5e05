//! Connections, negotiation, administration and consuming against a scripted broker on a real socket.

use super::admin::{NewTopic, create_topic, topic_name};
use super::cluster::{Cluster, Options};
use super::consumer::{Assignment, ConsumerOptions, Reset, Sink, consume};
use super::error::ClientError;
use super::fake::{Act, FakeBroker, Seen, answer, decode, versions};
use super::limits::RESPONSE_BYTES_MAX;
use super::offsets::{Isolation, Lookup, list_offsets};
use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use crate::record::records::Record;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, FetchRequest,
    FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use std::time::Duration;

fn connect_error(act: fn() -> Act) -> ClientError {
    let broker = FakeBroker::start(1, move |_| Some(act()));
    let mut options: Options = broker.options();
    options.timeouts.request = Duration::from_millis(200);
    Cluster::connect(options).err().expect("the broker does not behave")
}

#[test]
fn a_broker_that_only_knows_old_api_versions_is_understood() {
    let broker = FakeBroker::start(1, |seen| match (seen.key, seen.version) {
        (ApiKey::ApiVersions, 0) => Some(answer::<ApiVersionsRequest>(&versions(), 0)),
        // The answer to a version that is not served comes in version 0.
        (ApiKey::ApiVersions, _) => {
            Some(answer::<ApiVersionsRequest>(&ApiVersionsResponse::default().with_error_code(35), 0))
        }
        _ => None,
    });
    assert_eq!(broker.cluster().known().brokers.len(), 1);
}

#[test]
fn what_is_not_kafka_is_called_so() {
    let http = connect_error(|| Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    assert!(http.to_string().contains("does not speak the Kafka protocol: its first bytes were \"HTTP\""), "{http}");
    let huge = connect_error(|| Act::Raw((RESPONSE_BYTES_MAX as i32 + 1).to_be_bytes().to_vec()));
    assert!(matches!(huge, ClientError::NotKafka { .. }), "{huge}");
    let other = connect_error(|| Act::Raw([4i32.to_be_bytes(), 99i32.to_be_bytes()].concat()));
    assert!(other.to_string().contains("correlation id"), "{other}");
}

#[test]
fn silence_and_closed_doors_are_told_apart() {
    let silent = connect_error(|| Act::Silence);
    assert!(silent.to_string().contains("did not answer within 200 ms"), "{silent}");
    let closed = connect_error(|| Act::Hang);
    assert!(closed.to_string().contains("closed the connection"), "{closed}");
    assert!(closed.hint().is_some());
}

#[test]
fn a_garbled_answer_is_an_error_and_no_crash() {
    let broker = FakeBroker::start(1, |seen| {
        (seen.key == ApiKey::Metadata).then(|| Act::Answer(vec![0, 0, 0, 0, 0, 1, 2].into()))
    });
    let error = Cluster::connect(broker.options()).err().expect("unreadable");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error}");
}

/// The codec would reserve memory for two thousand million brokers before it has read one.
#[test]
fn an_answer_that_announces_more_than_it_has_is_refused() {
    let broker = FakeBroker::start(1, |seen| {
        (seen.key == ApiKey::Metadata).then(|| {
            // Correlation id, header's tags, throttle time, brokers: 2^31 - 1 of them (Metadata v9, compact).
            let brokers = [0x80, 0x80, 0x80, 0x80, 0x08];
            Act::Answer([&[0; 9][..], &brokers, &[0; 20]].concat().into())
        })
    });
    let error = Cluster::connect(broker.options()).err().expect("a lie");
    let text = error.to_string();
    assert!(matches!(error, ClientError::Malformed { .. }), "{text}");
    assert!(text.contains("brokers at byte 14 announces more elements than the message has bytes for"), "{text}");
}

#[test]
fn creation_is_tried_again_while_the_controller_moves() {
    let mut asked = 0;
    let broker = FakeBroker::start(1, move |seen| {
        (seen.key == ApiKey::CreateTopics).then(|| {
            asked += 1;
            let code = if asked == 1 { ResponseError::NotController.code() } else { 0 };
            let result = CreatableTopicResult::default().with_name(topic_name("t")).with_error_code(code);
            let result = result.with_num_partitions(4).with_replication_factor(1);
            answer::<CreateTopicsRequest>(&CreateTopicsResponse::default().with_topics(vec![result]), seen.version)
        })
    });
    let topic = NewTopic { name: "t".to_owned(), partitions: Some(4), ..NewTopic::default() };
    let created = create_topic(&mut broker.cluster(), &topic, false).expect("created in the end");
    assert_eq!((created.partitions, broker.asked(ApiKey::CreateTopics)), (Some(4), 2));
}

#[derive(Default)]
struct Kept {
    values: Vec<String>,
    notices: Vec<String>,
}

impl Sink for Kept {
    fn record(&mut self, _: i32, record: &Record<'_>) -> std::io::Result<bool> {
        self.values.push(format!("{}:{}", record.offset, String::from_utf8_lossy(record.value.unwrap_or_default())));
        Ok(true)
    }
    fn idle(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn notice(&mut self, text: &str) {
        self.notices.push(text.to_owned());
    }
}

fn batch(base: i64, values: &[&str]) -> Vec<u8> {
    let mut b = BatchBuilder::new(Compression::NONE).placed(Offset(base), LeaderEpoch(0));
    values.iter().for_each(|v| b.push(1, None, Some(v.as_bytes()), &[]).expect("small"));
    b.build().expect("small").to_vec()
}

fn fetched(seen: &Seen, code: i16, records: Vec<u8>) -> Act {
    let data = PartitionData::default().with_error_code(code).with_records(Some(records.into()));
    let topic = FetchableTopicResponse::default().with_topic(topic_name("t")).with_partitions(vec![data]);
    answer::<FetchRequest>(&FetchResponse::default().with_responses(vec![topic]), seen.version)
}

fn fetch_offset(seen: &Seen) -> i64 {
    decode::<FetchRequest>(seen).topics[0].partitions[0].fetch_offset
}

fn options(reset: Reset) -> ConsumerOptions {
    ConsumerOptions {
        isolation: Isolation::ReadUncommitted,
        reset,
        fetch_bytes: 1 << 20,
        partition_fetch_bytes: 1 << 20,
        max_wait: Duration::from_millis(100),
    }
}

#[test]
fn reading_goes_on_where_it_was_after_a_moved_leader_and_a_cut_connection() {
    let mut fetches = 0;
    let broker = FakeBroker::start(1, move |seen| {
        (seen.key == ApiKey::Fetch).then(|| {
            fetches += 1;
            match (fetches, fetch_offset(seen)) {
                (1, 1) => fetched(seen, 0, batch(0, &["a", "b"])),
                (2, 2) => fetched(seen, ResponseError::NotLeaderOrFollower.code(), Vec::new()),
                (3, 2) => Act::Hang,
                (4, 2) => fetched(seen, 0, batch(2, &["c", "d"])),
                other => panic!("an unexpected fetch {other:?}"),
            }
        })
    });
    let mut kept = Kept::default();
    let from_1_to_3 = [Assignment { partition: 0, from_offset: 1, to_offset: Some(3) }];
    consume(&mut broker.cluster(), "t", &from_1_to_3, &options(Reset::Fail), &mut kept).expect("read");
    assert_eq!(kept.values, ["1:b", "2:c"]);
    let [gone, back] = kept.notices.as_slice() else { panic!("{:?}", kept.notices) };
    assert!(gone.starts_with("reading t: ") && gone.ends_with("trying again, for 5s at most"), "{gone}");
    assert!(back.starts_with("reading t: it works again, after "), "{back}");
}

/// Each trouble has its own time: who waited through one while nothing came is not at the end of his patience at the next.
#[test]
fn patience_begins_anew_once_the_broker_has_answered() {
    let mut fetches = 0;
    let broker = FakeBroker::start(1, move |seen| {
        (seen.key == ApiKey::Fetch).then(|| {
            fetches += 1;
            match fetches {
                1 | 6 => Act::Hang,
                2..=5 => {
                    std::thread::sleep(Duration::from_millis(600));
                    fetched(seen, 0, Vec::new())
                }
                _ => fetched(seen, 0, batch(0, &["a"])),
            }
        })
    });
    let mut options_of_cluster = broker.options();
    options_of_cluster.retry_for = Duration::from_secs(2);
    let mut cluster = Cluster::connect(options_of_cluster).expect("the fake broker answers");
    let mut kept = Kept::default();
    let first = [Assignment { partition: 0, from_offset: 0, to_offset: Some(1) }];
    consume(&mut cluster, "t", &first, &options(Reset::Fail), &mut kept).expect("two short outages, none of 2 s");
    assert_eq!((kept.values.as_slice(), kept.notices.len()), (["0:a".to_owned()].as_slice(), 4), "{:?}", kept.notices);
}

fn out_of_range(reset: Reset) -> (Result<(), ClientError>, Kept) {
    let broker = FakeBroker::start(1, move |seen| match seen.key {
        ApiKey::Fetch if fetch_offset(seen) == 10 => Some(fetched(seen, 0, batch(10, &["x"]))),
        ApiKey::Fetch => Some(fetched(seen, ResponseError::OffsetOutOfRange.code(), Vec::new())),
        ApiKey::ListOffsets => {
            let asked = decode::<ListOffsetsRequest>(seen).topics[0].partitions[0].timestamp;
            let offset = if asked == -2 { 10 } else { 20 };
            let p = ListOffsetsPartitionResponse::default().with_offset(offset);
            let t = ListOffsetsTopicResponse::default().with_name(topic_name("t")).with_partitions(vec![p]);
            let response = ListOffsetsResponse::default().with_topics(vec![t]);
            Some(answer::<ListOffsetsRequest>(&response, seen.version))
        }
        _ => None,
    });
    let mut kept = Kept::default();
    let assignment = [Assignment { partition: 0, from_offset: 3, to_offset: Some(11) }];
    let result = consume(&mut broker.cluster(), "t", &assignment, &options(reset), &mut kept);
    (result, kept)
}

#[test]
fn an_offset_that_is_gone_obeys_the_reset_policy() {
    let (result, kept) = out_of_range(Reset::Earliest);
    result.expect("read from the earliest");
    assert_eq!(kept.values, ["10:x"]);
    assert_eq!(kept.notices, ["t-0: offset 3 is not in the log; reading on at 10"]);
    let (result, _) = out_of_range(Reset::Fail);
    let error = result.expect_err("refused").to_string();
    assert!(error.contains("offset 3 is not in the log, which holds 10 to 20"), "{error}");
}

/// The answer is about another partition, without an error: there is nothing to wait for.
#[test]
fn an_answer_that_leaves_the_partition_out_ends_the_look_up() {
    let broker = FakeBroker::start(1, |seen| {
        (seen.key == ApiKey::ListOffsets).then(|| {
            let p = ListOffsetsPartitionResponse::default().with_partition_index(7).with_offset(5);
            let t = ListOffsetsTopicResponse::default().with_name(topic_name("t")).with_partitions(vec![p]);
            answer::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(vec![t]), seen.version)
        })
    });
    let (told, asked) = std::sync::mpsc::channel();
    let mut cluster = broker.cluster();
    std::thread::spawn(move || {
        let _ = told.send(list_offsets(&mut cluster, "t", &[0], Lookup::Latest, Isolation::ReadUncommitted));
    });
    let outcome = asked.recv_timeout(Duration::from_secs(20)).expect("it comes to an end");
    let error = outcome.expect_err("nothing was learned").to_string();
    assert!(error.contains("offsets of t-0: the broker's answer leaves the partition out"), "{error}");
}

#[test]
fn a_corrupt_batch_stops_with_its_place() {
    let broker = FakeBroker::start(1, move |seen| {
        (seen.key == ApiKey::Fetch).then(|| {
            let mut bytes = batch(0, &["abc"]);
            *bytes.last_mut().expect("not empty") ^= 1;
            fetched(seen, 0, bytes)
        })
    });
    let assignment = [Assignment { partition: 0, from_offset: 0, to_offset: None }];
    let result = consume(&mut broker.cluster(), "t", &assignment, &options(Reset::Fail), &mut Kept::default());
    let error = result.expect_err("corrupt").to_string();
    assert!(error.contains("t-0 offset 0") && error.contains("CRC"), "{error}");
}
