//! Performs what the outbox decides: connections, requests, metadata, the clock.

use super::batch::Batch;
use super::link::{Link, Unsent};
use super::outbox::{Effect, Outbox, Rules, Verdict};
use super::{Acks, Event, Failure, Feeder, NewRecord, Partitioner, ProducerOptions, Summary};
use crate::client::admin;
use crate::client::cluster::{Cluster, Retry, Target};
use crate::client::error::ClientError;
use crate::client::limits::{FAILURES_LISTED_MAX, PRODUCE_IN_FLIGHT_MAX, TOPIC_PARTITIONS_MAX};
use crate::client::metadata::{Metadata, Topics};
use crate::client::partitioner::Sticky;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Bytes of batches in one request; a single larger batch goes alone.
const REQUEST_BYTES: usize = 4 << 20;

/// Chunks of input that may wait in the channel.
const CREDITS: usize = 4;

/// A topic that has not come after this is worth a word.
const SILENT_WAIT: Duration = Duration::from_secs(1);
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
const METADATA_PAUSE: Duration = Duration::from_millis(100);

/// Produces what `input` feeds, in a thread of its own, until it ends and everything is acknowledged or lost.
/// `watch` is told how far things are, now and then, `notice` what the operator should know. An error means that nothing could be sent at all; trouble on the
/// way is in the summary.
pub fn produce(
    cluster: &mut Cluster,
    topic: &str,
    options: &ProducerOptions,
    input: impl FnOnce(&mut Feeder) -> Result<(), String> + Send + 'static,
    watch: &mut dyn FnMut(&Summary),
    notice: &mut dyn FnMut(&str),
) -> Result<Summary, ClientError> {
    let leaders = wait_for_topic(cluster, topic, options.create_topic, notice)?;
    let (events, inbox) = channel();
    let (credit, credits) = channel();
    let mut driver = Driver::new(cluster, topic, options, leaders, events.clone());
    if driver.outbox.rules().idempotent {
        // Fail before anything is read from the input.
        driver.take_identity()?;
    }
    let mut feeder = Feeder { events, credits };
    std::thread::spawn(move || {
        let result = input(&mut feeder);
        feeder.end(result.err());
    });
    driver.run(&inbox, &credit, watch);
    Ok(driver.finish())
}

/// The topic's leaders by partition, once every broker-side step of its creation is done.
fn wait_for_topic(
    cluster: &mut Cluster,
    topic: &str,
    create: bool,
    notice: &mut dyn FnMut(&str),
) -> Result<Vec<Option<i32>>, ClientError> {
    let mut retry = Retry::new(cluster.options().retry_for);
    let mut silent_until = Some(Instant::now() + SILENT_WAIT);
    let names = Topics::Named(vec![topic.to_owned()]);
    loop {
        match cluster.try_metadata(&names, create).and_then(|metadata| leaders_of(&metadata, topic)) {
            Ok(leaders) => return Ok(leaders),
            Err(error) => {
                let passing: &[ResponseError] = match create {
                    true => &[ResponseError::UnknownTopicOrPartition, ResponseError::LeaderNotAvailable],
                    false => &[ResponseError::LeaderNotAvailable],
                };
                let error = error.retriable_only_for(passing);
                if silent_until.take_if(|until| *until <= Instant::now()).is_some() {
                    if error.code() == Some(ResponseError::UnknownTopicOrPartition)
                        && admin::creates_topics(cluster) == Some(false)
                    {
                        let reason = "it does not exist, and the brokers create none by themselves \
                                      (auto.create.topics.enable=false)";
                        return Err(ClientError::like(ResponseError::UnknownTopicOrPartition, what(topic), reason));
                    }
                    notice(&format!("waiting for topic {topic}: {error}"));
                }
                retry.pause(error)?;
            }
        }
    }
}

fn what(topic: &str) -> String {
    format!("topic {topic}")
}

