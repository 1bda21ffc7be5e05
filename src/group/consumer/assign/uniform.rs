//! `uniform` where all members have subscribed to the same topics: nobody has more than one partition more than anybody else. What
//! fits into a member's share stays where it is; the rest goes to members in its rack as far as they have room, then to anybody.

use super::{MemberSpec, Partitions, Topics, give, is_near, kept, racks_of};
use crate::base::ids::TopicId;
use std::collections::{BTreeMap, VecDeque};

pub fn assign(members: &[MemberSpec<'_>], topics: &Topics) -> Vec<Partitions> {
    let subscribed = &members[0].topics;
    let count = |topic: &TopicId| topics.get(topic).map_or(0, |spec| spec.partitions);
    let total: usize = subscribed.iter().map(|topic| count(topic).max(0) as usize).sum();
    let (each, mut extra) = (total / members.len(), total % members.len());

    let (kept, mut taken) = kept(members, topics);
    let mut assigned = vec![Partitions::new(); members.len()];
    let mut room = Vec::with_capacity(members.len());
    for (at, mut kept) in kept.into_iter().enumerate() {
        let takes_extra = kept.len() > each && extra > 0;
        extra -= usize::from(takes_extra);
        let share = each + usize::from(takes_extra);
        if kept.len() > share {
            // Those that are near stay rather than others.
            kept.sort_by_key(|one| !is_near(&members[at], topics, *one));
        }
        for gone in kept.split_off(kept.len().min(share)) {
            taken.remove(&gone);
        }
        room.push(share - kept.len());
        kept.into_iter().for_each(|(topic, partition)| give(&mut assigned[at], topic, partition));
    }
    // Shares with one more than the others that nobody has filled by what he had.
    for (at, room) in room.iter_mut().enumerate() {
        let has: usize = assigned[at].values().map(|partitions| partitions.len()).sum();
        if extra > 0 && has + *room == each {
            *room += 1;
            extra -= 1;
        }
    }
    let all = subscribed.iter().flat_map(|topic| (0..count(topic)).map(|partition| (*topic, partition)));
    let free: Vec<(TopicId, i32)> = all.filter(|one| !taken.contains(one)).collect();
    let rest = fill_racks(members, topics, (&mut assigned, &mut room), free);
    let mut open: VecDeque<usize> = (0..members.len()).filter(|at| room[*at] > 0).collect();
    for (topic, partition) in rest {
        let at = open.pop_front().expect("invariant: the rooms add up to what is free");
        give(&mut assigned[at], topic, partition);
        room[at] -= 1;
        if room[at] > 0 {
            open.push_back(at);
        }
    }
    assigned
}

/// Gives partitions to members in a rack that has a replica, in turn; returns what nobody is near to.
fn fill_racks(
    members: &[MemberSpec<'_>],
    topics: &Topics,
    (assigned, room): (&mut [Partitions], &mut [usize]),
    free: Vec<(TopicId, i32)>,
) -> Vec<(TopicId, i32)> {
    let mut open: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate().filter(|(at, _)| room[*at] > 0) {
        if let Some(rack) = member.rack {
            open.entry(rack).or_default().push_back(at);
        }
    }
    let mut give_near = |(topic, partition): (TopicId, i32)| {
        let racks = racks_of(topics, (topic, partition))?;
        let queue = racks.iter().find(|rack| open.get(rack.as_str()).is_some_and(|open| !open.is_empty()))?;
        let queue = open.get_mut(queue.as_str())?;
        let at = queue.pop_front()?;
        give(&mut assigned[at], topic, partition);
        room[at] -= 1;
        if room[at] > 0 {
            queue.push_back(at);
        }
        Some(())
    };
    free.into_iter().filter(|one| give_near(*one).is_none()).collect()
}
