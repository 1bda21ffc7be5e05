//! Reading a topic as a member of a group: each generation reads the partitions that it was given, from where the group has read.
//!
//! At least once: what is committed has been shown and flushed before. Who loses a partition before it could commit has shown
//! records that the next owner shows again.

use super::member::{Commit, Member, MemberOptions};
use super::{TopicPartitionName, admin};
use crate::client::cluster::Cluster;
use crate::client::consumer::{self, Assignment, ConsumerOptions, Reset, Sink};
use crate::client::error::ClientError;
use crate::client::offsets::{Lookup, list_offsets};
use crate::record::records::Record;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// How a group's progress is kept.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Where to begin in a partition of which the group has committed nothing; `Fail` makes that an error.
    pub begin: Reset,
    /// What was shown is committed when this has passed, and whenever partitions go.
    pub commit_every: Duration,
    /// Ends where the log ended when the partitions were given.
    pub exit_at_end: bool,
}

/// While there is nothing to read.
const IDLE: Duration = Duration::from_millis(100);

/// Joins the group and shows records until `stop` says so, the sink wants no more, or the end is reached; then leaves.
pub fn consume_as_member(
    cluster: &mut Cluster,
    member: &MemberOptions,
    options: &ConsumerOptions,
    progress: &Progress,
    sink: &mut dyn Sink,
    stop: &dyn Fn() -> bool,
) -> Result<(), ClientError> {
    let own = Cluster::connect(cluster.options().clone())?;
    let mut reader = Reader {
        member: Member::new(own, member),
        topic: &member.topic,
        group: &member.group,
        options,
        progress,
        stop,
    };
    let done = reader.run(cluster, sink);
    reader.member.leave();
    done
}

struct Reader<'a> {
    member: Member<'a>,
    topic: &'a str,
    group: &'a str,
    options: &'a ConsumerOptions,
    progress: &'a Progress,
    stop: &'a dyn Fn() -> bool,
}

impl Reader<'_> {
    fn run(&mut self, cluster: &mut Cluster, sink: &mut dyn Sink) -> Result<(), ClientError> {
        let mut before = None;
        while let Some(given) = self.member.join(self.stop, &mut |text| sink.notice(text))? {
            let mut partitions = given.get(self.topic).cloned().unwrap_or_default();
            partitions.sort_unstable();
            // Generations come and go as others do; what this member reads is news when it changes.
            let now = Some((self.member.id().to_owned(), partitions.clone()));
            if before != now {
                sink.notice(&self.given(&partitions));
                before = now;
            }
            let assignments = self.places(cluster, &partitions)?;
            if self.read(cluster, &assignments, sink)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn given(&self, partitions: &[i32]) -> String {
        let (topic, group, generation) = (self.topic, self.group, self.member.generation());
        let listed = partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        let part = match partitions {
            [] => format!("no partition of {topic}: others read them all"),
            _ => format!("{topic} {listed}"),
        };
        format!("member {} of group {group}, generation {generation}: {part}", self.member.id())
    }

    /// Where each partition begins and, with `exit_at_end`, ends.
    fn places(&self, cluster: &mut Cluster, partitions: &[i32]) -> Result<Vec<Assignment>, ClientError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let isolation = self.options.isolation;
        let names: Vec<TopicPartitionName> = partitions.iter().map(|p| (self.topic.to_owned(), *p)).collect();
        let committed = admin::committed(cluster, self.group, Some(&names))?;
        let missing: Vec<i32> =
            partitions.iter().copied().filter(|p| !committed.contains_key(&(self.topic.to_owned(), *p))).collect();
        let mut begins = BTreeMap::new();
        if !missing.is_empty() {
            let lookup = match self.progress.begin {
                Reset::Earliest => Lookup::Earliest,
                Reset::Latest => Lookup::Latest,
                Reset::Fail => {
                    let (topic, group) = (self.topic, self.group);
                    let first = missing.first().copied().unwrap_or_default();
                    return Err(ClientError::Invalid(format!(
                        "group {group} has committed no offset of {topic}-{first}"
                    )));
                }
            };
            begins = list_offsets(cluster, self.topic, &missing, lookup, isolation)?;
        }
        let ends = match self.progress.exit_at_end {
            true => list_offsets(cluster, self.topic, partitions, Lookup::Latest, isolation)?,
            false => BTreeMap::new(),
        };
        let begin = |p: i32| match committed.get(&(self.topic.to_owned(), p)) {
            Some(committed) => committed.offset,
            None => begins.get(&p).copied().flatten().unwrap_or(0),
        };
        let place = |p: &i32| Assignment {
            partition: *p,
            from_offset: begin(*p),
            to_offset: self.progress.exit_at_end.then(|| ends.get(p).copied().flatten().unwrap_or(0)),
        };
        Ok(partitions.iter().map(place).collect())
    }

    /// Reads until the generation is over (false) or there is no more to do (true). What was shown is committed.
    fn read(
        &mut self,
        cluster: &mut Cluster,
        assignments: &[Assignment],
        sink: &mut dyn Sink,
    ) -> Result<bool, ClientError> {
        let mut watched = Watched {
            inner: sink,
            member: &mut self.member,
            every: self.progress.commit_every,
            due: Instant::now() + self.progress.commit_every,
            stop: self.stop,
            shown: BTreeMap::new(),
            wants_no_more: false,
            failure: None,
        };
        let read = consumer::consume(cluster, self.topic, assignments, self.options, &mut watched);
        let goes_on = !self.progress.exit_at_end && !watched.wants_no_more;
        while read.is_ok() && goes_on && !watched.ends() {
            // There is no partition to read: others may go.
            std::thread::sleep(IDLE);
        }
        if let Some(failure) = watched.failure.take() {
            return Err(failure);
        }
        match read {
            // What nobody could take is not committed.
            Err(error @ ClientError::Output(_)) => return Err(error),
            read => {
                watched.commit()?;
                read?;
            }
        }
        Ok(!self.member.must_rejoin() || (self.stop)())
    }
}

