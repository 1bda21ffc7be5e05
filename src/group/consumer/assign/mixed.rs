//! `uniform` where members have subscribed to different topics: as even as the subscriptions allow.
//!
//! What members have stays with them, what is free goes to whoever has least among those who want it, of equals to one in a rack that has
//! a replica. Then partitions move, one at a time: from a member to another that has at least two fewer, directly or along a chain of members, each of whom passes on one
//! of his own. When no such chain is left, no assignment is more even (the sum of the squares of what members have is least).
//!
//! The fullest member is looked at first. If no chain leaves it, then whoever can be reached from it has at most one fewer than it,
//! and so cannot be relieved either: all of them are done with. So a round costs little more than one walk through the group.

use super::{MemberSpec, Partitions, Topics, give, is_near, kept, racks_of};
use crate::base::ids::TopicId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

struct Sharing<'m> {
    members: &'m [MemberSpec<'m>],
    topics: &'m Topics,
    subscribers: BTreeMap<TopicId, Vec<usize>>,
    assigned: Vec<Partitions>,
    load: Vec<usize>,
}

pub fn assign(members: &[MemberSpec<'_>], topics: &Topics) -> Vec<Partitions> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for topic in &member.topics {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let (kept, taken) = kept(members, topics);
    let load = kept.iter().map(Vec::len).collect();
    let mut assigned = vec![Partitions::new(); members.len()];
    for (at, kept) in kept.into_iter().enumerate() {
        kept.into_iter().for_each(|(topic, partition)| give(&mut assigned[at], topic, partition));
    }
    let mut sharing = Sharing { members, topics, subscribers, assigned, load };
    sharing.share_out(|one| !taken.contains(&one));
    sharing.even_out();
    sharing.assigned
}

impl Sharing<'_> {
    /// Gives what is free to whoever has least, if it can be to one that is near; topics that few want first.
    fn share_out(&mut self, is_free: impl Fn((TopicId, i32)) -> bool) {
        let mut order: Vec<TopicId> = self.subscribers.keys().copied().collect();
        order.sort_by_key(|topic| (self.subscribers[topic].len(), *topic));
        for topic in order {
            let mut least = Least::default();
            for at in &self.subscribers[&topic] {
                least.insert((self.load[*at], *at), self.members[*at].rack);
            }
            let count = self.topics.get(&topic).map_or(0, |spec| spec.partitions);
            for partition in (0..count).filter(|partition| is_free((topic, *partition))) {
                let found = least.take(racks_of(self.topics, (topic, partition)));
                let ((load, at), rack) = found.expect("invariant: only topics with subscribers are here");
                give(&mut self.assigned[at], topic, partition);
                self.load[at] = load + 1;
                least.insert((load + 1, at), rack);
            }
        }
    }

    fn even_out(&mut self) {
        let mut is_done = vec![false; self.members.len()];
        let mut fullest: BinaryHeap<(usize, Reverse<usize>)> =
            self.load.iter().enumerate().map(|(at, load)| (*load, Reverse(at))).collect();
        while let Some((load, Reverse(at))) = fullest.pop() {
            if is_done[at] || load != self.load[at] {
                continue;
            }
            match self.chain_from(at) {
                Ok(chain) => {
                    let last = self.pass_on(at, &chain);
                    fullest.push((self.load[at], Reverse(at)));
                    fullest.push((self.load[last], Reverse(last)));
                }
                Err(reached) => reached.into_iter().for_each(|at| is_done[at] = true),
            }
        }
    }

    /// The shortest chain from a member to one that has at least two fewer: which topic goes to whom. Else, who can be reached.
    fn chain_from(&self, from: usize) -> Result<Vec<(TopicId, usize)>, Vec<usize>> {
        // By whom, and with which topic, each was reached.
        let mut reached: BTreeMap<usize, Option<(usize, TopicId)>> = BTreeMap::from([(from, None)]);
        let mut seen_topics: BTreeMap<TopicId, ()> = BTreeMap::new();
        let mut next = VecDeque::from([from]);
        while let Some(at) = next.pop_front() {
            for topic in self.assigned[at].keys() {
                if seen_topics.insert(*topic, ()).is_some() {
                    continue;
                }
                for other in &self.subscribers[topic] {
                    if reached.contains_key(other) {
                        continue;
                    }
                    reached.insert(*other, Some((at, *topic)));
                    if self.load[*other] + 2 <= self.load[from] {
                        return Ok(chain_to(*other, &reached));
                    }
                    next.push_back(*other);
                }
            }
        }
        Err(reached.into_keys().collect())
    }

    /// Each passes one partition to the next; gives the last.
    fn pass_on(&mut self, from: usize, chain: &[(TopicId, usize)]) -> usize {
        let mut at = from;
        for (topic, to) in chain {
            let (members, topics) = (self.members, self.topics);
            let partitions = self.assigned[at].get_mut(topic).expect("invariant: who passes on a topic has some of it");
            let before = members[*to].before.get(topic);
            // What the receiver once had rather than anything else, then what it is near to.
            let back = partitions.iter().find(|one| before.is_some_and(|before| before.contains(one))).copied();
            let near = || partitions.iter().find(|one| is_near(&members[*to], topics, (*topic, **one))).copied();
            let partition = back.or_else(near).or_else(|| partitions.last().copied());
            let partition = partition.expect("invariant: no topic is empty");
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.assigned[at].remove(topic);
            }
            give(&mut self.assigned[*to], *topic, partition);
            at = *to;
        }
        self.load[from] -= 1;
        self.load[at] += 1;
        at
    }
}

/// Members by how much they have, and those of each rack by themselves.
#[derive(Default)]
struct Least<'m> {
    all: BTreeMap<(usize, usize), Option<&'m str>>,
    of_rack: BTreeMap<&'m str, BTreeSet<(usize, usize)>>,
}

impl<'m> Least<'m> {
    fn insert(&mut self, one: (usize, usize), rack: Option<&'m str>) {
        self.all.insert(one, rack);
        if let Some(rack) = rack {
            self.of_rack.entry(rack).or_default().insert(one);
        }
    }

    /// Takes one of those with least out, of them one in these racks if there is any; gives its rack, too.
    fn take(&mut self, racks: Option<&BTreeSet<String>>) -> Option<((usize, usize), Option<&'m str>)> {
        let first = *self.all.first_key_value()?.0;
        let of_racks = racks.into_iter().flatten().filter_map(|rack| self.of_rack.get(rack.as_str())?.first());
        let near = of_racks.filter(|(load, _)| *load == first.0).min().copied();
        let one = near.unwrap_or(first);
        let rack = self.all.remove(&one)?;
        if let Some(of_rack) = rack.and_then(|rack| self.of_rack.get_mut(rack)) {
            of_rack.remove(&one);
        }
        Some((one, rack))
    }
}

fn chain_to(last: usize, reached: &BTreeMap<usize, Option<(usize, TopicId)>>) -> Vec<(TopicId, usize)> {
    let (mut at, mut chain) = (last, Vec::new());
    while let Some(Some((before, topic))) = reached.get(&at) {
        chain.push((*topic, at));
        at = *before;
    }
    chain.reverse();
    chain
}
