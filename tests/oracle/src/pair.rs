//! Two brokers that are sent the same requests: the oracle (Apache Kafka) and the subject (Corelog).

use crate::diff::{FieldDifference, diff};
use crate::normalise::Known;
use crate::report::{Exchange, Report};
use crate::tree::Tree;
use crate::wire::{self, Connection, Received};
use anyhow::{Context, Result};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use kafka_protocol::protocol::Request;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// One of the two, as a request's maker sees it: what it must name by the broker's own ids.
pub struct Side {
    /// 0 for the oracle, 1 for the subject: the index into what `Answers::each` returns.
    pub index: usize,
    pub name: &'static str,
    address: SocketAddr,
    connections: HashMap<u32, Connection>,
    known: Known,
    topic_ids: HashMap<String, Uuid>,
}

impl Side {
    /// `places`: texts that name the broker's own places in its answers, and what replaces them.
    pub fn new(index: usize, name: &'static str, address: SocketAddr, places: Vec<(String, &'static str)>) -> Side {
        let (connections, topic_ids) = (HashMap::new(), HashMap::new());
        Side { index, name, address, connections, known: Known::new(places), topic_ids }
    }

    /// The broker id of this side's n-th broker.
    pub fn broker(&self, nth: usize) -> i32 {
        *self.known.broker_ids().get(nth).expect("the run begins by asking for the brokers")
    }

    /// The topic's id; nil while Metadata has not told it.
    pub fn topic_id(&self, topic: &str) -> Uuid {
        self.topic_ids.get(topic).copied().unwrap_or_default()
    }

    pub fn learn_topic_id(&mut self, topic: &str, id: Uuid) {
        self.topic_ids.insert(topic.to_owned(), id);
    }

    fn connection(&mut self, number: u32) -> Result<&mut Connection> {
        if !self.connections.contains_key(&number) {
            let connection = Connection::open(self.address).with_context(|| format!("{} is gone", self.name))?;
            self.connections.insert(number, connection);
        }
        Ok(self.connections.get_mut(&number).expect("inserted above"))
    }
}

/// Both decoded answers; none where the broker closed the connection or kept silent.
pub struct Answers<T>(pub [Option<T>; 2]);

impl<T> Answers<T> {
    /// A value from each answer, to be put into later requests; the default where there is no answer.
    pub fn each<V: Default>(&self, value: impl Fn(&T) -> V) -> [V; 2] {
        let [oracle, subject] = &self.0;
        [oracle.as_ref().map(&value).unwrap_or_default(), subject.as_ref().map(&value).unwrap_or_default()]
    }

    pub fn all(&self, test: impl Fn(&T) -> bool) -> bool {
        self.0.iter().all(|answer| answer.as_ref().is_some_and(&test))
    }
}

/// A request sent to both and not answered yet.
pub struct Pending<R> {
    connection: u32,
    version: i16,
    requests: [R; 2],
    sent_at: Instant,
}

pub struct Pair {
    pub sides: [Side; 2],
    pub report: Report,
    case: String,
    /// Advertised version ranges by API key, for each side.
    ranges: [HashMap<i16, RangeInclusive<i16>>; 2],
    next_partition: HashMap<String, i32>,
    topics_made: u32,
    /// How long the next answer may take.
    patience: Duration,
}

impl Pair {
    pub fn new(oracle: Side, subject: Side, report: Report) -> Pair {
        Pair {
            sides: [oracle, subject],
            report,
            case: String::new(),
            ranges: Default::default(),
            next_partition: HashMap::new(),
            topics_made: 0,
            patience: wire::SILENCE,
        }
    }

    /// Names what follows, in reports and in the list of allowed differences.
    pub fn case(&mut self, name: impl Into<String>) {
        self.case = name.into();
    }

    /// The next request is one that a broker may leave without an answer: do not wait long for it.
    pub fn impatient(&mut self) {
        self.patience = Duration::from_secs(1);
    }

    /// Asks both which versions they serve.
    pub fn learn_versions(&mut self) -> Result<()> {
        let answers = self.exchange(3, |_| crate::requests::api_versions())?;
        self.ranges = answers.each(|answer| {
            answer.api_keys.iter().map(|api| (api.api_key, api.min_version..=api.max_version)).collect()
        });
        Ok(())
    }

