//! Incremental fetch sessions (KIP-227). Pure: the caller passes the time and a random id in.
//!
//! A client that reads many partitions names them once; afterwards it sends what changes and gets only what changed.

use crate::base::ids::{Offset, TopicId};
use crate::base::limits::{FETCH_SESSION_PARTITIONS_MAX, TOPIC_NAME_BYTES_MAX};
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request without, or for the last time with, a session.
const FINAL_EPOCH: i32 = -1;
/// A session that was not used for so long gives way to a new one.
const EVICTION_MS: i64 = 120_000;
/// Fetch versions from this one on name topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    Name(Rc<str>),
    Id(TopicId),
}

/// What is asked of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub topic: TopicKey,
    pub partition: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// What is told of one partition, as far as it decides whether a session's client must hear it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub has_records: bool,
    pub has_error: bool,
    pub diverges: bool,
}

/// How an answer relates to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sessionless,
    /// All partitions were named: a session begins if there is room.
    Full,
    Incremental {
        id: i32,
        /// The epoch that the session's next request will have.
        next_epoch: i32,
    },
}

/// The sessions of one shard.
pub struct FetchSessions {
    slots: usize,
    sessions: HashMap<i32, Session>,
    partitions: usize,
}

struct Session {
    uses_topic_ids: bool,
    next_epoch: i32,
    created_ms: i64,
    last_used_ms: i64,
    /// A request of the session is being answered: the next one waits for that, as each holds all partitions.
    answering: bool,
    partitions: IndexMap<(TopicKey, i32), Cached, foldhash::fast::RandomState>,
}

struct Cached {
    wanted: Wanted,
    high_watermark: Offset,
    log_start: Offset,
}

impl FetchSessions {
    /// `slots`: `max.incremental.fetch.session.cache.slots`.
    pub fn new(slots: usize) -> FetchSessions {
        FetchSessions { slots, sessions: HashMap::new(), partitions: 0 }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request: which partitions are to be read, in which order, and how the answer is told.
    pub fn begin(
        &mut self,
        version: i16,
        request: &FetchRequest,
        now_ms: i64,
    ) -> Result<(Kind, Vec<Wanted>), ResponseError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if id != 0 {
                self.remove(id);
            }
            let kind = if epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full };
            return Ok((kind, named_once(named(version, request))));
        }
        let session = self.sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.uses_topic_ids != (version >= TOPIC_IDS_SINCE) {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if session.next_epoch != epoch || session.answering {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        let before = session.partitions.len();
        session.update(version, request);
        self.partitions = self.partitions + session.partitions.len() - before;
        let wanted: Vec<Wanted> = session.partitions.values().map(|cached| cached.wanted.clone()).collect();
        if wanted.is_empty() {
            self.remove(id);
            return Ok((Kind::Sessionless, wanted));
        }
        session.answering = true;
        session.last_used_ms = now_ms;
        session.next_epoch = following(epoch);
        let next_epoch = session.next_epoch;
        Ok((Kind::Incremental { id, next_epoch }, wanted))
    }

    /// Whether a request of the session is being answered.
    pub fn is_answering(&self, id: i32) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.answering)
    }

    /// A request that `begin` took as incremental is over, answered or not.
    pub fn ended(&mut self, kind: Kind) {
        if let Kind::Incremental { id, next_epoch } = kind
            && let Some(session) = self.sessions.get_mut(&id)
            && session.next_epoch == next_epoch
        {
            session.answering = false;
        }
    }

    /// Decides what the answer tells: the session id, and which of the partitions (`told`, in the order of `wanted`).
    pub fn finish(
        &mut self,
        kind: Kind,
        (version, wanted): (i16, &[Wanted]),
        told: &[Told],
        (now_ms, new_id): (i64, i32),
    ) -> Result<(i32, Vec<bool>), ResponseError> {
        match kind {
            Kind::Sessionless => Ok((0, vec![true; told.len()])),
            Kind::Full => Ok((self.create(version, (wanted, told), (now_ms, new_id)), vec![true; told.len()])),
            Kind::Incremental { id, next_epoch } => {
                let session = self.sessions.get_mut(&id).filter(|session| session.next_epoch == next_epoch);
                let session = session.ok_or(ResponseError::InvalidFetchSessionEpoch)?;
                Ok((id, session.select(wanted, told)))
            }
        }
    }

    fn create(&mut self, version: i16, (wanted, told): (&[Wanted], &[Told]), (now_ms, new_id): (i64, i32)) -> i32 {
        let fits = self.partitions + wanted.len() <= FETCH_SESSION_PARTITIONS_MAX;
        let has_slot = self.sessions.len() < self.slots || self.evict(wanted.len(), now_ms);
        // What cannot be a topic is not remembered: such names may be of any length.
        if !fits || !has_slot || wanted.iter().any(|wanted| !wanted.topic.may_exist()) {
            return 0;
        }
        let mut id = new_id & i32::MAX;
        while id == 0 || self.sessions.contains_key(&id) {
            id = id.wrapping_add(1) & i32::MAX;
        }
        let partitions = wanted.iter().zip(told).map(|(wanted, told)| {
            let cached =
                Cached { wanted: wanted.clone(), high_watermark: told.high_watermark, log_start: told.log_start };
            ((wanted.topic.clone(), wanted.partition), cached)
        });
        let session = Session {
            uses_topic_ids: version >= TOPIC_IDS_SINCE,
            next_epoch: following(INITIAL_EPOCH),
            created_ms: now_ms,
            last_used_ms: now_ms,
            answering: false,
            partitions: partitions.collect(),
        };
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }

    /// Makes room: a session that has not been used lately goes, or one older than that with fewer partitions.
    fn evict(&mut self, size: usize, now_ms: i64) -> bool {
        let stale = self.sessions.iter().min_by_key(|(_, session)| session.last_used_ms);
        if let Some((&id, session)) = stale
            && now_ms.saturating_sub(session.last_used_ms) > EVICTION_MS
        {
            self.remove(id);
            return true;
        }
        let settled = self.sessions.iter().filter(|(_, s)| now_ms.saturating_sub(s.created_ms) > EVICTION_MS);
        let smallest = settled.min_by_key(|(_, session)| session.partitions.len());
        match smallest.map(|(&id, session)| (id, session.partitions.len())) {
            Some((id, partitions)) if partitions <= size => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// What must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.sessions.len() <= self.slots);
        assert_eq!(self.partitions, self.sessions.values().map(|s| s.partitions.len()).sum::<usize>());
        assert!(!self.sessions.contains_key(&0));
    }
}

