//! A partition in a temporary directory that can be closed, killed, damaged and opened again.

use crate::base::config::{FlushPolicy, TopicConfig};
use crate::base::disks::LogDirs;
use crate::base::faults::{Act, Fault, Faults, LostSectors, Place};
use crate::base::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use crate::log::core::{Appended, LogCore};
use crate::log::open::{Cut, OpenParams, Shortfall, read_part};
use crate::log::paths;
use crate::log::read::{Located, ReadError, locate};
use crate::log::testing::Batch;
use crate::maintenance::{self, Maintenance, MaintenanceThread};
use crate::partition::journal::{Rings, Settings};
use crate::partition::leader::{Acks, Partition};
use crate::partition::materialise::{Home, read_topic_id};
use crate::partition::opening::{Unopened, open_one};
use crate::partition::scrub;
use crate::partition::shared::PartitionShared;
use crate::partition::table::FoundLogDir;
use crate::partition::waiters::AppendWait;
use crate::record::batch::{BatchHeader, HEADER_LEN};
use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::Notify;

pub const TOPIC: &str = "t";

/// What is known of a partition while it is not open.
#[derive(Clone, Debug, Default)]
pub struct Checkpointed {
    pub recovery_point: Offset,
    pub log_start: Option<Offset>,
    pub cleaned: Option<Offset>,
}

pub struct World {
    pub dir: TempDir,
    pub config: TopicConfig,
    pub epoch: LeaderEpoch,
    pub shared: Rc<PartitionShared>,
    pub id: TopicPartition,
    pub partition: Rc<Partition>,
    pub saved: Checkpointed,
    /// Of the journal, if there is one.
    ring_bytes: Option<u64>,
    /// Stops with the world.
    _maintenance: Option<MaintenanceThread>,
    faults: Faults,
    /// Small appends are written by the thread itself: at every other opening.
    inline: bool,
}

/// While it is told to, no sync of a segment ends: what is written is in the page cache, and in the ring.
#[derive(Clone, Default)]
pub struct SlowDisk {
    is_slow: Rc<Cell<bool>>,
    hung: Rc<Notify>,
}

impl SlowDisk {
    pub fn faults(&self) -> Faults {
        let SlowDisk { is_slow, hung } = self.clone();
        Faults::by(move |place, act| {
            ((place, act) == (Place::Segment, Act::Sync) && is_slow.get()).then(|| Fault::Hang(Rc::clone(&hung)))
        })
    }

    pub fn set(&self, is_slow: bool) {
        self.is_slow.set(is_slow);
        self.hung.notify_waiters();
    }
}

/// What opening had to do.
pub struct Reopened {
    pub cuts: Vec<Cut>,
    pub shortfall: Option<Shortfall>,
    pub scanned_bytes: u64,
    pub is_clean: bool,
    /// It is not served before the journal is in use.
    pub waits: bool,
}

/// A batch as it lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub segment: Offset,
    pub position: u64,
    pub header: BatchHeader,
}

impl World {
    pub fn new(config: TopicConfig) -> World {
        World::with_maintenance(config, Maintenance::stopped())
    }

    /// With a maintenance thread of its own, which ends with it.
    pub fn maintained(config: TopicConfig) -> World {
        World::maintained_on(config, LostSectors::default())
    }

    /// The same, where that thread cannot read some of what there is.
    pub fn maintained_on(config: TopicConfig, lost: LostSectors) -> World {
        let settings = maintenance::Settings { plain: true };
        let (maintenance, thread) = maintenance::start_on(settings, lost).expect("started");
        let mut world = World::with_maintenance(config, maintenance);
        world._maintenance = Some(thread);
        world
    }

    pub fn with_maintenance(config: TopicConfig, maintenance: Maintenance) -> World {
        let dir = temporary_directory();
        let shared = shared(dir.path(), &Faults::default(), maintenance, true);
        shared.set_journals(Vec::new());
        let id = TopicPartition { topic: TopicId::random(), partition: PartitionIndex(0) };
        let home = Home::new(dir.path(), TOPIC, id.partition, false);
        let core = LogCore::empty(Rc::clone(&home.dir), Offset(0));
        let epoch = LeaderEpoch(0);
        let partition =
            Partition::new(id, TOPIC.into(), epoch, Rc::new(config.clone()), (core, home), Rc::clone(&shared));
        World {
            dir,
            config,
            epoch,
            shared,
            id,
            partition,
            saved: Checkpointed::default(),
            ring_bytes: None,
            faults: Faults::default(),
            inline: true,
            _maintenance: None,
        }
    }