    /// The versions of an API that both serve and that this test can write.
    pub fn versions<R: Request>(&self) -> RangeInclusive<i16> {
        let mut range = R::VERSIONS.min..=R::VERSIONS.max;
        for served in &self.ranges {
            // Without the API no version is left.
            let served = served.get(&R::KEY).cloned().unwrap_or(i16::MAX..=i16::MAX);
            range = *range.start().max(served.start())..=*range.end().min(served.end());
        }
        range
    }

    /// The newest version that both serve.
    pub fn newest<R: Request>(&self) -> i16 {
        *self.versions::<R>().end()
    }

    /// A partition of a shared topic that no case has used before, so that cases do not disturb each other.
    pub fn fresh_partition(&mut self, topic: &str) -> i32 {
        let next = self.next_partition.entry(topic.to_owned()).or_default();
        *next += 1;
        *next - 1
    }

    /// A topic name that was not used before.
    pub fn fresh_topic(&mut self, stem: &str) -> String {
        self.topics_made += 1;
        format!("{stem}-{}", self.topics_made)
    }

    /// Sends both the request that `make` makes for each, and compares the answers.
    pub fn same<R: Request + std::fmt::Debug>(
        &mut self,
        version: i16,
        make: impl Fn(&Side) -> R,
    ) -> Result<Answers<R::Response>>
    where
        R::Response: std::fmt::Debug,
    {
        let pending = self.start(0, version, make)?;
        self.finish(pending, None)
    }

    /// Like `same`, and compares whether each answer took (nearly) so long.
    pub fn same_wait<R: Request + std::fmt::Debug>(
        &mut self,
        version: i16,
        wait: Duration,
        make: impl Fn(&Side) -> R,
    ) -> Result<Answers<R::Response>>
    where
        R::Response: std::fmt::Debug,
    {
        let pending = self.start(0, version, make)?;
        self.finish(pending, Some(wait))
    }

    /// Sends, learns and compares nothing: for preparing and for polling.
    pub fn exchange<R: Request>(&mut self, version: i16, make: impl Fn(&Side) -> R) -> Result<Answers<R::Response>> {
        let pending = self.start(0, version, make)?;
        let mut answers = [None, None];
        for (side, answer) in self.sides.iter_mut().zip(&mut answers) {
            match side.connection(pending.connection)?.receive()? {
                Received::Frame(frame) => *answer = Some(wire::decode::<R>(frame, version)?),
                Received::Closed | Received::Silent => _ = side.connections.remove(&pending.connection),
            }
        }
        Ok(Answers(answers))
    }

    /// Sends on the numbered connection; `finish` receives. Several may be under way, on one connection or on many.
    pub fn start<R: Request>(
        &mut self,
        connection: u32,
        version: i16,
        make: impl Fn(&Side) -> R,
    ) -> Result<Pending<R>> {
        let requests = [make(&self.sides[0]), make(&self.sides[1])];
        for (side, request) in self.sides.iter_mut().zip(&requests) {
            let sent = side.connection(connection)?.send(request, version, true);
            sent.with_context(|| format!("{:?} v{version} in case {}", ApiKey::try_from(R::KEY), self.case))?;
        }
        Ok(Pending { connection, version, requests, sent_at: Instant::now() })
    }

    pub fn finish<R: Request + std::fmt::Debug>(
        &mut self,
        pending: Pending<R>,
        wait: Option<Duration>,
    ) -> Result<Answers<R::Response>>
    where
        R::Response: std::fmt::Debug,
    {
        let Pending { connection, version, requests, sent_at } = pending;
        let [oracle, subject] = &mut self.sides;
        let patience = std::mem::replace(&mut self.patience, wire::SILENCE);
        let receive = |side: &mut Side| -> Result<(Received, Duration)> {
            let received = side.connection(connection)?.receive_within(patience).with_context(|| side.name)?;
            Ok((received, sent_at.elapsed()))
        };
        let received = std::thread::scope(|scope| {
            let other = scope.spawn(|| receive(subject));
            [receive(oracle), other.join().expect("receiving does not panic")]
        });
        let exchange = self.report.exchanges();
        let mut answers = [None, None];
        let mut trees = [Tree::Null, Tree::Null];
        for (index, received) in received.into_iter().enumerate() {
            let (received, took) = received?;
            let side = &mut self.sides[index];
            trees[index] = match received {
                Received::Frame(frame) => match wire::decode::<R>(frame, version) {
                    Ok(answer) => {
                        let tree = side.known.normalise(Tree::of(&answer)?, exchange);
                        answers[index] = Some(answer);
                        with_wait(tree, took, wait)
                    }
                    Err(error) => Tree::Word(format!("<cannot be decoded: {error:#}>")),
                },
                Received::Closed => {
                    side.connections.remove(&connection);
                    Tree::word("<connection closed>")
                }
                Received::Silent => {
                    side.connections.remove(&connection);
                    Tree::word("<no answer>")
                }
            };
        }
        self.compare(api_name(R::KEY), version, requests.each_ref().map(|request| format!("{request:?}")), trees);
        Ok(Answers(answers))
    }

