//! `corelog verify`: whether what lies in data directories is what was written, by Corelog or by Apache Kafka.
//!
//! It only reads, past the page cache, with several threads. The directory's lock is asked for and not taken: where a broker
//! holds it, what does not change any more is verified. What a finding is worth depends on how the broker was stopped and
//! up to where everything was on disk (`context`): the torn end that a crash leaves is a warning, the same bytes below the
//! recovery point are an error.

mod context;
mod directory;
mod finding;
mod indexes;
mod partition;
mod report;
mod segment;
mod store;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod work;

use super::output;
use clap::Args;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use target::Targets;

/// Threads when `--jobs` does not say: disks that answer more at a time are rare, and a CRC costs less than a read.
const JOBS_DEFAULT_MAX: usize = 8;
const JOBS_MAX: u16 = 256;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog verify                                  ./corelog-data
  corelog verify --data-dir /disk1/data --data-dir /disk2/data
  corelog verify /var/lib/kafka/data              Apache Kafka's, too
  corelog verify corelog-data/clicks-0            one partition
  corelog verify corelog-data/clicks-0/00000000000000000000.log
  corelog verify --json | jq -c 'select(.severity == \"error\")'

Reads only, past the page cache. The broker may run: then what does not change any more is verified.
Each finding has a severity: an error is damage that no crash explains, or that loses records; a warning is the trace of a
crash, which the next start puts in order, or odd; an info needs no attention.

Exit codes: 0 clean, 1 warnings only, 2 errors, 3 something could not be read, or wrong usage (and no errors).")]
pub struct VerifyArgs {
    /// Data directories, directories of partitions, or segment files [default: ./corelog-data]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A data directory; may be given several times
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dirs: Vec<PathBuf>,
    /// Print a JSON object a line: each finding, then a summary
    #[arg(long, short = 'J')]
    json: bool,
    /// Segments read at a time [default: one per core, at most 8]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(JOBS_MAX)))]
    jobs: Option<u16>,
}

/// What `corelog verify` exits with where it could not do its work: not one of the codes that tell what it found.
pub const COULD_NOT_READ: u8 = 3;

pub fn run(mut args: VerifyArgs) -> anyhow::Result<ExitCode> {
    if args.paths.is_empty() && args.data_dirs.is_empty() {
        args.paths.push(PathBuf::from("corelog-data"));
    }
    let jobs = args.jobs.map_or_else(default_jobs, usize::from);
    let mut report = Report::new(args.json);
    let targets = match Targets::open(&args.data_dirs, &args.paths) {
        Ok(targets) => targets,
        Err(error) => {
            output::tell(format_args!("error: {error:#}"));
            return Ok(ExitCode::from(COULD_NOT_READ));
        }
    };
    verify(targets, jobs, &mut report)?;
    Ok(ExitCode::from(report.finish()?))
}

fn verify(mut targets: Targets, jobs: usize, report: &mut Report) -> std::io::Result<()> {
    for dir in &mut targets.dirs {
        report.tell(&std::mem::take(&mut dir.findings))?;
    }
    report.tell(&targets.findings)?;
    report.begin(targets.partitions.iter().map(|partition| partition.bytes).sum());
    let report = std::cell::RefCell::new(report);
    work::check_all(
        &mut targets.partitions,
        jobs,
        |read| report.borrow_mut().progress(read),
        |partition, facts| {
            let mut report = report.borrow_mut();
            report.add_partition(facts);
            report.tell(&partition.findings)
        },
    )?;
    let mut last = finding::Findings::default();
    targets.dirs.iter().for_each(|dir| dir.check_holder_again(&mut last));
    report.into_inner().tell(&last)
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(JOBS_DEFAULT_MAX))
}
