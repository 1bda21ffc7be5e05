//! From one protocol to the other while members go on working (`group.consumer.migration.policy`): a classic group becomes one of the
//! new protocol when the first member of that comes, and a classic one again when the last of them has gone.

use super::assign::Partitions;
use super::classic_members::{names_of, of_names};
use super::member::{Classic, Current, Member, MemberState, Profile};
use super::record::Record;
use super::{Env, Group, Limits, State, Stored};
use crate::cluster::image::ClusterImage;
use crate::group::classic::{self, CONSUMER, GroupRecord, MemberRecord};
use crate::group::subscription;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Which way groups may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub upgrades: bool,
    pub downgrades: bool,
}

impl Policy {
    /// As `group.consumer.migration.policy` has it, in any case.
    pub fn parse(text: &str) -> Policy {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        let both = is("bidirectional");
        Policy { upgrades: both || is("upgrade"), downgrades: both || is("downgrade") }
    }
}

/// A group of the new protocol that is a classic one from now on.
pub struct Downgraded {
    pub record: GroupRecord,
    /// Its members are to share anew. They need not where a static member of the classic protocol has taken the place of the last
    /// one of the new protocol, and everybody has what he is to have.
    pub rebalances: bool,
}

impl Group {
    /// A classic group as one of the new protocol, with the records that make it; None if it cannot become one. What its members
    /// had is theirs, and its generation is the epoch.
    ///
    /// So is what they said they had when they joined, unless another was given it since: in the midst of a rebalance there is no
    /// assignment, and after it a cooperative member has still to give up what it did not get. Kafka goes by the assignment alone; what such a
    /// member reads from, and commits for, is another's at once.
    pub fn of_classic(classic: &classic::Group, env: &Env<'_>, now_ms: i64) -> Option<(Group, Vec<Record>)> {
        let may = env.limits.policy.upgrades
            && classic.protocol_type() == Some(CONSUMER)
            && classic.members().len() <= env.limits.members_max;
        if !may {
            return None;
        }
        let epoch = classic.generation();
        let (mut profiles, mut targets, mut currents) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken = BTreeSet::new();
        // Whatever an assignor in a client did: a partition has one owner.
        let mut take = |own: &mut Partitions, from: Partitions| {
            for (topic, partitions) in from {
                let first: BTreeSet<i32> = partitions.into_iter().filter(|one| taken.insert((topic, *one))).collect();
                if !first.is_empty() {
                    own.entry(topic).or_default().extend(first);
                }
            }
        };
        let (mut members, mut owns) = (Vec::new(), Vec::new());
        for member in classic.members().iter() {
            let known = of_member(member, classic.protocol(), env.image)?;
            let mut own = Partitions::new();
            take(&mut own, known.assigned);
            members.push((member, known.profile, own));
            owns.push(known.owned);
        }
        for ((member, profile, mut own), owned) in members.into_iter().zip(owns) {
            take(&mut own, owned);
            let state = MemberState::Stable;
            let current =
                Current { epoch, previous_epoch: epoch, state, assigned: own.clone(), revoking: Partitions::new() };
            profiles.push(Record::Member(member.id.clone(), Some(Rc::new(profile))));
            targets.push(Record::Target(member.id.clone(), Some(own)));
            currents.push(Record::Current(member.id.clone(), Some(Rc::new(current))));
        }
        let mut records = profiles;
        records.push(Record::Epoch(Some(epoch)));
        records.extend(targets);
        records.push(Record::AssignmentEpoch(Some(epoch)));
        records.extend(currents);
        let mut stored = Stored::default();
        records.iter().cloned().for_each(|record| stored.take(record));
        Some((Group::restored(stored, env.limits, now_ms), records))
    }

    /// Only members of the classic protocol are left, and the group may become a classic one.
    pub(super) fn is_to_be_classic(&self, limits: &Limits, classic_max: usize) -> bool {
        limits.policy.downgrades
            && !self.members.is_empty()
            && self.members.len() <= classic_max
            && self.members.values().all(Member::is_classic)
    }

