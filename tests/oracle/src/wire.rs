//! One connection: frames out, frames in, nothing assumed about the other end.

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take before the broker counts as silent.
pub const SILENCE: Duration = Duration::from_secs(12);
const FRAME_BYTES_MAX: usize = 64 << 20;

pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
    /// Correlation ids of requests that have not been answered yet, oldest first.
    awaited: VecDeque<i32>,
}

/// What came back: an answer's frame, or how the connection went.
pub enum Received {
    Frame(Bytes),
    Closed,
    Silent,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Connection { stream, next_correlation_id: 1, awaited: VecDeque::new() })
    }

    /// Sends header and body. A peer that has closed meanwhile is noticed by the next receive.
    pub fn send<R: Request>(&mut self, request: &R, version: i16, answered: bool) -> Result<()> {
        let correlation_id = self.correlation_id();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("oracle")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        self.send_frame(frame, answered.then_some(correlation_id))
    }

    /// Sends a body that is no encoded message, in the API and version that it claims.
    pub fn send_raw(&mut self, api_key: i16, version: i16, header_version: i16, body: &[u8]) -> Result<()> {
        let correlation_id = self.correlation_id();
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(api_key);
        frame.put_i16(version);
        frame.put_i32(correlation_id);
        frame.put_i16(-1);
        if header_version >= 2 {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        self.send_frame(frame, Some(correlation_id))
    }

    fn correlation_id(&mut self) -> i32 {
        self.next_correlation_id += 1;
        self.next_correlation_id
    }

    fn send_frame(&mut self, mut frame: BytesMut, awaited: Option<i32>) -> Result<()> {
        let length = i32::try_from(frame.len() - 4).context("the frame is longer than a frame can be")?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        if let Some(correlation_id) = awaited {
            self.awaited.push_back(correlation_id);
        }
        match self.stream.write_all(&frame) {
            Err(error) if !is_closed(error.kind()) => Err(error).context("sending a request"),
            _ => Ok(()),
        }
    }

    /// Like `receive`, with another limit of patience.
    pub fn receive_within(&mut self, patience: Duration) -> Result<Received> {
        self.stream.set_read_timeout(Some(patience))?;
        let received = self.receive();
        self.stream.set_read_timeout(Some(SILENCE))?;
        received
    }

    /// The next answer's frame without its size.
    pub fn receive(&mut self) -> Result<Received> {
        let mut size = [0; 4];
        let mut read = || -> std::io::Result<Vec<u8>> {
            self.stream.read_exact(&mut size)?;
            let length = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
            if length > FRAME_BYTES_MAX {
                return Err(std::io::Error::other(format!("an answer of {length} bytes")));
            }
            let mut frame = vec![0; length];
            self.stream.read_exact(&mut frame)?;
            Ok(frame)
        };
        let frame = match read() {
            Ok(frame) => Bytes::from(frame),
            Err(error) if is_closed(error.kind()) => return Ok(Received::Closed),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Received::Silent);
            }
            Err(error) => return Err(error).context("receiving an answer"),
        };
        let expected = self.awaited.pop_front().context("an answer came although none was awaited")?;
        let found = frame.get(..4).map(|mut bytes| bytes.get_i32());
        if found != Some(expected) {
            bail!("the answer has correlation id {found:?}, expected {expected}");
        }
        Ok(Received::Frame(frame))
    }
}

/// Decodes an answer, all of it: bytes left over are an error.
pub fn decode<R: Request>(mut frame: Bytes, version: i16) -> Result<R::Response> {
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).context("in the answer's header")?;
    let response = R::Response::decode(&mut frame, version)?;
    if !frame.is_empty() {
        bail!("{} bytes are left after the answer", frame.len());
    }
    Ok(response)
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}
