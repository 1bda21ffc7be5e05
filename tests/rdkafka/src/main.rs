//! The rdkafka crate behind one JSON request a line, as `tests/clients/harness/adapter.py` tells.
//! Usage: corelog-rdkafka-tests BOOTSTRAP

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

type Answer = Result<Value, Box<dyn Error>>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request {
    Version,
    Create { topic: String, partitions: i32, config: std::collections::BTreeMap<String, String> },
    Delete { topic: String },
    Produce { topic: String, partition: i32, codec: String, max_bytes: usize, records: Vec<Record> },
    Consume { topic: String, partition: i32, count: usize, offset: Option<i64>, timestamp: Option<i64> },
    ProduceFile { topic: String, path: String, codec: String },
}

/// A record in the harness's notation: base64 or null for key, value and header values.
#[derive(Serialize, Deserialize)]
struct Record {
    k: Option<String>,
    v: Option<String>,
    h: Vec<(String, Option<String>)>,
    t: Option<i64>,
    #[serde(default)]
    o: i64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let bootstrap = std::env::args().nth(1).ok_or("usage: corelog-rdkafka-tests BOOTSTRAP")?;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&bootstrap, serde_json::from_str(&line?)?).unwrap_or_else(|error| refusal(error.as_ref()));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(bootstrap: &str, request: Request) -> Answer {
    match request {
        Request::Version => {
            let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
            let rdkafka = env!("RDKAFKA_CRATE_VERSION");
            Ok(json!({ "version": format!("{rdkafka} (librdkafka {librdkafka})") }))
        }
        Request::Create { topic, partitions, config } => {
            let mut new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
            for (key, value) in &config {
                new = new.set(key, value);
            }
            let results = wait(admin(bootstrap)?.create_topics([&new], &AdminOptions::new()))?;
            for result in results {
                result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
            }
            Ok(json!({}))
        }
        Request::Delete { topic } => {
            for result in wait(admin(bootstrap)?.delete_topics(&[&topic], &AdminOptions::new()))? {
                result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
            }
            Ok(json!({}))
        }
        Request::Produce { topic, partition, codec, max_bytes, records } => {
            produce(bootstrap, &topic, partition, &codec, max_bytes, &records)
        }
        Request::Consume { topic, partition, count, offset, timestamp } => {
            consume(bootstrap, &topic, partition, count, offset, timestamp)
        }
        Request::ProduceFile { topic, path, codec } => produce_file(bootstrap, &topic, &path, &codec),
    }
}

/// Remembers where each record landed; the opaque of a record is its index.
#[derive(Default)]
struct Deliveries(std::sync::Mutex<Vec<(usize, Result<i64, KafkaError>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().expect("no delivery callback panics").push((*index, outcome));
    }
}

fn produce(bootstrap: &str, topic: &str, partition: i32, codec: &str, max_bytes: usize, records: &[Record]) -> Answer {
    let producer = producer(bootstrap, codec, max_bytes)?;
    for (index, record) in records.iter().enumerate() {
        let (key, value) = (decode(&record.k)?, decode(&record.v)?);
        let mut headers = OwnedHeaders::new();
        for (name, content) in &record.h {
            headers = headers.insert(Header { key: name, value: decode(content)?.as_ref() });
        }
        let mut message =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(index)).partition(partition).headers(headers);
        message.key = key.as_deref();
        message.payload = value.as_deref();
        message.timestamp = record.t;
        producer.send(message).map_err(|(error, _)| error)?;
    }
    Ok(json!({ "offsets": delivered(&producer, records.len())? }))
}

fn produce_file(bootstrap: &str, topic: &str, path: &str, codec: &str) -> Answer {
    let producer = producer(bootstrap, codec, 1_000_000)?;
    let mut count = 0;
    for line in std::io::BufReader::new(std::fs::File::open(path)?).lines() {
        let line = line?;
        let mut parts = line.splitn(3, '\t');
        let mut part = || parts.next().ok_or("a line without key, timestamp and value");
        let (key, timestamp, value) = (part()?, part()?.parse()?, part()?);
        let mut message =
            BaseRecord::with_opaque_to(topic, Box::new(count)).key(key).payload(value).timestamp(timestamp);
        while let Err((error, back)) = producer.send(message) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            message = back;
            producer.poll(Duration::from_millis(100));
        }
        count += 1;
    }
    delivered(&producer, count)?;
    Ok(json!({ "count": count }))
}

/// Waits for every delivery; the offsets in the order of sending.
fn delivered(producer: &BaseProducer<Deliveries>, count: usize) -> Result<Vec<i64>, Box<dyn Error>> {
    producer.flush(DEADLINE)?;
    let mut outcomes = std::mem::take(&mut *producer.context().0.lock().expect("no delivery callback panics"));
    outcomes.sort_by_key(|(index, _)| *index);
    let offsets = outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Result<Vec<_>, _>>()?;
    if offsets.len() != count {
        return Err(format!("{} of {count} records delivered", offsets.len()).into());
    }
    Ok(offsets)
}

fn consume(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    count: usize,
    offset: Option<i64>,
    timestamp: Option<i64>,
) -> Answer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    let start = Offset::Offset(offset.or(timestamp).ok_or("neither an offset nor a timestamp")?);
    assignment.add_partition_offset(topic, partition, start)?;
    if timestamp.is_some() {
        assignment = consumer.offsets_for_times(assignment, DEADLINE)?;
    }
    consumer.assign(&assignment)?;
    let mut records = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while records.len() < count {
        if let Some(message) = consumer.poll(Duration::from_millis(500)) {
            let message = match message {
                Err(error) if no_groups(&error) => continue,
                other => other?,
            };
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            records.push(Record {
                k: message.key().map(encode),
                v: message.payload().map(encode),
                h: headers.map(|header| (header.key.to_owned(), header.value.map(encode))).collect(),
                t: message.timestamp().to_millis(),
                o: message.offset(),
            });
        }
        if Instant::now() > deadline {
            return Err(format!("{} of {count} records within {DEADLINE:?}", records.len()).into());
        }
    }
    Ok(json!({ "records": records }))
}

/// librdkafka looks for a coordinator as soon as group.id is set, which assigning consumers need too. A broker without
/// groups refuses that; the assignment works all the same.
fn no_groups(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidRequest)
}

fn producer(bootstrap: &str, codec: &str, max_bytes: usize) -> Result<BaseProducer<Deliveries>, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", codec)
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("message.max.bytes", max_bytes.to_string())
        .create_with_context(Deliveries::default())
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create()
}

/// Runs one future to its end: the admin client's futures are completed by its own thread, which unparks this one.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// The error as Kafka's code (librdkafka numbers the broker's errors as Kafka does; its own are negative).
fn refusal(error: &(dyn Error + 'static)) -> Value {
    let code = error.downcast_ref::<KafkaError>().and_then(|error| match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    });
    json!({ "error": code.map_or(-1, |code| code as i32), "message": error.to_string() })
}

fn encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

fn decode(text: &Option<String>) -> Result<Option<Vec<u8>>, base64::DecodeError> {
    text.as_ref().map(|text| STANDARD.decode(text)).transpose()
}
