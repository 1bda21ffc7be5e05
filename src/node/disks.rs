//! Watches over the log directories: gives their reserve up when they are full, and lets them take records again when there is space.

use crate::base::disks::{Harm, Health, LogDirs};
use crate::base::limits::FREE_BYTES_MIN;
use crate::log::reserve;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How often free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A directory's free space, and what follows from it. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Records must stop before nothing at all can be written.
    GiveUpReserve,
    /// There seems to be space for the reserve and for records.
    MakeReserve,
}

/// `reserve`: what it takes; 0 where the file system has none.
fn next_step(health: Health, is_held: bool, free: u64, reserve: u64) -> Step {
    match (health, is_held) {
        (Health::Full, true) => Step::GiveUpReserve,
        // Twice the least, lest it go to and fro.
        (Health::Full, false) if free >= reserve + 2 * FREE_BYTES_MIN => Step::MakeReserve,
        (Health::Sound, _) if free < FREE_BYTES_MIN => Step::GiveUpReserve,
        _ => Step::Nothing,
    }
}

/// The reserves of the node's log directories.
pub struct Reserves {
    disks: Arc<LogDirs>,
    journals: u64,
    held: BTreeMap<PathBuf, bool>,
}

impl Reserves {
    /// Makes them where there is space; a directory without is full from the start. `journals`: bytes of the rings in each. Blocking.
    pub fn make(disks: &Arc<LogDirs>, journals: u64) -> Reserves {
        let mut reserves = Reserves { disks: Arc::clone(disks), journals, held: BTreeMap::new() };
        for (path, _) in disks.all().filter(|(_, health)| *health != Health::Offline) {
            let held = reserves.make_one(path);
            if !held {
                disks.set_full(path, true);
            }
            reserves.held.insert(path.to_owned(), held);
            reserves.look_at(path);
        }
        reserves
    }

    /// Runs for ever. A disk that does not answer keeps only itself waiting: each has a thread of its own.
    pub async fn watch(self) {
        let Reserves { disks, journals, held } = self;
        let mut watches = tokio::task::JoinSet::new();
        for (path, held) in held {
            let one = Reserves { disks: Arc::clone(&disks), journals, held: [(path.clone(), held)].into() };
            watches.spawn_local(watch_one(one, path));
        }
        while watches.join_next().await.is_some() {}
        std::future::pending().await
    }

    fn look_at(&mut self, path: &Path) {
        let health = self.disks.health(path);
        let looked = reserve::bytes_free(path).and_then(|free| Ok((free, reserve::bytes_wanted(path, self.journals)?)));
        let (free, wanted) = match looked {
            Ok(found) => found,
            Err(e) => {
                self.disks.report(path, "looking at its free space", &e);
                return;
            }
        };
        let is_held = self.held.get(path).copied().unwrap_or(false);
        match next_step(health, is_held, free, wanted) {
            Step::Nothing => {}
            Step::GiveUpReserve => {
                self.disks.set_full(path, true);
                match reserve::release(path) {
                    Ok(()) => _ = self.held.insert(path.to_owned(), false),
                    Err(e) => _ = self.disks.report(path, "giving up its reserve", &e),
                }
            }
            Step::MakeReserve => {
                let held = self.make_one(path);
                self.held.insert(path.to_owned(), held);
                if held {
                    self.disks.set_full(path, false);
                }
            }
        }
    }

    /// Whether records may be taken: the reserve is there, or the file system has none.
    fn make_one(&self, path: &Path) -> bool {
        let made = reserve::bytes_wanted(path, self.journals).and_then(|bytes| reserve::make(path, bytes));
        match made {
            Ok(true) => true,
            Ok(false) => {
                info!("{}: the file system cannot set space aside for when it is full", path.display());
                true
            }
            Err(e) if Harm::of(&e) == Harm::Full => false,
            Err(e) => {
                if self.disks.report(path, "making its reserve", &e) == Harm::Operation {
                    warn!("{}: no reserve for when it is full: {e}", path.display());
                }
                true
            }
        }
    }
}

async fn watch_one(mut one: Reserves, path: PathBuf) {
    let mut changes = one.disks.subscribe();
    while one.disks.health(&path) != Health::Offline {
        let at = path.clone();
        let looked = tokio::task::spawn_blocking(move || {
            one.look_at(&at);
            one
        });
        let Ok(back) = looked.await.map_err(io::Error::other) else { return };
        one = back;
        tokio::select! {
            _ = tokio::time::sleep(LOOK_EVERY) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_gives_up_its_reserve_and_takes_it_back_before_records() {
        const RESERVE: u64 = 100 << 20;
        let step = |health, held, free| next_step(health, held, free, RESERVE);
        assert_eq!(step(Health::Sound, true, FREE_BYTES_MIN), Step::Nothing);
        assert_eq!(step(Health::Sound, true, FREE_BYTES_MIN - 1), Step::GiveUpReserve);
        assert_eq!(
            step(Health::Full, true, 1 << 40),
            Step::GiveUpReserve,
            "a write found no space: it is to be trusted"
        );
        assert_eq!(step(Health::Full, false, RESERVE), Step::Nothing, "the reserve alone is not enough");
        assert_eq!(step(Health::Full, false, RESERVE + 2 * FREE_BYTES_MIN), Step::MakeReserve);
        assert_eq!(step(Health::Offline, true, 0), Step::Nothing);
    }

    #[test]
    fn a_directory_that_was_full_takes_records_when_there_is_space() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disks = Arc::new(LogDirs::new([(dir.path().to_owned(), None)]));
        let mut reserves = Reserves::make(&disks, 0);
        assert_eq!(disks.health(dir.path()), Health::Sound);
        let file = dir.path().join(reserve::RESERVE);
        assert!(file.exists());
        disks.report(dir.path(), "writing", &io::Error::from(io::ErrorKind::StorageFull));
        reserves.look_at(dir.path());
        assert!(!file.exists() && disks.health(dir.path()) == Health::Full);
        reserves.look_at(dir.path());
        assert!(file.exists() && disks.health(dir.path()) == Health::Sound);
    }
}
