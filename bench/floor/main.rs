//! What this machine can do at the least cost: a server that speaks just enough Kafka for `corelog bench`, and does nothing that a broker is for.
//!
//! It takes batches without a look at them and appends them to one file for each thread (acks=all: one direct, synchronous write for
//! everything that came meanwhile, over and over the same bytes of the disk); it answers fetches with the next slices of that file, whatever was asked.
//! No checks, no offsets, no partitions, no index. Threads, sockets, memory and file system are what a broker has as well, so that a broker's
//! figure divided by this one's tells how near it is to the limit: `bench/compare --peers corelog floor`.
//!
//! `cargo run --release --example floor -- PORT THREADS DIR`

mod store;

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use store::Store;

/// Versions without tagged fields: what `corelog bench` speaks under load, and old ones of the rest.
const APIS: [(ApiKey, i16, i16); 7] = [
    (ApiKey::Produce, 7, 7),
    (ApiKey::Fetch, 10, 10),
    (ApiKey::ListOffsets, 1, 4),
    (ApiKey::Metadata, 4, 8),
    (ApiKey::ApiVersions, 0, 2),
    (ApiKey::CreateTopics, 2, 4),
    (ApiKey::DeleteTopics, 1, 3),
];
const LISTENER: u64 = u64::MAX;
const RECEIVE_BYTES: usize = 256 << 10;
/// From here on slices leave by splice, as the broker's do.
const SPLICE_BYTES_MIN: u64 = 256 << 10;
const PIPE_BYTES: usize = 1 << 20;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, threads, dir] = &arguments[..] else { anyhow::bail!("usage: floor PORT THREADS DIR") };
    let (port, threads): (u16, u16) = (port.parse()?, threads.parse()?);
    let shared = Arc::new(Shared { port, threads, topics: Mutex::default(), generation: AtomicU64::new(0) });
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut running = Vec::new();
    for number in 0..threads {
        let (shared, core) = (Arc::clone(&shared), cores.get(usize::from(number) % cores.len().max(1)).copied());
        let mut worker = Worker::new(shared, Path::new(dir), port + number, number)?;
        running.push(std::thread::spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            worker.run()
        }));
    }
    for thread in running {
        thread.join().expect("a thread does not panic")?;
    }
    Ok(())
}

struct Shared {
    port: u16,
    threads: u16,
    /// Partitions by name.
    topics: Mutex<BTreeMap<String, i32>>,
    /// Counts topics that were made: each begins with empty files.
    generation: AtomicU64,
}

struct Worker {
    shared: Arc<Shared>,
    listener: TcpListener,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    store: Store,
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Of the buffer: what has come and is not looked at yet.
    start: usize,
    filled: usize,
    out: Vec<u8>,
    sending: Option<Sending>,
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// Where its next fetch begins: a batch of the file, by number.
    cursor: usize,
}

/// A slice of the file on its way.
struct Sending {
    position: u64,
    left: u64,
    in_pipe: usize,
}

impl Worker {
    fn new(shared: Arc<Shared>, dir: &Path, port: u16, number: u16) -> anyhow::Result<Worker> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let store = Store::new(dir, number)?;
        Ok(Worker { shared, listener, epoll, connections: Vec::new(), store })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let told: Vec<usize> = events.drain(..).map(|event| { event.data }.u64() as usize).collect();
            for number in &told {
                match *number as u64 {
                    LISTENER => self.accept()?,
                    _ => self.serve(*number)?,
                }
            }
            // All that came meanwhile is on disk before anything of it is answered.
            self.store.sync()?;
            for number in told.into_iter().filter(|number| *number as u64 != LISTENER) {
                self.answer(number)?;
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&self.epoll, &socket, EventData::new_u64(free as u64), flags)?;
            let connection = Connection {
                socket,
                buffer: vec![0; RECEIVE_BYTES],
                start: 0,
                filled: 0,
                out: Vec::new(),
                sending: None,
                pipe: None,
                cursor: 0,
            };
            match self.connections.get_mut(free) {
                Some(seat) => *seat = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
        Ok(())
    }

