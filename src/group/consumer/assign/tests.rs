//! What every assignment must be, for any group.

use super::*;
use crate::base::ids::Uuid;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
struct World {
    /// Partitions of each topic.
    topics: Vec<i32>,
    /// Which topics each member wants.
    wants: Vec<Vec<usize>>,
    /// To which member each partition went before, by topic.
    before: Vec<Vec<Option<usize>>>,
    /// Each member's rack, the next ones none.
    racks: Vec<Option<u8>>,
    /// The racks that have a replica of each partition, by topic; nobody knows of the next ones.
    replicas: Vec<Vec<BTreeSet<u8>>>,
}

fn rack(number: u8) -> String {
    format!("rack-{number}")
}

fn topic(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(number as u128 + 1))
}

impl World {
    fn topics(&self) -> Topics {
        let racks = |of: &BTreeSet<u8>| of.iter().copied().map(rack).collect();
        let racks = |number: usize| self.replicas.get(number).into_iter().flatten().map(racks).collect();
        let spec = |number, partitions: &i32| TopicSpec { partitions: *partitions, racks: racks(number) };
        self.topics.iter().enumerate().map(|(number, partitions)| (topic(number), spec(number, partitions))).collect()
    }

    fn is_near(&self, at: usize, number: usize, partition: i32) -> bool {
        let replicas = self.replicas.get(number).and_then(|all| all.get(partition as usize));
        let of_member = self.racks.get(at).copied().flatten();
        of_member.is_some_and(|rack| replicas.is_some_and(|replicas| replicas.contains(&rack)))
    }

    fn had(&self) -> Vec<Partitions> {
        let mut had = vec![Partitions::new(); self.wants.len()];
        for (number, owners) in self.before.iter().enumerate() {
            for (partition, owner) in (0..).zip(owners) {
                if let Some(owner) = owner.filter(|owner| *owner < had.len()) {
                    give(&mut had[owner], topic(number), partition);
                }
            }
        }
        had
    }

    fn assign(&self, assignor: Assignor, had: &[Partitions]) -> Vec<Partitions> {
        let ids: Vec<String> = (0..self.wants.len()).map(|at| format!("member-{at:03}")).collect();
        let racks: Vec<Option<String>> =
            (0..ids.len()).map(|at| self.racks.get(at).copied().flatten().map(rack)).collect();
        let member = |at: usize| MemberSpec {
            id: &ids[at],
            instance_id: None,
            rack: racks[at].as_deref(),
            topics: self.wants[at].iter().copied().collect::<BTreeSet<_>>().into_iter().map(topic).collect(),
            before: &had[at],
        };
        let members: Vec<MemberSpec<'_>> = (0..ids.len()).map(member).collect();
        let assigned = assignor.assign(&members, &self.topics());
        self.check(&members, &assigned);
        assigned
    }

