//! Fetch (key 1).
//!
//! Versions: 4-17. Sessions (KIP-227), topic ids (13, KIP-516), leader hints (16, KIP-951), divergence (12, KIP-595).
//!
//! Records are sent straight from the segment files: an answer holds slices of them, cut out of the encoded response.
//! Only what is not in the page cache is read through io_uring first, so that the core never waits for a disk.
//! When fewer than `min_bytes` are there, the request waits for appends, at most `max_wait_ms`; waiting costs nothing.
//!
//! Deliberate omissions: aborted transactions (there are no transactions: the last stable offset is the high
//! watermark), follower fetches (`replica_id` is answered as a consumer's), preferred read replicas, rack.

mod cold;
mod read;
pub mod session;
mod slice;

use self::read::{Brought, Collected, Obstacle, PartitionAnswer, collect, find};
use self::session::{Kind, TopicKey, Wanted};
use super::context::ShardContext;
use super::registry::Served;
use super::{Answer, Outcome, RequestInfo};
use crate::base::clock::now_ms;
use crate::base::ids::PartitionIndex;
use crate::log::paths;
use crate::log::read::ReadError;
use crate::partition::leader::Partition;
use crate::partition::waiters::FetchWait;
use crate::wire::encode::{Pieces, encode_with_slices, placeholder};
use crate::wire::reply::Piece;
use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

pub const SERVED: Served = Served { key: 1, advertised_min: 4, accepted_min: 4, max: 17, handle };

const LEADER_HINTS_SINCE: i16 = 16;
const READ_COMMITTED: i8 = 1;
/// Rounds of reading from disk before a fetch is answered with what it has.
const ROUNDS_MAX: usize = 64;

/// A fetch that was taken: what it wants, and how it is answered.
struct Fetch {
    context: Rc<ShardContext>,
    info: RequestInfo,
    kind: Kind,
    wanted: Vec<Wanted>,
    max_bytes: usize,
    min_bytes: usize,
    read_committed: bool,
    deadline: Instant,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.context.sessions.borrow_mut().ended(self.kind);
    }
}

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: FetchRequest| serve(context, info, request))
}

fn serve(context: &Rc<ShardContext>, info: &RequestInfo, request: FetchRequest) -> Outcome {
    if context.sessions.borrow().is_answering(request.session_id) {
        // Begun when the one before it has been answered.
        let (context, info) = (Rc::clone(context), info.clone());
        return Outcome::Wait(Box::pin(async move {
            match begin(&context, &info, &request) {
                Ok(fetch) => fetch.wait().await,
                Err(code) => info.answer(&FetchResponse::default().with_error_code(code.code())),
            }
        }));
    }
    let fetch = match begin(context, info, &request) {
        Ok(fetch) => fetch,
        Err(code) => return info.reply(&FetchResponse::default().with_error_code(code.code())),
    };
    let collected = collect(context, &fetch.wanted, fetch.max_bytes, &Brought::default());
    let at_once = request.max_wait_ms <= 0 || fetch.is_satisfied(&collected);
    if collected.obstacles.is_empty() && at_once {
        return match fetch.answer(collected) {
            Ok(frame) => Outcome::Reply(frame),
            Err(e) => Outcome::Close(e.to_string()),
        };
    }
    Outcome::Wait(Box::pin(fetch.wait()))
}

fn begin(context: &Rc<ShardContext>, info: &RequestInfo, request: &FetchRequest) -> Result<Fetch, ResponseError> {
    let (kind, wanted) = context.sessions.borrow_mut().begin(info.version, request, now_ms())?;
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(context.config().fetch_max_bytes as usize);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    Ok(Fetch {
        context: Rc::clone(context),
        info: info.clone(),
        kind,
        wanted,
        max_bytes,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
        read_committed: request.isolation_level == READ_COMMITTED,
        deadline: Instant::now() + max_wait,
    })
}

impl Fetch {
    /// Kafka's conditions for answering at once.
    fn is_satisfied(&self, collected: &Collected) -> bool {
        self.wanted.is_empty() || collected.urgent || collected.bytes >= self.min_bytes
    }

    async fn wait(self) -> Answer {
        let context = &self.context;
        let wait = Rc::new(FetchWait::default());
        let _registered = Registered::new(context, &self.wanted, &wait);
        loop {
            let collected = self.collect_cold().await;
            if self.is_satisfied(&collected) || Instant::now() >= self.deadline {
                return self.answer(collected);
            }
            // Whichever ends it: the next round looks at the partitions again.
            let _ = tokio::time::timeout_at(self.deadline, wait.woken()).await;
        }
    }

    /// Collects the answers, reading what is cold from disk first.
    async fn collect_cold(&self) -> Collected {
        let context = &self.context;
        let mut brought = Brought::default();
        for _ in 0..ROUNDS_MAX {
            let mut collected = collect(context, &self.wanted, self.max_bytes, &brought);
            if collected.obstacles.is_empty() {
                return collected;
            }
            for read in join_all(collected.obstacles.drain(..).map(|obstacle| remove(context, obstacle))).await {
                match read {
                    Read::LookedUp => {}
                    Read::Records(place, partition, piece) => brought.cold = Some((place, partition, piece)),
                    Read::Failed(place) => brought.failed.push(place),
                }
            }
        }
        // What was looked up stays in memory: the next fetch goes on from there.
        let mut collected = collect(context, &self.wanted, self.max_bytes, &brought);
        collected.urgent = true;
        collected
    }

