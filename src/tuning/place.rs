//! Which CPUs serve the interrupts of network cards and disks, and which are left to shards. Pure.
//!
//! The rule is that of Seastar's perftune: an interrupt takes its CPU away from whoever runs there, so a large machine keeps
//! whole cores for interrupts; a small one has none to spare.
//!
//! | machine | interrupts are served by | shards run on |
//! |---|---|---|
//! | up to 4 CPUs (hardware threads) | all CPUs | all CPUs |
//! | up to 4 cores | one thread | the other threads |
//! | up to 16 cores | one core, all its threads | the other cores |
//! | more | one core for each 16, spread over NUMA nodes | the other cores |

use super::cpus::Cpus;
use super::facts::Cpu;
use std::collections::BTreeMap;

/// CPUs up to which all serve interrupts.
const SHARED_CPUS_MAX: usize = 4;
/// Cores up to which one thread serves interrupts, rather than a core.
const ONE_THREAD_CORES_MAX: usize = 4;
/// Cores for which one core serves interrupts.
const CORES_PER_IRQ_CORE: usize = 16;

/// Who serves interrupts, and who runs shards: either both are all CPUs, or they have none in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub irqs: Cpus,
    pub shards: Cpus,
}

impl Placement {
    /// Whether shards and interrupts share their CPUs.
    pub fn is_shared(&self) -> bool {
        self.irqs == self.shards
    }
}

/// The rule, for a machine with these CPUs, whatever their order.
pub fn by_rule(cpus: &[Cpu]) -> Placement {
    let all: Cpus = cpus.iter().map(|cpu| cpu.id).collect();
    // Cores by NUMA node; both in order, and each core's threads too.
    let mut nodes: BTreeMap<usize, BTreeMap<(usize, usize), Cpus>> = BTreeMap::new();
    for cpu in cpus {
        nodes.entry(cpu.node).or_default().entry((cpu.package, cpu.core)).or_default().extend([cpu.id]);
    }
    let cores: usize = nodes.values().map(BTreeMap::len).sum();
    let irqs: Cpus = if all.len() <= SHARED_CPUS_MAX {
        all.clone()
    } else if cores <= ONE_THREAD_CORES_MAX {
        all.iter().take(1).collect()
    } else {
        let in_turn = in_turn(nodes.values().map(|cores| cores.values().collect()).collect());
        in_turn.into_iter().take(cores.div_ceil(CORES_PER_IRQ_CORE)).flat_map(Cpus::iter).collect()
    };
    let shards = if irqs == all { all } else { all.without(&irqs) };
    Placement { irqs, shards }
}

/// Interrupts beside shards that are pinned already, or that the operator has chosen CPUs for: what those leave, or all.
pub fn beside(cpus: &[Cpu], pinned: &Cpus) -> Placement {
    let all: Cpus = cpus.iter().map(|cpu| cpu.id).collect();
    let (shards, left) = (all.and(pinned), all.without(pinned));
    match left.is_empty() || shards.is_empty() {
        true => Placement { irqs: all.clone(), shards: all },
        false => Placement { irqs: left, shards },
    }
}

/// A CPU for each interrupt, evenly.
pub fn spread(irqs: &[u32], over: &Cpus) -> Vec<(u32, usize)> {
    irqs.iter().copied().zip(over.iter().cycle()).collect()
}

