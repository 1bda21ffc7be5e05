//! Clocks, memory, and who is interrupted.

use super::Lines;
use crate::tuning::cpus::Cpus;
use crate::tuning::facts::{Facts, Irq, Nic, Reading};
use crate::tuning::items::{FLOW_ENTRIES, Id};
use crate::tuning::parse;
use crate::tuning::place::Placement;
use std::collections::{BTreeMap, BTreeSet};

/// Clock sources that are read by a system call or by slow I/O.
pub(in crate::tuning) const SLOW_CLOCKS: &[&str] = &["hpet", "acpi_pm", "xen", "jiffies", "refined-jiffies", "pit"];

pub(super) fn check(facts: &Facts, placement: &Placement, lines: &mut Lines) {
    governor(facts, lines);
    clocksource(facts, lines);
    time_sync(facts, lines);
    swap(facts, lines);
    numa(facts, lines);
    for nic in &facts.nics {
        queue_flows(nic, facts, lines);
        irqs(&nic.name, &nic.irqs, facts, placement, lines);
    }
    if facts.nics.is_empty() {
        lines.not_applicable(Id::QueueFlows, "", "no network card that is up was found");
    }
    for disk in &facts.disks {
        irqs(&disk.name, &disk.irqs, facts, placement, lines);
    }
    irqbalance(facts, placement, lines);
}

fn governor(facts: &Facts, lines: &mut Lines) {
    if facts.governors.is_empty() {
        return lines.not_applicable(Id::Governor, "", "no CPU has one: a hypervisor or the firmware sets the clock");
    }
    let mut by_name: BTreeMap<&str, Cpus> = BTreeMap::new();
    for governor in &facts.governors {
        match &governor.current {
            Reading::Known(name) => by_name.entry(name.trim()).or_default().extend([governor.cpu]),
            Reading::Absent => {}
            Reading::Unknown(why) => return lines.unknown(Id::Governor, "", why),
        }
    }
    let named = |(name, cpus): (&&str, &Cpus)| format!("{} on CPUs {cpus}", parse::shortened(name));
    let current = by_name.iter().map(named).collect::<Vec<_>>().join(", ");
    let offers = |wanted: &str| facts.governors.iter().all(|found| found.available.iter().any(|name| name == wanted));
    match by_name.keys().all(|name| *name == "performance") {
        true => lines.pass(Id::Governor, "", current),
        false if offers("performance") => {
            lines.warn(Id::Governor, "", current, "corelog tune apply, or cpupower frequency-set -g performance");
        }
        false => lines.not_applicable(Id::Governor, "", format!("{current}; performance is not offered")),
    }
}

fn clocksource(facts: &Facts, lines: &mut Lines) {
    let Some((current, available)) = lines.known(Id::Clocksource, "", &facts.clocksource) else { return };
    match SLOW_CLOCKS.contains(&current.as_str()) {
        false => lines.pass(Id::Clocksource, "", parse::shortened(current)),
        true if available.iter().any(|name| name == "tsc") => {
            lines.warn(
                Id::Clocksource,
                "",
                current,
                "corelog tune apply, or clocksource=tsc on the kernel's command line",
            );
        }
        true => {
            let fix = "the kernel does not trust this machine's tsc: look for \"tsc\" in dmesg, and at the firmware's settings";
            lines.warn(Id::Clocksource, "", current, fix);
        }
    }
}

fn time_sync(facts: &Facts, lines: &mut Lines) {
    let daemons = match facts.time_daemons.is_empty() {
        true => "no daemon was seen".to_owned(),
        false => format!("{} runs", facts.time_daemons.join(", ")),
    };
    let fix = "install chrony, and look at chronyc tracking; in a container or a virtual machine the host may do it";
    match &facts.clock_synchronized {
        Reading::Known(true) => lines.pass(Id::TimeSync, "", format!("synchronized, {daemons}")),
        Reading::Known(false) => {
            lines.warn(Id::TimeSync, "", format!("the kernel's clock is not synchronized, {daemons}"), fix)
        }
        _ if !facts.time_daemons.is_empty() => lines.pass(Id::TimeSync, "", daemons),
        Reading::Absent => lines.warn(Id::TimeSync, "", daemons, fix),
        Reading::Unknown(why) => lines.unknown(Id::TimeSync, "", why),
    }
}

