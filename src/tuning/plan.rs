//! What to write, and what only a person can do. Pure.
//!
//! What `check` is content with is not written, and what is written it is content with afterwards.

use super::check::{SLOW_CLOCKS, flows_of_a_queue, served_badly};
use super::facts::{Facts, Irq, Reading};
use super::items::{Action, ITEMS, Id, Rule};
use super::parse;
use super::place::{Placement, spread};
use super::sysctl::{Judged, judge};
use serde::{Deserialize, Serialize};

/// One value that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: Id,
    /// The disk, card or CPU; empty where there is only one thing.
    pub subject: String,
    pub path: String,
    pub kind: Kind,
    /// The file as it was read.
    pub current: String,
    pub value: String,
    pub twin: Option<Twin>,
}

/// How the kernel shows what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As it was written, but for white space.
    Words,
    /// All choices, with brackets around the one that was written.
    Choice,
    /// A list of CPUs, perhaps written otherwise.
    Cpus,
}

/// A file that the kernel sets to 0 when the other one is written, and the other way round: of both only one can have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    pub path: String,
    /// As it was read.
    pub old: String,
}

/// What is told beside the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub id: Id,
    pub subject: String,
    pub text: String,
}

/// An argument of the kernel's command line: told, never set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootArgument {
    pub argument: String,
    pub why: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    pub boot: Vec<BootArgument>,
}

/// What to change on a machine with these facts.
pub fn plan(facts: &Facts, placement: &Placement) -> Plan {
    let mut plan = Plan::default();
    plan.sysctls(facts);
    plan.schedulers(facts);
    plan.governors(facts);
    plan.clocksource(facts);
    plan.queue_flows(facts);
    let devices = facts.nics.iter().map(|nic| (&nic.name, &nic.irqs));
    for (name, irqs) in devices.chain(facts.disks.iter().map(|disk| (&disk.name, &disk.irqs))) {
        plan.irqs(name, irqs, facts, placement);
    }
    plan.what_a_person_can_do(facts, placement);
    plan.boot = boot(facts, placement);
    plan.changes.sort_by_key(|change| change.id);
    plan
}

impl Kind {
    /// Whether two texts of such a file mean the same.
    pub fn is_same(self, one: &str, other: &str) -> bool {
        match self {
            Kind::Words => one.split_whitespace().eq(other.split_whitespace()),
            Kind::Choice => {
                matches!((parse::selected(one), parse::selected(other)), (Ok(one), Ok(other)) if one == other)
            }
            Kind::Cpus => match (one.parse::<super::Cpus>(), other.parse::<super::Cpus>()) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            },
        }
    }

    /// What to write so that the file shows `text` again.
    pub fn to_write(self, text: &str) -> &str {
        match self {
            Kind::Choice => parse::selected(text).unwrap_or(text),
            Kind::Words | Kind::Cpus => text,
        }
    }
}

impl Plan {
    fn change(
        &mut self,
        id: Id,
        subject: &str,
        path: impl Into<String>,
        kind: Kind,
        current: &str,
        value: impl Into<String>,
    ) {
        let (path, value) = (path.into(), value.into());
        self.changes.push(Change {
            id,
            subject: subject.to_owned(),
            path,
            kind,
            current: current.to_owned(),
            value,
            twin: None,
        });
    }

    fn note(&mut self, id: Id, subject: &str, text: impl Into<String>) {
        self.notes.push(Note { id, subject: subject.to_owned(), text: text.into() });
    }