    /// Takes all that has come on a connection, and appends what is to be appended.
    fn serve(&mut self, number: usize) -> anyhow::Result<()> {
        self.store.follow(self.shared.generation.load(Ordering::Relaxed))?;
        loop {
            let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
            if connection.sending.is_some() {
                // One answer at a time: requests wait in the socket.
                return Ok(());
            }
            match connection.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(0) | Err(_) => {
                    self.connections[number] = None;
                    return Ok(());
                }
                Ok(_) => connection.take(&self.shared, &mut self.store)?,
            }
        }
    }

    /// Sends what there is to send on a connection.
    fn answer(&mut self, number: usize) -> anyhow::Result<()> {
        loop {
            let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
            let was_sending = connection.sending.is_some();
            match connection.send(&self.store.file) {
                Ok(true) if was_sending => {}
                Ok(_) => return Ok(()),
                Err(_) => self.connections[number] = None,
            }
            // What had to wait behind a slice may be there already, and is not told again.
            self.serve(number)?;
            self.store.sync()?;
        }
    }
}

impl Connection {
    fn receive(&mut self) -> io::Result<usize> {
        if self.start == self.filled {
            (self.start, self.filled) = (0, 0);
        }
        let wanted = frame_bytes(&self.buffer[self.start..self.filled]).unwrap_or(0);
        if self.filled == self.buffer.len() || self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.filled, 0);
            (self.start, self.filled) = (0, self.filled - self.start);
            self.buffer.resize(self.buffer.len().max(wanted), 0);
        }
        let read = self.socket.read(&mut self.buffer[self.filled..])?;
        self.filled += read;
        Ok(read)
    }

    /// Looks at each whole request; all their batches are appended together.
    fn take(&mut self, shared: &Shared, store: &mut Store) -> anyhow::Result<()> {
        let mut batches: Vec<std::ops::Range<usize>> = Vec::new();
        let mut durable = false;
        while let Some(length) = frame_bytes(&self.buffer[self.start..self.filled]) {
            if self.start + length > self.filled {
                break;
            }
            let (begin, end) = (self.start + 4, self.start + length);
            self.start = end;
            let frame = &self.buffer[begin..end];
            let mut request = Cursor { bytes: frame, at: 0 };
            let (key, version, correlation) = (request.i16(), request.i16(), request.i32());
            request.string();
            match ApiKey::try_from(key) {
                Ok(ApiKey::Produce) => {
                    durable |= produce(&mut request, correlation, begin, &mut batches, &mut self.out);
                }
                Ok(ApiKey::Fetch) => {
                    let (position, left, cursor) = store.slice(self.cursor, fetch_max_bytes(frame));
                    self.cursor = cursor;
                    fetch(&mut request, correlation, left, &mut self.out);
                    self.sending = (left > 0).then_some(Sending { position, left, in_pipe: 0 });
                }
                Ok(key) => {
                    let body = control(shared, key, version, &frame[request.at..])?;
                    let length = (body.len() + 4) as u32;
                    self.out.extend_from_slice(&length.to_be_bytes());
                    self.out.extend_from_slice(&correlation.to_be_bytes());
                    self.out.extend_from_slice(&body);
                }
                Err(()) => anyhow::bail!("API {key} is not known"),
            }
        }
        store.append(&self.buffer, &batches, durable)
    }

    /// Sends what there is; whether that is all.
    fn send(&mut self, file: &File) -> io::Result<bool> {
        let more = if self.sending.is_some() { SendFlags::MORE } else { SendFlags::empty() };
        while !self.out.is_empty() {
            match send(&self.socket, &self.out, more | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(sending) = &mut self.sending else { return Ok(true) };
        if self.pipe.is_none() && sending.left >= SPLICE_BYTES_MIN {
            let pipe = pipe_with(PipeFlags::NONBLOCK)?;
            fcntl_setpipe_size(&pipe.1, PIPE_BYTES)?;
            self.pipe = Some(pipe);
        }
        while sending.left > 0 || sending.in_pipe > 0 {
            let sent = match &self.pipe {
                Some((from, into)) => sending.splice(file, from, into, &self.socket),
                None => rustix::fs::sendfile(&self.socket, file, Some(&mut sending.position), sending.left as usize)
                    .map(|sent| sending.left -= sent as u64),
            };
            match sent {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.sending = None;
        Ok(true)
    }
}

impl Sending {
    fn splice(&mut self, file: &File, from: &OwnedFd, into: &OwnedFd, socket: &TcpStream) -> Result<(), Errno> {
        if self.in_pipe == 0 {
            let wanted = self.left.min(PIPE_BYTES as u64) as usize;
            self.in_pipe = splice(file, Some(&mut self.position), into, None, wanted, SpliceFlags::empty())?;
            self.left -= self.in_pipe as u64;
        }
        let flags = if self.left > 0 { SpliceFlags::MORE } else { SpliceFlags::empty() };
        self.in_pipe -= splice(from, None, socket, None, self.in_pipe, flags | SpliceFlags::NONBLOCK)?;
        Ok(())
    }
}

/// A frame's bytes, its length included, as soon as that is known.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize + 4)
}

/// Walks what `corelog bench` sends: nothing else is expected here.
struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn i16(&mut self) -> i16 {
        self.at += 2;
        i16::from_be_bytes([self.bytes[self.at - 2], self.bytes[self.at - 1]])
    }

    fn i32(&mut self) -> i32 {
        self.at += 4;
        i32::from_be_bytes(*self.bytes[..self.at].last_chunk().expect("four bytes"))
    }

    fn string(&mut self) -> &'b [u8] {
        let length = self.i16().max(0) as usize;
        self.at += length;
        &self.bytes[self.at - length..self.at]
    }
}