impl TopicKey {
    fn may_exist(&self) -> bool {
        match self {
            TopicKey::Name(name) => name.len() <= TOPIC_NAME_BYTES_MAX,
            TopicKey::Id(_) => true,
        }
    }
}

impl Session {
    fn update(&mut self, version: i16, request: &FetchRequest) {
        for wanted in named(version, request) {
            let key = (wanted.topic.clone(), wanted.partition);
            if let Some(cached) = self.partitions.get_mut(&key) {
                cached.wanted = wanted;
            } else if self.partitions.len() < FETCH_SESSION_PARTITIONS_MAX && wanted.topic.may_exist() {
                let unknown = Offset(-1);
                self.partitions.insert(key, Cached { wanted, high_watermark: unknown, log_start: unknown });
            }
        }
        let mut forgotten = HashSet::new();
        for topic in &request.forgotten_topics_data {
            let key = topic_key(version, &topic.topic, topic.topic_id);
            forgotten.extend(topic.partitions.iter().map(|partition| (key.clone(), *partition)));
        }
        if !forgotten.is_empty() {
            self.partitions.retain(|key, _| !forgotten.contains(key));
        }
    }

    /// Which partitions changed since they were last told. Those with records go to the end of the session's order, so
    /// that every partition gets its turn under the size limit.
    fn select(&mut self, wanted: &[Wanted], told: &[Told]) -> Vec<bool> {
        let mut selected = Vec::with_capacity(told.len());
        let mut served = HashSet::new();
        for (wanted, told) in wanted.iter().zip(told) {
            let key = (wanted.topic.clone(), wanted.partition);
            let Some(cached) = self.partitions.get_mut(&key) else {
                selected.push(told.has_records || told.has_error);
                continue;
            };
            let changed = told.has_records
                || told.has_error
                || told.diverges
                || cached.high_watermark != told.high_watermark
                || cached.log_start != told.log_start;
            // After an error the next good answer is told whatever it says.
            cached.high_watermark = if told.has_error { Offset(-1) } else { told.high_watermark };
            cached.log_start = told.log_start;
            if told.has_records {
                served.insert(key);
            }
            selected.push(changed);
        }
        self.move_to_end(&served);
        selected
    }

    fn move_to_end(&mut self, served: &HashSet<(TopicKey, i32)>) {
        // In all of them or none there is nothing to tell first from last.
        if served.is_empty() || served.len() == self.partitions.len() {
            return;
        }
        let mut last = Vec::with_capacity(served.len());
        let mut order = IndexMap::with_capacity_and_hasher(self.partitions.len(), Default::default());
        for (key, cached) in std::mem::take(&mut self.partitions) {
            if served.contains(&key) {
                last.push((key, cached));
            } else {
                order.insert(key, cached);
            }
        }
        order.extend(last);
        self.partitions = order;
    }
}