    /// Faults from the next opening on: of the process that begins then.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// With a journal of so many bytes.
    pub async fn with_journal(config: TopicConfig, ring_bytes: u64) -> World {
        World::new(config).and_journal(ring_bytes).await
    }

    pub async fn and_journal(mut self, ring_bytes: u64) -> World {
        self.ring_bytes = Some(ring_bytes);
        let rings = self.rings(true);
        self.begin_journal(rings).await;
        self
    }

    fn rings(&self, clean: bool) -> Rings {
        let found = FoundLogDir { path: self.dir.path().to_owned(), clean, ..FoundLogDir::default() };
        let rings = Rings::read(Settings { shard: 0, ring_bytes: self.ring_bytes }, &[found], &self.shared.disks);
        assert_eq!(self.shared.disks.failure(self.dir.path()), None, "whole");
        rings
    }

    async fn begin_journal(&self, rings: Rings) {
        let journals = rings.begin(|_| true, &self.shared).await;
        assert_eq!(self.shared.disks.failure(self.dir.path()), None, "all is in its segments");
        assert_eq!(journals.len(), usize::from(self.ring_bytes.is_some()), "the directory has direct I/O");
        self.shared.set_journals(journals);
    }

    /// What is on disk at this moment, in a directory of its own.
    pub fn copy(&self) -> TempDir {
        let copy = temporary_directory();
        // The journal first: what it frees is synced, what is written to segments later does no harm.
        copy_files(self.dir.path(), copy.path());
        if self.path().exists() {
            let to = copy.path().join(paths::partition_dir(TOPIC, self.id.partition));
            fs::create_dir(&to).expect("made");
            copy_files(&self.path(), &to);
        }
        copy
    }