    fn answer(&self, collected: Collected) -> Answer {
        let context = &self.context;
        context.metrics.fetch_bytes.add(collected.bytes as u64);
        let told: Vec<_> = collected.answers.iter().map(PartitionAnswer::told).collect();
        let version = self.info.version;
        let finished = context.sessions.borrow_mut().finish(
            self.kind,
            (version, &self.wanted),
            &told,
            (now_ms(), fastrand::i32(1..)),
        );
        let (session_id, selected) = match finished {
            Ok(finished) => finished,
            Err(code) => return self.info.answer(&FetchResponse::default().with_error_code(code.code())),
        };
        let mut response = FetchResponse::default().with_session_id(session_id);
        let mut slices: Vec<Pieces> = Vec::new();
        let mut last: Option<&TopicKey> = None;
        for ((wanted, answer), selected) in self.wanted.iter().zip(collected.answers).zip(selected) {
            if !selected {
                continue;
            }
            if last != Some(&wanted.topic) {
                response.responses.push(topic_of(&wanted.topic));
                last = Some(&wanted.topic);
            }
            let data = self.partition_data(context, wanted, &answer, &mut response);
            if !answer.records.is_empty() {
                slices.push(answer.records);
            }
            let topic = response.responses.last_mut().expect("a topic was pushed for this partition");
            topic.partitions.push(data);
        }
        encode_with_slices(version, self.info.correlation_id, &response, slices)
    }

    /// None to whom reads uncommitted, as Kafka; and an empty list where there is no such partition.
    fn aborted_transactions(&self, error: Option<ResponseError>) -> Option<Vec<AbortedTransaction>> {
        let told = match error {
            None => self.read_committed,
            Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId) => true,
            Some(_) => false,
        };
        told.then(Vec::new)
    }

    fn partition_data(
        &self,
        context: &ShardContext,
        wanted: &Wanted,
        answer: &PartitionAnswer,
        response: &mut FetchResponse,
    ) -> PartitionData {
        if let Some(code) = answer.error {
            context.metrics.error(code.code());
            if code == ResponseError::CorruptMessage {
                context.metrics.corrupt_answers.add(1);
            }
        }
        let mut data = PartitionData::default()
            .with_partition_index(wanted.partition)
            .with_error_code(answer.error.map_or(0, |code| code.code()))
            .with_high_watermark(answer.high_watermark.0)
            .with_last_stable_offset(answer.high_watermark.0)
            .with_log_start_offset(answer.log_start.0)
            .with_aborted_transactions(self.aborted_transactions(answer.error))
            .with_records(Some(match answer.bytes() {
                0 => Bytes::new(),
                length => placeholder(length),
            }));
        if let Some((epoch, end)) = answer.diverging {
            data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0);
        }
        let needs_hint =
            matches!(answer.error, Some(ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch));
        if needs_hint
            && self.info.version >= LEADER_HINTS_SINCE
            && let Some(topic) = &answer.topic
            && let Some(hint) = context.leader_hint(&self.info, topic, PartitionIndex(wanted.partition))
        {
            let leader = BrokerId(hint.leader.0);
            data.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(leader).with_leader_epoch(hint.leader_epoch);
            if response.node_endpoints.iter().all(|known| known.node_id != leader) {
                let endpoint = NodeEndpoint::default().with_node_id(leader).with_host(hint.host).with_port(hint.port);
                response.node_endpoints.push(endpoint.with_rack(hint.rack));
            }
        }
        data
    }
}

/// What came of reading for an obstacle.
enum Read {
    /// It is in memory now: the next round finds it.
    LookedUp,
    Records(usize, Rc<Partition>, Piece),
    Failed(usize),
}

async fn remove(context: &ShardContext, obstacle: Obstacle) -> Read {
    let failed = |partition: &Rc<Partition>, place, error: &ReadError| {
        tracing::error!("{}-{}: {error}", partition.topic, partition.index());
        // The next fetch gets what became of it.
        partition.read_failed(error);
        Read::Failed(place)
    };
    match obstacle {
        Obstacle::Lookup { place, partition, missing } => match missing.load(partition.files()).await {
            Ok(()) => Read::LookedUp,
            Err(e) => failed(&partition, place, &e),
        },
        Obstacle::Records { place, partition, segment, file, range, end } => {
            if cold::arrives(&partition, &file, &range).await {
                return Read::LookedUp;
            }
            match cold::read(&partition, &file, (range.clone(), end)).await {
                Ok(bytes) => {
                    context.metrics.cold_reads.add(1);
                    context.metrics.cold_read_bytes.add(bytes.len() as u64);
                    Read::Records(place, partition, Piece::Bytes(bytes))
                }
                // Whoever asks again is told where the log begins now.
                Err(_) if segment.is_removed() => Read::Failed(place),
                Err(source) => failed(&partition, place, &ReadError::Io { path: segment.path(paths::LOG), source }),
            }
        }
    }
}

fn topic_of(key: &TopicKey) -> FetchableTopicResponse {
    match key {
        TopicKey::Name(name) => {
            FetchableTopicResponse::default().with_topic(TopicName(StrBytes::from_string(name.to_string())))
        }
        TopicKey::Id(id) => FetchableTopicResponse::default().with_topic_id(id.0),
    }
}

/// A wait's places in the partitions' lists; they are freed when the fetch ends, however it ends.
struct Registered {
    places: Vec<(Rc<Partition>, usize)>,
}

impl Registered {
    fn new(context: &ShardContext, wanted: &[Wanted], wait: &Rc<FetchWait>) -> Registered {
        let partitions = wanted.iter().filter_map(|wanted| find(context, wanted).ok());
        let places = partitions.map(|partition| {
            let place = partition.fetches.add(wait);
            (partition, place)
        });
        Registered { places: places.collect() }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for (partition, place) in &self.places {
            partition.fetches.remove(*place);
        }
    }
}