/// The first of each list, then the second of each, ….
fn in_turn<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut merged = Vec::new();
    loop {
        let before = merged.len();
        merged.extend(lists.iter_mut().filter_map(Iterator::next));
        if merged.len() == before {
            return merged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Threads of a core are numbered as Linux does: all first threads, then all second ones.
    fn machine(nodes: usize, cores: usize, threads: usize) -> Vec<Cpu> {
        let all = nodes * cores;
        (0..all * threads)
            .map(|id| Cpu { id, package: id % all / cores, core: id % all % cores, node: id % all / cores })
            .collect()
    }

    #[test]
    fn machines_of_each_size() {
        for (nodes, cores, threads, irqs, shards) in [
            (1, 1, 1, "0", "0"),
            (1, 2, 2, "0-3", "0-3"),
            (1, 4, 2, "0", "1-7"),
            (1, 8, 1, "0", "1-7"),
            (1, 8, 2, "0,8", "1-7,9-15"),
            (1, 16, 2, "0,16", "1-15,17-31"),
            (2, 16, 2, "0,16,32,48", "1-15,17-31,33-47,49-63"),
            (2, 24, 1, "0-1,24", "2-23,25-47"),
        ] {
            let placed = by_rule(&machine(nodes, cores, threads));
            let shown = (placed.irqs.to_string(), placed.shards.to_string());
            assert_eq!(shown, (irqs.to_owned(), shards.to_owned()), "{nodes} x {cores} x {threads}");
        }
        assert!(by_rule(&[]).irqs.is_empty());
    }

    #[test]
    fn interrupts_keep_off_pinned_cpus() {
        let cpus = machine(1, 8, 1);
        let placed = beside(&cpus, &"2-7".parse().expect("a list"));
        assert_eq!((placed.irqs.to_string(), placed.shards.to_string()), ("0-1".into(), "2-7".into()));
        assert!(beside(&cpus, &"0-7".parse().expect("a list")).is_shared(), "nothing is left: all serve them");
        assert!(beside(&cpus, &"100".parse().expect("a list")).is_shared(), "a CPU that there is not");
    }

    proptest! {
        #[test]
        fn every_cpu_has_its_task(nodes in 1..5usize, cores in 1..40usize, threads in 1..3usize, seed in any::<u64>()) {
            let cpus = machine(nodes, cores, threads);
            let placed = by_rule(&cpus);
            let all: Cpus = cpus.iter().map(|cpu| cpu.id).collect();
            prop_assert!(!placed.irqs.is_empty() && !placed.shards.is_empty());
            if cpus.len() <= SHARED_CPUS_MAX {
                prop_assert!(placed.is_shared() && placed.irqs == all);
            } else {
                prop_assert!(placed.irqs.and(&placed.shards).is_empty());
                prop_assert_eq!(placed.irqs.len() + placed.shards.len(), all.len());
                let cores = nodes * cores;
                let wanted = if cores <= ONE_THREAD_CORES_MAX { 1 } else { cores.div_ceil(CORES_PER_IRQ_CORE) * threads };
                prop_assert_eq!(placed.irqs.len(), wanted);
                // Whole cores, and none twice: the siblings of an interrupts' thread serve interrupts as well.
                if cores > ONE_THREAD_CORES_MAX {
                    let (mut per_node, core) = (vec![0usize; nodes], |cpu: &Cpu| (cpu.node, cpu.package, cpu.core));
                    for cpu in cpus.iter().filter(|cpu| placed.irqs.contains(cpu.id)) {
                        per_node[cpu.node] += 1;
                        let siblings = cpus.iter().filter(|other| core(other) == core(cpu));
                        prop_assert!(siblings.clone().count() == threads && siblings.clone().all(|s| placed.irqs.contains(s.id)));
                    }
                    let (least, most) = (per_node.iter().min().expect("nodes"), per_node.iter().max().expect("nodes"));
                    prop_assert!(most - least <= threads, "{:?}", per_node);
                }
            }
            // In whatever order they were read.
            let mut mixed = cpus.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut mixed);
            prop_assert_eq!(by_rule(&mixed), placed);
        }

        #[test]
        fn interrupts_are_spread_evenly(count in 0..100u32, cpus in proptest::collection::btree_set(0..64usize, 1..16)) {
            let irqs: Vec<u32> = (100..100 + count).collect();
            let over: Cpus = cpus.iter().copied().collect();
            let placed = spread(&irqs, &over);
            prop_assert_eq!(placed.iter().map(|(irq, _)| *irq).collect::<Vec<_>>(), irqs);
            let loads: Vec<usize> = cpus.iter().map(|cpu| placed.iter().filter(|(_, at)| at == cpu).count()).collect();
            prop_assert!(loads.iter().max().expect("cpus") - loads.iter().min().expect("cpus") <= 1);
            prop_assert!(placed.iter().all(|(_, cpu)| over.contains(*cpu)));
        }
    }
}
