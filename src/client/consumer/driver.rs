//! Keeps partitions with their leaders, decodes what the fetchers bring, obeys the reset policy.

use super::fetcher::{Event, Fetcher, Order};
use super::lane::{Aborted, Lane, LaneError, Read};
use super::{Assignment, ConsumerOptions, Reset, Sink, corrupt};
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::offsets::{self, Lookup};
use crate::client::outage::Outage;
use kafka_protocol::error::ResponseError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Answers that wait to be decoded, over all brokers: what bounds memory.
const WAITING_ANSWERS_MAX: usize = 4;

/// Between two looks for leaders, and at whether to stop.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads the partitions until each has reached its `to_offset`, the sink wants no more, or something is wrong that
/// does not pass within the cluster's `retry_for`.
pub fn consume(
    cluster: &mut Cluster,
    topic: &str,
    assignments: &[Assignment],
    options: &ConsumerOptions,
    sink: &mut dyn Sink,
) -> Result<(), ClientError> {
    let (events, inbox) = sync_channel(WAITING_ANSWERS_MAX);
    let lanes: BTreeMap<i32, Lane> =
        assignments.iter().map(|a| (a.partition, Lane::new(*a))).filter(|(_, lane)| !lane.is_done()).collect();
    let homeless = lanes.keys().copied().collect();
    let mut driver = Driver {
        cluster,
        topic,
        options,
        lanes,
        homeless,
        troubled: BTreeMap::new(),
        outage: Outage::default(),
        look_again: Instant::now(),
        fetchers: HashMap::new(),
        fetchers_made: 0,
        events,
    };
    driver.run(&inbox, sink)?;
    sink.idle().map_err(ClientError::output)
}

struct Driver<'a> {
    cluster: &'a mut Cluster,
    topic: &'a str,
    options: &'a ConsumerOptions,
    /// The partitions that are not done.
    lanes: BTreeMap<i32, Lane>,
    /// Those of them that no fetcher has.
    homeless: BTreeSet<i32>,
    /// Those that bring errors instead of records, and since when.
    troubled: BTreeMap<i32, Instant>,
    outage: Outage,
    look_again: Instant,
    /// By broker, with the fetcher's id.
    fetchers: HashMap<i32, (u64, Sender<Order>)>,
    fetchers_made: u64,
    events: SyncSender<Event>,
}

