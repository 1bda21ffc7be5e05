//! A member's way from what it has to what it is to have.
//!
//! ```text
//!             has to give something up                       has said that it did
//!   Stable ─────────────────────────────▶ Unrevoked ──────────────────────────────┐
//!     ▲  │ something is not free yet                  something is not free yet   │
//!     │  └────────────────────────────▶ Unreleased ◀──────────────────────────────┤
//!     │          all of it is free           │                                    │
//!     └──────────────────────────────────────┴────────────────────────────────────┘
//! ```
//!
//! First a member gives up, in its old epoch, what it is not to have any more; only then it comes to the new epoch and gets what
//! nobody else holds. What others still hold it gets piece by piece, as they give it up. So no partition ever has two owners.

use super::assign::Partitions;
use super::member::{Current, Member, MemberState};
use crate::base::ids::TopicId;

/// Where the member is to come to.
pub struct Goal<'g> {
    pub epoch: i32,
    pub target: &'g Partitions,
    /// What the member says it has; None: it says nothing.
    pub owned: Option<&'g Partitions>,
    /// Whether nobody but this member holds a partition.
    pub is_free: &'g dyn Fn(TopicId, i32) -> bool,
}

/// The member's next step; None: it stays where it is.
pub fn reconcile(member: &Member, goal: &Goal<'_>) -> Option<Current> {
    let current = &*member.current;
    if member.is_reconciled_to(goal.epoch) {
        return None;
    }
    let next = match current.state {
        MemberState::Stable => step(current, current.epoch, goal),
        // Until it has given up what it has to, it goes nowhere.
        MemberState::Unrevoked if still_owns(goal.owned, &current.revoking) => return None,
        // Epochs may have passed meanwhile: it catches up with what comes next, and is asked for more if there is more.
        MemberState::Unrevoked => step(current, current.epoch + 1, goal),
        MemberState::Unreleased => step(current, current.epoch, goal),
    };
    Some(next).filter(|next| next != current)
}

/// From what it has assigned, at this epoch, to the goal or as far as it can go.
fn step(current: &Current, epoch: i32, goal: &Goal<'_>) -> Current {
    let (mut assigned, mut revoking) = (Partitions::new(), Partitions::new());
    for (topic, partitions) in &current.assigned {
        for partition in partitions {
            let stays = goal.target.get(topic).is_some_and(|target| target.contains(partition));
            let to = if stays { &mut assigned } else { &mut revoking };
            to.entry(*topic).or_default().insert(*partition);
        }
    }
    let base = |state, assigned, revoking| {
        let (epoch_before, previous) = (current.epoch, current.previous_epoch);
        Current { epoch: epoch_before, previous_epoch: previous, state, assigned, revoking }
    };
    if !revoking.is_empty() && still_owns(goal.owned, &revoking) {
        return moved(base(MemberState::Unrevoked, assigned, revoking), epoch);
    }
    let mut waits = false;
    for (topic, partitions) in goal.target {
        for partition in partitions {
            if assigned.get(topic).is_some_and(|assigned| assigned.contains(partition)) {
                continue;
            }
            match (goal.is_free)(*topic, *partition) {
                true => drop(assigned.entry(*topic).or_default().insert(*partition)),
                false => waits = true,
            }
        }
    }
    let state = if waits { MemberState::Unreleased } else { MemberState::Stable };
    moved(base(state, assigned, Partitions::new()), goal.epoch)
}

/// An answer that told of a new epoch may be lost, and the member come again with the one before: it is kept until the next.
fn moved(current: Current, epoch: i32) -> Current {
    if epoch == current.epoch { current } else { current.with_epoch(epoch) }
}

/// Whether the member has any of these, as far as it says; one that says nothing is taken to have them.
fn still_owns(owned: Option<&Partitions>, of: &Partitions) -> bool {
    let Some(owned) = owned else { return true };
    let shares = |(topic, partitions): (&TopicId, &std::collections::BTreeSet<i32>)| {
        owned.get(topic).is_some_and(|owned| partitions.iter().any(|partition| owned.contains(partition)))
    };
    of.iter().any(shares)
}