/// Notes where a request's batches are, and answers it; whether they shall be on disk before.
fn produce(
    request: &mut Cursor,
    correlation: i32,
    begin: usize,
    batches: &mut Vec<std::ops::Range<usize>>,
    out: &mut Vec<u8>,
) -> bool {
    request.string();
    let acks = request.i16();
    request.i32();
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&correlation.to_be_bytes());
    let topics = request.i32();
    out.extend_from_slice(&topics.to_be_bytes());
    for _ in 0..topics {
        let name = request.string();
        out.extend_from_slice(&(name.len() as i16).to_be_bytes());
        out.extend_from_slice(name);
        let partitions = request.i32();
        out.extend_from_slice(&partitions.to_be_bytes());
        for _ in 0..partitions {
            out.extend_from_slice(&request.i32().to_be_bytes());
            let length = request.i32().max(0) as usize;
            batches.push(begin + request.at..begin + request.at + length);
            request.at += length;
            // No error; base offset, time and log start are nobody's business here.
            out.extend_from_slice(&[0; 2 + 8 + 8 + 8]);
        }
    }
    out.extend_from_slice(&[0; 4]);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    if acks == 0 {
        out.truncate(at);
    }
    acks == -1
}

/// The last number of a Fetch request for one partition, before the topics that it forgets.
fn fetch_max_bytes(frame: &[u8]) -> u64 {
    let mut cursor = Cursor { bytes: frame, at: frame.len() - 8 };
    cursor.i32().max(0) as u64
}

/// What stands before the records.
fn fetch(request: &mut Cursor, correlation: i32, records: u64, out: &mut Vec<u8>) {
    // Replica, waiting, sizes, isolation, session.
    request.at += 4 * 4 + 1 + 4 * 2 + 4;
    let name = request.string();
    request.i32();
    let partition = request.i32();
    let length = 4 + 4 + 2 + 4 + 4 + 2 + name.len() as u64 + 4 + 4 + 2 + 8 * 3 + 4 + 4 + records;
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(&[0; 4 + 2 + 4]);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&(name.len() as i16).to_be_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&partition.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    // A high watermark that is never reached: readers go on.
    out.extend_from_slice(&i64::MAX.to_be_bytes());
    out.extend_from_slice(&[0; 8 + 8]);
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&(records as u32).to_be_bytes());
}

