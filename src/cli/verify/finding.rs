//! What was found: severity, place, what should be there and what is, and what that means for whoever runs the node.

use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Findings that one file's check keeps; more are only counted.
const KEPT_MAX: usize = 40;

/// How bad it is. An error is what no crash leaves behind; a warning is the trace of one, or odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What was checked; scripts go by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Bytes where a batch must begin, and none does; batches that do not follow one another.
    BatchHeader,
    BatchCrc,
    BatchOffset,
    OffsetGap,
    SegmentBounds,
    LeaderEpoch,
    OldFormat,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    MissingIndex,
    ProducerSnapshot,
    EpochCheckpoint,
    PartitionMetadata,
    RecoveryPoint,
    LogStartOffset,
    HighWatermark,
    Checkpoint,
    CorruptRanges,
    MetaProperties,
    CorelogProperties,
    Store,
    Journal,
    Scrub,
    MissingPartition,
    Stray,
    Leftover,
    InUse,
    /// It could not be read: this is not about what it says.
    Unreadable,
}

impl Check {
    pub fn name(self) -> &'static str {
        match self {
            Check::BatchHeader => "batch-header",
            Check::BatchCrc => "batch-crc",
            Check::BatchOffset => "batch-offset",
            Check::OffsetGap => "offset-gap",
            Check::SegmentBounds => "segment-bounds",
            Check::LeaderEpoch => "leader-epoch",
            Check::OldFormat => "old-format",
            Check::OffsetIndex => "offset-index",
            Check::TimeIndex => "time-index",
            Check::TransactionIndex => "transaction-index",
            Check::MissingIndex => "missing-index",
            Check::ProducerSnapshot => "producer-snapshot",
            Check::EpochCheckpoint => "epoch-checkpoint",
            Check::PartitionMetadata => "partition-metadata",
            Check::RecoveryPoint => "recovery-point",
            Check::LogStartOffset => "log-start-offset",
            Check::HighWatermark => "high-watermark",
            Check::Checkpoint => "checkpoint",
            Check::CorruptRanges => "corrupt-ranges",
            Check::MetaProperties => "meta-properties",
            Check::CorelogProperties => "corelog-properties",
            Check::Store => "store",
            Check::Journal => "journal",
            Check::Scrub => "scrub",
            Check::MissingPartition => "missing-partition",
            Check::Stray => "stray",
            Check::Leftover => "leftover",
            Check::InUse => "in-use",
            Check::Unreadable => "unreadable",
        }
    }
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Whole,
    Byte(u64),
    /// Of a text, from 1.
    Line(usize),
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub check: Check,
    pub file: PathBuf,
    pub place: Place,
    pub expected: String,
    pub found: String,
    /// What it does to records and to the next start, and what to do about it.
    pub meaning: Cow<'static, str>,
}

impl Finding {
    pub fn lines(&self) -> String {
        let place = match self.place {
            Place::Whole => String::new(),
            Place::Byte(byte) => format!("  byte {byte}"),
            Place::Line(line) => format!("  line {line}"),
        };
        let (severity, check, file) = (self.severity.name(), self.check.name(), self.file.display());
        format!(
            "{severity:<7}  {file}{place}  {check}\n         expected: {}\n         found:    {}\n         {}",
            self.expected, self.found, self.meaning
        )
    }

    pub fn json(&self) -> Value {
        let (byte, line) = match self.place {
            Place::Whole => (None, None),
            Place::Byte(byte) => (Some(byte), None),
            Place::Line(line) => (None, Some(line)),
        };
        json!({ "type": "finding", "severity": self.severity.name(), "check": self.check.name(),
            "file": self.file.display().to_string(), "position": byte, "line": line, "expected": self.expected,
            "found": self.found, "meaning": self.meaning })
    }
}

/// Findings of one file or directory, bounded.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    /// By severity, those that were not kept included.
    counts: [u64; 3],
    /// Something could not be looked at, for another reason than a disk that fails to read.
    pub unread: bool,
}

impl Findings {
    pub fn add(
        &mut self,
        (severity, check): (Severity, Check),
        (file, place): (&Path, Place),
        (expected, found): (impl Into<String>, impl Into<String>),
        meaning: impl Into<Cow<'static, str>>,
    ) {
        self.counts[severity as usize] += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.push(Finding {
                severity,
                check,
                file: file.to_owned(),
                place,
                expected: expected.into(),
                found: found.into(),
                meaning: meaning.into(),
            });
        }
    }

    /// A file that cannot be read. What a disk fails to give back is lost; a missing permission is only in the way.
    pub fn add_unreadable(&mut self, file: &Path, error: &std::io::Error) {
        let is_sick = error.raw_os_error() == Some(libc::EIO);
        self.unread |= !is_sick;
        let (severity, meaning) = match is_sick {
            true => (Severity::Error, "the disk does not give these bytes back: replace it, restore from elsewhere"),
            false => (Severity::Warning, "nothing is known about this file; make it readable and verify again"),
        };
        self.add((severity, Check::Unreadable), (file, Place::Whole), ("a readable file", error.to_string()), meaning);
    }

    pub fn append(&mut self, other: Findings) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.unread |= other.unread;
        self.kept.extend(other.kept);
    }

    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    pub fn count(&self, severity: Severity) -> u64 {
        self.counts[severity as usize]
    }

    /// Those that were found and not kept.
    pub fn untold(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.kept.len() as u64
    }
}
