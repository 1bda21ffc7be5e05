//! A data directory: who holds it, how it was left, what its own files say, and which partitions lie in it.

use super::context::{Context, Gaps, Stop};
use super::finding::{Check, Findings, Place, Severity};
use super::partition::{Known, tell_checkpoint, tell_stray};
use super::store::StoreFacts;
use super::text::{Text, read_text};
use crate::base::ids::PartitionIndex;
use crate::coordination::embedded::FILE_NAME;
use crate::journal::{self, file::JournalError};
use crate::log::checkpoint::{self, PartitionOffsets};
use crate::log::paths::{self, DirName};
use crate::log::reserve::RESERVE;
use crate::maintenance::scrub_progress;
use crate::node::format::{CLEAN, FormatError, LOCK};
use crate::node::manifest::{MANIFEST, META, Manifest};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Kafka's, of topics that it compacts.
const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
/// Compacted by nature.
const INTERNAL_TOPICS: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

pub type Key = (String, PartitionIndex);

pub struct DataDir {
    pub path: PathBuf,
    pub findings: Findings,
    pub partitions: BTreeMap<Key, PathBuf>,
    pub store: Option<StoreFacts>,
    /// The process that has it open.
    pub holder: Option<i32>,
    ours: bool,
    is_clean: bool,
    recovery_points: PartitionOffsets,
    log_starts: PartitionOffsets,
    high_watermarks: PartitionOffsets,
    cleaned: PartitionOffsets,
    pub cluster_id: Option<String>,
}

impl DataDir {
    /// Reads everything but the partitions.
    pub fn open(path: &Path) -> io::Result<DataDir> {
        let mut dir = DataDir {
            path: path.to_owned(),
            findings: Findings::default(),
            partitions: BTreeMap::new(),
            store: None,
            holder: holder(path)?,
            ours: path.join(MANIFEST).exists(),
            is_clean: path.join(CLEAN).exists(),
            recovery_points: PartitionOffsets::new(),
            log_starts: PartitionOffsets::new(),
            high_watermarks: PartitionOffsets::new(),
            cleaned: PartitionOffsets::new(),
            cluster_id: None,
        };
        if let Some(pid) = dir.holder {
            let meaning = "verified is what does not change any more: sealed segments, and the last one of each partition up \
                           to its recovery point; for the rest, verify again when the broker has stopped";
            let what = ("a directory that no broker has open".to_owned(), format!("process {pid} has it open"));
            dir.findings.add((Severity::Info, Check::InUse), (path, Place::Whole), what, meaning);
        }
        dir.list()?;
        dir.recovery_points = dir.read_offsets(checkpoint::RECOVERY_POINTS);
        dir.log_starts = dir.read_offsets(checkpoint::LOG_START_OFFSETS);
        dir.high_watermarks = dir.read_offsets(checkpoint::HIGH_WATERMARKS);
        dir.cleaned = dir.read_offsets(CLEANER_OFFSETS);
        dir.check_identity();
        let store = path.join(FILE_NAME);
        if store.exists() {
            dir.store = StoreFacts::read(&store, dir.holder.is_some(), &mut dir.findings);
        }
        dir.check_store_cluster();
        Ok(dir)
    }

    /// What has to be known of a partition. `store`: of this directory, or of another one of the same node.
    pub fn known(&self, key: &Key, store: Option<&StoreFacts>) -> Known {
        let at = |offsets: &PartitionOffsets| offsets.get(key).map(|offset| offset.0);
        let topic = store.map(|store| store.topics.get(&key.0));
        let is_compacted = topic.flatten().and_then(|topic| topic.is_compacted);
        let gaps = match is_compacted {
            _ if self.cleaned.contains_key(key) || INTERNAL_TOPICS.contains(&key.0.as_str()) => Gaps::Legal,
            Some(true) => Gaps::Legal,
            Some(false) => Gaps::Unlikely,
            None => Gaps::Unknown,
        };
        let context = Context {
            stop: if self.is_clean { Stop::Clean } else { Stop::Unclean },
            live: self.holder.is_some(),
            ours: self.ours,
            gaps,
            recovery_point: at(&self.recovery_points),
            log_start: at(&self.log_starts),
            high_watermark: at(&self.high_watermarks),
            epochs: None,
        };
        Known { context, topic_id: topic.map(|topic| topic.map(|topic| topic.id)) }
    }

