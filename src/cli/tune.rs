//! `corelog tune`: what `corelog check` would like changed, as a plan, done, undone, or as a shell script.

use super::check::{self, Machine, MachineArgs};
use super::output;
use crate::tuning::apply::{self, Applied, Done, STATE_PATH, Undone};
use crate::tuning::files::Root;
use crate::tuning::items::item;
use crate::tuning::plan::{Change, Plan, plan};
use crate::tuning::script::script;
use crate::tuning::store::Store;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  corelog tune plan --data-dir /disk1/data        what would be changed, and why; changes nothing
  corelog tune plan --cores 2-15 --nic eth0       with shards on these CPUs
  sudo corelog tune apply --data-dir /disk1/data  changes it, after all old values are on disk
  sudo corelog tune undo                          puts the old values back, where nobody else has changed them since
  corelog tune script > tune.sh                   the same for sh: tune.sh, tune.sh undo

What is applied lasts until the next boot; tuning/README.md says how to keep it. Arguments of the kernel's command line are told, never set.")]
pub struct TuneArgs {
    #[command(subcommand)]
    command: TuneCommand,
}

#[derive(Subcommand)]
enum TuneCommand {
    /// Tell what would be changed, and why
    Plan(PlanArgs),
    /// Change it, so that it can be undone
    Apply(ApplyArgs),
    /// Put back what was changed
    Undo(UndoArgs),
    /// Print a shell script that does the same, and undoes it
    Script(MachineArgs),
}

#[derive(Args)]
struct PlanArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON document
    #[arg(long, short = 'J')]
    json: bool,
}

#[derive(Args)]
struct ApplyArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Where the old values are kept [default: /var/lib/corelog-tuning/state.json, below the root]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