    /// Ends when nothing is under way, in the partition or in its journal.
    pub async fn quiet(&self) {
        let journal = self.shared.journal(self.dir.path());
        // What the journal has done may need a flush, and a write may need the journal.
        for _ in 0..4 {
            self.partition.quiet().await;
            if let Some(journal) = &journal {
                journal.quiet().await;
            }
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join(paths::partition_dir(TOPIC, self.id.partition))
    }

    pub fn append(&self, batch: Batch, acks: Acks, wait: &Rc<AppendWait>) -> Result<Appended, String> {
        let (header, bytes) = batch.build();
        self.partition.append(header, bytes, acks, (wait, 0)).map_err(|e| e.to_string())
    }

    /// Appends and waits for the answer.
    pub async fn append_and_wait(&self, batch: Batch, acks: Acks) -> Appended {
        let wait = AppendWait::new();
        let appended = self.append(batch, acks, &wait).expect("taken");
        assert!(wait.done().await.is_empty(), "not lost");
        appended
    }

    pub fn set_config(&mut self, config: TopicConfig) {
        self.config = config.clone();
        self.partition.update(self.epoch, Rc::new(config));
    }

    /// What the background writer of checkpoints does now and then.
    pub fn save_checkpoints(&mut self) {
        self.saved.recovery_point = self.partition.core().recovery_point();
        self.saved.log_start = Some(self.partition.ends().log_start);
        self.saved.cleaned = self.partition.cleaning.cleaned();
    }

    pub async fn close(&mut self) {
        self.partition.close().await.expect("closed");
        assert!(self.shared.close_journals().await.is_empty());
        self.save_checkpoints();
    }

    /// Opens the directory again, as after a clean stop or after a crash.
    pub async fn reopen(&mut self, clean: bool) -> Reopened {
        let (opened, rings) = self.start(clean);
        self.begin_journal(rings).await;
        opened
    }

    /// The same after a crash; the ring is not taken into use, since other partitions have something in it that is not back in
    /// their segments yet.
    pub fn reopen_without_journal(&mut self) -> Reopened {
        self.start(false).0
    }

    fn start(&mut self, clean: bool) -> (Reopened, Rings) {
        self.shared.end();
        self.inline = !self.inline;
        self.shared = shared(self.dir.path(), &self.faults, self.shared.maintenance.clone(), self.inline);
        let mut rings = self.rings(clean);
        (self.open(clean, &mut rings), rings)
    }

    fn open(&mut self, clean: bool, rings: &mut Rings) -> Reopened {
        let mut home = Home::new(self.dir.path(), TOPIC, self.id.partition, true);
        // As the inventory of a start tells: a directory that does not bear the topic's id is none of it.
        home.exists = read_topic_id(&self.path()).expect("readable") == Some(self.id.topic);
        let redo = rings.redo(self.dir.path(), self.id);
        let unopened = Unopened { exists: home.exists, redo, ..self.unopened(clean) };
        let mut done = Reopened { cuts: Vec::new(), shortfall: None, scanned_bytes: 0, is_clean: false, waits: false };
        let mut core = LogCore::empty(Rc::clone(&home.dir), Offset(0));
        if home.exists || !unopened.redo.is_empty() {
            let outcome = open_one(unopened, &read_part);
            done.waits = outcome.lacks_what_was_redone();
            if outcome.redone.is_some() {
                home.exists = true;
                rings.done(self.dir.path(), self.id);
            }
            let opened = outcome.opened.expect("opens");
            core = LogCore::recovered(Rc::clone(&home.dir), opened.log);
            (done.cuts, done.scanned_bytes, done.is_clean) = (opened.cuts, opened.scanned_bytes, opened.is_clean);
            done.shortfall = opened.shortfall;
            if let Some(ranges) = outcome.corrupt {
                scrub::take(&mut core, ranges);
            }
        }
        core.check_invariants();
        home.clean_end = done.is_clean.then(|| core.written_end());
        let config = Rc::new(self.config.clone());
        let shared = Rc::clone(&self.shared);
        self.partition = Partition::new(self.id, TOPIC.into(), self.epoch, config, (core, home), shared);
        self.partition.cleaning.set_cleaned(self.saved.cleaned);
        done
    }

    /// The partition as a start finds it, without what a ring may have for it.
    pub fn unopened(&self, clean: bool) -> Unopened {
        Unopened {
            id: self.id,
            topic: TOPIC.into(),
            log_dir: self.dir.path().to_owned(),
            exists: true,
            params: OpenParams {
                dir: self.path(),
                clean,
                recovery_point: self.saved.recovery_point,
                log_start: self.saved.log_start,
                cleaned: self.saved.cleaned,
                now_ms: 0,
            },
            config: self.config.clone(),
            unnamed: None,
            redo: Vec::new(),
            redone: None,
        }
    }

    /// All batches in the `.log` files, in order.
    pub fn stored(&self) -> Vec<Stored> {
        let mut stored = Vec::new();
        for (segment, path) in self.files(paths::LOG) {
            let bytes = fs::read(path).expect("readable");
            let mut at = 0;
            while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
                if at + header.total_len() > bytes.len() {
                    break;
                }
                stored.push(Stored { segment, position: at as u64, header });
                at += header.total_len();
            }
        }
        stored
    }

