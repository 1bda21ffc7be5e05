//! What is to be verified, by the paths that were named.

use super::context::{Context, Gaps, Stop};
use super::directory::{DataDir, Key, is_data_dir};
use super::finding::Findings;
use super::partition::{Known, Partition};
use crate::coordination::embedded::FILE_NAME;
use crate::log::paths::{self, DirName};
use anyhow::{Context as _, bail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Default)]
pub struct Targets {
    pub dirs: Vec<DataDir>,
    pub partitions: Vec<Partition>,
    pub findings: Findings,
}

impl Targets {
    /// Looks at each path: `data_dirs` are data directories, `paths` whatever they turn out to be.
    pub fn open(data_dirs: &[PathBuf], paths: &[PathBuf]) -> anyhow::Result<Targets> {
        let mut targets = Targets::default();
        for path in data_dirs {
            targets.add_dir(path)?;
        }
        for path in paths {
            let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
            if meta.is_file() {
                targets.add_segment(path)?;
            } else if looks_like_partition(path).with_context(|| path.display().to_string())? {
                let partition = open_partition(path).with_context(|| path.display().to_string())?;
                targets.partitions.push(partition);
            } else {
                targets.add_dir(path)?;
            }
        }
        targets.add_partitions_of_dirs();
        Ok(targets)
    }

    fn add_dir(&mut self, path: &Path) -> anyhow::Result<()> {
        let dir = DataDir::open(path).with_context(|| path.display().to_string())?;
        if !is_data_dir(path) && dir.partitions.is_empty() {
            bail!(
                "{}: neither a data directory nor a partition's: it has no {}, and no partition in it",
                path.display(),
                crate::node::manifest::META
            );
        }
        self.dirs.push(dir);
        Ok(())
    }

    fn add_segment(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((base, paths::LOG)) = paths::parse_segment_file(name) else {
            bail!(
                "{}: not a segment (its name would be 20 digits and .log); `corelog dump` checks other files",
                path.display()
            );
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let partition = open_partition(dir).with_context(|| dir.display().to_string())?;
        self.partitions.push(partition.only(base.0));
        Ok(())
    }

    /// One store serves all directories of a node, and lies in one of them.
    fn add_partitions_of_dirs(&mut self) {
        let stores: Vec<_> = self.dirs.iter_mut().map(|dir| (dir.cluster_id.clone(), dir.store.take())).collect();
        for (i, dir) in self.dirs.iter_mut().enumerate() {
            let own = stores.get(i).and_then(|(_, store)| store.as_ref());
            let of_same = || stores.iter().filter(|(id, _)| id.is_some() && *id == dir.cluster_id);
            let store = own.or_else(|| of_same().find_map(|(_, store)| store.as_ref()));
            // One that is damaged was told of.
            if store.is_none() && dir.is_ours() && !dir.path.join(FILE_NAME).exists() {
                dir.tell_no_store();
            }
            dir.check_missing(store);
            for (key, path) in &dir.partitions {
                match Partition::open(path, dir.known(key, store)) {
                    Ok(partition) => self.partitions.push(partition),
                    // A broker removes the directories of deleted topics.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && dir.holder.is_some() => {}
                    Err(e) => self.findings.add_unreadable(path, &e),
                }
            }
        }
    }
}

/// A partition that was named by itself: what the data directory around it says of it counts, if it lies in one.
fn open_partition(dir: &Path) -> io::Result<Partition> {
    let full = dir.canonicalize()?;
    let key = full.file_name().and_then(|name| name.to_str()).map(paths::parse_dir);
    let around = full.parent().filter(|around| is_data_dir(around)).and_then(|around| DataDir::open(around).ok());
    let known = match (key, around) {
        (Some(DirName::Partition { topic, partition }), Some(around)) => {
            let key: Key = (topic, partition);
            around.known(&key, around.store.as_ref())
        }
        _ => Known { context: unknown(), topic_id: None },
    };
    Partition::open(dir, known)
}

fn unknown() -> Context {
    Context {
        stop: Stop::Unknown,
        live: false,
        ours: false,
        gaps: Gaps::Unknown,
        recovery_point: None,
        log_start: None,
        high_watermark: None,
        epochs: None,
    }
}

fn looks_like_partition(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        let is_segment = paths::parse_segment_file(name).is_some_and(|(_, suffix)| suffix == paths::LOG);
        if is_segment || name == paths::PARTITION_METADATA || name == paths::LEADER_EPOCH_CHECKPOINT {
            return Ok(true);
        }
    }
    Ok(false)
}