#[derive(Args)]
struct UndoArgs {
    /// The directory that was given to apply
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where the old values are kept [default: /var/lib/corelog-tuning/state.json, below the root]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

pub fn run(args: TuneArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TuneCommand::Plan(args) => tell_plan(&args)?,
        TuneCommand::Apply(args) => return do_it(&args),
        TuneCommand::Undo(args) => return undo_it(&args),
        TuneCommand::Script(args) => {
            let Machine { facts, placement, .. } = check::look(&args)?;
            output::line(script(&plan(&facts, &placement)).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_plan(args: &PlanArgs) -> anyhow::Result<()> {
    let Machine { facts, placement, .. } = check::look(&args.machine)?;
    let plan = plan(&facts, &placement);
    if args.json {
        return Ok(output::json(&as_json(&plan))?);
    }
    let mut table = output::Table::new(&["ITEM", "FILE", "NOW", "THEN"]);
    for change in &plan.changes {
        let now = change.kind.to_write(&change.current).trim().replace('\t', " ");
        table.row(vec![name(change), change.path.clone(), now, change.value.clone()]);
    }
    match plan.changes.is_empty() {
        true => output::line("Nothing to change.")?,
        false => table.print(0)?,
    }
    let mut told = Vec::new();
    for change in plan.changes.iter().map(|change| change.id) {
        if !told.contains(&change) {
            told.push(change);
            output::line(format_args!("\n{}\n  why   {}", item(change).name, item(change).why))?;
            output::line(format_args!("  from  {}", check::evidence(item(change))))?;
        }
    }
    tell_rest(&plan)?;
    output::line(check::advice(&facts, &placement))?;
    Ok(())
}

/// What only a person can do.
fn tell_rest(plan: &Plan) -> io::Result<()> {
    output::line("")?;
    for note in &plan.notes {
        let of = if note.subject.is_empty() { String::new() } else { format!(" of {}", note.subject) };
        output::line(format_args!("note: {}{of}: {}", item(note.id).name, note.text))?;
    }
    for boot in &plan.boot {
        output::line(format_args!("for the kernel's command line, if you like: {}\n  {}", boot.argument, boot.why))?;
    }
    Ok(())
}

fn as_json(plan: &Plan) -> Value {
    let change = |change: &Change| {
        json!({
            "name": item(change.id).name, "subject": change.subject, "path": change.path,
            "now": change.kind.to_write(&change.current).trim(), "then": change.value, "why": item(change.id).why,
        })
    };
    let notes =
        plan.notes.iter().map(|note| json!({ "name": item(note.id).name, "subject": note.subject, "text": note.text }));
    let boot = plan.boot.iter().map(|boot| json!({ "argument": boot.argument, "why": boot.why }));
    json!({
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
        "boot": boot.collect::<Vec<_>>(),
    })
}

fn do_it(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let Machine { root, facts, placement } = check::look(&args.machine)?;
    let plan = plan(&facts, &placement);
    if plan.changes.is_empty() {
        output::line("Nothing to change.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let store = store(&root, args.state.as_deref())?;
    let Done { results, gone } = apply::apply(&root, &plan, &store)?;
    if gone > 0 {
        output::line(format_args!("{gone} values of before the last boot are forgotten: they went with it."))?;
    }
    let mut failed = 0;
    for (change, result) in plan.changes.iter().zip(&results) {
        let path = &change.path;
        match result {
            Applied::Written => output::line(format_args!("{path} = {}", change.value))?,
            Applied::Managed(error) => {
                output::line(format_args!("{path}: managed, the kernel places it itself ({error})"))?
            }
            Applied::Failed(error) => output::tell(format_args!("{path}: not written: {error}")),
            Applied::NotTaken { found } => {
                output::tell(format_args!("{path}: still {found:?}, not {:?}", change.value))
            }
        }
        failed += usize::from(matches!(result, Applied::Failed(_) | Applied::NotTaken { .. }));
    }
    tell_rest(&plan)?;
    output::line(format_args!("The old values are in {}: corelog tune undo puts them back.", store.path().display()))?;
    output::line(check::advice(&facts, &placement))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn undo_it(args: &UndoArgs) -> anyhow::Result<ExitCode> {
    let root = Root::open(&args.root).with_context(|| args.root.display().to_string())?;
    let store = store(&root, args.state.as_deref())?;
    let results = apply::undo(&root, &store)?;
    if results.is_empty() {
        output::line(format_args!("Nothing to undo: there is no {}.", store.path().display()))?;
    }
    let mut failed = 0;
    for (path, result) in &results {
        match result {
            Undone::Restored => output::line(format_args!("{path}: as before"))?,
            Undone::WasOld => output::line(format_args!("{path}: was as before already"))?,
            Undone::Gone => {
                output::line(format_args!("{path}: set before the last boot, gone with it: left as it is"))?
            }
            Undone::Foreign { found } => {
                output::line(format_args!("{path}: somebody else has set it to {found:?} since: left as it is"))?;
            }
            Undone::Failed(error) => output::tell(format_args!("{path}: not put back: {error}")),
        }
        failed += usize::from(matches!(result, Undone::Failed(_)));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Below the root, unless the operator has chosen a place elsewhere.
fn store(root: &Root, chosen: Option<&Path>) -> anyhow::Result<Store> {
    let Some(chosen) = chosen else { return Ok(Store::new(root.clone(), STATE_PATH)) };
    let chosen = std::path::absolute(chosen).with_context(|| chosen.display().to_string())?;
    Ok(match root.inside(&chosen) {
        Some(inside) => Store::new(root.clone(), inside),
        None => Store::new(Root::open(Path::new("/"))?, chosen),
    })
}

fn name(change: &Change) -> String {
    match change.subject.as_str() {
        "" => item(change.id).name.to_owned(),
        subject => format!("{} of {subject}", item(change.id).name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_where_the_state_is() {
        let command = TuneArgs::augment_args(clap::Command::new("tune"));
        for name in ["apply", "undo"] {
            let mut arguments = command.find_subcommand(name).expect("a subcommand").get_arguments();
            let state = arguments.find(|argument| argument.get_id() == "state").expect("an argument");
            let help = state.get_help().expect("each has help").to_string();
            assert!(help.contains(&format!("[default: {STATE_PATH}, below the root]")), "{help}");
        }
    }

    #[test]
    fn a_state_below_the_root_does_not_leave_it() {
        let (dir, outer) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let root = Root::open(dir.path()).expect("it is there");
        std::os::unix::fs::symlink(outer.path(), dir.path().join("link")).expect("linked");
        assert!(store(&root, None).expect("a store").path().ends_with("var/lib/corelog-tuning/state.json"));
        let below = store(&root, Some(&dir.path().join("link/state.json"))).expect("a store");
        assert!(below.hold().is_err(), "the link leads out");
        let elsewhere = store(&root, Some(&outer.path().join("state.json"))).expect("a store");
        assert_eq!(elsewhere.path(), outer.path().join("state.json"), "the operator wants it there");
        assert!(elsewhere.hold().is_ok());
    }
}
