//! Members of the classic protocol in a group of the new one, and groups that go from one protocol to the other.

use super::super::member::LEAVES;
use super::super::*;
use super::stories::{Story, of_t, plain};
use crate::group::classic as classic_group;
use crate::group::classic::{JoinAnswer, JoinRequest, Leaving, MemberClaim, SyncRequest};
use crate::group::subscription;
use bytes::{BufMut, Bytes};

fn subscription(owned: &[i32]) -> Bytes {
    subscription_of(&["t"], &vec![("t".to_owned(), owned.to_vec())])
}

/// A subscription of version 1, which tells what its member has.
pub fn subscription_of(topics: &[&str], owned: &subscription::Named) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    // What is owned looks as it does in an assignment, between version and user data.
    let assignment = subscription::write_assignment(1, owned);
    bytes.put_slice(&assignment[2..assignment.len() - 4]);
    bytes.into()
}

pub fn request(id: &str, owned: &[i32]) -> JoinRequest {
    JoinRequest {
        member_id: id.to_owned(),
        fresh_id: "z".to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), subscription(owned))],
        requires_known_id: true,
        can_skip_assignment: true,
    }
}

fn claim(id: &str, generation: i32) -> MemberClaim {
    MemberClaim { generation, member_id: id.to_owned(), instance_id: None }
}

impl Story {
    fn join_classic(&mut self, request: &JoinRequest) -> Result<JoinAnswer, (String, ResponseError)> {
        let env = Env::new(&self.image, &self.limits);
        let decision = self.group.join_classic(self.now_ms, &env, request)?;
        self.log.extend(decision.records.iter().cloned());
        Ok(self.group.accept(decision))
    }

    /// The partitions that the member fetches.
    fn sync(&mut self, id: &str, generation: i32) -> Result<Vec<i32>, ResponseError> {
        let request =
            SyncRequest { claim: claim(id, generation), protocol_type: None, protocol: None, assignments: Vec::new() };
        let env = Env::new(&self.image, &self.limits);
        let answer = self.group.sync_classic(self.now_ms, &env, &request)?;
        let answer = self.group.accept(answer);
        let named = subscription::read_assignment(&answer.assignment).expect("an assignment");
        answer.error.map_or(Ok(named.into_iter().flat_map(|(_, partitions)| partitions).collect()), Err)
    }

    fn beat_classic(&mut self, id: &str, generation: i32) -> Result<Option<ResponseError>, ResponseError> {
        let env = Env::new(&self.image, &self.limits);
        let decision = self.group.heartbeat_classic(self.now_ms, &env, &claim(id, generation))?;
        Ok(self.group.accept(decision))
    }
}

