//! `corelog dump`: what is in log files, and whether it is intact.
//!
//! Every file is read once from its start with memory bounded by a buffer (with `--records`: by one batch). What is
//! printed goes to standard output as it is found; damage goes to standard error with file, byte and reason, and makes
//! the exit code 1.

mod checkpoint;
mod damage;
mod index;
mod journal;
pub(super) mod reader;
mod segment;
pub(super) mod snapshot;
pub(super) mod store;

use super::output;
use crate::coordination::embedded::FILE_NAME;
use crate::journal::file::is_ring;
use crate::log::corrupt::CORRUPT_RANGES;
use crate::maintenance::scrub_progress::shard_of;
use clap::{Args, ValueEnum};
use reader::Corrupt;
use serde_json::Value;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog dump clicks-0/*                         every file of a partition
  corelog dump clicks-0/00000000000000000000.log --records
  corelog dump clicks-0/*.log --json --records | jq -c 'select(.type==\"record\") | .key'
  corelog dump --quiet clicks-*/*                 only check

Knows segments (.log), .index, .timeindex, .txnindex, .snapshot, leader-epoch-checkpoint, the *-offset-checkpoint files,
partition.metadata and meta.properties, Corelog's or Apache Kafka's, and Corelog's own corelog.properties,
corelog-store.journal, journal-N.ring, corrupt-ranges and corelog-scrub.N. An index is checked against the segment beside it. `corelog verify` checks whole directories.
Exit code 1: a file is damaged; standard error says which, at which byte, and why.")]
pub struct DumpArgs {
    /// Files to read
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Decode the records of each batch, which also checks them
    #[arg(long, short = 'r')]
    records: bool,
    /// Print a JSON object a line
    #[arg(long, short = 'J')]
    json: bool,
    /// Print nothing but damage
    #[arg(long, short = 'q', conflicts_with = "json")]
    quiet: bool,
    /// What the files are, where their names do not tell
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Log,
    Index,
    Timeindex,
    Txnindex,
    Snapshot,
    LeaderEpochs,
    Offsets,
    Properties,
    Store,
    Journal,
    CorruptRanges,
    ScrubProgress,
}

/// Why a file could not be dumped to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DumpError {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// Our own output failed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