    /// Partitions that were on disk by the checkpoint, and have no directory.
    pub fn check_missing(&mut self, store: Option<&StoreFacts>) {
        let path = self.path.join(checkpoint::RECOVERY_POINTS);
        for (key, point) in &self.recovery_points {
            if self.partitions.contains_key(key) || point.0 == 0 {
                continue;
            }
            let exists = store.is_some_and(|store| store.topics.contains_key(&key.0));
            let (severity, meaning) = match exists {
                true => (Severity::Error, "the topic exists, and all records of this partition are gone"),
                false => (
                    Severity::Warning,
                    "usual for a topic that was deleted just before a crash; otherwise its records are gone",
                ),
            };
            let what = (format!("a directory {}-{} with records up to {point}", key.0, key.1), "none");
            self.findings.add((severity, Check::MissingPartition), (&path, Place::Whole), what, meaning);
        }
    }

    /// A directory of Corelog's, and no store in any of those that were named.
    pub fn tell_no_store(&mut self) {
        let path = self.path.join(FILE_NAME);
        let what = ("the store, here or in another directory of log.dirs", "in none of those that were named");
        let meaning = "topics and settings are in it: name all directories of the node; if none has it, it is lost, and the \
                       node does not start";
        self.findings.add((Severity::Warning, Check::Store), (&path, Place::Whole), what, meaning);
    }

    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether a broker came meanwhile: what was found may then be its work.
    pub fn check_holder_again(&self, findings: &mut Findings) {
        let now = holder(&self.path).ok().flatten();
        if let Some(pid) = now.filter(|_| self.holder.is_none()) {
            let what = ("a directory that no broker has open", format!("process {pid} opened it meanwhile"));
            let meaning = "what was found may be the work of its start; verify again";
            findings.add((Severity::Warning, Check::InUse), (&self.path, Place::Whole), what, meaning);
        }
    }

