//! What was promised of a partition, and whether its log keeps it. No I/O.

use crate::content::{Found, Name};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a writer may rely on after the crash that is about to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Whatever was acknowledged or seen by a consumer is there.
    Kept,
    /// The end of the log may be gone.
    TailMayGo,
}

/// One writer's part in one partition.
#[derive(Debug)]
pub struct Written {
    pub writer: u32,
    pub acks: i16,
    /// The hash of each batch that was sent, by its number.
    pub sent: Vec<u64>,
    /// Numbers of acknowledged batches, by base offset.
    pub acked: BTreeMap<i64, u32>,
    /// Every number is in the log up to the last one: an idempotent writer sends again until it is told.
    pub contiguous: bool,
}

impl Written {
    pub fn new(writer: u32, idempotent: bool, acks: i16) -> Written {
        Written { writer, acks, sent: Vec::new(), acked: BTreeMap::new(), contiguous: idempotent }
    }
}

/// What a check counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub batches: u64,
    /// Acknowledged batches that were looked for.
    pub acked: u64,
    /// Of what was acknowledged: gone, where that was allowed.
    pub lost: u64,
    /// Batches that a consumer had seen and that were looked for.
    pub seen: u64,
    /// Answers of coordinators of consumer groups that were held against what is there.
    pub told: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.batches += other.batches;
        self.acked += other.acked;
        self.lost += other.lost;
        self.seen += other.seen;
        self.told += other.told;
    }
}

/// Checks a partition's whole log against what was sent, acknowledged and `seen` by a consumer. `promise` is asked with a
/// writer's acks. What was lost with leave is forgotten: the ledger then says what the log says.
pub fn check(
    log: &[Found],
    written: &mut [&mut Written],
    seen: &mut BTreeMap<i64, Found>,
    promise: impl Fn(i16) -> Promise,
) -> Result<Counts> {
    let end = log.last().map_or(0, |batch| batch.next);
    let mut counts = Counts { batches: log.len() as u64, ..Counts::default() };
    check_gapless(log)?;
    check_origin(log, written)?;
    let by_base: HashMap<i64, Found> = log.iter().map(|batch| (batch.base, *batch)).collect();
    let mut acks_of = HashMap::new();
    for written in written.iter_mut() {
        acks_of.insert(written.writer, written.acks);
        let (writer, before) = (written.writer, written.acked.len());
        let mut missing = None;
        written.acked.retain(|base, number| {
            let there = by_base.get(base).map(|found| (found.name.writer, found.name.number));
            let kept = there == Some((writer, *number));
            // Only the log's end can be gone: what lies before it is another batch in the place of this one.
            if !kept && (promise(written.acks) == Promise::Kept || *base < end) {
                missing.get_or_insert((*base, *number, there));
            }
            kept
        });
        if let Some((base, number, there)) = missing {
            bail!(
                "LOST: writer {writer} (acks={}) was told that its batch {number} is at offset {base}; there is {there:?}, \
                 the log ends at {end}",
                written.acks
            );
        }
        counts.acked += before as u64;
        counts.lost += (before - written.acked.len()) as u64;
    }
    let mut gone = None;
    counts.seen = seen.len() as u64;
    seen.retain(|base, batch| {
        let kept = by_base.get(base) == Some(batch);
        let acks = acks_of.get(&batch.name.writer).copied().unwrap_or(-1);
        if !kept && (promise(acks) == Promise::Kept || *base < end) {
            gone.get_or_insert(*batch);
        }
        kept
    });
    if let Some(batch) = gone {
        bail!("TAKEN BACK: a consumer saw {batch:?}; there is {:?}, the log ends at {end}", by_base.get(&batch.base));
    }
    Ok(counts)
}

fn check_gapless(log: &[Found]) -> Result<()> {
    let mut next = 0;
    for batch in log {
        ensure!(batch.base == next, "GAP: offset {} where {next} was due ({batch:?})", batch.base);
        next = batch.next;
    }
    Ok(())
}

