//! Static members of the classic protocol (KIP-345): those who come again under another id, in each state of the group, and the ones
//! that they put out.

use super::group_members::{
    Ids, Versions, await_rebalance, begin, gather, joined, protocol, rejoin, sync_all, sync_group,
};
use super::groups::{NEWEST, SUBSCRIPTION, commit, describe, heartbeat, id, join, leave, offsets, sync};
use crate::pair::Pair;
use crate::requests::text;
use anyhow::Result;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{JoinGroupRequest, LeaveGroupRequest, OffsetFetchRequest};

/// From here on a member may be static: of JoinGroup and, as a round has other APIs in no newer version, of those.
const STATIC_SINCE: i16 = 5;
const COMMIT_STATIC_SINCE: i16 = 7;

pub fn script(pair: &mut Pair) -> Result<()> {
    for round in STATIC_SINCE..=NEWEST {
        let mut versions = Versions::of(pair, round);
        versions.commit = versions.commit.max(COMMIT_STATIC_SINCE);
        fenced(pair, round, versions)?;
        replaced(pair, round, versions)?;
        left(pair, round, versions)?;
    }
    Ok(())
}

fn of(group: &str, instance: &str) -> JoinGroupRequest {
    join(group, "").with_group_instance_id(Some(text(instance)))
}

/// Whoever speaks in the name of an instance under an id that is not its.
fn fenced(pair: &mut Pair, round: i16, versions: Versions) -> Result<()> {
    let group = format!("fenced-{round}");
    pair.case("group-static-fenced");
    let ids = gather(pair, versions, &[of(&group, "i")])?;
    let own = |side: usize| ids[0][side].clone();
    // In the state in which its assignment is awaited, and when it has it.
    for synced in [false, true] {
        let instance = |name: &str| Some(text(name)).filter(|name| !name.is_empty());
        for (name, is_own) in [("i", false), ("j", true), ("j", false), ("", false)] {
            let id = |side: usize| if is_own { own(side) } else { "other".to_owned() };
            let by = |side: usize| (id(side), instance(name));
            told(pair, versions, &group, by)?;
            pair.same(versions.join, |side| join(&group, &id(side.index)).with_group_instance_id(instance(name)))?;
            pair.same(versions.leave, |side| {
                let member = MemberIdentity::default().with_member_id(text(&id(side.index)));
                let member = member.with_group_instance_id(instance(name));
                LeaveGroupRequest::default().with_group_id(super::groups::id(&group)).with_members(vec![member])
            })?;
        }
        if !synced {
            sync_group(pair, versions, &group, &ids, 1)?;
        }
        // With its instance, and without one.
        for name in ["i", ""] {
            told(pair, versions, &group, |side| (own(side), instance(name)))?;
        }
    }
    pair.same(versions.describe, |_| describe(&group)).map(drop)
}

/// What a member of generation 1 is told that calls itself so.
fn told(
    pair: &mut Pair,
    versions: Versions,
    group: &str,
    by: impl Fn(usize) -> (String, Option<kafka_protocol::protocol::StrBytes>),
) -> Result<()> {
    pair.same(versions.heartbeat, |side| {
        let (id, instance) = by(side.index);
        heartbeat(group, &id, 1).with_group_instance_id(instance)
    })?;
    pair.same(versions.sync, |side| {
        let (id, instance) = by(side.index);
        sync(versions.sync, group, &id, 2).with_group_instance_id(instance)
    })?;
    pair.same(versions.commit, |side| {
        let (id, instance) = by(side.index);
        commit(group, &id, 1, 5).with_group_instance_id(instance)
    })?;
    Ok(())
}

