//! One file per Kafka API: its versions, its behaviour, its deliberate omissions, its handler.
//!
//! A request is handled in two stages. Stage one runs when the request's turn in its connection comes: it decides
//! everything whose order matters (offsets of an append). Stage two only waits, and overlaps with later requests.

pub mod context;
pub mod registry;

use crate::wire::reply::ReplyFrame;
use bytes::Bytes;
use kafka_protocol::messages::RequestHeader;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// What stage one leaves for the connection to do.
pub enum Outcome {
    /// The answer is ready.
    Reply(ReplyFrame),
    /// The answer comes when this future ends; it is polled only when all earlier answers of the connection are sent,
    /// so it must not be what drives the work.
    Wait(Pin<Box<dyn Future<Output = ReplyFrame>>>),
    /// No answer (acks=0).
    Nothing,
    /// The connection is closed, after earlier answers; the reason is for the log.
    Close(String),
}

/// What a handler knows about the request besides its body.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    /// The local address of this very connection: what is advertised where nothing else is configured.
    pub local_addr: SocketAddr,
    pub peer_addr: SocketAddr,
}

/// A decoded header with the rest of the frame.
pub struct Incoming {
    pub header: RequestHeader,
    pub body: Bytes,
}