impl Driver<'_> {
    fn run(&mut self, inbox: &Receiver<Event>, sink: &mut dyn Sink) -> Result<(), ClientError> {
        while !self.lanes.is_empty() && !sink.is_over().map_err(ClientError::output)? {
            if !self.homeless.is_empty() && self.look_again <= Instant::now() {
                self.look_again = Instant::now() + PAUSE;
                if let Err(error) = self.find_homes() {
                    self.be_patient(self.homeless.clone(), error, sink)?;
                }
            }
            match self.next(inbox, sink)? {
                None => {}
                Some(Event::Data { partition, bytes, aborted }) => {
                    let read = self.show(partition, &bytes, &aborted, sink)?;
                    if read == Read::Stopped {
                        return Ok(());
                    }
                }
                Some(Event::Sound { partition }) => self.is_sound(partition, sink),
                Some(Event::Trouble { fetcher, dead, partition, offset, error }) => {
                    if dead {
                        self.fetchers.retain(|_, (id, _)| *id != fetcher);
                    }
                    self.meet_trouble(partition, offset, error, sink)?;
                }
            }
        }
        Ok(())
    }

    fn next(&self, inbox: &Receiver<Event>, sink: &mut dyn Sink) -> Result<Option<Event>, ClientError> {
        if let Ok(event) = inbox.try_recv() {
            return Ok(Some(event));
        }
        sink.idle().map_err(ClientError::output)?;
        Ok(inbox.recv_timeout(PAUSE).ok())
    }

    fn show(
        &mut self,
        partition: i32,
        bytes: &[u8],
        aborted: &[Aborted],
        sink: &mut dyn Sink,
    ) -> Result<Read, ClientError> {
        self.is_sound(partition, sink);
        // What a partition still brings after it is done is of no interest.
        let Some(lane) = self.lanes.get_mut(&partition) else { return Ok(Read::More) };
        match lane.read(bytes, aborted, self.options.isolation, &mut |p, r| sink.record(p, r)) {
            Ok(Read::More) => {
                sink.passed(partition, lane.position);
                if lane.is_done() {
                    self.leave(partition);
                }
                Ok(Read::More)
            }
            Ok(Read::Stopped) => {
                sink.idle().map_err(ClientError::output)?;
                Ok(Read::Stopped)
            }
            Err(LaneError::Output(error)) => Err(ClientError::output(error)),
            Err(LaneError::Corrupt { offset, reason }) => Err(corrupt(self.topic, partition, offset, reason)),
        }
    }

    fn meet_trouble(
        &mut self,
        partition: i32,
        offset: i64,
        error: ClientError,
        sink: &mut dyn Sink,
    ) -> Result<(), ClientError> {
        if !self.lanes.contains_key(&partition) {
            return Ok(());
        }
        if error.code() == Some(ResponseError::OffsetOutOfRange) {
            self.reset(partition, offset, error, sink)?;
        } else {
            self.be_patient(BTreeSet::from([partition]), error, sink)?;
        }
        if self.lanes.contains_key(&partition) {
            self.homeless.insert(partition);
        }
        Ok(())
    }

    /// Gives every homeless partition to the fetcher of its leader, as fresh metadata has it.
    fn find_homes(&mut self) -> Result<(), ClientError> {
        let wanted: Vec<i32> = self.homeless.iter().copied().collect();
        for (leader, partitions) in offsets::leaders(self.cluster, self.topic, &wanted)? {
            for partition in partitions {
                let Some(lane) = self.lanes.get(&partition) else { continue };
                let order = Order::Read { partition, offset: lane.position };
                if self.fetcher(leader)?.send(order).is_ok() {
                    self.homeless.remove(&partition);
                } else {
                    self.fetchers.remove(&leader);
                }
            }
        }
        Ok(())
    }

    fn fetcher(&mut self, broker: i32) -> Result<&Sender<Order>, ClientError> {
        use std::collections::hash_map::Entry;
        match self.fetchers.entry(broker) {
            Entry::Occupied(entry) => Ok(&entry.into_mut().1),
            Entry::Vacant(entry) => {
                let connection = self.cluster.open(broker)?;
                let (send, orders) = channel();
                self.fetchers_made += 1;
                let id = self.fetchers_made;
                let fetcher = Fetcher {
                    id,
                    topic: self.topic.to_owned(),
                    options: self.options.clone(),
                    orders,
                    events: self.events.clone(),
                };
                std::thread::spawn(move || fetcher.run(connection));
                Ok(&entry.insert((id, send)).1)
            }
        }
    }

    fn leave(&mut self, partition: i32) {
        self.lanes.remove(&partition);
        for (_, orders) in self.fetchers.values() {
            // A fetcher that is gone has left the partition already.
            let _ = orders.send(Order::Leave { partition });
        }
    }

    /// Fails once these partitions have brought errors, and nothing else, for too long, or one that stays.
    fn be_patient(
        &mut self,
        partitions: BTreeSet<i32>,
        error: ClientError,
        sink: &mut dyn Sink,
    ) -> Result<(), ClientError> {
        let now = Instant::now();
        let retry_for = self.cluster.options().retry_for;
        for partition in partitions {
            let since = *self.troubled.entry(partition).or_insert(now);
            if !error.retriable() || now.duration_since(since) > retry_for {
                return Err(error);
            }
        }
        if let Some(text) = self.outage.fails(&error, now, retry_for) {
            sink.notice(&format!("reading {}: {text}", self.topic));
        }
        Ok(())
    }

    /// A later trouble is another one, with its own time.
    fn is_sound(&mut self, partition: i32, sink: &mut dyn Sink) {
        self.troubled.remove(&partition);
        if self.troubled.is_empty()
            && let Some(text) = self.outage.ends(Instant::now())
        {
            sink.notice(&format!("reading {}: {text}", self.topic));
        }
    }

    fn reset(
        &mut self,
        partition: i32,
        offset: i64,
        error: ClientError,
        sink: &mut dyn Sink,
    ) -> Result<(), ClientError> {
        let mut find = |lookup| -> Result<i64, ClientError> {
            let found = offsets::list_offsets(self.cluster, self.topic, &[partition], lookup, self.options.isolation)?;
            Ok(found.get(&partition).copied().flatten().unwrap_or(0))
        };
        let (earliest, latest) = (find(Lookup::Earliest)?, find(Lookup::Latest)?);
        let to = match self.options.reset {
            Reset::Earliest => earliest,
            Reset::Latest => latest,
            Reset::Fail => {
                let range = format!("offset {offset} is not in the log, which holds {earliest} to {latest}");
                let what = format!("{}-{partition}", self.topic);
                let code = error.code().expect("invariant: called for a broker's code");
                return Err(ClientError::like(code, what, &range));
            }
        };
        sink.notice(&format!("{}-{partition}: offset {offset} is not in the log; reading on at {to}", self.topic));
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.position = to;
            if lane.is_done() {
                self.lanes.remove(&partition);
            }
        }
        Ok(())
    }
}
