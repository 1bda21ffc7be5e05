//! Segments are read by several threads, whichever partition they belong to; what they find comes back to one.

use super::partition::Partition;
use super::segment::{self, SegmentFacts, SegmentJob};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

const REDRAW: Duration = Duration::from_millis(100);
/// Results that wait for the one that prints.
const WAITING_MAX: usize = 64;

/// Reads all segments of the partitions with so many threads. `done` is called with a partition, joined, as soon as its
/// last segment is read; `progress` now and then with the bytes read so far.
pub fn check_all<E>(
    partitions: &mut [Partition],
    threads: usize,
    mut progress: impl FnMut(u64),
    mut done: impl FnMut(&mut Partition, &[SegmentFacts]) -> Result<(), E>,
) -> Result<(), E> {
    let jobs: Vec<(usize, usize, SegmentJob, _)> = partitions
        .iter()
        .enumerate()
        .flat_map(|(p, partition)| {
            let context = partition.context.clone();
            partition.jobs.iter().enumerate().map(move |(s, job)| (p, s, job.clone(), context.clone()))
        })
        .collect();
    let (next, read) = (AtomicUsize::new(0), AtomicU64::new(0));
    let mut facts: Vec<Vec<Option<SegmentFacts>>> =
        partitions.iter().map(|partition| partition.jobs.iter().map(|_| None).collect()).collect();
    for partition in partitions.iter_mut().filter(|partition| partition.jobs.is_empty()) {
        partition.join(&mut []);
        done(partition, &[])?;
    }
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(WAITING_MAX);
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            let (sender, jobs, next, read) = (sender.clone(), &jobs, &next, &read);
            scope.spawn(move || {
                while let Some((p, s, job, context)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens any more: the output has failed.
                    if sender.send((*p, *s, segment::check(job, context, read))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        loop {
            let (p, s, fact) = match results.recv_timeout(REDRAW) {
                Ok(result) => result,
                Err(RecvTimeoutError::Timeout) => {
                    progress(read.load(Ordering::Relaxed));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            progress(read.load(Ordering::Relaxed));
            let (Some(of_partition), Some(partition)) = (facts.get_mut(p), partitions.get_mut(p)) else { continue };
            if let Some(place) = of_partition.get_mut(s) {
                *place = Some(fact);
            }
            if of_partition.iter().all(Option::is_some) {
                let mut whole: Vec<SegmentFacts> = std::mem::take(of_partition).into_iter().flatten().collect();
                partition.join(&mut whole);
                done(partition, &whole)?;
            }
        }
    })
}