/// A partition that is named again keeps its place, and what is asked of it last counts (Kafka's `FetchRequest.fetchData`).
fn named_once(mut named: Vec<Wanted>) -> Vec<Wanted> {
    if named.len() < 2 {
        return named;
    }
    let mut seen = HashSet::with_capacity_and_hasher(named.len(), foldhash::fast::RandomState::default());
    if named.iter().all(|wanted| seen.insert((&wanted.topic, wanted.partition))) {
        return named;
    }
    let mut last: IndexMap<_, Wanted, foldhash::fast::RandomState> = IndexMap::default();
    for wanted in named.drain(..) {
        last.insert((wanted.topic.clone(), wanted.partition), wanted);
    }
    last.into_values().collect()
}

/// The partitions that a request names itself, as often as it does.
fn named(version: i16, request: &FetchRequest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let key = topic_key(version, &topic.topic, topic.topic_id);
        wanted.extend(topic.partitions.iter().map(|partition| wanted_of(key.clone(), partition)));
    }
    wanted
}

fn wanted_of(topic: TopicKey, partition: &FetchPartition) -> Wanted {
    Wanted {
        topic,
        partition: partition.partition,
        fetch_offset: partition.fetch_offset,
        max_bytes: partition.partition_max_bytes,
        // Any negative epoch means that the client knows none.
        current_leader_epoch: partition.current_leader_epoch.max(-1),
        last_fetched_epoch: partition.last_fetched_epoch,
    }
}

fn topic_key(version: i16, name: &str, id: uuid::Uuid) -> TopicKey {
    if version >= TOPIC_IDS_SINCE { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(Rc::from(name)) }
}