/// The sink of a member: counts what is shown, commits it from time to time, and ends when the generation does.
struct Watched<'a, 'm> {
    inner: &'a mut dyn Sink,
    member: &'a mut Member<'m>,
    every: Duration,
    due: Instant,
    stop: &'a dyn Fn() -> bool,
    /// The next offset of each partition from which something was shown since the last commit.
    shown: BTreeMap<i32, i64>,
    wants_no_more: bool,
    failure: Option<ClientError>,
}

impl Watched<'_, '_> {
    fn commit(&mut self) -> Result<(), ClientError> {
        self.inner.idle().map_err(ClientError::output)?;
        self.due = Instant::now() + self.every;
        if self.member.commit(&self.shown, &mut |text| self.inner.notice(text))? == Commit::TooLate {
            self.inner.notice("the group went on without this member: some records will be read again");
        }
        self.shown.clear();
        Ok(())
    }

    fn ends(&mut self) -> bool {
        if self.failure.is_none()
            && let Err(error) = self.work()
        {
            self.failure = Some(error);
        }
        self.failure.is_some() || self.member.must_rejoin() || (self.stop)()
    }

    fn work(&mut self) -> Result<(), ClientError> {
        self.member.tick(&mut |text| self.inner.notice(text))?;
        match self.due <= Instant::now() && !self.member.must_rejoin() {
            true => self.commit(),
            false => Ok(()),
        }
    }
}

impl Sink for Watched<'_, '_> {
    fn record(&mut self, partition: i32, record: &Record<'_>) -> io::Result<bool> {
        let wants_more = self.inner.record(partition, record)?;
        self.shown.insert(partition, record.offset.0.saturating_add(1));
        self.wants_no_more |= !wants_more;
        Ok(wants_more && !self.ends())
    }

    fn passed(&mut self, partition: i32, next_offset: i64) {
        self.shown.insert(partition, next_offset);
    }

    fn idle(&mut self) -> io::Result<()> {
        self.inner.idle()
    }

    fn notice(&mut self, text: &str) {
        self.inner.notice(text);
    }

    fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.ends())
    }
}
