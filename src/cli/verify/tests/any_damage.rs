//! A valid directory, damaged at random: it is found, or does no harm.

use super::fixture::{BATCHES, END, RECORDS, SEGMENTS, SPAN, World, show, verify};
use crate::cli::dump::is_sound;
use crate::coordination::embedded::FILE_NAME;
use crate::log::index::{OffsetIndex, TimeIndex};
use crate::log::paths;
use crate::node::manifest::MANIFEST;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: prop::sample::Index, with: u8 },
    Zero { at: prop::sample::Index, bytes: usize },
    Cut { to: prop::sample::Index },
    Append { bytes: Vec<u8> },
    Swap { one: prop::sample::Index, other: prop::sample::Index, bytes: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), 1u8..).prop_map(|(at, with)| Damage::Flip { at, with }),
        1 => (index(), 1usize..600).prop_map(|(at, bytes)| Damage::Zero { at, bytes }),
        1 => index().prop_map(|to| Damage::Cut { to }),
        1 => prop::collection::vec(any::<u8>(), 1..300).prop_map(|bytes| Damage::Append { bytes }),
        1 => (index(), index(), 1usize..100).prop_map(|(one, other, bytes)| Damage::Swap { one, other, bytes }),
    ]
}

impl Damage {
    fn apply(&self, content: &mut Vec<u8>) {
        let length = content.len();
        match self {
            Damage::Append { bytes } => content.extend_from_slice(bytes),
            _ if length == 0 => {}
            Damage::Flip { at, with } => content[at.index(length)] ^= with,
            Damage::Zero { at, bytes } => content.iter_mut().skip(at.index(length)).take(*bytes).for_each(|b| *b = 0),
            Damage::Cut { to } => content.truncate(to.index(length)),
            Damage::Swap { one, other, bytes } => {
                let (one, other) = (one.index(length), other.index(length));
                for n in 0..(*bytes).min(length - one.max(other)) {
                    content.swap(one + n, other + n);
                }
            }
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_damage_is_found_or_harmless(which in any::<prop::sample::Index>(), damage in damage(), crashed: bool) {
        let world = if crashed { World::crashed(END) } else { World::new() };
        let all = files(world.root.path());
        let path = which.get(&all);
        let before = fs::read(path).expect("read");
        world.edit(path, |content| damage.apply(content));
        let after = fs::read(path).expect("read");
        let found = verify(world.root.path());
        if before == after {
            prop_assert!(found.is_empty(), "{}", show(&found));
            return Ok(());
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let is_harmless = match paths::parse_segment_file(name) {
            // The next start rebuilds them.
            Some((base, paths::OFFSET_INDEX | paths::TIME_INDEX)) if crashed && base.0 == END - SPAN => true,
            Some((base, paths::OFFSET_INDEX)) => offsets_are_right(&world, base.0, &after),
            Some((base, paths::TIME_INDEX)) => times_are_right(base.0, &after),
            Some(_) => false,
            None => name != MANIFEST && name != FILE_NAME,
        };
        prop_assert!(is_harmless || !found.is_empty(), "{}: {damage:?} was not noticed", path.display());
    }

    #[test]
    fn several_damages_at_once_never_panic(damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..6)) {
        let world = World::crashed(SPAN);
        let all = files(world.root.path());
        for (which, damage) in &damages {
            world.edit(&all[which.index(all.len())], |content| damage.apply(content));
        }
        for path in &all {
            let _ = is_sound(path);
        }
        for path in [world.root.path().to_owned(), world.dir(), world.file(0, paths::LOG)] {
            let _ = verify(&path);
        }
    }
}

/// Every search by this index begins at a batch, and not behind the one that is looked for.
fn offsets_are_right(world: &World, base: i64, index: &[u8]) -> bool {
    let positions = world.positions(base);
    let size = *positions.last().expect("its length") as u32;
    // What is refused is rebuilt from the segment.
    let Ok(index) = OffsetIndex::decode(index, size) else { return true };
    (0..SPAN).all(|relative| {
        let start = index.position_before(relative as u32) as usize;
        let batch = positions[(relative / RECORDS) as usize];
        positions[..BATCHES as usize].contains(&start) && start <= batch
    })
}

/// Every search by this index begins at or before the first record that is not older.
fn times_are_right(base: i64, index: &[u8]) -> bool {
    let Ok(index) = TimeIndex::decode(index) else { return true };
    // Where there is none, the segment itself is asked.
    let last_is_right = index.last().is_none_or(|last| last.timestamp_ms == 1_700_000_000_000 + base + SPAN - RECORDS);
    last_is_right
        && (base - 2..base + SPAN).all(|offset| {
            let begins = index.entry_before(1_700_000_000_000 + offset).map_or(0, |entry| entry.relative_offset);
            // Records of a batch have the timestamp of its first offset.
            let first_not_older = ((offset - base).max(0) + RECORDS - 1) / RECORDS * RECORDS;
            i64::from(begins) < first_not_older + RECORDS
        })
}

#[test]
fn the_undamaged_directory_is_clean() {
    for world in [World::new(), World::crashed(END), World::crashed(0), World::crashed(SPAN)] {
        let found = world.verify();
        assert!(found.is_empty(), "{}", show(&found));
        let dumped = files(world.root.path()).iter().filter_map(|file| is_sound(file)).collect::<Vec<_>>();
        assert!(dumped.len() > 12 && dumped.iter().all(|sound| *sound), "{dumped:?}");
        assert!(verify(&world.dir()).is_empty());
        assert!(verify(&world.file(SPAN, paths::LOG)).is_empty());
    }
    assert_eq!(SEGMENTS * SPAN, END);
}
