//! A cluster as a client sees it: the bootstrap list, the brokers behind it, and requests that are tried again until
//! they succeed, fail for good, or time is up.

use super::address::HostPort;
use super::connection::{Connection, Timeouts};
use super::error::ClientError;
use super::metadata::{self, Metadata, Topics};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::protocol::Request;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Options {
    pub bootstrap: Vec<HostPort>,
    pub client_id: String,
    pub timeouts: Timeouts,
    /// For one command's step, with all its retries.
    pub retry_for: Duration,
}

impl Options {
    pub fn new(bootstrap: Vec<HostPort>) -> Options {
        Options {
            bootstrap,
            client_id: "corelog".to_owned(),
            timeouts: Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(30) },
            retry_for: Duration::from_secs(30),
        }
    }
}

/// Which broker to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Any,
    Controller,
    Broker(i32),
}

/// Pauses between attempts, growing, until the time is up.
#[derive(Debug)]
pub struct Retry {
    deadline: Instant,
    pause: Duration,
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Retry {
    pub fn new(limit: Duration) -> Retry {
        Retry { deadline: Instant::now() + limit, pause: PAUSE_MIN }
    }

    /// Sleeps before another attempt; gives the error back if it is final or no time is left.
    pub fn pause(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.retriable() || Instant::now() + self.pause >= self.deadline {
            return Err(error);
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

pub struct Cluster {
    options: Options,
    /// The brokers known from the last metadata answer.
    known: Metadata,
    seed: Option<Connection>,
    connections: HashMap<i32, Connection>,
}

impl Cluster {
    /// Connects to the first bootstrap address that answers and learns the cluster's brokers.
    pub fn connect(options: Options) -> Result<Cluster, ClientError> {
        let mut cluster = Cluster { options, known: Metadata::default(), seed: None, connections: HashMap::new() };
        cluster.seed = Some(cluster.dial_bootstrap()?);
        cluster.known = cluster.metadata(&Topics::None, false)?;
        Ok(cluster)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Brokers, controller and cluster id as of the last answer.
    pub fn known(&self) -> &Metadata {
        &self.known
    }

    /// Fresh metadata from any broker; with `create`, missing topics are created where the brokers allow it.
    pub fn metadata(&mut self, topics: &Topics, create: bool) -> Result<Metadata, ClientError> {
        let mut retry = Retry::new(self.options.retry_for);
        loop {
            match self.try_metadata(topics, create) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => retry.pause(error)?,
            }
        }
    }

    /// One metadata request, tried once on each way into the cluster.
    pub fn try_metadata(&mut self, topics: &Topics, create: bool) -> Result<Metadata, ClientError> {
        let response = self.try_call::<MetadataRequest>(Target::Any, |v| metadata::request(topics, create, v))?;
        if let Some(error) = ClientError::from_code("metadata", response.error_code, None) {
            return Err(error);
        }
        let mut fresh = metadata::read(&response);
        if !fresh.brokers.is_empty() {
            let topics = std::mem::take(&mut fresh.topics);
            self.forget_moved(&fresh);
            self.known = fresh.clone();
            fresh.topics = topics;
        }
        Ok(fresh)
    }

    /// Sends a request and looks for errors in its answer with `check`; a retriable one is tried again with fresh
    /// metadata until `retry_for` is over.
    pub fn call<R: Request>(
        &mut self,
        target: Target,
        build: impl Fn(i16) -> R,
        check: impl Fn(&R::Response) -> Result<(), ClientError>,
    ) -> Result<R::Response, ClientError> {
        let mut retry = Retry::new(self.options.retry_for);
        loop {
            let outcome = self.try_call(target, &build).and_then(|answer| check(&answer).map(|()| answer));
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.pause(error)?,
            }
            // The controller or a leader may have moved; a failure here shows again, with a better error, above.
            let _ = self.try_metadata(&Topics::None, false);
        }
    }

    /// One attempt. A broken connection is forgotten, so that the next attempt makes another.
    pub fn try_call<R: Request>(
        &mut self,
        target: Target,
        build: impl Fn(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let id = match target {
            Target::Any => return self.call_any(build),
            Target::Broker(id) => id,
            Target::Controller => match self.known.controller {
                Some(id) => id,
                None => return Err(no_controller()),
            },
        };
        let connection = match self.connections.remove(&id) {
            Some(connection) => connection,
            None => self.open(id)?,
        };
        let (connection, result) = attempt(connection, build);
        if let Some(connection) = connection {
            self.connections.insert(id, connection);
        }
        result
    }

    /// A connection of the caller's own, for pipelining or long polls.
    pub fn open(&self, broker: i32) -> Result<Connection, ClientError> {
        let info = self.known.brokers.get(&broker).ok_or_else(|| {
            let reason = "the cluster's metadata does not list it (is it down?)";
            ClientError::like(ResponseError::LeaderNotAvailable, format!("broker {broker}"), reason)
        })?;
        Connection::open(&info.address, &self.options.client_id, &self.options.timeouts)
    }

    fn call_any<R: Request>(&mut self, build: impl Fn(i16) -> R) -> Result<R::Response, ClientError> {
        let connection = match self.seed.take() {
            Some(connection) => connection,
            None => self.dial_any()?,
        };
        let (connection, result) = attempt(connection, build);
        self.seed = connection;
        result
    }

    fn dial_any(&self) -> Result<Connection, ClientError> {
        for broker in self.known.brokers.values() {
            if let Ok(connection) = Connection::open(&broker.address, &self.options.client_id, &self.options.timeouts) {
                return Ok(connection);
            }
        }
        self.dial_bootstrap()
    }

    fn dial_bootstrap(&self) -> Result<Connection, ClientError> {
        let mut tried = Vec::new();
        for address in &self.options.bootstrap {
            match Connection::open(address, &self.options.client_id, &self.options.timeouts) {
                Ok(connection) => return Ok(connection),
                // Something answers, but not as it should: more telling than "unreachable".
                Err(e) if !e.retriable() => return Err(e),
                Err(e) => tried.push(e.to_string()),
            }
        }
        Err(ClientError::Unreachable { tried: tried.join("; ") })
    }

    fn forget_moved(&mut self, fresh: &Metadata) {
        let old = &self.known.brokers;
        self.connections.retain(|id, _| match (old.get(id), fresh.brokers.get(id)) {
            (Some(old), Some(new)) => old.address == new.address,
            _ => false,
        });
    }
}

/// Calls; gives the connection back unless it broke.
fn attempt<R: Request>(
    mut connection: Connection,
    build: impl Fn(i16) -> R,
) -> (Option<Connection>, Result<R::Response, ClientError>) {
    let result = connection.call(build);
    let healthy = matches!(
        &result,
        Ok(_)
            | Err(ClientError::Unsupported { .. })
            | Err(ClientError::Invalid(_))
            | Err(ClientError::Malformed { .. })
    );
    (healthy.then_some(connection), result)
}

fn no_controller() -> ClientError {
    ClientError::like(ResponseError::NotController, "controller", "the cluster has no controller at this moment")
}
