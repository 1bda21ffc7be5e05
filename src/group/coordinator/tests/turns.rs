//! Many groups are looked through, and requests have their turn meanwhile.

use super::*;
use crate::base::limits::GROUPS_LOOKED_AT_MAX;

const GROUPS: usize = 200;
/// Of each group: so many that all are looked at in several turns.
const PARTITIONS: usize = 4 * GROUPS_LOOKED_AT_MAX / GROUPS;

fn name(number: usize) -> String {
    format!("g-{number:03}")
}

/// Groups of which each has committed offsets of "t", and one of "u".
async fn crowd() -> (World, Coordinator, Rc<Slice>) {
    let world = World::new(1 << 20);
    let (coordinator, slice) = world.coordinator().await;
    for number in 0..GROUPS {
        let of_t = (0..PARTITIONS as i32).map(|partition| (of("t", partition), 7));
        let offsets: Vec<_> = of_t.chain([(of("u", 0), 5)]).collect();
        begin_commit_of(&slice, &name(number), &offsets).await.expect("stored");
    }
    (world, coordinator, slice)
}

/// Counts how often somebody else can do something.
fn others() -> Rc<Cell<usize>> {
    let turns = Rc::new(Cell::new(0));
    let count = Rc::clone(&turns);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            count.set(count.get() + 1);
        }
    });
    turns
}

fn known(slice: &Rc<Slice>, number: usize) -> Option<(usize, Option<i64>)> {
    let of_u = |offsets: &crate::group::offsets::Offsets| offsets.get("u", 0).map(|committed| committed.offset);
    slice.view(&name(number), |view| (view.offsets.len(), of_u(view.offsets)))
}

#[test]
fn requests_have_their_turn_while_offsets_expire() {
    tokio_uring::start(async {
        let (_world, coordinator, slice) = crowd().await;
        let turns = others();
        coordinator.expire(i64::MAX).await;
        assert!(turns.get() >= 3, "{} turns", turns.get());
        assert_eq!(slice.ids(), [""; 0]);
    });
}

#[test]
fn requests_have_their_turn_while_groups_forget_a_topic() {
    tokio_uring::start(async {
        let (world, coordinator, slice) = crowd().await;
        // Another of its name is there at once.
        let mut after = ClusterImage::clone(&world.image);
        let new = Arc::clone(image_of(&["t"]).topic("t").expect("made"));
        after.topics_by_id.remove(&after.topics["t"].id);
        after.topics_by_id.insert(new.id, Arc::clone(&new));
        after.topics.insert(Arc::clone(&new.name), new);
        let turns = others();
        coordinator.set_image(&Arc::new(after));
        assert!(slice.gone.borrow().is_busy(), "groups are told one by one");
        let last = GROUPS - 1;
        assert_eq!(known(&slice, last), Some((1, Some(5))), "who asks is not told of the old topic");
        begin_commit_of(&slice, &name(last - 1), &[(of("t", 0), 3)]).await.expect("stored");
        begin_commit_of(&slice, "new", &[(of("t", 0), 3)]).await.expect("stored");
        while slice.gone.borrow().is_busy() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(turns.get() >= 3, "{} turns", turns.get());
        // Behind the tombstones.
        begin_commit_of(&slice, "new", &[(of("t", 0), 4)]).await.expect("stored");
        for slice in [slice, world.coordinator().await.1] {
            let kept = |group: &str| slice.view(group, |view| view.offsets.len());
            assert_eq!((0..last - 1).find(|number| known(&slice, *number) != Some((1, Some(5)))), None);
            assert_eq!((kept(&name(last - 1)), kept(&name(last)), kept("new")), (Some(2), Some(1), Some(1)));
        }
    });
}