    /// Sends what is answered by nothing (Produce with acks=0) and makes sure that nothing comes: the next answer on
    /// the connection is the next request's.
    pub fn unanswered<R: Request>(&mut self, version: i16, make: impl Fn(&Side) -> R) -> Result<()> {
        for side in &mut self.sides {
            let request = make(side);
            side.connection(0)?.send(&request, version, false)?;
        }
        self.same::<ApiVersionsRequest>(3, |_| crate::requests::api_versions()).map(drop)
    }

    /// Compares the advertised ranges of what the subject serves.
    pub fn same_ranges(&mut self) {
        let mut served: Vec<i16> = self.ranges[1].keys().copied().collect();
        served.sort_unstable();
        let trees = [0, 1].map(|index| {
            let range = |key: &i16| {
                let range = self.ranges[index].get(key).map(|range| format!("{}-{}", range.start(), range.end()));
                (api_name(*key), Tree::Word(range.unwrap_or("<not served>".into())))
            };
            Tree::Struct("Ranges".into(), served.iter().map(range).collect())
        });
        self.compare("Ranges".into(), 0, [String::new(), String::new()], trees);
    }

    /// Sends a body that is no valid message and compares how the brokers take it: an answer's bytes, or a close.
    pub fn same_raw(&mut self, api_key: i16, version: i16, header_version: i16, body: &[u8]) -> Result<()> {
        self.same_raw_prefix(api_key, version, header_version, body, usize::MAX)
    }

    /// The same, comparing only so many bytes of the answers behind the correlation id.
    pub fn same_raw_prefix(
        &mut self,
        api_key: i16,
        version: i16,
        header_version: i16,
        body: &[u8],
        prefix: usize,
    ) -> Result<()> {
        const CONNECTION: u32 = 99;
        let mut trees = [Tree::Null, Tree::Null];
        for (side, tree) in self.sides.iter_mut().zip(&mut trees) {
            side.connection(CONNECTION)?.send_raw(api_key, version, header_version, body)?;
            *tree = match side.connection(CONNECTION)?.receive()? {
                Received::Frame(frame) => Tree::Bytes(frame.iter().skip(4).take(prefix).copied().collect()),
                Received::Closed => Tree::word("<connection closed>"),
                Received::Silent => Tree::word("<no answer>"),
            };
            side.connections.remove(&CONNECTION);
        }
        let request = format!("body {:?}", Tree::Bytes(body.to_vec()).to_string());
        self.compare(api_name(api_key), version, [request.clone(), request], trees);
        Ok(())
    }

    fn compare(&mut self, api: String, version: i16, requests: [String; 2], trees: [Tree; 2]) {
        let differences: Vec<FieldDifference> = diff(&trees[0], &trees[1]);
        let exchange = Exchange { case: self.case.clone(), api, version, requests, answers: trees };
        self.report.add(exchange, differences);
    }
}

fn with_wait(tree: Tree, took: Duration, wait: Option<Duration>) -> Tree {
    let (Tree::Struct(name, mut fields), Some(wait)) = (tree.clone(), wait) else { return tree };
    let waited = if took >= wait.mul_f32(0.8) { "the whole wait" } else { "less than the wait" };
    fields.push(("waited".into(), Tree::word(waited)));
    Tree::Struct(name, fields)
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|_| format!("API {key}"), |key| format!("{key:?}"))
}
