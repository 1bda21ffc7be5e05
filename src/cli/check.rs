//! `corelog check`: whether the machine is set up well for a node. It reads, and changes nothing.

use super::output;
use crate::base::host;
use crate::node::cores::{self, Choice};
use crate::tuning::Cpus;
use crate::tuning::check::{self, Line, Verdict};
use crate::tuning::facts::{Facts, Reading, Ring};
use crate::tuning::files::{Files, Root};
use crate::tuning::gather::{self, Live, Wish};
use crate::tuning::items::{Evidence, Item};
use crate::tuning::place::Placement;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog check                                   with data in ./corelog-data
  corelog check --data-dir /disk1/data --data-dir /disk2/data
  corelog check --cores 2-15                      with shards on these CPUs: interrupts belong on the others
  corelog check --all                             with the reasons of what is good, too
  corelog check --json | jq -r '.lines[] | select(.verdict == \"fail\") | .name'

Nothing is changed. A node that runs is looked at instead of this shell: its limits, and the CPUs that its shards are pinned to.
What `corelog tune apply` can set, it names; the rest is up to the operator.

Verdicts: FAIL keeps a node from working, or from keeping its promises; warn could be better, or cannot be told; n/a does not matter
here. Exit codes: 0 nothing failed, 1 something did, 2 wrong usage.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Tell the reasons for everything, not only for what could be better
    #[arg(long, short)]
    all: bool,
    /// Print one JSON document
    #[arg(long, short = 'J')]
    json: bool,
}