/// An instance comes again under a new id.
fn replaced(pair: &mut Pair, round: i16, versions: Versions) -> Result<()> {
    let group = format!("replaced-{round}");
    pair.case("group-static-replaced");
    let members = [of(&group, "i"), of(&group, "j")];
    let mut ids = gather(pair, versions, &members)?;
    sync_group(pair, versions, &group, &ids, 2)?;
    // A follower, then the leader, of a group at rest: nobody else notices.
    for number in [1, 0] {
        let before = ids[number].clone();
        ids[number] =
            pair.same(versions.join, |_| members[number].clone())?.each(|answer| answer.member_id.to_string());
        as_the_one_before(pair, versions, &group, (&before, number), 2)?;
        pair.same(versions.sync, |side| sync_all(versions.sync, &group, number, &ids, side.index, 2))?;
        pair.same(versions.describe, |_| describe(&group))?;
        pair.same(versions.heartbeat, |side| heartbeat(&group, &ids[1 - number][side.index], 2))?;
    }

    // One that knows another protocol only: all join anew.
    pair.case("group-static-replaced-otherwise");
    let other = of(&group, "j").with_protocols(vec![protocol("roundrobin", SUBSCRIPTION)]);
    let before = ids[1].clone();
    let waiting = pair.start(1, versions.join, |_| other.clone())?;
    await_rebalance(pair, &group, &ids[0], 2)?;
    as_the_one_before(pair, versions, &group, (&before, 1), 2)?;
    // Once more before the others are there: the first asking has nobody behind it.
    let again = pair.start(2, versions.join, |_| other.clone())?;
    joined(pair, waiting)?;
    pair.same(versions.describe, |_| describe(&group))?;
    let leader = rejoin(pair, versions.join, &members[..1], &ids[..1])?;
    ids[1] = joined(pair, again)?;
    for pending in leader {
        joined(pair, pending)?;
    }

    // While assignments are awaited: of the one who waits for one, and of the leader.
    pair.case("group-static-replaced-completing");
    for (number, generation) in [(1, 3), (0, 4)] {
        let before = ids[number].clone();
        let newest = pair.start(2, versions.join, |_| if number == 1 { other.clone() } else { members[0].clone() })?;
        await_rebalance(pair, &group, &ids[1 - number], generation)?;
        as_the_one_before(pair, versions, &group, (&before, number), generation)?;
        let request = if number == 1 { members[0].clone() } else { other.clone() };
        let rest =
            pair.start(1, versions.join, |side| request.clone().with_member_id(text(&ids[1 - number][side.index])))?;
        ids[number] = joined(pair, newest)?;
        joined(pair, rest)?;
        pair.same(versions.describe, |_| describe(&group))?;
    }
    Ok(())
}

/// What one hears whose instance has come again under another id.
fn as_the_one_before(
    pair: &mut Pair,
    versions: Versions,
    group: &str,
    (ids, number): (&Ids, usize),
    generation: i32,
) -> Result<()> {
    let instance = Some(text(["i", "j"][number]));
    for instance in [instance, None] {
        pair.same(versions.heartbeat, |side| {
            heartbeat(group, &ids[side.index], generation).with_group_instance_id(instance.clone())
        })?;
        pair.same(versions.sync, |side| {
            sync(versions.sync, group, &ids[side.index], generation).with_group_instance_id(instance.clone())
        })?;
        pair.same(versions.commit, |side| {
            commit(group, &ids[side.index], generation, 5).with_group_instance_id(instance.clone())
        })?;
        pair.same(versions.join, |side| join(group, &ids[side.index]).with_group_instance_id(instance.clone()))?;
    }
    Ok(())
}

/// Leaving by the instance's name, which is how tools put members out, and several at once.
fn left(pair: &mut Pair, round: i16, versions: Versions) -> Result<()> {
    let group = format!("left-{round}");
    pair.case("group-static-left");
    let ids = gather(pair, versions, &[of(&group, "i"), of(&group, "j"), join(&group, "")])?;
    sync_group(pair, versions, &group, &ids, 3)?;
    let named = |id: &str, instance: &str| {
        let member = MemberIdentity::default().with_member_id(text(id));
        member.with_group_instance_id(Some(text(instance)).filter(|name| !name.is_empty()))
    };
    let all_of = |members| LeaveGroupRequest::default().with_group_id(id(&group)).with_members(members);
    pair.same(versions.leave, |side| {
        let other = &ids[0][side.index];
        all_of(vec![
            named("", "nobody"),
            named("other", "i"),
            named(other, "j"),
            named(other, "nobody"),
            named("", "j"),
        ])
    })?;
    pair.same(versions.heartbeat, |side| heartbeat(&group, &ids[0][side.index], 3))?;
    pair.same(versions.describe, |_| describe(&group))?;
    pair.same(versions.leave, |side| {
        all_of(vec![named("", "i"), named("", "i"), named(&ids[2][side.index], ""), named(&ids[2][side.index], "i")])
    })?;
    pair.same(versions.describe, |_| describe(&group))?;
    pair.same(versions.leave, |_| leave(versions.leave, &group, "nobody"))?;
    // Kafka forgets what an empty group has not committed to.
    let version = pair.newest::<OffsetFetchRequest>();
    pair.same(version, |_| offsets(version, &group, None))?;
    // And come again as if they had never been there.
    let again = begin(pair, 0, versions.join, &of(&group, "i"))?;
    joined(pair, again)?;
    pair.same(versions.describe, |_| describe(&group)).map(drop)
}