    /// What cannot be read is left alone: it could not be put back.
    fn known<'a>(&mut self, id: Id, subject: &str, reading: &'a Reading<String>) -> Option<&'a str> {
        if let Reading::Unknown(why) = reading {
            self.note(id, subject, format!("left as it is: {why}"));
        }
        reading.known().map(String::as_str)
    }

    fn sysctls(&mut self, facts: &Facts) {
        for item in ITEMS {
            let Action::Sysctl(rule) = item.action else { continue };
            match judge(item.reads, rule, facts) {
                Judged::Good { .. } | Judged::Absent => {}
                Judged::Unknown(why) => self.note(item.id, "", format!("left as it is: {why}")),
                Judged::Change { path, value, twin, .. } => {
                    let text = |path| facts.sysctls.get(path).and_then(Reading::known).cloned().unwrap_or_default();
                    self.change(item.id, "", path, Kind::Words, &text(path), value);
                    let twin = twin.map(|path| Twin { path: path.to_owned(), old: text(path) });
                    self.changes.last_mut().expect("it was just put there").twin = twin;
                }
            }
        }
        // Only the percentages have a rule, and both of a pair are known where one is written.
        debug_assert!(
            ITEMS.iter().all(|item| !matches!(item.action, Action::Sysctl(Rule::DirtyAtMost(_, b)) if b == item.reads))
        );
    }

    fn schedulers(&mut self, facts: &Facts) {
        for disk in facts.disks.iter().filter(|disk| disk.is_nvme()) {
            let Some(text) = self.known(Id::Scheduler, &disk.name, &disk.scheduler) else { continue };
            match parse::selected(text) {
                Ok("none") => {}
                Ok(_) if parse::choices(text).contains(&"none") => {
                    let path = format!("/sys/class/block/{}/queue/scheduler", disk.name);
                    self.change(Id::Scheduler, &disk.name, path, Kind::Choice, text, "none");
                }
                Ok(chosen) => self.note(Id::Scheduler, &disk.name, format!("left at {chosen}: none is not offered")),
                Err(why) => self.note(Id::Scheduler, &disk.name, format!("left as it is: {why}")),
            }
        }
    }

    fn governors(&mut self, facts: &Facts) {
        for governor in &facts.governors {
            let subject = format!("CPU {}", governor.cpu);
            let Some(text) = self.known(Id::Governor, &subject, &governor.current) else { continue };
            if text.trim() != "performance" && governor.available.iter().any(|name| name == "performance") {
                let path = format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor", governor.cpu);
                self.change(Id::Governor, &subject, path, Kind::Words, text, "performance");
            }
        }
    }

    fn clocksource(&mut self, facts: &Facts) {
        let Some((current, available)) = facts.clocksource.known() else { return };
        if SLOW_CLOCKS.contains(&current.as_str()) && available.iter().any(|name| name == "tsc") {
            let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
            self.change(Id::Clocksource, "", path, Kind::Words, &format!("{current}\n"), "tsc");
        }
    }

    fn queue_flows(&mut self, facts: &Facts) {
        for nic in facts.nics.iter().filter(|_| facts.cpus.len() > 1) {
            let wanted = flows_of_a_queue(nic.flows.len());
            for (queue, text) in &nic.flows {
                let subject = format!("{} {queue}", nic.name);
                let Some(text) = self.known(Id::QueueFlows, &subject, text) else { continue };
                match parse::number::<u64>(text) {
                    Ok(count) if count >= wanted => {}
                    Ok(_) => {
                        let path = format!("/sys/class/net/{}/queues/{queue}/rps_flow_cnt", nic.name);
                        self.change(Id::QueueFlows, &subject, path, Kind::Words, text, wanted.to_string());
                    }
                    Err(why) => self.note(Id::QueueFlows, &subject, format!("left as it is: {why}")),
                }
            }
        }
    }

    fn irqs(&mut self, device: &str, numbers: &[u32], facts: &Facts, placement: &Placement) {
        let found = numbers.iter().filter_map(|number| Some((*number, facts.irqs.get(number)?)));
        let (managed, movable): (Vec<_>, Vec<_>) = found.partition(|(_, irq)| irq.managed);
        if !managed.is_empty() {
            let (count, what) =
                (managed.len(), "managed: the kernel places them itself, next to the CPUs that use them");
            self.note(Id::IrqAffinity, device, format!("{count} are {what}"));
        }
        let bad = served_badly(&movable, placement);
        let bad: Vec<(u32, &Irq)> = movable.into_iter().filter(|(number, _)| bad.contains(number)).collect();
        let places = spread(&bad.iter().map(|(number, _)| *number).collect::<Vec<_>>(), &placement.irqs);
        for ((number, irq), (_, cpu)) in bad.into_iter().zip(places) {
            let Some(text) = self.known(Id::IrqAffinity, device, &irq.wanted) else { continue };
            let path = format!("/proc/irq/{number}/smp_affinity_list");
            if !Kind::Cpus.is_same(text, &cpu.to_string()) {
                self.change(Id::IrqAffinity, device, path, Kind::Cpus, text, cpu.to_string());
            }
        }
    }

    fn what_a_person_can_do(&mut self, facts: &Facts, placement: &Placement) {
        let moves = self.changes.iter().any(|change| change.id == Id::IrqAffinity);
        if let (true, Some(Some(pid))) = (moves, facts.irqbalance.known()) {
            let text = format!("process {pid} moves interrupts again: systemctl disable --now irqbalance first");
            self.note(Id::Irqbalance, "", text);
        }
        if !placement.is_shared() {
            let stray = facts.nodes.iter().filter(|(_, cpus)| !cpus.and(&placement.irqs).is_empty());
            for (pid, cpus) in stray {
                let text = format!(
                    "the node with process {pid} has shards on {cpus}: start it with --cores {}",
                    placement.shards.to_cores_argument()
                );
                self.note(Id::IrqAffinity, "", text);
            }
        }
    }
}

fn boot(facts: &Facts, placement: &Placement) -> Vec<BootArgument> {
    let mut arguments = Vec::new();
    if !placement.is_shared() && !placement.shards.is_empty() {
        let shards = &placement.shards;
        arguments.push(BootArgument {
            argument: format!("isolcpus=managed_irq,domain,{shards}"),
            why: "nothing but what is pinned there runs on the shards' CPUs; everything else shares the others",
        });
        arguments.push(BootArgument {
            argument: format!("nohz_full={shards} rcu_nocbs={shards}"),
            why: "no timer tick, and no work of RCU, on a CPU that runs one thread; system calls cost a little more",
        });
    }
    // Whoever has no say in the clock has none in this either.
    if !facts.governors.is_empty() {
        arguments.push(BootArgument {
            argument: "intel_idle.max_cstate=1 processor.max_cstate=1".to_owned(),
            why: "a CPU wakes from C1 in a microsecond, from C6 in a hundred; costs power and some of the others' turbo",
        });
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_know_what_means_the_same() {
        assert!(Kind::Words.is_same("4096\t1 2\n", "4096 1 2") && !Kind::Words.is_same("1", "2"));
        assert!(Kind::Choice.is_same("[none] kyber\n", "none") && !Kind::Choice.is_same("none [kyber]", "none"));
        assert!(!Kind::Choice.is_same("", ""), "what names nothing equals nothing");
        assert!(Kind::Cpus.is_same("0-1\n", "0,1") && !Kind::Cpus.is_same("x", "x"));
        assert_eq!((Kind::Choice.to_write("none [kyber]\n"), Kind::Words.to_write("60\n")), ("kyber", "60\n"));
    }
}