#[test]
fn a_classic_member_works_beside_one_of_the_new_protocol() {
    let rejoin = Ok(Some(ResponseError::RebalanceInProgress));
    let mut story = Story::new();
    story.join("new");
    let refused = story.join_classic(&request("", &[])).unwrap_err();
    assert_eq!(refused, ("z".to_owned(), ResponseError::MemberIdRequired));
    let joined = story.join_classic(&request("z", &[])).unwrap();
    assert_eq!((joined.generation, joined.protocol.as_deref(), joined.leader), (2, Some("range"), None));
    assert_eq!(story.sync("z", 2), Ok(vec![]), "the other has everything still");
    assert_eq!(story.beat_classic("z", 2), Ok(None));
    story.owns("new", 1, &[0, 1, 2, 3]).unwrap();
    assert_eq!(story.owns("new", 1, &[0, 1]).unwrap().epoch, 2);
    assert_eq!(story.beat_classic("z", 2), rejoin, "now there is something for it");
    let joined = story.join_classic(&request("z", &[])).unwrap();
    assert_eq!(joined.generation, 2);
    assert_eq!(story.sync("z", 2), Ok(vec![2, 3]));
    assert_eq!(story.beat_classic("z", 2), Ok(None));
    assert_eq!(story.group.may_commit("z", 2, false), Ok(()), "it knows of no epochs");
    assert_eq!(story.group.may_commit("z", 1, false), Err(ResponseError::IllegalGeneration));

    // Another one comes: two of its partitions are to go, or one.
    story.join("third");
    assert_eq!(story.beat_classic("z", 2), rejoin);
    assert_eq!(story.sync("z", 2), Err(ResponseError::RebalanceInProgress));
    let joined = story.join_classic(&request("z", &[2, 3])).unwrap();
    assert_eq!(joined.generation, 2, "it has to give up one first");
    assert_eq!(story.sync("z", 2), Ok(vec![2]));
    assert_eq!(story.beat_classic("z", 2), rejoin);
    assert_eq!(story.join_classic(&request("z", &[2])).unwrap().generation, 3);
    assert_eq!(story.sync("z", 3), Ok(vec![2]));
    assert_eq!(story.sync("z", 2), Err(ResponseError::IllegalGeneration));
    assert_eq!(story.sync("new", 2), Err(ResponseError::UnknownMemberId), "that one is not of the classic protocol");
    assert_eq!(story.beat(&plain("third", 3)).unwrap().assignment, Some(of_t(&[3])));

    let leaving = |id: &str| Leaving { member_id: id.to_owned(), instance_id: None };
    assert!(story.group.leaving_classic(&leaving("z")).is_ok());
    assert!(story.group.leaving_classic(&leaving("new")).is_ok(), "an administrator takes it out");
    assert_eq!(story.group.leaving_classic(&leaving("nobody")).err(), Some(ResponseError::UnknownMemberId));
    story.now_ms = 6_000;
    assert_eq!(story.tick(), ["z"], "its own session counts");
}

#[test]
fn a_classic_member_that_does_not_join_or_sync_in_time_is_out() {
    let mut story = Story::new();
    story.join("new");
    story.join_classic(&request("z", &[])).unwrap();
    let beats = |story: &mut Story, until_ms: i64| {
        while story.now_ms < until_ms {
            story.now_ms += 5_000;
            let _ = story.beat_classic("z", 2);
            assert_eq!(story.tick(), if story.now_ms < until_ms { vec![] } else { vec!["z".to_owned()] });
        }
    };
    beats(&mut story, 20_000);
    story.join_classic(&JoinRequest { requires_known_id: false, ..request("", &[]) }).unwrap();
    let generation = story.group.epoch();
    assert_eq!(story.sync("z", generation), Ok(vec![]));
    story.join("third");
    story.now_ms += 1_000;
    for _ in 0..4 {
        assert_eq!(story.beat_classic("z", generation), Ok(Some(ResponseError::RebalanceInProgress)));
        assert!(!story.tick().contains(&"z".to_owned()));
        story.now_ms += 5_000;
    }
    assert!(story.tick().contains(&"z".to_owned()), "it was told to join, and did not");
}

#[test]
fn what_a_group_of_the_new_protocol_refuses_of_classic_members() {
    let mut story = Story::new();
    let nobody = JoinRequest { requires_known_id: false, ..request("", &[]) };
    let refused_of_nobody = story.join_classic(&nobody).unwrap_err().1;
    assert_eq!(refused_of_nobody, ResponseError::CoordinatorNotAvailable, "it should be a classic group by now");
    story.join("new");
    let refused = |story: &mut Story, request: &JoinRequest| story.join_classic(request).unwrap_err().1;
    assert_eq!(
        refused(&mut story, &request("x", &[1])),
        ResponseError::UnknownMemberId,
        "it was put out, and still reads"
    );
    let other_type = JoinRequest { protocol_type: "connect".to_owned(), ..request("x", &[]) };
    assert_eq!(refused(&mut story, &other_type), ResponseError::InconsistentGroupProtocol);
    let nonsense = JoinRequest { protocols: vec![("range".to_owned(), Bytes::from_static(b"x"))], ..request("x", &[]) };
    assert_eq!(refused(&mut story, &nonsense), ResponseError::InconsistentGroupProtocol);
    story.join_classic(&request("x", &[])).unwrap();
    let other = JoinRequest { protocols: vec![("sticky".to_owned(), subscription(&[]))], ..request("y", &[]) };
    assert_eq!(refused(&mut story, &other), ResponseError::InconsistentGroupProtocol, "none that x knows");
    story.limits.members_max = 2;
    assert_eq!(refused(&mut story, &request("y", &[])), ResponseError::GroupMaxSizeReached);
}