fn leaders_of(metadata: &Metadata, topic: &str) -> Result<Vec<Option<i32>>, ClientError> {
    let what = what(topic);
    let missing = || ClientError::like(ResponseError::UnknownTopicOrPartition, what.clone(), "it does not exist");
    let info = metadata.topics.get(topic).ok_or_else(missing)?;
    if let Some(error) = info.error.and_then(|code| ClientError::from_code(what.clone(), code.code(), None)) {
        return Err(error);
    }
    if info.partitions.is_empty() {
        return Err(missing());
    }
    let mut leaders = Vec::new();
    for partition in &info.partitions {
        let index = usize::try_from(partition.index).ok().filter(|index| *index < TOPIC_PARTITIONS_MAX);
        let Some(index) = index else {
            return Err(ClientError::Invalid(format!(
                "{what}: the broker speaks of a partition {}; at most {TOPIC_PARTITIONS_MAX} are taken",
                partition.index
            )));
        };
        if leaders.len() <= index {
            leaders.resize(index + 1, None);
        }
        leaders[index] = partition.leader;
    }
    Ok(leaders)
}

struct Driver<'a> {
    cluster: &'a mut Cluster,
    topic: &'a str,
    options: &'a ProducerOptions,
    outbox: Outbox,
    partitioner: Partitioner,
    leaders: Vec<Option<i32>>,
    links: HashMap<i32, Link>,
    /// No connection attempt to this broker before then.
    unreachable_until: HashMap<i32, Instant>,
    events: Sender<Event>,
    generation: u64,
    refresh_at: Option<Instant>,
    input_ended: bool,
    credits_out: usize,
    summary: Summary,
    started: Instant,
}

