//! One blocking connection to one broker: version negotiation, framing, pipelining.

use super::address::HostPort;
use super::error::ClientError;
use super::limits::{RESPONSE_BYTES_MAX, RESPONSE_READ_STEP_BYTES};
use crate::wire::guard;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long to wait for what, and the name that brokers log.
#[derive(Clone, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// For one answer; also the time limit that requests carry.
    pub request: Duration,
}

pub struct Connection {
    addr: String,
    writer: TcpStream,
    reader: ResponseReader,
    versions: HashMap<i16, (i16, i16)>,
    client_id: StrBytes,
    next_correlation: i32,
    /// Sent, not yet answered, in order: Kafka answers in the order of the requests.
    pending: VecDeque<i32>,
}

impl Connection {
    /// Connects, tries each address that the name resolves to, and learns the broker's versions (KIP-35, KIP-511).
    pub fn open(target: &HostPort, client_id: &str, timeouts: &Timeouts) -> Result<Connection, ClientError> {
        let stream = dial(target, timeouts.connect)?;
        let addr = target.to_string();
        let setup = |e: io::Error| ClientError::Connect { addr: addr.clone(), source: e.into() };
        stream.set_nodelay(true).map_err(setup)?;
        stream.set_write_timeout(Some(timeouts.request)).map_err(setup)?;
        let reader = ResponseReader {
            addr: addr.clone(),
            stream: stream.try_clone().map_err(setup)?,
            timeout: timeouts.request,
            answered_before: false,
        };
        let mut connection = Connection {
            addr: addr.clone(),
            writer: stream,
            reader,
            versions: HashMap::new(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            next_correlation: 1,
            pending: VecDeque::new(),
        };
        connection.learn_versions()?;
        Ok(connection)
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The version to speak for this API: the highest known to both ends and to the guard of answers.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        let known = guard::response(R::KEY).expect("invariant: every API of the client has a table of its answers");
        let ours = (known.version_min.max(R::VERSIONS.min), known.version_max.min(R::VERSIONS.max));
        let theirs = self.versions.get(&R::KEY).copied();
        match theirs {
            Some((low, high)) if low.max(ours.0) <= high.min(ours.1) => Ok(high.min(ours.1)),
            _ => Err(ClientError::Unsupported {
                addr: self.addr.clone(),
                api: api_name(R::KEY),
                ours: format!("{} to {}", ours.0, ours.1),
                theirs: theirs.map_or("none".to_owned(), |(low, high)| format!("{low} to {high}")),
            }),
        }
    }

    /// Whether the broker serves this API at all.
    pub fn serves<R: Request>(&self) -> bool {
        self.version::<R>().is_ok()
    }

    /// Sends one request and waits for its answer. `build` gets the version, for fields that only some versions have.
    pub fn call<R: Request>(&mut self, build: impl FnOnce(i16) -> R) -> Result<R::Response, ClientError> {
        let version = self.version::<R>()?;
        self.send(&build(version), version)?;
        let frame = self.receive(&api_name(R::KEY))?;
        decode_response::<R>(&self.addr, frame, version)
    }

    /// Sends without waiting; answers come in the same order through `receive`, or through the reader that
    /// `split_reader` gives away.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, ClientError> {
        let correlation = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1);
        let frame = encode_request(request, version, correlation, &self.client_id)?;
        self.writer.write_all(&frame).map_err(|source| {
            let doing = format!("sending {}", api_name(R::KEY));
            broken(&self.addr, doing, self.reader.timeout, source)
        })?;
        self.pending.push_back(correlation);
        Ok(correlation)
    }

    /// Waits for the oldest answer that is due; the frame starts behind the length field.
    pub fn receive(&mut self, doing: &str) -> Result<Bytes, ClientError> {
        let expected = self.pending.pop_front().expect("invariant: an answer is awaited only after a request");
        let frame = self.reader.next(&format!("waiting for {doing}"))?;
        check_correlation(&self.addr, &frame, expected)?;
        Ok(frame)
    }

    /// Whether an answer, or the connection's end, has begun to arrive; waits so long for it.
    pub fn is_answered(&mut self, patience: Duration) -> Result<bool, ClientError> {
        let stream = &self.reader.stream;
        let peeked = match patience.is_zero() {
            true => stream.set_nonblocking(true).and_then(|()| {
                let peeked = stream.peek(&mut [0]);
                stream.set_nonblocking(false).and(peeked)
            }),
            false => stream.set_read_timeout(Some(patience)).and_then(|()| stream.peek(&mut [0])),
        };
        match peeked {
            Ok(_) => Ok(true),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(e) => Err(broken(&self.addr, "waiting".to_owned(), patience, e)),
        }
    }

    /// A second handle on the same socket, for a thread that reads answers while this one writes requests.
    pub fn split_reader(&self) -> Result<ResponseReader, ClientError> {
        let stream = self.writer.try_clone();
        let stream = stream.map_err(|e| ClientError::Connect { addr: self.addr.clone(), source: e.into() })?;
        let timeout = self.reader.timeout;
        Ok(ResponseReader { addr: self.addr.clone(), stream, timeout, answered_before: true })
    }

    /// How long an answer may take; long polls need more than the rest.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.reader.timeout = timeout;
    }

    /// Ends both directions at once, so that a thread that reads from this connection wakes.
    pub fn shut(&self) {
        // It may be closed already; there is nothing left to do about it then.
        let _ = self.writer.shutdown(std::net::Shutdown::Both);
    }

    fn learn_versions(&mut self) -> Result<(), ClientError> {
        let build = || {
            ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("corelog"))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
        };
        let mut version = 3;
        self.send(&build(), version)?;
        let mut frame = self.receive("ApiVersions")?;
        // A broker that does not know this version answers in version 0 (KIP-511).
        if frame.get(4..6) == Some(&35i16.to_be_bytes()) {
            version = 0;
            self.send(&ApiVersionsRequest::default(), version)?;
            frame = self.receive("ApiVersions")?;
        }
        let answer: ApiVersionsResponse = decode_response::<ApiVersionsRequest>(&self.addr, frame, version)?;
        if let Some(error) = ClientError::from_code(format!("{}: ApiVersions", self.addr), answer.error_code, None) {
            return Err(error);
        }
        self.versions = answer.api_keys.iter().map(|a| (a.api_key, (a.min_version, a.max_version))).collect();
        Ok(())
    }
}