fn swap(facts: &Facts, lines: &mut Lines) {
    let Some(swaps) = lines.known(Id::Swap, "", &facts.swaps) else { return };
    let names = |compressed: bool| {
        let chosen = swaps.iter().filter(|swap| swap.name.starts_with("/dev/zram") == compressed);
        chosen.map(|swap| swap.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match (names(false), names(true)) {
        (disks, _) if !disks.is_empty() => {
            lines.warn(Id::Swap, "", disks, "swapoff -a, and take it out of /etc/fstab; vm.swappiness=1 at least");
        }
        (_, zram) if !zram.is_empty() => lines.pass(Id::Swap, "", format!("only compressed memory, {zram}")),
        _ => lines.pass(Id::Swap, "", "none"),
    }
}

fn numa(facts: &Facts, lines: &mut Lines) {
    let nodes: BTreeSet<usize> = facts.cpus.iter().map(|cpu| cpu.node).collect();
    if nodes.len() < 2 {
        return lines.not_applicable(Id::Numa, "", "one node");
    }
    let cards = facts.nics.iter().map(|nic| (&nic.name, &nic.numa_node));
    let disks = facts.disks.iter().map(|disk| (&disk.name, &disk.numa_node));
    let mut where_: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (name, node) in cards.chain(disks) {
        // -1: the firmware does not say.
        if let Some(node) = node.known().filter(|node| **node >= 0) {
            where_.entry(*node).or_default().push(name);
        }
    }
    let shown = where_.iter().map(|(node, names)| format!("{} on node {node}", names.join(", ")));
    let shown = shown.collect::<Vec<_>>().join("; ");
    match where_.len() {
        0 => lines.not_applicable(Id::Numa, "", format!("{} nodes; no device says where it is", nodes.len())),
        1 => lines.pass(Id::Numa, "", shown),
        _ => {
            let fix = "move the card or the disk to another slot, or run a node for each NUMA node, with --cores and a disk of its own";
            lines.warn(Id::Numa, "", shown, fix);
        }
    }
}

/// How many flows each of a card's queues should remember: powers of two, together as many as the kernel's table.
pub(in crate::tuning) fn flows_of_a_queue(queues: usize) -> u64 {
    let share = FLOW_ENTRIES / (queues.max(1) as u64);
    share.checked_ilog2().map_or(1, |power| 1 << power)
}

fn queue_flows(nic: &Nic, facts: &Facts, lines: &mut Lines) {
    if facts.cpus.len() < 2 || nic.flows.is_empty() {
        return lines.not_applicable(Id::QueueFlows, &nic.name, "one CPU, or no receive queue");
    }
    let wanted = flows_of_a_queue(nic.flows.len());
    let mut least = u64::MAX;
    for (queue, count) in &nic.flows {
        let Some(count) = lines.known(Id::QueueFlows, &nic.name, count) else { return };
        match parse::number::<u64>(count) {
            Ok(count) => least = least.min(count),
            Err(why) => return lines.unknown(Id::QueueFlows, &nic.name, &format!("{queue}: {why}")),
        }
    }
    let current = format!("{least} in each of {} queues", nic.flows.len());
    match least >= wanted {
        true => lines.pass(Id::QueueFlows, &nic.name, current),
        false => lines.warn(Id::QueueFlows, &nic.name, current, format!("corelog tune apply, which writes {wanted}")),
    }
}

/// Which of a device's interrupts (managed ones aside) should be served by other CPUs. Where shards and interrupts share all CPUs:
/// all, if they are crowded on fewer CPUs than they could be on; else those that shards' CPUs serve.
pub(in crate::tuning) fn served_badly(movable: &[(u32, &Irq)], placement: &Placement) -> Vec<u32> {
    let served = movable.iter().filter_map(|(number, irq)| Some((*number, irq.effective.known()?)));
    let served: Vec<(u32, &Cpus)> = served.collect();
    let is_bad: &dyn Fn(&Cpus) -> bool = match placement.is_shared() {
        true => {
            let all: Cpus = served.iter().flat_map(|(_, cpus)| cpus.iter()).collect();
            let is_crowded = all.len() < served.len().min(placement.irqs.len());
            &move |_| is_crowded
        }
        false => &|cpus| !cpus.is_subset(&placement.irqs),
    };
    served.into_iter().filter(|(_, cpus)| is_bad(cpus)).map(|(number, _)| number).collect()
}

fn irqs(device: &str, numbers: &[u32], facts: &Facts, placement: &Placement, lines: &mut Lines) {
    let found = numbers.iter().filter_map(|number| Some((*number, facts.irqs.get(number)?)));
    let (managed, movable): (Vec<_>, Vec<_>) = found.partition(|(_, irq)| irq.managed);
    if movable.is_empty() {
        let what = if managed.is_empty() { "none to be seen" } else { "managed: the kernel places them itself" };
        return lines.not_applicable(Id::IrqAffinity, device, what);
    }
    let mut served = Cpus::default();
    for (_, irq) in &movable {
        match &irq.effective {
            Reading::Known(cpus) => served.extend(cpus.iter()),
            Reading::Absent => {}
            Reading::Unknown(why) => return lines.unknown(Id::IrqAffinity, device, why),
        }
    }
    let current = format!("{} on CPUs {served}", movable.len());
    let Placement { irqs, shards } = placement;
    match (served_badly(&movable, placement).is_empty(), placement.is_shared()) {
        (true, true) => lines.pass(Id::IrqAffinity, device, format!("{current}, which shards share")),
        (true, false) => lines.pass(Id::IrqAffinity, device, current),
        (false, true) => {
            lines.warn(Id::IrqAffinity, device, format!("{current} only"), "corelog tune apply, which spreads them");
        }
        (false, false) => {
            let cores = shards.to_cores_argument();
            let fix = format!("corelog tune apply, which moves them to {irqs}; run the node with --cores {cores}");
            lines.warn(Id::IrqAffinity, device, format!("{current}, where shards are"), fix);
        }
    }
}

fn irqbalance(facts: &Facts, placement: &Placement, lines: &mut Lines) {
    match lines.known(Id::Irqbalance, "", &facts.irqbalance) {
        None => {}
        Some(None) => lines.pass(Id::Irqbalance, "", "does not run, as far as can be seen"),
        Some(Some(pid)) if placement.is_shared() => {
            lines.pass(Id::Irqbalance, "", format!("process {pid}; with so few CPUs it does no harm"));
        }
        Some(Some(pid)) => {
            let fix =
                format!("systemctl disable --now irqbalance, or IRQBALANCE_BANNED_CPULIST={} for it", placement.shards);
            lines.warn(Id::Irqbalance, "", format!("process {pid}"), fix);
        }
    }
}
