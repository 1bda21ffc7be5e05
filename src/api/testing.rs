//! A broker for the handlers' tests: a shard's context, whose control plane is the test itself.

use super::context::ShardContext;
use super::{Outcome, registry};
use crate::base::config::BrokerConfig;
use crate::base::ids::{BrokerId, LeaderEpoch, TopicId};
use crate::cluster::image::{self, ClusterImage, Partition, Topic};
use crate::controller::handle::{Command, ControlHandle};
use crate::wire::reply::{Piece, ReplyFrame};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

pub const CORRELATION_ID: i32 = 77;

pub struct Broker {
    pub context: Rc<ShardContext>,
    pub local_addr: SocketAddr,
    commands: RefCell<mpsc::Receiver<Command>>,
    runtime: tokio::runtime::Runtime,
    tasks: LocalSet,
}

impl Broker {
    /// A broker that knows of nothing, not even of itself.
    pub fn empty() -> Self {
        Broker::with(ClusterImage::default())
    }

    pub fn with(image: ClusterImage) -> Self {
        let (sender, commands) = mpsc::channel(16);
        Broker {
            context: ShardContext::for_tests(image, ControlHandle::new(sender, Default::default())),
            local_addr: ([127, 0, 0, 1], 9092).into(),
            commands: RefCell::new(commands),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            tasks: LocalSet::new(),
        }
    }

    /// Starts the broker anew with settings as server.properties has them.
    pub fn configure(&mut self, settings: &[(&str, &str)]) {
        let texts = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = BrokerConfig::from_texts(texts).expect("sound settings");
        let image = ClusterImage::clone(&self.context.image());
        self.context = ShardContext::configured_for_tests(image, self.context.control.clone(), config);
    }

    /// Runs stage one of a request.
    pub fn dispatch(&self, frame: Bytes) -> Outcome {
        let peer = ([127, 0, 0, 1], 40_000).into();
        self.tasks.block_on(&self.runtime, async { registry::dispatch(&self.context, self.local_addr, peer, frame) })
    }

    /// Sends a request that must not need the control plane.
    pub fn ask<Q: Request>(&self, version: i16, request: &Q) -> Q::Response
    where
        Q::Response: Decodable + HeaderVersion,
    {
        self.ask_with(version, request, |_| panic!("a command that was not expected"))
    }

    /// Sends a request; `control` acts as the control plane.
    pub fn ask_with<Q: Request>(&self, version: i16, request: &Q, control: impl FnMut(Command)) -> Q::Response
    where
        Q::Response: Decodable + HeaderVersion,
    {
        let outcome = self.dispatch(frame(version, request));
        let outcome = self.settle(outcome, control);
        self.decode_reply(version, outcome)
    }

    /// Waits for the answer of a request whose stage one has run.
    pub fn settle(&self, outcome: Outcome, mut control: impl FnMut(Command)) -> Outcome {
        let Outcome::Wait(mut answer) = outcome else {
            return outcome;
        };
        let mut commands = self.commands.borrow_mut();
        let answer = self.tasks.block_on(&self.runtime, async {
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answer => break answer,
                    Some(command) = commands.recv() => control(command),
                }
            }
        });
        Outcome::Reply(answer.expect("a response that can be encoded"))
    }

    pub fn decode_reply<R: Decodable + HeaderVersion>(&self, version: i16, outcome: Outcome) -> R {
        let mut bytes = match outcome {
            Outcome::Reply(frame) => flat(&frame),
            Outcome::Close(reason) => panic!("closed: {reason}"),
            Outcome::Wait(_) => panic!("still waiting"),
            Outcome::Nothing => panic!("no answer"),
        };
        assert_eq!(bytes.get_i32() as usize, bytes.len(), "the frame's length");
        let header = ResponseHeader::decode(&mut bytes, R::header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, CORRELATION_ID);
        let response = R::decode(&mut bytes, version).expect("a response");
        assert!(bytes.is_empty(), "{} bytes after the response", bytes.len());
        response
    }
}

/// A request's frame, without its size.
pub fn frame<Q: Request>(version: i16, request: &Q) -> Bytes {
    let mut bytes = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION_ID)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut bytes, Q::header_version(version))
        .expect("a header");
    request.encode(&mut bytes, version).expect("a request");
    bytes.freeze()
}

/// An image of `shards` shards on node 0, port 9092 on, the first of them the controller.
pub fn image(shards: u16) -> ClusterImage {
    let broker = |id: i32| image::Broker { id: BrokerId(id), host: None, port: 9092 + id as u16, rack: None };
    ClusterImage {
        version: 1,
        cluster_id: "a-cluster".into(),
        controller: Some(BrokerId(0)),
        brokers: (0..i32::from(shards)).map(|id| (BrokerId(id), broker(id))).collect(),
        ..ClusterImage::default()
    }
}

/// Adds a topic whose partitions have one replica each, at the brokers named.
pub fn add_topic(image: &mut ClusterImage, name: &str, replicas: &[i32]) -> TopicId {
    let partition = |id: &i32| Partition {
        leader: Some(BrokerId(*id)),
        leader_epoch: LeaderEpoch(3),
        partition_epoch: 0,
        replicas: vec![BrokerId(*id)],
        isr: vec![BrokerId(*id)],
        incarnation: 1,
    };
    let topic = Arc::new(Topic {
        name: name.into(),
        id: TopicId::random(),
        is_internal: false,
        partitions: replicas.iter().map(partition).collect(),
        settings: BTreeMap::new(),
    });
    image.topics.insert(topic.name.clone(), Arc::clone(&topic));
    image.topics_by_id.insert(topic.id, Arc::clone(&topic));
    topic.id
}

fn flat(frame: &ReplyFrame) -> Bytes {
    let mut bytes = BytesMut::new();
    for piece in &frame.pieces {
        match piece {
            Piece::Bytes(piece) => bytes.extend_from_slice(piece),
            Piece::File(_) => panic!("a file in an administrative answer"),
        }
    }
    bytes.freeze()
}