/// Every batch is one that was sent, once, in its writer's order.
fn check_origin(log: &[Found], written: &[&mut Written]) -> Result<()> {
    let by_writer: HashMap<u32, &Written> = written.iter().map(|written| (written.writer, &**written)).collect();
    let mut last: HashMap<u32, u32> = HashMap::new();
    let mut names: BTreeSet<Name> = BTreeSet::new();
    for batch in log {
        let Name { writer, number, .. } = batch.name;
        let of = by_writer.get(&writer).with_context(|| format!("STRANGE: nobody wrote {batch:?} here"))?;
        ensure!(of.sent.get(number as usize) == Some(&batch.hash), "CHANGED: {batch:?} is not what was sent");
        ensure!(names.insert(batch.name), "DUPLICATE: {batch:?} is there twice");
        let before = last.insert(writer, number);
        ensure!(before.is_none_or(|before| before < number), "REORDERED: {batch:?} follows the writer's {before:?}");
        let due = before.map_or(0, |before| before + 1);
        ensure!(!of.contiguous || number == due, "MISSING: {batch:?} of an idempotent writer, whose {due} was due");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(base: i64, writer: u32, number: u32) -> Found {
        Found { base, next: base + 2, name: Name { writer, slot: 0, number }, hash: u64::from(number) }
    }

    fn written(writer: u32, acks: i16, acked: &[(i64, u32)]) -> Written {
        let mut written = Written::new(writer, acks == -1, acks);
        written.sent = (0..10).collect();
        written.acked = acked.iter().copied().collect();
        written
    }

    fn verdict(log: &[Found], written: &mut Written, seen: &[Found], kept: bool) -> String {
        let mut seen = seen.iter().map(|batch| (batch.base, *batch)).collect();
        let promise = |_| if kept { Promise::Kept } else { Promise::TailMayGo };
        match check(log, &mut [written], &mut seen, promise) {
            Ok(counts) => format!("{} lost", counts.lost),
            Err(e) => e.to_string().split(':').next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn every_broken_promise_is_seen() {
        let log = [found(0, 1, 0), found(2, 1, 1), found(4, 1, 2)];
        let told = [(0, 0), (2, 1)];
        assert_eq!(verdict(&log, &mut written(1, -1, &told), &[found(2, 1, 1)], true), "0 lost");
        assert_eq!(verdict(&log[..1], &mut written(1, -1, &told), &[], true), "LOST");
        assert_eq!(verdict(&log[..1], &mut written(1, -1, &told), &[], false), "1 lost");
        assert_eq!(verdict(&log, &mut written(1, -1, &[(2, 2)]), &[], false), "LOST", "another one in its place");
        assert_eq!(verdict(&log[..1], &mut written(1, -1, &[]), &[found(2, 1, 1)], true), "TAKEN BACK");
        assert_eq!(verdict(&log[1..], &mut written(1, -1, &[]), &[], true), "GAP");
        assert_eq!(verdict(&[log[0], found(2, 1, 0)], &mut written(1, -1, &[]), &[], true), "DUPLICATE");
        assert_eq!(verdict(&[log[0], found(2, 1, 2), found(4, 1, 1)], &mut written(1, 1, &[]), &[], true), "REORDERED");
        assert_eq!(verdict(&[log[0], found(2, 1, 2)], &mut written(1, -1, &[]), &[], true), "MISSING");
        assert_eq!(verdict(&[log[0], found(2, 1, 2)], &mut written(1, 1, &[]), &[], true), "0 lost");
        assert_eq!(verdict(&[found(0, 2, 0)], &mut written(1, -1, &[]), &[], true), "STRANGE");
        let changed = Found { hash: 77, ..log[0] };
        assert_eq!(verdict(&[changed], &mut written(1, -1, &[]), &[], true), "CHANGED");
    }
}
