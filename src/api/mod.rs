//! One file per Kafka API: its versions, its behaviour, its deliberate omissions, its handler.
//!
//! A request is handled in two stages. Stage one runs when the request's turn in its connection comes: it decides
//! everything whose order matters (offsets of an append). Stage two only waits, and overlaps with later requests.

mod admin;
pub mod alter_configs;
pub mod api_versions;
pub mod authorized_operations;
pub mod brokers;
mod config_changes;
mod config_entries;
pub mod context;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod fetch;
pub mod find_coordinator;
pub mod groups;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod leaders;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod registry;
#[cfg(test)]
mod testing;

use crate::wire::encode::{EncodeError, encode};
use crate::wire::reply::ReplyFrame;
use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// What stage one leaves for the connection to do.
pub enum Outcome {
    /// The answer is ready.
    Reply(ReplyFrame),
    /// The answer comes when this future ends; it is polled only when all earlier answers of the connection are sent,
    /// so it must not be what drives the work. An error closes the connection, as `Close` does.
    Wait(Pin<Box<dyn Future<Output = Answer>>>),
    /// No answer (acks=0).
    Nothing,
    /// The connection is closed, after earlier answers; the reason is for the log.
    Close(String),
}

/// A frame to send. The error is a response that cannot be put on the wire: our own fault, so that only closing the
/// connection is left.
pub type Answer = Result<ReplyFrame, EncodeError>;

/// What a handler knows about the request besides its body.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// A slice of the request's frame: what keeps it keeps the frame.
    pub client_id: Option<StrBytes>,
    /// The local address of this very connection: what is advertised where nothing else is configured.
    pub local_addr: SocketAddr,
    pub peer_addr: SocketAddr,
}

impl RequestInfo {
    /// Decodes the body and hands it to `then`; a body that cannot be decoded closes the connection, as Kafka does.
    pub fn decoded<R: Decodable>(&self, mut body: Bytes, then: impl FnOnce(R) -> Outcome) -> Outcome {
        match R::decode(&mut body, self.version) {
            Ok(request) => then(request),
            Err(error) => Outcome::Close(format!(
                "the request of API key {} version {} from {} cannot be decoded: {error:#}",
                self.key, self.version, self.peer_addr
            )),
        }
    }

    /// The frame of `response`, in the request's version.
    pub fn answer<R: Encodable + HeaderVersion>(&self, response: &R) -> Answer {
        encode(self.version, self.correlation_id, response)
    }

    /// Stage one's answer.
    pub fn reply<R: Encodable + HeaderVersion>(&self, response: &R) -> Outcome {
        match self.answer(response) {
            Ok(frame) => Outcome::Reply(frame),
            Err(error) => Outcome::Close(error.to_string()),
        }
    }
}

/// Runs a future that never waits; None if it does.
fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    use std::task::{Context, Poll, Waker};
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