    fn list(&mut self) -> io::Result<()> {
        let known =
            [LOCK, META, MANIFEST, CLEAN, FILE_NAME, CLEANER_OFFSETS, RESERVE, "lost+found", "bootstrap.checkpoint"];
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let (path, is_dir) = (entry.path(), entry.file_type()?.is_dir());
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                tell_stray(&path, &mut self.findings);
                continue;
            };
            let is_checkpoint =
                [checkpoint::RECOVERY_POINTS, checkpoint::LOG_START_OFFSETS, checkpoint::HIGH_WATERMARKS];
            if known.contains(&name.as_str()) || is_checkpoint.contains(&name.as_str()) {
                continue;
            }
            if scrub_progress::shard_of(&name).is_some() && !is_dir && self.ours {
                self.check_scrub(&path);
                continue;
            }
            if journal::file::is_ring(&name) && !is_dir && self.ours {
                self.check_journal(&path);
                continue;
            }
            match paths::parse_dir(&name) {
                DirName::Partition { topic, partition } if is_dir => {
                    self.partitions.insert((topic, partition), path);
                }
                DirName::Deleted if is_dir => {
                    self.leftover(&path, "a deleted partition's directory; the broker removes it")
                }
                DirName::Stray if is_dir => {
                    let what = ("directories of partitions", "one that was set aside");
                    let meaning =
                        "a start did not know its topic and set it aside: look into it, and remove it yourself";
                    self.findings.add((Severity::Warning, Check::Stray), (&path, Place::Whole), what, meaning);
                }
                _ if is_dir && name.ends_with("-future") => {
                    self.leftover(&path, "a copy of a partition that Kafka was moving to this directory");
                }
                _ if name.ends_with(".tmp") => self.leftover(&path, "a file that was never finished"),
                _ => tell_stray(&path, &mut self.findings),
            }
        }
        Ok(())
    }

    /// How far a shard's scrub is.
    fn check_scrub(&mut self, path: &Path) {
        let Text::Is(text) = read_text(path, &mut self.findings) else { return };
        if let Err(error) = scrub_progress::Progress::decode(&text) {
            let what = ("how far a scrub has come", error.to_string());
            let meaning = "no record is affected; the next start begins a round of scrubbing anew";
            self.findings.add((Severity::Warning, Check::Scrub), (path, Place::Whole), what, meaning);
        }
    }

    /// A shard's journal, unless a broker is writing it. After a stop in good order only its superblocks count.
    fn check_journal(&mut self, path: &Path) {
        if self.holder.is_some() {
            return;
        }
        let damage = match journal::file::read(path) {
            Ok(Some(existing)) if !existing.superblock.clean => {
                journal::scan::scan(existing.area.bytes(), &existing.superblock).err().map(|damage| damage.to_string())
            }
            Ok(_) => None,
            Err(JournalError::Io { source, .. }) => return self.findings.add_unreadable(path, &source),
            Err(error) => Some(error.to_string()),
        };
        if let Some(damage) = damage {
            let what = ("a superblock, and groups of records that follow one another", damage);
            let meaning = "a start refuses the journal: records that were acknowledged may be nowhere else. Restore the file, or \
                           move it away to start with what the logs have";
            self.findings.add((Severity::Error, Check::Journal), (path, Place::Whole), what, meaning);
        }
    }

    fn leftover(&mut self, path: &Path, meaning: &'static str) {
        let what = ("only what is in use", "a leftover");
        self.findings.add((Severity::Info, Check::Leftover), (path, Place::Whole), what, meaning);
    }

    /// A checkpoint of offsets; empty where it is missing or says nothing.
    fn read_offsets(&mut self, name: &str) -> PartitionOffsets {
        let path = self.path.join(name);
        let Text::Is(text) = read_text(&path, &mut self.findings) else { return PartitionOffsets::new() };
        let meaning = "a start that was not preceded by a stop in good order reads every log whole instead, and log starts \
                       that were moved by a deletion of records fall back to their first segment";
        let kind = (Severity::Error, Check::Checkpoint);
        let mut offsets = match checkpoint::decode_partition_offsets(&text) {
            Ok(offsets) => offsets,
            Err(error) => {
                tell_checkpoint(&path, &error, kind, meaning, &mut self.findings);
                return PartitionOffsets::new();
            }
        };
        let is_sound = |(key, offset): (&Key, &crate::base::ids::Offset)| key.1.0 >= 0 && offset.0 >= 0;
        if let Some((key, offset)) = offsets.iter().find(|entry| !is_sound(*entry)) {
            let what = ("a partition and an offset from 0 on", format!("{} {} {offset}", key.0, key.1));
            self.findings.add(kind, (&path, Place::Whole), what, meaning);
        }
        offsets.retain(|key, offset| is_sound((key, offset)));
        offsets
    }

    /// meta.properties, which Kafka has too, and our own corelog.properties.
    fn check_identity(&mut self) {
        let path = self.path.join(META);
        let meta = match read_text(&path, &mut self.findings) {
            Text::Is(text) => Some(text),
            Text::NotThere => None,
            Text::Unreadable => return,
        };
        let field = |name: &str| -> Option<String> {
            let mut lines = meta.as_deref()?.lines().filter_map(|line| line.split_once('='));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        let here = (path.as_path(), Place::Whole);
        let kind = (Severity::Error, Check::MetaProperties);
        let meaning = "a start refuses the directory, or takes it for another broker's; restore the file from a backup";
        let broker_id = field("broker.id").or_else(|| field("node.id"));
        if meta.is_none() {
            // A directory that was only just made has none, and Kafka's own start makes it.
            if !self.partitions.is_empty() {
                let what = ("the file", "it is not there");
                let meaning = "nothing tells whose directory this is";
                self.findings.add((Severity::Warning, Check::MetaProperties), here, what, meaning);
            }
        } else if !field("version").is_some_and(|version| version == "0" || version == "1") {
            let found = field("version").unwrap_or_else(|| "none".to_owned());
            self.findings.add(kind, here, ("version 0 or 1", found), meaning);
        } else if broker_id.as_deref().is_none_or(|id| id.parse::<u32>().is_err()) {
            let found = broker_id.clone().unwrap_or_else(|| "none".to_owned());
            self.findings.add(kind, here, ("a broker.id from 0 on", found), meaning);
        }
        self.cluster_id = field("cluster.id");
        if !self.ours {
            let path = self.path.join(MANIFEST);
            if self.path.join(FILE_NAME).exists() {
                let what = (format!("the file, beside {FILE_NAME}"), "it is not there");
                let meaning = "a start refuses the directory; restore the file from a backup";
                let kind = (Severity::Error, Check::CorelogProperties);
                self.findings.add(kind, (&path, Place::Whole), what, meaning);
            }
            return;
        }
        match Manifest::read(&self.path) {
            // It has gone since the directory was listed.
            Ok(None) => {}
            Ok(Some(manifest)) => {
                let ours = (manifest.cluster_id.clone(), manifest.node_id.to_string());
                let theirs = (self.cluster_id.take(), broker_id);
                if meta.is_some() && theirs != (Some(ours.0.clone()), Some(ours.1.clone())) {
                    let show = |id: Option<String>| id.unwrap_or_else(|| "none".to_owned());
                    let expected = format!("broker.id {} of cluster {}, as {MANIFEST} says", ours.1, ours.0);
                    let found = format!("broker.id {} of cluster {}", show(theirs.1), show(theirs.0));
                    self.findings.add(kind, here, (expected, found), "Apache Kafka would refuse the directory");
                }
                self.cluster_id = Some(manifest.cluster_id);
            }
            Err(FormatError::Io { error, .. }) => self.findings.add_unreadable(&self.path.join(MANIFEST), &error),
            Err(error) => {
                let reason = match error {
                    FormatError::Corrupt { reason, .. } => reason,
                    other => other.to_string(),
                };
                let path = self.path.join(MANIFEST);
                let what = ("what was fixed when the directory was formatted, with its checksum", reason);
                let meaning = "a start refuses the directory; restore the file from a backup";
                let kind = (Severity::Error, Check::CorelogProperties);
                self.findings.add(kind, (&path, Place::Whole), what, meaning);
            }
        }
    }

    fn check_store_cluster(&mut self) {
        let of_store = self.store.as_ref().and_then(|store| store.cluster_id.clone());
        if let (Some(of_store), Some(of_dir)) = (of_store, self.cluster_id.clone())
            && of_store != of_dir
        {
            let what = (format!("cluster {of_dir}, as the directory's"), format!("cluster {of_store}"));
            let path = self.path.join(FILE_NAME);
            let meaning = "the store is another cluster's: a start refuses it; put the right one in its place";
            self.findings.add((Severity::Error, Check::Store), (&path, Place::Whole), what, meaning);
        }
    }
}

/// Whether the directory bears the marks of one that brokers keep partitions in.
pub fn is_data_dir(path: &Path) -> bool {
    [META, MANIFEST, LOCK, checkpoint::RECOVERY_POINTS, FILE_NAME].iter().any(|name| path.join(name).exists())
}

/// The process that has the directory open. The lock is only asked for, not taken: a broker that starts now must not be
/// kept from it. Both Kafka and Corelog hold it by fcntl.
fn holder(dir: &Path) -> io::Result<Option<i32>> {
    let file = match File::open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
    // Of another process namespace the id is not known.
    Ok(held.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get())))
}