/// A classic group, its members at work; the first member of the new protocol; and back when it has gone.
#[test]
fn a_group_goes_to_the_new_protocol_and_back() {
    let mut story = Story::new();
    let record = classic_group::GroupRecord {
        protocol_type: "consumer".to_owned(),
        generation: 7,
        protocol: Some("range".to_owned()),
        leader: Some("a".to_owned()),
        state_since_ms: 0,
        members: ["a", "b"].map(|id| classic_member(id, if id == "a" { &[0, 1] } else { &[1, 2, 3, 9] })).to_vec(),
    };
    let limits =
        classic_group::Limits { members_max: 9, session_min_ms: 0, session_max_ms: 60_000, initial_delay_ms: 0 };
    let classic = classic_group::Group::restored(limits, &record, 0);
    let disabled = Limits { policy: Policy::parse("downgrade"), ..story.limits.clone() };
    let env = Env::new(&story.image, &disabled);
    assert!(Group::of_classic(&classic, &env, 0).is_none(), "not where the policy is against it");
    let env = Env::new(&story.image, &story.limits);
    let (group, records) = Group::of_classic(&classic, &env, 0).expect("it may");
    (story.group, story.log) = (group, records);
    let of = |story: &Story, id: &str| story.group.member(id).unwrap().current.assigned.clone();
    assert_eq!((of(&story, "a"), of(&story, "b")), (of_t(&[0, 1]), of_t(&[2, 3])), "one owner, of what there is");
    assert_eq!(story.beat_classic("a", 7), Ok(None), "nothing has changed for it");

    let joined = story.join("new");
    assert_eq!((joined.epoch, joined.assignment), (8, Some(Partitions::new())));
    assert_eq!(story.beat_classic("a", 7), Ok(Some(ResponseError::RebalanceInProgress)));
    story.join_classic(&request("a", &[0, 1])).unwrap();
    assert!(!story.group.is_to_be_classic(&story.limits, 9), "somebody speaks the new protocol");
    let known = story.group.member("a").unwrap().epoch();
    story.beat(&plain("new", LEAVES)).unwrap();
    assert!(!story.group.is_to_be_classic(&story.limits, 1), "it would be too large");
    assert!(story.group.is_to_be_classic(&story.limits, 9));
    let back = story.group.to_classic(&story.image, 5);
    assert_eq!((back.generation, back.protocol.as_deref(), back.members.len()), (known, Some("range"), 2));
    let mut classic = classic_group::Group::restored(limits, &back, 5);
    assert_eq!(classic.may_commit(5, &claim("a", known)), Ok(()), "what it is at work on it may commit");
    assert_eq!(classic.state(), classic_group::State::Stable);
    classic.step(5, classic_group::Event::Rebalance);
    assert_eq!(classic.state(), classic_group::State::PreparingRebalance, "they share anew");
}

fn classic_member(id: &str, assigned: &[i32]) -> classic_group::MemberRecord {
    classic_group::MemberRecord {
        member_id: id.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 20_000,
        session_timeout_ms: 6_000,
        subscription: subscription(&[]),
        assignment: subscription::write_assignment(1, &vec![("t".to_owned(), assigned.to_vec())]),
        ..classic_group::MemberRecord::default()
    }
}
