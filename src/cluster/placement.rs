//! Where replicas go: pure decisions over the brokers that are alive and what they hold already.
//!
//! Failure domains are rack > machine > shard: replicas of a partition never share a machine, and share a rack only
//! when there are more replicas than racks. Within that, each replica goes to the least loaded shard, so that with
//! equal machines that start balanced the counts of any two shards differ by at most one.

use super::image::Broker;
use crate::base::ids::{BrokerId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// How many replicas each shard holds, and how many of them it leads by preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub replicas: u32,
    pub preferred: u32,
}

/// Why replicas cannot be placed, or an assignment is refused. The text is what the client is told:
/// Kafka 3.9's words where Kafka has the case.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlacementError {
    #[error("Number of partitions must be larger than 0.")]
    NoPartitions,
    #[error("Replication factor must be larger than 0.")]
    NoReplicas,
    #[error(
        "Replication factor: {asked} larger than available machines: {machines}. \
         Each core is a broker here, and replicas of a partition never share a machine."
    )]
    TooFewMachines { asked: i32, machines: usize },
    #[error("{0}")]
    BadAssignment(String),
}

/// Places `partitions` new partitions with `replication_factor` replicas each; the first replica of each is the
/// preferred leader. `load` is what the shards hold already (absent: nothing). `start` turns the order in which
/// equally loaded shards are taken, as Kafka's round robin starts anywhere.
pub fn place(
    brokers: &BTreeMap<BrokerId, Broker>,
    load: &BTreeMap<BrokerId, Load>,
    partitions: i32,
    replication_factor: i32,
    start: usize,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    if partitions <= 0 {
        return Err(PlacementError::NoPartitions);
    }
    if replication_factor <= 0 {
        return Err(PlacementError::NoReplicas);
    }
    let mut machines = machines_of(brokers, load, start);
    let asked = replication_factor as usize;
    if asked > machines.len() {
        return Err(PlacementError::TooFewMachines { asked: replication_factor, machines: machines.len() });
    }
    Ok((0..partitions).map(|_| place_one(&mut machines, asked)).collect())
}

/// What the partitions of a cluster put on each shard; feed it every assignment.
pub fn count_assignment(load: &mut BTreeMap<BrokerId, Load>, replicas: &[BrokerId]) {
    for (position, broker) in replicas.iter().enumerate() {
        let entry = load.entry(*broker).or_default();
        entry.replicas += 1;
        entry.preferred += u32::from(position == 0);
    }
}

/// Checks the explicit assignment of a new topic, with the checks and words of Kafka 3.9's AdminZkClient; beyond
/// Kafka's (ZooKeeper mode), brokers must exist, as in KRaft mode, and replicas must not share a machine.
/// Returns the replicas by partition index.
pub fn check_new_assignment(
    brokers: &BTreeMap<BrokerId, Broker>,
    assignment: &BTreeMap<i32, Vec<BrokerId>>,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    let sizes: BTreeSet<usize> = assignment.values().map(Vec::len).collect();
    if sizes.len() != 1 {
        return Err(bad("All partitions should have the same number of replicas"));
    }
    if let Some((partition, replicas)) = assignment.iter().find(|(_, replicas)| has_duplicates(replicas)) {
        return Err(bad(format!("Duplicate replica assignment found: {partition} -> {}", list(replicas))));
    }
    if !assignment.keys().copied().eq(0..assignment.len() as i32) {
        return Err(bad("partitions should be a consecutive 0-based integer sequence"));
    }
    for (partition, replicas) in assignment {
        check_replicas(brokers, *partition, replicas)?;
    }
    Ok(assignment.values().cloned().collect())
}