    /// Every partition that somebody wants has one owner, who wants it, and no other has any.
    fn check(&self, members: &[MemberSpec<'_>], assigned: &[Partitions]) {
        assert_eq!(assigned.len(), members.len());
        let mut owned = BTreeSet::new();
        for (member, partitions) in members.iter().zip(assigned) {
            for (topic, partitions) in partitions {
                assert!(member.topics.contains(topic) && !partitions.is_empty());
                assert!(partitions.iter().all(|partition| owned.insert((*topic, *partition))), "two owners");
            }
        }
        let wanted = |number: &usize| members.iter().any(|member| member.topics.contains(&topic(*number)));
        let all: BTreeSet<(TopicId, i32)> = (0..self.topics.len())
            .filter(wanted)
            .flat_map(|number| (0..self.topics[number]).map(move |partition| (topic(number), partition)))
            .collect();
        assert_eq!(owned, all);
    }
}

fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn moved(before: &[Partitions], after: &[Partitions]) -> usize {
    let gone = |(before, after): (&Partitions, &Partitions)| {
        let is_gone = |topic: &TopicId, partition: &i32| !after.get(topic).is_some_and(|left| left.contains(partition));
        before.iter().map(|(topic, had)| had.iter().filter(|one| is_gone(topic, one)).count()).sum::<usize>()
    };
    before.iter().zip(after).map(gone).sum()
}

fn world(members: usize, same: bool) -> impl Strategy<Value = World> {
    let topics = proptest::collection::vec(0..7_i32, 1..5);
    (topics, 1..members).prop_flat_map(move |(topics, members)| {
        let number = topics.len();
        let wants = match same {
            true => Just(vec![(0..number).collect::<Vec<_>>(); members]).boxed(),
            false => proptest::collection::vec(proptest::collection::vec(0..number, 0..4), members).boxed(),
        };
        let owners = |partitions: &i32| {
            // Some were of members that are gone, or of partitions that are.
            proptest::collection::vec(proptest::option::of(0..members + 2), 0..(*partitions as usize + 2))
        };
        let before = topics.iter().map(owners).collect::<Vec<_>>();
        let racks = proptest::collection::vec(proptest::option::of(0..3_u8), 0..=members);
        let replicas = proptest::collection::vec(
            proptest::collection::vec(proptest::collection::btree_set(0..4_u8, 0..3), 0..9),
            0..=number,
        );
        (Just(topics), wants, before, racks, replicas).prop_map(|(topics, wants, before, racks, replicas)| World {
            topics,
            wants,
            before,
            racks,
            replicas,
        })
    })
}

/// The least sum of squares of what members have, by trying everything.
fn evenest(world: &World) -> usize {
    let mut states: BTreeSet<Vec<usize>> = BTreeSet::from([vec![0; world.wants.len()]]);
    for (number, partitions) in world.topics.iter().enumerate() {
        let wanting: Vec<usize> = (0..world.wants.len()).filter(|at| world.wants[*at].contains(&number)).collect();
        if wanting.is_empty() {
            continue;
        }
        for _ in 0..*partitions {
            let mut next = BTreeSet::new();
            for load in &states {
                for at in &wanting {
                    let mut load = load.clone();
                    load[*at] += 1;
                    next.insert(load);
                }
            }
            states = next;
        }
    }
    states.iter().map(|load| load.iter().map(|one| one * one).sum()).min().expect("there is one")
}

proptest! {
    #[test]
    fn uniform_is_even_and_moves_no_more_than_it_must(world in world(9, true)) {
        let had = world.had();
        let assigned = world.assign(Assignor::Uniform, &had);
        let loads: Vec<usize> = assigned.iter().map(count).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{loads:?}");
        // Of what exists still, each can keep its share, and as many as there are over one more.
        let exists = |topic: &TopicId, partition: i32| world.topics().get(topic).is_some_and(|spec| partition < spec.partitions);
        let kept = |had: &Partitions| had.iter().map(|(t, had)| had.iter().filter(|p| exists(t, **p)).count()).sum::<usize>();
        let kept: Vec<usize> = had.iter().map(kept).collect();
        let total: usize = loads.iter().sum();
        let (each, extra) = (total / loads.len(), total % loads.len());
        let above = kept.iter().filter(|kept| **kept > each).count().min(extra);
        let can_stay = kept.iter().map(|kept| (*kept).min(each)).sum::<usize>() + above;
        let all_had: usize = had.iter().map(count).sum();
        prop_assert_eq!(moved(&had, &assigned), all_had - can_stay);
        prop_assert_eq!(world.assign(Assignor::Uniform, &assigned), assigned, "nothing moves without a reason");
    }

    /// Who is given something that is far from him has been given nothing that somebody near to it could have had instead.
    #[test]
    fn uniform_gives_what_is_free_to_members_that_are_near(world in world(9, true)) {
        let assigned = world.assign(Assignor::Uniform, &vec![Partitions::new(); world.wants.len()]);
        let all = |at: usize| assigned[at].iter().flat_map(|(topic, numbers)| numbers.iter().map(|one| (*topic, *one)));
        let number = |of: TopicId| (0..world.topics.len()).find(|number| topic(*number) == of).expect("known");
        for at in 0..assigned.len() {
            for (topic, partition) in all(at).filter(|(topic, one)| !world.is_near(at, number(*topic), *one)) {
                for near in (0..assigned.len()).filter(|near| world.is_near(*near, number(topic), partition)) {
                    prop_assert!(all(near).all(|(topic, one)| world.is_near(near, number(topic), one)), "{near} had room");
                }
            }
        }
    }

    #[test]
    fn uniform_is_as_even_as_different_subscriptions_allow(world in world(5, false)) {
        let world = World { topics: world.topics.iter().map(|partitions| *partitions % 4).collect(), ..world };
        let assigned = world.assign(Assignor::Uniform, &world.had());
        let squares = assigned.iter().map(|partitions| count(partitions) * count(partitions)).sum::<usize>();
        prop_assert_eq!(squares, evenest(&world));
    }

    #[test]
    fn uniform_rests_once_it_is_even(world in world(12, false)) {
        let assigned = world.assign(Assignor::Uniform, &world.had());
        prop_assert_eq!(world.assign(Assignor::Uniform, &assigned), assigned);
    }

    /// What a member leaves behind is shared out; nobody else gives up anything.
    #[test]
    fn who_leaves_uniform_disturbs_nobody_else(world in world(9, true), gone in 0..8_usize) {
        let mut had = world.assign(Assignor::Uniform, &world.had());
        let mut rest = world.clone();
        if had.len() > 1 {
            let gone = gone % had.len();
            had.remove(gone);
            rest.wants.remove(gone);
            if gone < rest.racks.len() {
                rest.racks.remove(gone);
            }
            let after = rest.assign(Assignor::Uniform, &had);
            prop_assert_eq!(moved(&had, &after), 0);
        }
    }

    #[test]
    fn range_gives_ranges_and_the_same_of_topics_of_one_size(world in world(9, false)) {
        let assigned = world.assign(Assignor::Range, &world.had());
        for (at, partitions) in assigned.iter().enumerate() {
            for numbers in partitions.values() {
                let (first, last) = (numbers.first().unwrap(), numbers.last().unwrap());
                prop_assert_eq!((last - first + 1) as usize, numbers.len(), "a range");
            }
            for (one, other) in world.wants[at].iter().flat_map(|one| world.wants[at].iter().map(move |other| (one, other))) {
                let wanting = |number: &usize| (0..world.wants.len()).filter(|at| world.wants[*at].contains(number)).collect::<Vec<_>>();
                if world.topics[*one] == world.topics[*other] && wanting(one) == wanting(other) {
                    prop_assert_eq!(partitions.get(&topic(*one)), partitions.get(&topic(*other)), "co-partitioned");
                }
            }
        }
        for number in 0..world.topics.len() {
            let wanting = (0..assigned.len()).filter(|at| world.wants[*at].contains(&number));
            let loads: Vec<usize> = wanting.map(|at| assigned[at].get(&topic(number)).map_or(0, BTreeSet::len)).collect();
            let (least, most) = (loads.iter().min().unwrap_or(&0), loads.iter().max().unwrap_or(&0));
            prop_assert!(most - least <= 1);
        }
    }
}

#[test]
fn range_puts_static_members_first_in_the_order_of_their_instances() {
    let none = Partitions::new();
    let member = |id, instance_id| MemberSpec { id, instance_id, rack: None, topics: vec![topic(0)], before: &none };
    let members = [member("a", None), member("z", Some("i1")), member("b", Some("i2"))];
    let topics = Topics::from([(topic(0), TopicSpec { partitions: 4, racks: Vec::new() })]);
    let assigned = Assignor::Range.assign(&members, &topics);
    let of = |at: usize| assigned[at][&topic(0)].iter().copied().collect::<Vec<_>>();
    assert_eq!((of(1), of(2), of(0)), (vec![0, 1], vec![2], vec![3]));
}

#[test]
fn what_is_free_goes_to_members_that_are_near_as_far_as_they_have_room() {
    let none = Partitions::new();
    let member = |id, rack| MemberSpec { id, instance_id: None, rack, topics: vec![topic(0)], before: &none };
    let members = [member("a", Some("east")), member("b", Some("west")), member("c", None)];
    let racks: Vec<BTreeSet<String>> = ["west", "west", "east", "east", "east", "north"]
        .iter()
        .map(|rack| BTreeSet::from([rack.to_string()]))
        .collect();
    let topics = Topics::from([(topic(0), TopicSpec { partitions: 6, racks })]);
    let assigned = Assignor::Uniform.assign(&members, &topics);
    let of = |at: usize| assigned[at][&topic(0)].iter().copied().collect::<Vec<_>>();
    assert_eq!((of(0), of(1), of(2)), (vec![2, 3], vec![0, 1], vec![4, 5]));
}

/// They have subscribed to different topics: how much each has counts first, then where it is.
#[test]
fn of_members_that_have_as_much_the_near_one_gets_it() {
    let none = Partitions::new();
    let member = |id, rack, topics: &[usize]| MemberSpec {
        id,
        instance_id: None,
        rack: Some(rack),
        topics: topics.iter().copied().map(topic).collect(),
        before: &none,
    };
    let members = [member("a", "east", &[0]), member("b", "west", &[0]), member("c", "north", &[0, 1])];
    let racks = |names: &[&str]| names.iter().map(|name| BTreeSet::from([name.to_string()])).collect();
    let topics = Topics::from([
        (topic(0), TopicSpec { partitions: 4, racks: racks(&["west", "east", "west", "east"]) }),
        (topic(1), TopicSpec { partitions: 2, racks: racks(&["east", "east"]) }),
    ]);
    let assigned = Assignor::Uniform.assign(&members, &topics);
    let of = |at: usize| assigned[at].values().map(|all| all.iter().copied().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!((of(0), of(1), of(2)), (vec![vec![1, 3]], vec![vec![0, 2]], vec![vec![0, 1]]));
}

/// A thousand members and ten thousand partitions are shared out in one go, also where everybody wants something else.
#[test]
fn large_groups_are_shared_out_at_once() {
    for same in [true, false] {
        let wants =
            |at: usize| if same { (0..100).collect() } else { (0..40).map(|n| (at * 7 + n * 3) % 100).collect() };
        let world = World {
            topics: vec![100; 100],
            wants: (0..1000).map(wants).collect(),
            before: vec![vec![]; 100],
            racks: (0..1000).map(|at| Some((at % 5) as u8)).collect(),
            replicas: vec![(0..100_u8).map(|one| BTreeSet::from([one % 5, one % 3])).collect(); 100],
        };
        let assigned = world.assign(Assignor::Uniform, &world.had());
        assert!(assigned.iter().all(|partitions| count(partitions) == 10));
        let rest = World { wants: world.wants[1..].to_vec(), racks: world.racks[1..].to_vec(), ..world.clone() };
        let moved = moved(&assigned[1..], &rest.assign(Assignor::Uniform, &assigned[1..]));
        // Of different topics, no more than what the one that went had.
        assert!(moved <= if same { 0 } else { 10 }, "{moved} moved");
    }
}