impl<'a> Driver<'a> {
    fn new(
        cluster: &'a mut Cluster,
        topic: &'a str,
        options: &'a ProducerOptions,
        leaders: Vec<Option<i32>>,
        events: Sender<Event>,
    ) -> Driver<'a> {
        let idempotent = options.idempotent && options.acks == Acks::All;
        let rules = Rules {
            compression: options.compression,
            batch_bytes: options.batch_bytes,
            linger_ms: options.linger.as_millis() as i64,
            retry_backoff_ms: RETRY_BACKOFF.as_millis() as i64,
            delivery_timeout_ms: options.delivery_timeout.as_millis() as i64,
            idempotent,
            in_flight_max: PRODUCE_IN_FLIGHT_MAX,
        };
        Driver {
            cluster,
            topic,
            options,
            outbox: Outbox::new(rules, leaders.len()),
            partitioner: Partitioner { sticky: Sticky::new(fastrand::i32(..), options.batch_bytes) },
            leaders,
            links: HashMap::new(),
            unreachable_until: HashMap::new(),
            events,
            generation: 0,
            refresh_at: None,
            input_ended: false,
            credits_out: 0,
            summary: Summary { idempotent, ..Summary::default() },
            started: Instant::now(),
        }
    }

    fn run(&mut self, inbox: &Receiver<Event>, credit: &Sender<()>, watch: &mut dyn FnMut(&Summary)) {
        while self.summary.stopped.is_none() && !(self.input_ended && self.outbox.is_empty()) {
            self.let_input_in(credit);
            if let Err(error) = self.send_what_is_due() {
                self.stop(error.to_string());
            }
            self.look_at_the_clock();
            watch(&self.summary);
            if self.summary.stopped.is_some() || (self.input_ended && self.outbox.is_empty()) {
                break;
            }
            match inbox.recv_timeout(self.pause()) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the driver itself holds a sender"),
            }
            for event in inbox.try_iter().take(64) {
                self.handle(event);
            }
        }
    }

    fn finish(mut self) -> Summary {
        for (_, link) in self.links.drain() {
            link.close();
        }
        self.summary.unconfirmed_records = self.outbox.buffered_records() as u64;
        self.summary
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(records) => self.take_in(records),
            Event::InputEnd(error) => {
                self.input_ended = true;
                self.outbox.close();
                if let Some(error) = error {
                    // What was read before is still sent; then it ends as a failure.
                    self.summary.input_error = Some(error);
                }
            }
            Event::Answer { broker, generation, frame } => {
                let Some(link) = self.links.get_mut(&broker).filter(|l| l.generation == generation) else { return };
                match link.answered(frame) {
                    Ok((batches, response)) => {
                        for batch in batches {
                            let verdict = verdict(&response, batch.partition);
                            self.settle(batch, verdict);
                        }
                    }
                    Err(error) => self.drop_link(broker, &error.to_string()),
                }
            }
            Event::Broken { broker, generation, reason } => {
                if self.links.get(&broker).is_some_and(|l| l.generation == generation) {
                    self.drop_link(broker, &reason);
                }
            }
        }
    }

    fn take_in(&mut self, records: Vec<NewRecord>) {
        self.credits_out -= 1;
        let now_ms = self.now_ms();
        for record in &records {
            self.summary.read_records += 1;
            let placed = self
                .partitioner
                .choose(record, &self.leaders)
                .and_then(|partition| self.outbox.push(partition, record, now_ms).map_err(|e| e.to_string()));
            if let Err(reason) = placed {
                self.lose(Failure { partition: -1, lines: vec![record.line], reason, hint: None });
            }
        }
    }

    /// Lets the reading thread go on while there is room.
    fn let_input_in(&mut self, credit: &Sender<()>) {
        while !self.input_ended
            && self.credits_out < CREDITS
            && self.outbox.buffered_bytes() < self.options.buffer_bytes
        {
            self.credits_out += 1;
            if credit.send(()).is_err() {
                return;
            }
        }
    }

    fn send_what_is_due(&mut self) -> Result<(), ClientError> {
        if self.outbox.wants_identity() {
            self.take_identity()?;
        }
        let mut brokers: Vec<i32> = self.leaders.iter().copied().flatten().collect();
        brokers.sort_unstable();
        brokers.dedup();
        for broker in brokers {
            while self.links.get(&broker).map_or(0, Link::in_flight) < PRODUCE_IN_FLIGHT_MAX {
                if self.unreachable_until.get(&broker).is_some_and(|until| *until > Instant::now()) {
                    break;
                }
                let (now_ms, leaders) = (self.now_ms(), &self.leaders);
                let led = |p: i32| usize::try_from(p).ok().and_then(|p| leaders.get(p)) == Some(&Some(broker));
                let batches = self
                    .outbox
                    .take(now_ms, led, REQUEST_BYTES)
                    .map_err(|e| ClientError::Invalid(format!("cannot build a batch: {e}")))?;
                if batches.is_empty() {
                    break;
                }
                self.send(broker, batches);
            }
        }
        Ok(())
    }

    fn send(&mut self, broker: i32, batches: Vec<Batch>) {
        let timeout = self.cluster.options().timeouts.request;
        let sent = match self.link(broker) {
            Ok(()) => {
                let link = self.links.get_mut(&broker).expect("invariant: opened above");
                link.send(self.topic, self.options.acks, timeout, batches)
            }
            Err(error) => Err(Unsent { error: Box::new(error), batches }),
        };
        match sent {
            // Without acknowledgements, sent is all there is to know.
            Ok(unanswered) => {
                for batch in unanswered {
                    self.settle(batch, Verdict::Stored { base_offset: None });
                }
            }
            Err(Unsent { error, batches }) => {
                let reason = error.to_string();
                self.unreachable_until.insert(broker, Instant::now() + RETRY_BACKOFF);
                self.drop_link(broker, &reason);
                for batch in batches {
                    self.settle(batch, Verdict::NoAnswer { reason: reason.clone() });
                }
                if !error.retriable() {
                    self.stop(reason);
                }
            }
        }
    }

    fn link(&mut self, broker: i32) -> Result<(), ClientError> {
        if !self.links.contains_key(&broker) {
            let connection = self.cluster.open(broker)?;
            self.generation += 1;
            let link = Link::new(connection, broker, self.generation, self.events.clone())?;
            self.links.insert(broker, link);
        }
        Ok(())
    }

    fn drop_link(&mut self, broker: i32, reason: &str) {
        let Some(link) = self.links.remove(&broker) else { return };
        for batch in link.close() {
            self.settle(batch, Verdict::NoAnswer { reason: reason.to_owned() });
        }
    }

    fn settle(&mut self, batch: Batch, verdict: Verdict) {
        let now_ms = self.now_ms();
        for effect in self.outbox.settle(batch, verdict, now_ms) {
            match effect {
                Effect::Delivered { partition, records, payload_bytes, base_offset } => {
                    self.summary.delivered_records += records as u64;
                    self.summary.delivered_bytes += payload_bytes as u64;
                    let tally = self.summary.partitions.entry(partition).or_default();
                    tally.records += records as u64;
                    if let Some(base) = base_offset {
                        tally.first_offset.get_or_insert(base);
                        tally.next_offset = Some(base.saturating_add(records as i64));
                    }
                }
                Effect::Lost { partition, lines, reason, hint } => {
                    self.lose(Failure { partition, lines, reason, hint })
                }
                Effect::Again { partition, refresh_metadata, reason } => {
                    self.summary.retries += 1;
                    self.summary.trouble = Some(format!("partition {partition}: {reason}"));
                    if refresh_metadata {
                        self.refresh_at.get_or_insert_with(Instant::now);
                    }
                }
                Effect::GaveUp { partition, reason } => self.stop(format!("partition {partition}: {reason}")),
            }
        }
    }

    fn lose(&mut self, failure: Failure) {
        self.summary.lost_records += failure.lines.len() as u64;
        if self.summary.failures.len() < FAILURES_LISTED_MAX {
            self.summary.failures.push(failure);
        }
    }

    fn stop(&mut self, reason: String) {
        self.summary.stopped.get_or_insert(reason);
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let limit = self.cluster.options().timeouts.request;
        let late: Vec<i32> = self
            .links
            .iter()
            .filter(|(_, link)| link.oldest().is_some_and(|sent| now.duration_since(sent) > limit))
            .map(|(broker, _)| *broker)
            .collect();
        for broker in late {
            self.drop_link(broker, &format!("no answer within {} ms", limit.as_millis()));
        }
        if let Some(partition) = self.outbox.overdue(self.now_ms()) {
            let last = self.summary.trouble.clone().unwrap_or_else(|| "there is no leader".to_owned());
            self.stop(format!("partition {partition}: not delivered in time; the last trouble was: {last}"));
        }
        let leaderless = self.leaders.iter().any(Option::is_none) && !self.outbox.is_empty();
        if self.refresh_at.is_some_and(|at| at <= now) || (leaderless && self.refresh_at.is_none()) {
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        self.refresh_at = None;
        let names = Topics::Named(vec![self.topic.to_owned()]);
        match self.cluster.try_metadata(&names, false).and_then(|m| leaders_of(&m, self.topic)) {
            Ok(leaders) => {
                self.outbox.grow(leaders.len());
                // A topic never loses partitions, unless it is deleted and made again: those beyond have no leader then.
                let known = self.leaders.len().max(leaders.len());
                self.leaders = leaders;
                self.leaders.resize(known, None);
            }
            Err(error) => self.summary.trouble = Some(error.to_string()),
        }
        if self.leaders.iter().any(Option::is_none) {
            self.refresh_at = Some(Instant::now() + METADATA_PAUSE);
        }
    }

    fn take_identity(&mut self) -> Result<(), ClientError> {
        let none = || {
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        };
        let answer = self.cluster.call(
            Target::Any,
            |_| none(),
            |answer| ClientError::from_code("producer id", answer.error_code, None).map_or(Ok(()), Err),
        )?;
        self.outbox
            .give_identity(super::batch::Identity { producer_id: answer.producer_id.0, epoch: answer.producer_epoch });
        Ok(())
    }

    /// How long nothing happens by itself.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let mut pause = Duration::from_millis(200);
        if let Some(due) = self.outbox.due_ms(self.now_ms()) {
            pause = pause.min(Duration::from_millis((due - self.now_ms()).max(1) as u64));
        }
        if let Some(at) = self.refresh_at {
            pause = pause.min(at.saturating_duration_since(now).max(Duration::from_millis(1)));
        }
        pause
    }

    /// A clock that never runs backwards.
    fn now_ms(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }
}

/// What the answer says about one partition.
fn verdict(response: &kafka_protocol::messages::ProduceResponse, partition: i32) -> Verdict {
    let found = response.responses.iter().flat_map(|t| &t.partition_responses).find(|p| p.index == partition);
    let Some(answer) = found else {
        return Verdict::NoAnswer { reason: "the answer leaves this partition out".to_owned() };
    };
    match ResponseError::try_from_code(answer.error_code) {
        None => Verdict::Stored { base_offset: Some(answer.base_offset).filter(|o| *o >= 0) },
        Some(code) => {
            let own = answer.error_message.as_ref().map(|m| m.to_string());
            let first = answer.record_errors.first().and_then(|e| e.batch_index_error_message.as_ref());
            Verdict::Refused {
                code,
                message: first.map(|m| m.to_string()).or(own),
                refused_records: answer.record_errors.iter().map(|e| e.batch_index).collect(),
            }
        }
    }
}