pub fn run(args: DumpArgs) -> anyhow::Result<ExitCode> {
    let form = match (args.quiet, args.json) {
        (true, _) => Form::Quiet,
        (_, true) => Form::Json,
        _ => Form::Text,
    };
    let mut out = Out { form, out: BufWriter::new(io::stdout()) };
    let mut sound = true;
    for path in &args.files {
        let kind = match std::fs::metadata(path) {
            Err(error) => Err(format!("cannot read it: {error}")),
            Ok(found) if found.is_dir() => {
                Err("a directory; name its files, or let `corelog verify` check it".to_owned())
            }
            Ok(_) => args
                .kind
                .or_else(|| kind_of(path))
                .ok_or_else(|| "its name does not tell what it is; say so with --type".to_owned()),
        };
        let kind = match kind {
            Ok(kind) => kind,
            Err(reason) => {
                sound = false;
                output::tell(format_args!("{}: {reason}", path.display()));
                continue;
            }
        };
        out.text(|| path.display().to_string())?;
        let done = dump(path, kind, args.records, &mut out);
        // What was found before the damage stands above it.
        out.out.flush()?;
        match done {
            Ok(()) => {}
            Err(DumpError::Output(error)) => return Err(error.into()),
            Err(error) => {
                sound = false;
                output::tell(format_args!("{}: {error}", path.display()));
            }
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn dump(path: &Path, kind: Kind, records: bool, out: &mut Out) -> Result<(), DumpError> {
    match kind {
        Kind::Log => segment::dump(path, records, out),
        Kind::Index => index::dump_offsets(path, out),
        Kind::Timeindex => index::dump_times(path, out),
        Kind::Txnindex => index::dump_transactions(path, out),
        Kind::Snapshot => snapshot::dump(path, out),
        Kind::LeaderEpochs => checkpoint::dump_epochs(path, out),
        Kind::Offsets => checkpoint::dump_offsets(path, out),
        Kind::Properties => checkpoint::dump_properties(path, out),
        Kind::Store => store::dump(path, out),
        Kind::Journal => journal::dump(path, out),
        Kind::CorruptRanges => damage::dump(path, out),
        Kind::ScrubProgress => damage::dump_progress(path, out),
    }
}

fn kind_of(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    // Files on their way out or in keep their nature.
    let name = [".deleted", ".cleaned", ".swap"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
    Some(match name {
        "leader-epoch-checkpoint" => Kind::LeaderEpochs,
        "partition.metadata" | "meta.properties" | "corelog.properties" => Kind::Properties,
        CORRUPT_RANGES => Kind::CorruptRanges,
        FILE_NAME => Kind::Store,
        name if is_ring(name) => Kind::Journal,
        name if shard_of(name).is_some() => Kind::ScrubProgress,
        name if name.ends_with("-offset-checkpoint") => Kind::Offsets,
        name => match name.rsplit_once('.')?.1 {
            "log" => Kind::Log,
            "index" => Kind::Index,
            "timeindex" => Kind::Timeindex,
            "txnindex" => Kind::Txnindex,
            "snapshot" => Kind::Snapshot,
            _ => return None,
        },
    })
}

/// The offset that a segment's or snapshot's name tells.
fn named_offset(path: &Path) -> Option<i64> {
    let name = path.file_name()?.to_str()?;
    name.split_once('.')?.0.parse::<i64>().ok().filter(|offset| *offset >= 0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Quiet,
}

/// Standard output in the form that was asked for; neither form is built in vain.
struct Out {
    form: Form,
    out: BufWriter<Stdout>,
}

impl Out {
    /// A line for people.
    fn text(&mut self, line: impl FnOnce() -> String) -> io::Result<()> {
        if self.form == Form::Text {
            writeln!(self.out, "{}", line())?;
        }
        Ok(())
    }

    /// An object for scripts.
    fn json(&mut self, object: impl FnOnce() -> Value) -> io::Result<()> {
        if self.form == Form::Json {
            serde_json::to_writer(&mut self.out, &object())?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Whether a file is sound, records included; None where its name does not tell what it is.
#[cfg(test)]
pub(super) fn is_sound(path: &Path) -> Option<bool> {
    let mut out = Out { form: Form::Quiet, out: BufWriter::new(io::stdout()) };
    Some(dump(path, kind_of(path)?, true, &mut out).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_kinds() {
        let kind = |name: &str| kind_of(Path::new("/d/t-0").join(name).as_path());
        assert_eq!(kind("00000000000000000000.log"), Some(Kind::Log));
        assert_eq!(kind("00000000000000000000.log.deleted"), Some(Kind::Log));
        assert_eq!(kind("00000000000000000007.timeindex"), Some(Kind::Timeindex));
        assert_eq!(kind("recovery-point-offset-checkpoint"), Some(Kind::Offsets));
        assert_eq!(kind("leader-epoch-checkpoint"), Some(Kind::LeaderEpochs));
        assert_eq!(kind("corelog-store.journal"), Some(Kind::Store));
        assert_eq!(kind("journal-12.ring"), Some(Kind::Journal));
        assert_eq!(kind("journal-0.outdated"), None);
        assert_eq!(kind("corrupt-ranges"), Some(Kind::CorruptRanges));
        assert_eq!(kind("corelog-scrub.3"), Some(Kind::ScrubProgress));
        assert_eq!(kind("notes.txt"), None);
        assert_eq!(named_offset(Path::new("t-0/00000000000000000042.snapshot")), Some(42));
        assert_eq!(named_offset(Path::new("x.log")), None);
    }
}