/// The reading half of a connection.
pub struct ResponseReader {
    addr: String,
    stream: TcpStream,
    timeout: Duration,
    answered_before: bool,
}

impl ResponseReader {
    /// The next frame behind its length field; bounded in size and time.
    pub fn next(&mut self, doing: &str) -> Result<Bytes, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut length = [0u8; 4];
        self.fill(&mut length, deadline, doing)?;
        let declared = i32::from_be_bytes(length);
        let bytes = match usize::try_from(declared) {
            Ok(bytes) if (4..=RESPONSE_BYTES_MAX).contains(&bytes) => bytes,
            _ => return Err(self.bad_length(length, declared)),
        };
        let mut frame = BytesMut::new();
        while frame.len() < bytes {
            let from = frame.len();
            frame.resize(bytes.min(from + RESPONSE_READ_STEP_BYTES), 0);
            let step = frame.get_mut(from..).expect("invariant: the buffer has just grown");
            fill(&mut self.stream, step, deadline)
                .map_err(|e| broken(&self.addr, doing.to_owned(), self.timeout, e))?;
        }
        self.answered_before = true;
        Ok(frame.freeze())
    }

    /// Waits without a time limit until something arrives, for a reader whose owner keeps the time.
    pub fn wait(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        self.stream.peek(&mut [0u8; 1]).map(|_| ())
    }

    fn fill(&mut self, buffer: &mut [u8], deadline: Instant, doing: &str) -> Result<(), ClientError> {
        fill(&mut self.stream, buffer, deadline).map_err(|e| broken(&self.addr, doing.to_owned(), self.timeout, e))
    }

    fn bad_length(&self, length: [u8; 4], declared: i32) -> ClientError {
        let shown = String::from_utf8_lossy(&length).escape_debug().to_string();
        let found = match self.answered_before {
            false => format!("its first bytes were \"{shown}\""),
            true => format!("an answer of {declared} bytes (at most {RESPONSE_BYTES_MAX} are accepted)"),
        };
        ClientError::NotKafka { addr: self.addr.clone(), found }
    }
}

/// The frame of one request, with its length field.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<Bytes, ClientError> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let wrong =
        |e: anyhow::Error| ClientError::Invalid(format!("cannot express this as {} v{version}: {e}", api_name(R::KEY)));
    let mut frame = BytesMut::new();
    frame.extend_from_slice(&[0; 4]);
    header.encode(&mut frame, R::header_version(version)).map_err(wrong)?;
    request.encode(&mut frame, version).map_err(wrong)?;
    let length = i32::try_from(frame.len() - 4)
        .map_err(|_| ClientError::Invalid(format!("a request of {} bytes is too large", frame.len())))?;
    frame.get_mut(..4).expect("invariant: reserved above").copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// Reads an answer; the frame starts behind its length field. The codec reserves memory for what an array announces, so
/// the guard looks through the answer first.
pub fn decode_response<R: Request>(addr: &str, mut frame: Bytes, version: i16) -> Result<R::Response, ClientError> {
    let wrong =
        |reason: String| ClientError::Malformed { addr: addr.to_owned(), api: api_name(R::KEY), version, reason };
    guard::check_response(R::KEY, version, &frame).map_err(|e| wrong(e.to_string()))?;
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    ResponseHeader::decode(&mut frame, header_version).map_err(|e| wrong(e.to_string()))?;
    let response = R::Response::decode(&mut frame, version).map_err(|e| wrong(e.to_string()))?;
    match frame.len() {
        0 => Ok(response),
        left => Err(wrong(format!("{left} bytes are left over"))),
    }
}

/// Checks that a frame answers this request.
pub fn check_correlation(addr: &str, frame: &[u8], expected: i32) -> Result<(), ClientError> {
    let found = frame.first_chunk::<4>().map(|b| i32::from_be_bytes(*b));
    if found == Some(expected) {
        return Ok(());
    }
    let found = format!("correlation id {expected} was due, {found:?} came");
    Err(ClientError::NotKafka { addr: addr.to_owned(), found })
}

/// An API's name as the protocol guide spells it.
pub fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map(|k| format!("{k:?}")).unwrap_or_else(|_| format!("API {key}"))
}

pub fn dial(target: &HostPort, timeout: Duration) -> Result<TcpStream, ClientError> {
    let failed = |e: io::Error| ClientError::Connect { addr: target.to_string(), source: e.into() };
    let candidates = (target.host.as_str(), target.port).to_socket_addrs().map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn fill(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => buffer = buffer.get_mut(n..).expect("invariant: read returns at most the buffer's length"),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn broken(addr: &str, doing: String, timeout: Duration, source: io::Error) -> ClientError {
    let addr = addr.to_owned();
    match source.kind() {
        io::ErrorKind::UnexpectedEof => ClientError::Closed { addr, doing },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            ClientError::TimedOut { addr, doing, after_ms: timeout.as_millis() }
        }
        _ => ClientError::Io { addr, doing, source: source.into() },
    }
}
