//! A broker for tests: a real socket, whose answers are a script.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader, api_versions_response::ApiVersion,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::address::HostPort;
use super::admin::topic_name;
use super::cluster::{Cluster, Options};
use std::time::Duration;

/// What the script wants to happen for a request.
pub enum Act {
    Answer(Bytes),
    /// Close the connection instead.
    Hang,
    /// Say nothing, keep the connection.
    Silence,
    /// Write these bytes as they are.
    Raw(Vec<u8>),
}

/// A request as the script sees it.
pub struct Seen {
    pub key: ApiKey,
    pub version: i16,
    pub body: Bytes,
}

type Script = Box<dyn FnMut(&Seen) -> Option<Act> + Send>;

pub struct FakeBroker {
    pub address: HostPort,
    /// The API keys of all requests, in their order.
    pub log: Arc<Mutex<Vec<ApiKey>>>,
}

impl FakeBroker {
    /// Serves version negotiation and metadata of topic `t` with `partitions` that it leads itself; the script may
    /// answer anything first.
    pub fn start(partitions: i32, script: impl FnMut(&Seen) -> Option<Act> + Send + 'static) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, port, partitions, &script, &seen));
            }
        });
        FakeBroker { address: HostPort { host: "127.0.0.1".to_owned(), port }, log }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(vec![self.address.clone()]);
        options.timeouts.request = Duration::from_secs(5);
        options.retry_for = Duration::from_secs(5);
        options
    }

    pub fn cluster(&self) -> Cluster {
        Cluster::connect(self.options()).expect("the fake broker answers")
    }

    pub fn asked(&self, key: ApiKey) -> usize {
        self.log.lock().expect("no panic").iter().filter(|k| **k == key).count()
    }
}

/// Encodes an answer to a request of this version.
pub fn answer<R: Request>(response: &R::Response, version: i16) -> Act {
    let mut bytes = BytesMut::new();
    ResponseHeader::default()
        .encode(&mut bytes, <R::Response as HeaderVersion>::header_version(version))
        .expect("a header can be encoded");
    response.encode(&mut bytes, version).expect("the test's answer fits the version");
    Act::Answer(bytes.freeze())
}

pub fn decode<R: Request>(seen: &Seen) -> R {
    R::decode(&mut seen.body.clone(), seen.version).expect("the client's requests can be decoded")
}

fn serve(mut stream: TcpStream, port: u16, partitions: i32, script: &Mutex<Script>, log: &Mutex<Vec<ApiKey>>) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut frame).is_err() {
            return;
        }
        let mut body = Bytes::from(frame);
        let key = ApiKey::try_from(i16::from_be_bytes([body[0], body[1]])).expect("a known API");
        let version = i16::from_be_bytes([body[2], body[3]]);
        let header = RequestHeader::decode(&mut body, key.request_header_version(version)).expect("a header");
        log.lock().expect("no panic").push(key);
        let seen = Seen { key, version, body };
        let act = script.lock().expect("no panic")(&seen).unwrap_or_else(|| ordinary(&seen, port, partitions));
        match act {
            Act::Hang => return,
            Act::Silence => {}
            Act::Raw(bytes) => stream.write_all(&bytes).expect("the client reads"),
            Act::Answer(bytes) => {
                let mut out = BytesMut::new();
                out.put_i32(bytes.len() as i32);
                out.put_i32(header.correlation_id);
                out.put_slice(&bytes[4..]);
                if stream.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }
}

fn ordinary(seen: &Seen, port: u16, partitions: i32) -> Act {
    match seen.key {
        ApiKey::ApiVersions => answer::<ApiVersionsRequest>(&versions(), seen.version),
        ApiKey::Metadata => answer::<MetadataRequest>(&metadata(port, partitions), seen.version),
        other => panic!("the script has no answer to {other:?}"),
    }
}

pub fn versions() -> ApiVersionsResponse {
    let serves = [
        (ApiKey::Produce, 3, 9),
        (ApiKey::Fetch, 4, 12),
        (ApiKey::ListOffsets, 1, 6),
        (ApiKey::Metadata, 0, 9),
        (ApiKey::ApiVersions, 0, 3),
        (ApiKey::CreateTopics, 2, 5),
        (ApiKey::InitProducerId, 0, 4),
    ];
    let api = |(key, min, max): (ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default().with_api_keys(serves.into_iter().map(api).collect())
}

fn metadata(port: u16, partitions: i32) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("127.0.0.1"))
        .with_port(i32::from(port));
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(1))
            .with_replica_nodes(vec![BrokerId(1)])
            .with_isr_nodes(vec![BrokerId(1)])
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(topic_name("t")))
        .with_partitions((0..partitions).map(partition).collect());
    MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(BrokerId(1)).with_topics(vec![topic])
}