/// Which machine is looked at, and with which node in mind.
#[derive(Args)]
pub struct MachineArgs {
    /// A data directory, which need not exist yet; may be given several times [default: ./corelog-data]
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dirs: Vec<PathBuf>,
    /// The CPUs that shards run on, as for serve: a number of them, or a list such as 2-15 [default: those of a node that
    /// runs, else what is best]
    #[arg(long, value_name = "LIST|N")]
    cores: Option<Choice>,
    /// A network card; may be given several times [default: all that are up]
    #[arg(long = "nic", value_name = "NAME")]
    nics: Vec<String>,
    /// Look below this directory instead of /: another machine's root, or a copy of its /proc and /sys
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What was found, and where interrupts and shards belong.
pub struct Machine {
    pub root: Root,
    pub facts: Facts,
    pub placement: Placement,
}

pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let Machine { facts, placement, .. } = look(&args.machine)?;
    let lines = check::check(&facts, &placement);
    match args.json {
        true => output::json(&as_json(&lines, &facts, &placement))?,
        false => tell(&lines, &facts, &placement, args.all)?,
    }
    let failed = lines.iter().any(|line| line.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads everything.
pub fn look(args: &MachineArgs) -> anyhow::Result<Machine> {
    let root = Root::open(&args.root).with_context(|| args.root.display().to_string())?;
    let live = match root.is_machine() {
        true => live(),
        false => Live::default(),
    };
    let data_dirs = match args.data_dirs.as_slice() {
        [] => vec![PathBuf::from("corelog-data")],
        dirs => dirs.to_vec(),
    };
    let absolute = |dir: PathBuf| Ok(std::path::absolute(&dir)?.to_string_lossy().into_owned());
    let data_dirs = data_dirs.into_iter().map(absolute).collect::<io::Result<_>>()?;
    let cards = root.list("/sys/class/net").unwrap_or_default();
    for nic in &args.nics {
        if !cards.contains(nic) {
            bail!("there is no network card {nic:?}; see /sys/class/net");
        }
    }
    let facts = gather::gather(&root, live, &Wish { data_dirs, nics: args.nics.clone() });
    let cores = args.cores.as_ref().map(|choice| chosen(choice, &facts)).transpose()?;
    let placement = check::placement(&facts, cores.as_ref());
    Ok(Machine { root, facts, placement })
}

/// The CPUs that a node would take, started with the same `--cores` on the machine that was looked at.
fn chosen(choice: &Choice, facts: &Facts) -> anyhow::Result<Cpus> {
    if let Choice::List(cores) = choice {
        return Ok(cores.iter().copied().collect());
    }
    // What a process is allowed names CPUs that are offline as well.
    let allowed = match (facts.process.allowed.known(), facts.online.known()) {
        (Some(allowed), Some(online)) => allowed.and(online),
        (Some(cpus), None) | (None, Some(cpus)) => cpus.clone(),
        (None, None) => bail!("--cores: the CPUs of which these would be the first cannot be found out"),
    };
    Ok(cores::pick(Some(choice), None, allowed.iter().collect())?.into_iter().collect())
}

/// What the running kernel says to this process.
fn live() -> Live {
    let ring = match host::try_io_uring() {
        Ok(()) => Ring::Works,
        Err(error) => Ring::Refused(error.raw_os_error().unwrap_or_default()),
    };
    let clock_synchronized = match host::is_clock_synchronized() {
        Ok(is) => Reading::Known(is),
        Err(error) => Reading::Unknown(format!("adjtimex: {error}")),
    };
    Live { ring, clock_synchronized }
}

fn tell(lines: &[Line], facts: &Facts, placement: &Placement, all: bool) -> io::Result<()> {
    let mut table = output::Table::new(&["", "ITEM", "CURRENT", "WANTED"]);
    for line in lines {
        table.row(vec![line.verdict.to_string(), name(line), line.current.clone(), line.item.wanted.to_owned()]);
    }
    table.print(0)?;
    for line in lines.iter().filter(|line| all || line.verdict > Verdict::NotApplicable) {
        output::line(format_args!("\n{} {}: {}", line.verdict, name(line), line.current))?;
        if !line.fix.is_empty() {
            output::line(format_args!("  do    {}", line.fix))?;
        }
        output::line(format_args!("  why   {}", line.item.why))?;
        output::line(format_args!("  from  {}", evidence(line.item)))?;
    }
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let [fail, warn, pass] = [Verdict::Fail, Verdict::Warn, Verdict::Pass].map(count);
    output::line(format_args!("\n{fail} failed, {warn} to look at, {pass} good"))?;
    output::line(advice(facts, placement))
}

/// Where the shards belong.
pub fn advice(facts: &Facts, placement: &Placement) -> String {
    let Placement { irqs, shards } = placement;
    if shards.is_empty() {
        return "Which CPUs there are cannot be found out".to_owned();
    }
    let running = match facts.nodes.as_slice() {
        [] => String::new(),
        nodes => {
            let shown = nodes.iter().map(|(pid, cpus)| format!("process {pid} on {cpus}"));
            format!("; nodes that run: {}", shown.collect::<Vec<_>>().join(", "))
        }
    };
    match placement.is_shared() {
        true => format!("Shards and interrupts share CPUs {shards}{running}"),
        false => {
            let cores = shards.to_cores_argument();
            format!("Shards on CPUs {shards} (--cores {cores}), interrupts on {irqs}{running}")
        }
    }
}

fn as_json(lines: &[Line], facts: &Facts, placement: &Placement) -> Value {
    let line = |line: &Line| {
        let (kind, source) = match line.item.evidence {
            Evidence::Measured(source) => ("measured", source),
            Evidence::Cited(source) => ("cited", source),
        };
        json!({
            "name": line.item.name, "subject": line.subject, "verdict": line.verdict.to_string().to_lowercase(),
            "current": line.current, "wanted": line.item.wanted, "fix": line.fix, "why": line.item.why,
            "reads": line.item.reads, "evidence": { "kind": kind, "source": source },
        })
    };
    let nodes = facts.nodes.iter().map(|(pid, cpus)| json!({ "pid": pid, "cpus": cpus.to_string() }));
    json!({
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
        "placement": { "irqs": placement.irqs.to_string(), "shards": placement.shards.to_cores_argument() },
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

fn name(line: &Line) -> String {
    match line.subject.as_str() {
        "" => line.item.name.to_owned(),
        subject => format!("{} of {subject}", line.item.name),
    }
}

/// Where the knowledge about an item comes from.
pub fn evidence(item: &Item) -> String {
    match item.evidence {
        Evidence::Measured(source) => format!("measured: {source}"),
        Evidence::Cited(source) => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: CheckArgs,
    }

    fn look_below(files: &[(&str, &str)], words: &[&str]) -> anyhow::Result<Machine> {
        let dir = tempfile::tempdir()?;
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder"))?;
            std::fs::write(path, text)?;
        }
        let root = dir.path().to_string_lossy().into_owned();
        let words = ["check", "--root", &root].into_iter().chain(words.iter().copied());
        look(&Words::try_parse_from(words)?.args.machine)
    }

    #[test]
    fn another_root_is_told_in_full() {
        let files = [("proc/sys/kernel/osrelease", "5.4.0\n"), ("sys/devices/system/cpu/online", "0-7\n")];
        let Machine { facts, placement, .. } = look_below(&files, &["--cores", "2-7"]).expect("it can be looked at");
        let lines = check::check(&facts, &placement);
        let json = as_json(&lines, &facts, &placement);
        let kernel = json["lines"].as_array().expect("lines").iter().find(|line| line["name"] == "kernel");
        let kernel = kernel.expect("the kernel is told");
        assert_eq!((kernel["verdict"].as_str(), kernel["current"].as_str()), (Some("fail"), Some("5.4.0")));
        assert!(kernel["fix"].as_str().is_some_and(|fix| fix.contains("5.11")));
        assert_eq!(
            (json["placement"]["irqs"].as_str(), json["placement"]["shards"].as_str()),
            (Some("0-1"), Some("2-7"))
        );
        assert_eq!(advice(&facts, &placement), "Shards on CPUs 2-7 (--cores 2-7), interrupts on 0-1");
    }

    #[test]
    fn cores_mean_what_they_mean_to_serve() {
        let files = [("sys/devices/system/cpu/online", "0-7\n"), ("proc/self/status", "Cpus_allowed_list:\t3-6,100\n")];
        let placed = |cores: &str| look_below(&files, &["--cores", cores]).map(|machine| machine.placement);
        let shards = |cores: &str| placed(cores).expect("there are as many").shards.to_string();
        assert_eq!(shards("2"), "3-4", "a number is a count, of those that are allowed");
        assert_eq!(shards("4"), "3-6");
        assert_eq!((shards("5-5"), shards("2,5")), ("5".to_owned(), "2,5".to_owned()));
        let refused = placed("5").expect_err("one is offline").to_string();
        assert!(refused.starts_with("--cores 5: this process may run on 4 cores only"), "{refused}");
        for wrong in ["", "0", "x", "3-1"] {
            assert!(Words::try_parse_from(["check", "--cores", wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_cpu_is_told_as_serve_reads_it() {
        let files = [("sys/devices/system/cpu/online", "0-7\n")];
        let Machine { facts, placement, .. } = look_below(&files, &["--cores", "5-5"]).expect("it can be looked at");
        assert_eq!(advice(&facts, &placement), "Shards on CPUs 5 (--cores 5-5), interrupts on 0-4,6-7");
        assert_eq!("5-5".parse::<Choice>(), Ok(Choice::List(vec![5])), "what is told, read again");
        assert_eq!(as_json(&[], &facts, &placement)["placement"]["shards"], "5-5");
    }

    #[test]
    fn what_is_not_there_is_named() {
        for nic in ["eth7", "../net", ""] {
            let Err(error) = look_below(&[("sys/class/net/eth0/operstate", "up\n")], &["--nic", nic]) else {
                panic!("{nic}")
            };
            assert!(error.to_string().starts_with(&format!("there is no network card {nic:?}")), "{error}");
        }
    }
}