    /// What the group is as a classic one, if it is to be one now.
    pub fn downgraded(&self, env: &Env<'_>, classic_max: usize, now_ms: i64) -> Option<Downgraded> {
        let rebalances = self.state() != State::Stable;
        self.is_to_be_classic(env.limits, classic_max).then(|| {
            let mut record = self.to_classic(env.image, now_ms);
            if rebalances {
                // Who loads it has its members share anew as well: what the one that went had is nobody's.
                record.leader = None;
            }
            Downgraded { record, rebalances }
        })
    }

    /// The group as a classic one's record has it. The generation is the newest that any of them
    /// knows: that somebody went has raised the group's epoch, and none could commit any more before it has joined again.
    pub(super) fn to_classic(&self, image: &ClusterImage, now_ms: i64) -> GroupRecord {
        let all: Vec<(&Member, &Classic)> =
            self.members.values().filter_map(|member| Some((member, member.profile.classic.as_ref()?))).collect();
        let is_common = |name: &&str| all.iter().all(|(_, classic)| classic.names().any(|known| known == *name));
        let protocol = all.first().and_then(|(_, classic)| classic.names().find(is_common)).map(str::to_owned);
        let member = |(member, classic): &(&Member, &Classic)| {
            let of_protocol = classic.protocols.iter().find(|(name, _)| Some(name) == protocol.as_ref());
            let metadata = of_protocol.or(classic.protocols.first()).map(|(_, metadata)| metadata.clone());
            let metadata = metadata.unwrap_or_default();
            let version = subscription::read(&metadata).map_or(0, |subscription| subscription.version);
            let assigned = names_of(&member.current.assigned, image);
            MemberRecord {
                member_id: member.id.to_string(),
                instance_id: member.profile.instance_id.clone(),
                client_id: member.profile.client_id.clone(),
                client_host: member.profile.client_host.clone(),
                rebalance_timeout_ms: member.profile.rebalance_timeout_ms,
                session_timeout_ms: classic.session_timeout_ms,
                subscription: metadata,
                assignment: subscription::write_assignment(version, &assigned),
            }
        };
        GroupRecord {
            protocol_type: CONSUMER.to_owned(),
            generation: all.iter().map(|(member, _)| member.epoch()).fold(0, i32::max),
            leader: all.first().map(|(member, _)| member.id.to_string()),
            state_since_ms: now_ms,
            members: all.iter().map(member).collect(),
            protocol,
        }
    }
}

/// A member of a classic group: what it told, what it was given and what it had when it joined, as far as that exists.
struct Known {
    profile: Profile,
    assigned: Partitions,
    owned: Partitions,
}

fn of_member(member: &classic::Member, protocol: Option<&str>, image: &ClusterImage) -> Option<Known> {
    let told = match protocol {
        Some(protocol) => member.metadata(protocol),
        None => member.protocols().first().map(|(_, metadata)| metadata.clone())?,
    };
    let subscription = subscription::read(&told)?;
    let existing = |named: &subscription::Named| {
        let mut existing = of_names(named, image);
        for (topic, partitions) in &mut existing {
            let count = image.topic_by_id(*topic).map_or(0, |topic| topic.partitions.len());
            partitions.retain(|partition| usize::try_from(*partition).is_ok_and(|partition| partition < count));
        }
        existing
    };
    let assigned = existing(&subscription::read_assignment(&member.assignment)?);
    let owned = existing(&subscription.owned);
    let profile = Profile {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topics: subscription.topics.into_iter().collect(),
        regex: None,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        assignor: None,
        classic: Some(Classic {
            session_timeout_ms: member.session_timeout_ms,
            protocols: member.protocols().to_vec(),
        }),
    };
    Some(Known { profile, assigned, owned })
}