    /// Files of the partition with a suffix, by offset.
    pub fn files(&self, suffix: &str) -> Vec<(Offset, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.path()) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.expect("listed");
                let name = entry.file_name();
                let (offset, found) = paths::parse_segment_file(name.to_str()?)?;
                (found == suffix).then(|| (offset, entry.path()))
            })
            .collect();
        files.sort();
        files
    }

    /// What Kafka's DumpLogSegments checks: index entries name a batch's last offset and its position; time index entries
    /// a batch's last offset and its greatest timestamp.
    pub fn check_indexes(&self) {
        let stored = self.stored();
        for (base, path) in self.files(paths::OFFSET_INDEX) {
            let content = fs::read(&path).expect("readable");
            let times = fs::read(path.with_extension(paths::TIME_INDEX)).unwrap_or_default();
            let is_active = self.partition.core().segments().back().is_some_and(|active| active.base == base);
            if is_active || content.len() % 8 != 0 || times.len() % 12 != 0 {
                continue;
            }
            let here: Vec<_> = stored.iter().filter(|batch| batch.segment == base).collect();
            let field = |bytes: &[u8]| i64::from(u32::from_be_bytes(*bytes.first_chunk().expect("four bytes")));
            for entry in content.chunks(8) {
                let (offset, position) = (base + field(entry), field(&entry[4..]));
                let at = here.iter().find(|batch| batch.position as i64 == position);
                assert_eq!(at.map(|batch| batch.header.last_offset()), Some(offset), "in {}", path.display());
            }
            for entry in times.chunks(12) {
                let timestamp_ms = i64::from_be_bytes(*entry.first_chunk().expect("eight bytes"));
                let offset = base + field(&entry[8..]);
                let at = here.iter().find(|batch| batch.header.last_offset() == offset);
                assert_eq!(at.map(|batch| batch.header.max_timestamp), Some(timestamp_ms), "in {}", path.display());
            }
        }
        // Every file can be read by its own length: no torn header was left behind.
        for (base, path) in self.files(paths::LOG) {
            let file = File::open(&path).expect("open");
            let bytes = file.metadata().expect("known").len();
            let ends =
                stored.iter().filter(|batch| batch.segment == base).map(|b| b.position + b.header.total_len() as u64);
            assert_eq!(ends.max().unwrap_or(0), bytes, "{} ends with a batch", path.display());
            if bytes > 0 {
                file.read_exact_at(&mut [0; HEADER_LEN], 0).expect("a header");
            }
        }
    }

    /// What a reader at `from` gets: whole batches up to the high watermark, within one segment.
    pub async fn read(&self, from: Offset) -> Vec<BatchHeader> {
        self.try_read(from).await.expect("readable")
    }

    /// The same, where the log may be damaged.
    pub async fn try_read(&self, from: Offset) -> Result<Vec<BatchHeader>, ReadError> {
        let partition = &self.partition;
        let high_watermark = partition.ends().high_watermark;
        for _ in 0..64 {
            let located = locate(&partition.core(), partition.files(), (from, high_watermark), 4096)?;
            let span = match located {
                Located::AtEnd => return Ok(Vec::new()),
                Located::Missing(missing) => {
                    missing.load(partition.files()).await?;
                    continue;
                }
                Located::At(span) => span,
            };
            let file = partition.files().file(&span.segment).expect("open");
            let bytes =
                file.read_at(u64::from(span.position), (span.end - span.position) as usize).await.expect("read");
            let mut batches = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).expect("a batch begins here");
                assert!(header.crc_matches(rest), "the batch at {} is whole", header.base_offset);
                rest = &rest[header.total_len()..];
                batches.push(header);
            }
            assert_eq!(batches[0].total_len(), span.first_batch_bytes as usize);
            return Ok(batches);
        }
        panic!("64 look-ups did not find offset {from}");
    }
}

/// The files of a world that is gone are closed: a process that runs thousands would have no descriptor left.
impl Drop for World {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// In memory where that has direct I/O: what a disk forgets is played anyway, and syncs cost nothing there.
pub fn temporary_directory() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm").ok().filter(|dir| {
        let direct =
            fs::OpenOptions::new().write(true).create(true).custom_flags(libc::O_DIRECT).open(dir.path().join("probe"));
        let _ = fs::remove_file(dir.path().join("probe"));
        direct.is_ok()
    });
    in_memory.unwrap_or_else(|| tempfile::tempdir().expect("temporary directory"))
}

/// What the partitions of a process share, on a disk that is sound so far.
fn shared(dir: &Path, faults: &Faults, maintenance: Maintenance, inline: bool) -> Rc<PartitionShared> {
    let disks = Arc::new(LogDirs::new([(dir.to_owned(), None)]));
    let shared = PartitionShared::new(3, FlushPolicy::Disk, Default::default(), maintenance);
    Rc::new(shared.on(disks).writing_inline(inline).with(faults.clone()))
}

pub fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            continue;
        }
        match fs::copy(&path, to.join(path.file_name().expect("a name"))) {
            // A temporary file that has got its name meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{}: {copied:?}", path.display()),
        }
    }
}