/// Checks the explicit assignment of partitions added to a topic that has `existing` partitions of
/// `replication_factor` replicas, with the checks and words of Kafka 3.9's ZkAdminManager and AdminZkClient.
pub fn check_added_assignment(
    brokers: &BTreeMap<BrokerId, Broker>,
    added: &[Vec<BrokerId>],
    increment: i32,
    existing: usize,
    replication_factor: usize,
) -> Result<(), PlacementError> {
    let unknown: BTreeSet<BrokerId> =
        added.iter().flatten().filter(|broker| !brokers.contains_key(broker)).copied().collect();
    if !unknown.is_empty() {
        let unknown: Vec<BrokerId> = unknown.into_iter().collect();
        return Err(bad(format!("Unknown broker(s) in replica assignment: {}.", list(&unknown))));
    }
    if added.len() != increment as usize {
        return Err(bad(format!(
            "Increasing the number of partitions by {increment} but {} assignments provided.",
            added.len()
        )));
    }
    let numbered = || added.iter().enumerate().map(|(i, replicas)| (existing + i, replicas));
    for (partition, replicas) in numbered() {
        if has_duplicates(replicas) {
            return Err(bad(format!(
                "Duplicate brokers not allowed in replica assignment: {} for partition id {partition}.",
                list(replicas)
            )));
        }
        check_replicas(brokers, partition as i32, replicas)?;
    }
    let odd: Vec<_> = numbered().filter(|(_, replicas)| replicas.len() != replication_factor).collect();
    if !odd.is_empty() {
        let partitions: Vec<String> = odd.iter().map(|(partition, _)| partition.to_string()).collect();
        let factors: Vec<String> = odd.iter().map(|(_, replicas)| replicas.len().to_string()).collect();
        return Err(bad(format!(
            "Inconsistent replication factor between partitions, partition 0 has {replication_factor} while \
             partitions [{}] have replication factors [{}], respectively.",
            partitions.join(", "),
            factors.join(", ")
        )));
    }
    Ok(())
}

/// A machine's shards with their load, which changes as replicas are placed.
struct Machine {
    rack: Option<String>,
    shards: Vec<(BrokerId, Load)>,
}

impl Machine {
    /// Lower is taken first: the emptiest shard decides, then how full the machine is for its shards.
    /// With equal machines this orders them by load, which is what keeps the counts within one.
    fn fullness(&self) -> (u32, u64) {
        let least = self.shards.iter().map(|(_, load)| load.replicas).min().expect("a machine has a shard");
        let total: u64 = self.shards.iter().map(|(_, load)| u64::from(load.replicas)).sum();
        (least, total * 1_000_000 / self.shards.len() as u64)
    }

    /// Takes the emptiest shard (then the one that leads least, then the first).
    fn take(&mut self) -> usize {
        let (index, _) = self
            .shards
            .iter()
            .enumerate()
            .min_by_key(|(index, (_, load))| (load.replicas, load.preferred, *index))
            .expect("a machine has a shard");
        self.shards[index].1.replicas += 1;
        index
    }
}

fn machines_of(brokers: &BTreeMap<BrokerId, Broker>, load: &BTreeMap<BrokerId, Load>, start: usize) -> Vec<Machine> {
    let mut by_node: BTreeMap<NodeId, Machine> = BTreeMap::new();
    for broker in brokers.values() {
        let machine = by_node
            .entry(broker.id.node())
            .or_insert_with(|| Machine { rack: broker.rack.clone(), shards: Vec::new() });
        machine.shards.push((broker.id, load.get(&broker.id).copied().unwrap_or_default()));
    }
    let mut machines: Vec<Machine> = by_node.into_values().collect();
    if !machines.is_empty() {
        let turn = start % machines.len();
        machines.rotate_left(turn);
    }
    for machine in &mut machines {
        let turn = start % machine.shards.len();
        machine.shards.rotate_left(turn);
    }
    machines
}

fn place_one(machines: &mut [Machine], replicas: usize) -> Vec<BrokerId> {
    let mut chosen: Vec<(usize, usize)> = Vec::with_capacity(replicas);
    for _ in 0..replicas {
        let free = |index: usize| chosen.iter().all(|(taken, _)| *taken != index);
        let new_rack = |machine: &Machine| {
            machine.rack.is_none() || chosen.iter().all(|(taken, _)| machines[*taken].rack != machine.rack)
        };
        let (index, _) = machines
            .iter()
            .enumerate()
            .filter(|(index, _)| free(*index))
            .min_by_key(|(index, machine)| (!new_rack(machine), machine.fullness(), *index))
            .expect("as many machines as replicas were checked");
        let shard = machines[index].take();
        chosen.push((index, shard));
    }
    // The one that leads least becomes the preferred leader; the order of the others does not matter.
    let (leader, _) = chosen
        .iter()
        .enumerate()
        .min_by_key(|(position, (machine, shard))| (machines[*machine].shards[*shard].1.preferred, *position))
        .expect("at least one replica");
    chosen.swap(0, leader);
    let (machine, shard) = chosen[0];
    machines[machine].shards[shard].1.preferred += 1;
    chosen.iter().map(|(machine, shard)| machines[*machine].shards[*shard].0).collect()
}