fn following(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};
    use kafka_protocol::protocol::StrBytes;

    fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partitions = partitions.iter().map(|p| FetchPartition::default().with_partition(*p)).collect();
        let name = TopicName(StrBytes::from_static_str("t"));
        FetchRequest::default()
            .with_session_id(id)
            .with_session_epoch(epoch)
            .with_topics(vec![FetchTopic::default().with_topic(name).with_partitions(partitions)])
    }

    fn told(high_watermark: i64, has_records: bool) -> Told {
        Told {
            high_watermark: Offset(high_watermark),
            log_start: Offset(0),
            has_records,
            has_error: false,
            diverges: false,
        }
    }

    fn open(sessions: &mut FetchSessions, partitions: &[i32]) -> i32 {
        let (kind, wanted) = sessions.begin(12, &request(0, 0, partitions), 0).expect("begins");
        assert_eq!(kind, Kind::Full);
        let told = vec![told(5, false); wanted.len()];
        let (id, selected) = sessions.finish(kind, (12, &wanted), &told, (0, 77)).expect("created");
        assert!(selected.iter().all(|s| *s));
        sessions.check_invariants();
        id
    }

    #[test]
    fn a_session_tells_only_what_changed_and_takes_turns() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, &[0, 1, 2]);
        let (kind, wanted) = sessions.begin(12, &request(id, 1, &[]), 1).expect("goes on");
        assert_eq!(wanted.iter().map(|w| w.partition).collect::<Vec<_>>(), [0, 1, 2]);
        let answers = [told(9, true), told(5, false), told(6, false)];
        assert_eq!(sessions.finish(kind, (12, &wanted), &answers, (1, 0)), Ok((id, vec![true, false, true])));
        sessions.ended(kind);
        let (_, wanted) = sessions.begin(12, &request(id, 2, &[]), 2).expect("goes on");
        assert_eq!(wanted.iter().map(|w| w.partition).collect::<Vec<_>>(), [1, 2, 0]);
    }

    /// Thirty bytes of request hold all partitions of a session: pipelined, a hundred of them held gigabytes.
    #[test]
    fn a_session_answers_one_request_at_a_time() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, &[0, 1]);
        let (kind, _) = sessions.begin(12, &request(id, 1, &[]), 1).expect("goes on");
        assert!(sessions.is_answering(id));
        let second = sessions.begin(12, &request(id, 2, &[]), 1);
        assert_eq!(second, Err(ResponseError::InvalidFetchSessionEpoch));
        sessions.ended(kind);
        assert!(sessions.begin(12, &request(id, 2, &[]), 1).is_ok());
        sessions.ended(kind);
        assert!(sessions.is_answering(id), "an earlier request's end says nothing of a later one");
    }

    #[test]
    fn forgetting_and_turns_cost_one_pass() {
        const MANY: i32 = 100_000;
        let mut sessions = FetchSessions::new(10);
        let all: Vec<i32> = (0..MANY).collect();
        let id = open(&mut sessions, &all);
        let (kind, wanted) = sessions.begin(12, &request(id, 1, &[]), 1).expect("goes on");
        let answers: Vec<Told> = (0..MANY).map(|p| told(9, p % 2 == 0)).collect();
        sessions.finish(kind, (12, &wanted), &answers, (1, 0)).expect("answered");
        sessions.ended(kind);
        let name = TopicName(StrBytes::from_static_str("t"));
        let forgotten = (0..MANY - 1).collect();
        let forgotten = vec![ForgottenTopic::default().with_topic(name).with_partitions(forgotten)];
        let forget = request(id, 2, &[]).with_forgotten_topics_data(forgotten);
        let (_, wanted) = sessions.begin(12, &forget, 2).expect("goes on");
        assert_eq!(wanted.iter().map(|w| w.partition).collect::<Vec<_>>(), [MANY - 1]);
        sessions.check_invariants();
    }

    #[test]
    fn names_that_cannot_be_topics_are_not_remembered() {
        let mut sessions = FetchSessions::new(10);
        let mut asked = request(0, 0, &[0]);
        asked.topics[0].topic = TopicName(StrBytes::from_string("n".repeat(30_000)));
        let (kind, wanted) = sessions.begin(12, &asked, 0).expect("begins");
        assert_eq!(sessions.finish(kind, (12, &wanted), &[told(-1, false)], (0, 5)), Ok((0, vec![true])));
        assert!(sessions.is_empty());
    }

    #[test]
    fn faults_have_kafkas_codes() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, &[0]);
        let error = |sessions: &mut FetchSessions, version, id, epoch| {
            sessions.begin(version, &request(id, epoch, &[]), 1).expect_err("refused")
        };
        assert_eq!(error(&mut sessions, 12, id + 1, 1), ResponseError::FetchSessionIdNotFound);
        assert_eq!(error(&mut sessions, 12, id, 2), ResponseError::InvalidFetchSessionEpoch);
        assert_eq!(error(&mut sessions, 13, id, 1), ResponseError::FetchSessionTopicIdError);
    }

    #[test]
    fn forgetting_everything_or_the_final_epoch_ends_a_session() {
        let mut sessions = FetchSessions::new(10);
        let id = open(&mut sessions, &[0]);
        let name = TopicName(StrBytes::from_static_str("t"));
        let forgotten = vec![ForgottenTopic::default().with_topic(name).with_partitions(vec![0])];
        let forget = request(id, 1, &[]).with_forgotten_topics_data(forgotten);
        assert_eq!(sessions.begin(12, &forget, 1), Ok((Kind::Sessionless, vec![])));
        assert!(sessions.is_empty());
        let id = open(&mut sessions, &[0]);
        assert!(matches!(sessions.begin(12, &request(id, -1, &[0]), 1), Ok((Kind::Sessionless, _))));
        sessions.check_invariants();
        assert!(sessions.is_empty());
    }

    /// Each mention was answered, so that thirty bytes of request fetched the same megabyte again.
    #[test]
    fn a_partition_is_answered_once_and_its_last_mention_counts() {
        for epoch in [0, -1] {
            let mut sessions = FetchSessions::new(10);
            let mut asked = request(0, epoch, &[4, 5, 4]);
            asked.topics[0].partitions[0].fetch_offset = 10;
            asked.topics[0].partitions[2].fetch_offset = 20;
            let mut again = asked.topics[0].clone();
            again.partitions.truncate(2);
            again.partitions[1].fetch_offset = 30;
            again.partitions.remove(0);
            asked.topics.push(again);
            let (_, wanted) = sessions.begin(12, &asked, 0).expect("begins");
            let wanted: Vec<_> = wanted.iter().map(|w| (w.partition, w.fetch_offset)).collect();
            assert_eq!(wanted, [(4, 20), (5, 30)]);
        }
    }

    #[test]
    fn a_session_may_begin_with_nothing_and_negative_epochs_mean_none() {
        let mut sessions = FetchSessions::new(10);
        assert_ne!(open(&mut sessions, &[]), 0);
        let mut asked = request(0, 0, &[0]);
        asked.topics[0].partitions[0].current_leader_epoch = -2;
        let (_, wanted) = sessions.begin(12, &asked, 0).expect("begins");
        assert_eq!(wanted[0].current_leader_epoch, -1);
    }

    #[test]
    fn slots_are_bounded_and_stale_sessions_give_way() {
        let mut sessions = FetchSessions::new(1);
        assert_ne!(open(&mut sessions, &[0]), 0);
        assert_eq!(open(&mut sessions, &[0]), 0);
        let (kind, wanted) = sessions.begin(12, &request(0, 0, &[0]), EVICTION_MS + 1).expect("begins");
        let answers = [told(0, false)];
        let (id, _) = sessions.finish(kind, (12, &wanted), &answers, (EVICTION_MS + 1, 5)).expect("created");
        assert_ne!(id, 0);
        sessions.check_invariants();
    }
}
