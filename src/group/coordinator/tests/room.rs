//! Groups take memory up to a bound.

use super::*;
use crate::group::classic::{JoinRequest, Leaving};
use crate::group::consumer::Heartbeat;
use bytes::Bytes;

fn telling(member_id: &str, bytes: usize) -> JoinRequest {
    let protocols = vec![("range".to_owned(), Bytes::from(vec![0; bytes]))];
    JoinRequest { member_id: member_id.to_owned(), protocols, ..time::join_request(100_000) }
}

async fn join(slice: &Rc<Slice>, group: &str, request: JoinRequest) -> Result<(), ResponseError> {
    match slice.join(group, request)?.await {
        Ok(Effect::Joined(_, answer)) => answer.error.map_or(Ok(()), Err),
        other => panic!("{other:?}"),
    }
}

/// Members that had told 100 MiB each were kept as long as they liked.
#[test]
fn nobody_new_joins_beyond_the_bound() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        let clock = tokio::task::spawn_local(async move { coordinator.run_clock().await });
        let full = Err(ResponseError::CoordinatorLoadInProgress);
        join(&slice, "a", telling("", 100_000)).await.expect("there is room");
        let many = 800_000;
        join(&slice, "b", telling("", many)).await.expect("there is room");
        assert_eq!(join(&slice, "c", telling("", 200_000)).await, full);
        assert_eq!(slice.ids(), ["a", "b"], "no group is made");
        assert_eq!(join(&slice, "a", telling("m", 600_000)).await, full, "a member that tells much more");
        assert_eq!(join(&slice, "a", telling("m", 110_000)).await, Ok(()), "it tells what it was given, too");
        assert_eq!(join(&slice, "a", telling("m", 100_000)).await, Ok(()), "who is there may join again");
        let topics = Some((0..3_000).map(|n| format!("{n:0100}")).collect());
        let heartbeat = Heartbeat { topics, ..time::joining("new") };
        let refused = slice.heartbeat("new", &heartbeat, &NO_MATCHES).map(|_| ()).expect_err("refused");
        assert_eq!(refused.error, ResponseError::CoordinatorLoadInProgress);
        slice
            .heartbeat("new", &time::joining("new"), &NO_MATCHES)
            .expect("it tells little")
            .wait()
            .await
            .expect("stored");

        let leaving = vec![Leaving { member_id: "m".to_owned(), instance_id: None }];
        slice.ask("b", false, |waiter| Event::Leave(waiter, leaving)).expect("there").await.expect("left");
        assert_eq!(join(&slice, "c", telling("", 200_000)).await, Ok(()), "there is room again");
        let heartbeat = Heartbeat { group_id: "newer".to_owned(), ..heartbeat };
        slice.heartbeat("newer", &heartbeat, &NO_MATCHES).expect("as for it").wait().await.expect("stored");
        clock.abort();
    });
}

/// Each join that no group would take left one behind for minutes.
#[test]
fn who_asks_for_an_impossible_session_makes_no_group() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_coordinator, slice) = world.coordinator().await;
        let request = JoinRequest { session_timeout_ms: i32::MAX, ..telling("", 1) };
        assert_eq!(join(&slice, "a", request).await, Err(ResponseError::InvalidSessionTimeout));
        assert_eq!(slice.ids(), [""; 0]);
    });
}

/// Names of 32 KiB were not counted: a shard took forty times its bound.
#[test]
fn names_count() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (_coordinator, slice) = world.coordinator().await;
        let nobody = MemberClaim { generation: -1, member_id: String::new(), instance_id: None };
        let commit = |n: usize| slice.commit(&format!("{n:032000}"), (&nobody, false), Vec::new()).is_ok();
        let made = (0..100).take_while(|n| commit(*n)).count();
        assert!((5..=10).contains(&made), "{made} of a bound of 1 MiB");
    });
}

#[test]
fn groups_that_are_made_by_commits_count_until_they_are_gone() {
    tokio_uring::start(async {
        let world = World::new(1 << 20);
        let (coordinator, slice) = world.coordinator().await;
        coordinator.set_settings(Settings { bytes_max: 5000, ..settings() });
        let nobody = MemberClaim { generation: -1, member_id: String::new(), instance_id: None };
        let mut made = 0;
        while made < 10 && slice.commit(&format!("g{made}"), (&nobody, false), Vec::new()).is_ok() {
            made += 1;
        }
        assert!((2..5).contains(&made), "{made}");
        slice.delete_group("g0").expect("it has no members").done().await.expect("stored");
        assert!(slice.commit("again", (&nobody, false), Vec::new()).is_ok());
    });
}