fn check_replicas(
    brokers: &BTreeMap<BrokerId, Broker>,
    partition: i32,
    replicas: &[BrokerId],
) -> Result<(), PlacementError> {
    if replicas.is_empty() {
        return Err(bad(format!("Cannot have replication factor of 0 for partition id {partition}.")));
    }
    if let Some(unknown) = replicas.iter().find(|broker| !brokers.contains_key(broker)) {
        return Err(bad(format!(
            "The manual partition assignment includes broker {unknown}, but no such broker is registered."
        )));
    }
    let machines: BTreeSet<NodeId> = replicas.iter().map(|broker| broker.node()).collect();
    if machines.len() != replicas.len() {
        return Err(bad(format!(
            "Replicas {} of partition id {partition} share a machine: brokers that differ only in their last three \
             digits are cores of one machine.",
            list(replicas)
        )));
    }
    Ok(())
}

fn has_duplicates(replicas: &[BrokerId]) -> bool {
    replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len()
}

fn list(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(BrokerId::to_string).collect();
    ids.join(", ")
}

fn bad(message: impl Into<String>) -> PlacementError {
    PlacementError::BadAssignment(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ShardId;
    use proptest::prelude::*;

    /// Machines with these numbers of shards; `racks[i]` of machine i, "" for none.
    fn cluster(shards: &[u16], racks: &[&str]) -> BTreeMap<BrokerId, Broker> {
        let mut brokers = BTreeMap::new();
        for (node, count) in shards.iter().enumerate() {
            for shard in 0..*count {
                let id = BrokerId::new(NodeId(node as i32), ShardId(shard));
                let rack = racks.get(node).filter(|rack| !rack.is_empty()).map(|rack| rack.to_string());
                brokers.insert(id, Broker { id, host: None, port: 9092 + shard, rack });
            }
        }
        brokers
    }

    fn loads_after(brokers: &BTreeMap<BrokerId, Broker>, placed: &[Vec<BrokerId>]) -> Vec<u32> {
        let mut load = BTreeMap::new();
        placed.iter().for_each(|replicas| count_assignment(&mut load, replicas));
        brokers.keys().map(|id| load.get(id).map_or(0, |load| load.replicas)).collect()
    }

    fn spread(counts: &[u32]) -> u32 {
        counts.iter().max().expect("some shard") - counts.iter().min().expect("some shard")
    }

    proptest! {
        #[test]
        fn equal_machines_stay_within_one(
            machines in 1usize..6, shards in 1u16..9, factor in 1usize..6, rounds in prop::collection::vec(1i32..40, 1..6),
            start in 0usize..1000,
        ) {
            let factor = factor.min(machines);
            let brokers = cluster(&vec![shards; machines], &[]);
            let mut load = BTreeMap::new();
            let mut all = Vec::new();
            for (round, partitions) in rounds.into_iter().enumerate() {
                let placed = place(&brokers, &load, partitions, factor as i32, start + round).unwrap();
                placed.iter().for_each(|replicas| count_assignment(&mut load, replicas));
                all.extend(placed);
                prop_assert!(spread(&loads_after(&brokers, &all)) <= 1);
            }
        }

        #[test]
        fn unequal_machines_fill_shards_evenly_with_one_replica(
            shards in prop::collection::vec(1u16..9, 1..6), partitions in 1i32..200, start in 0usize..100,
        ) {
            let brokers = cluster(&shards, &[]);
            let placed = place(&brokers, &BTreeMap::new(), partitions, 1, start).unwrap();
            prop_assert!(spread(&loads_after(&brokers, &placed)) <= 1);
        }

        #[test]
        fn replicas_never_share_a_machine_nor_a_rack_while_racks_last(
            shards in prop::collection::vec(1u16..5, 1..7), rack_of in prop::collection::vec(0usize..3, 7),
            factor in 1usize..7, partitions in 1i32..50, start in 0usize..100,
        ) {
            let names = ["a", "b", "c"];
            let racks: Vec<&str> = rack_of.iter().map(|rack| names[*rack]).collect();
            let brokers = cluster(&shards, &racks);
            let factor = factor.min(shards.len());
            let racks_present: BTreeSet<&str> = racks[..shards.len()].iter().copied().collect();
            for replicas in place(&brokers, &BTreeMap::new(), partitions, factor as i32, start).unwrap() {
                let machines: BTreeSet<NodeId> = replicas.iter().map(|id| id.node()).collect();
                prop_assert_eq!(machines.len(), factor);
                let used: BTreeSet<&str> = machines.iter().map(|node| racks[node.0 as usize]).collect();
                prop_assert_eq!(used.len(), factor.min(racks_present.len()));
            }
        }
    }

    #[test]
    fn an_emptier_shard_is_filled_first() {
        let brokers = cluster(&[3], &[]);
        let load = BTreeMap::from([
            (BrokerId(0), Load { replicas: 4, preferred: 4 }),
            (BrokerId(2), Load { replicas: 3, preferred: 3 }),
        ]);
        let placed = place(&brokers, &load, 4, 1, 0).unwrap();
        let ids: Vec<i32> = placed.iter().map(|replicas| replicas[0].0).collect();
        assert_eq!(ids, [1, 1, 1, 1]);
    }

    #[test]
    fn leaders_are_shared_out_too() {
        let brokers = cluster(&[2, 2, 2], &[]);
        let placed = place(&brokers, &BTreeMap::new(), 60, 3, 0).unwrap();
        let mut load = BTreeMap::new();
        placed.iter().for_each(|replicas| count_assignment(&mut load, replicas));
        assert!(load.values().all(|load| load.preferred == 10), "{load:?}");
    }

    #[test]
    fn impossible_counts_are_refused_with_reasons() {
        let brokers = cluster(&[8], &[]);
        let none = BTreeMap::new();
        assert_eq!(place(&brokers, &none, 0, 1, 0), Err(PlacementError::NoPartitions));
        assert_eq!(place(&brokers, &none, 1, 0, 0), Err(PlacementError::NoReplicas));
        let error = place(&brokers, &none, 1, 3, 0).unwrap_err();
        assert_eq!(error, PlacementError::TooFewMachines { asked: 3, machines: 1 });
        assert!(error.to_string().starts_with("Replication factor: 3 larger than available machines: 1."));
    }

    #[test]
    fn explicit_assignments_are_checked() {
        let brokers = cluster(&[2, 2], &[]);
        let check = |entries: &[(i32, &[i32])]| {
            let assignment =
                entries.iter().map(|(p, ids)| (*p, ids.iter().map(|id| BrokerId(*id)).collect())).collect();
            check_new_assignment(&brokers, &assignment).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[(0, &[1, 1000]), (1, &[1001, 0])]).unwrap()[1], [BrokerId(1001), BrokerId(0)]);
        assert_eq!(
            check(&[(0, &[0]), (1, &[0, 1000])]).unwrap_err(),
            "All partitions should have the same number of replicas"
        );
        assert_eq!(check(&[(0, &[1, 1])]).unwrap_err(), "Duplicate replica assignment found: 0 -> 1, 1");
        assert_eq!(check(&[(1, &[1])]).unwrap_err(), "partitions should be a consecutive 0-based integer sequence");
        assert_eq!(check(&[(0, &[])]).unwrap_err(), "Cannot have replication factor of 0 for partition id 0.");
        assert!(check(&[(0, &[7])]).unwrap_err().contains("includes broker 7, but no such broker"));
        assert!(check(&[(0, &[0, 1])]).unwrap_err().contains("share a machine"));
    }

    #[test]
    fn added_partitions_must_match_the_topic() {
        let brokers = cluster(&[2, 2], &[]);
        let check = |added: &[&[i32]], increment| {
            let added: Vec<Vec<BrokerId>> =
                added.iter().map(|ids| ids.iter().map(|id| BrokerId(*id)).collect()).collect();
            check_added_assignment(&brokers, &added, increment, 3, 1).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[&[1], &[1000]], 2), Ok(()));
        assert_eq!(check(&[&[9]], 1).unwrap_err(), "Unknown broker(s) in replica assignment: 9.");
        assert_eq!(
            check(&[&[1]], 2).unwrap_err(),
            "Increasing the number of partitions by 2 but 1 assignments provided."
        );
        assert_eq!(
            check(&[&[1, 1]], 1).unwrap_err(),
            "Duplicate brokers not allowed in replica assignment: 1, 1 for partition id 3."
        );
        assert_eq!(
            check(&[&[1], &[0, 1000]], 2).unwrap_err(),
            "Inconsistent replication factor between partitions, partition 0 has 1 while partitions [4] have \
             replication factors [2], respectively."
        );
    }
}