/// All else that the generator asks.
fn control(shared: &Shared, key: ApiKey, version: i16, mut body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut topics = shared.topics.lock().expect("no thread panics");
    match key {
        ApiKey::ApiVersions => {
            let known = version <= 2;
            let api = |(key, min, max): (ApiKey, i16, i16)| {
                ApiVersion::default().with_api_key(key as i16).with_min_version(min).with_max_version(max)
            };
            ApiVersionsResponse::default()
                .with_error_code(if known { 0 } else { 35 })
                .with_api_keys(APIS.map(api).to_vec())
                .encode(&mut out, if known { version } else { 0 })?;
        }
        ApiKey::Metadata => {
            let wanted = MetadataRequest::decode(&mut body, version)?.topics;
            let names: Vec<String> = match wanted {
                Some(wanted) => wanted.into_iter().filter_map(|topic| Some(topic.name?.0.to_string())).collect(),
                None => topics.keys().cloned().collect(),
            };
            metadata(shared, &topics, names).encode(&mut out, version)?;
        }
        ApiKey::CreateTopics => {
            let mut results = Vec::new();
            for topic in CreateTopicsRequest::decode(&mut body, version)?.topics {
                let (name, partitions) = (topic.name.to_string(), topic.num_partitions.max(1));
                let known = topics.contains_key(&name);
                topics.entry(name).or_insert(partitions);
                // TOPIC_ALREADY_EXISTS
                let error = if known { 36 } else { 0 };
                results.push(CreatableTopicResult::default().with_name(topic.name).with_error_code(error));
            }
            if results.iter().all(|result| result.error_code == 0) {
                shared.generation.fetch_add(1, Ordering::Relaxed);
            }
            CreateTopicsResponse::default().with_topics(results).encode(&mut out, version)?;
        }
        ApiKey::DeleteTopics => {
            let names = DeleteTopicsRequest::decode(&mut body, version)?.topic_names;
            topics.retain(|known, _| !names.iter().any(|name| **name == **known));
            let result = |name: TopicName| DeletableTopicResult::default().with_name(Some(name));
            let results = names.into_iter().map(result).collect();
            DeleteTopicsResponse::default().with_responses(results).encode(&mut out, version)?;
        }
        ApiKey::ListOffsets => {
            let all = ListOffsetsRequest::decode(&mut body, version)?.topics.into_iter().map(|topic| {
                let partition = |partition: i32| {
                    ListOffsetsPartitionResponse::default().with_partition_index(partition).with_offset(0)
                };
                let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect();
                ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
            });
            ListOffsetsResponse::default().with_topics(all.collect()).encode(&mut out, version)?;
        }
        _ => anyhow::bail!("{key:?} is not served"),
    }
    Ok(out)
}

/// A broker for each thread; partitions take turns over them.
fn metadata(shared: &Shared, topics: &BTreeMap<String, i32>, names: Vec<String>) -> MetadataResponse {
    let threads = i32::from(shared.threads);
    let broker = |number: i32| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(number))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(i32::from(shared.port) + number)
    };
    let partition = |index: i32| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(index % threads))
            .with_replica_nodes(vec![BrokerId(index % threads)])
            .with_isr_nodes(vec![BrokerId(index % threads)])
    };
    let topic = |name: String| {
        let partitions = topics.get(&name);
        MetadataResponseTopic::default()
            .with_error_code(if partitions.is_some() { 0 } else { 3 })
            .with_name(Some(TopicName(StrBytes::from_string(name))))
            .with_partitions((0..partitions.copied().unwrap_or(0)).map(partition).collect())
    };
    MetadataResponse::default()
        .with_brokers((0..threads).map(broker).collect())
        .with_controller_id(BrokerId(0))
        .with_topics(names.into_iter().map(topic).collect())
}
