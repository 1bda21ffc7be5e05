//! `range`: each member gets one range of every topic that it has subscribed to. Those with an instance id come first, in the order of
//! these ids, the others in the order of member ids: so who has subscribed to the same topics gets the same partitions of each.

use super::{MemberSpec, Partitions, Topics};
use crate::base::ids::TopicId;
use std::collections::BTreeMap;

pub fn assign(members: &[MemberSpec<'_>], topics: &Topics) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| {
        let member = &members[*at];
        (member.instance_id.is_none(), member.instance_id, member.id)
    });
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for at in order {
        for topic in &members[at].topics {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let mut assigned = vec![Partitions::new(); members.len()];
    for (topic, subscribers) in subscribers {
        let partitions = topics.get(&topic).map_or(0, |spec| spec.partitions);
        let count = i32::try_from(subscribers.len()).expect("invariant: a group has fewer members than i32 can count");
        let (each, extra) = (partitions / count, partitions % count);
        let mut next = 0;
        for (place, at) in (0..).zip(subscribers) {
            let end = next + each + i32::from(place < extra);
            if next < end {
                assigned[at].insert(topic, (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}
