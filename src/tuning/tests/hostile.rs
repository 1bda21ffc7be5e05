//! Files that hold anything but what they should.

use super::machine::{BARE_METAL, Machine};
use crate::tuning::check::{Verdict, check, placement};
use crate::tuning::facts::Facts;
use crate::tuning::plan::plan;
use crate::tuning::script::script;
use crate::tuning::state::State;
use proptest::prelude::*;
use proptest::sample::Index;

/// What can lie where a value should be.
fn oddities() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"\n".to_vec(),
        b"\x00\xff\xfe binary".to_vec(),
        b"-1\n".to_vec(),
        b"99999999999999999999999999\n".to_vec(),
        b"[] [ ] [[x]]\n".to_vec(),
        b"0-4294967295,8-1\n".to_vec(),
        b"1 0 253:0 / / - - -\n".to_vec(),
        vec![b'9'; 70_000],
        "\u{1f}ünï\u{202e}code".into(),
    ]
}

fn judge(facts: &Facts) -> Vec<(Verdict, String)> {
    let placement = placement(facts, None);
    // What cannot be understood is not changed, and nothing of it reaches the state or the shell unquoted.
    let planned = plan(facts, &placement);
    script(&planned);
    let mut state = State::default();
    state.add(&planned.changes);
    assert_eq!(State::decode(&state.encode()).expect("what we plan we can undo"), state);
    let lines = check(facts, &placement);
    lines.into_iter().map(|line| (line.verdict, format!("{}: {}", line.item.name, line.current))).collect()
}

#[test]
fn what_cannot_be_read_is_unknown_with_the_reason() {
    let machine = Machine::new(BARE_METAL);
    machine.set("/proc/sys/vm/swappiness", "");
    machine.set("/proc/sys/vm/dirty_ratio", b"\xff\xff");
    machine.set("/proc/sys/vm/max_map_count", vec![b'1'; 100_000]);
    machine.set("/proc/sys/kernel/osrelease", "linux");
    machine.set("/proc/self/limits", "Max open files");
    machine.remove("/proc/sys/net/core/somaxconn");
    let facts = machine.facts();
    let planned = plan(&facts, &placement(&facts, None));
    assert!(planned.changes.iter().all(|change| change.path != "/proc/sys/vm/swappiness"), "it could not be put back");
    let lines = judge(&facts);
    for expected in [
        "vm.swappiness: unknown: \"\" is no number",
        "vm.dirty_ratio: unknown: /proc/sys/vm/dirty_ratio holds bytes that are no text",
        "vm.max_map_count: unknown: /proc/sys/vm/max_map_count: more than 65536 bytes",
        "kernel: unknown: \"linux\" is no release",
        "open files: unknown: the line \"Max open files\" is too short",
    ] {
        assert!(lines.contains(&(Verdict::Warn, expected.to_owned())), "{expected} in {lines:#?}");
    }
    let absent = "net.core.somaxconn: this kernel does not have it".to_owned();
    assert!(lines.contains(&(Verdict::NotApplicable, absent)));
}

#[test]
fn nothing_at_all_is_told_as_such() {
    let machine = Machine::new("");
    let facts = machine.facts();
    let lines = judge(&facts);
    assert!(
        lines.iter().all(|(verdict, text)| *verdict != Verdict::Fail || text.starts_with("free space")),
        "{lines:#?}"
    );
    assert!(placement(&facts, None).shards.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Any files of a whole machine replaced by anything, removed, or made a directory.
    #[test]
    fn no_machine_is_too_strange(changes in proptest::collection::vec((any::<Index>(), 0..12usize), 1..40)) {
        let machine = Machine::new(&BARE_METAL.replace("@cpus 2 16 2", "@cpus 2 2 2"));
        let paths: Vec<_> = machine.tree().into_keys().collect();
        let oddities = oddities();
        for (at, what) in &changes {
            let path = at.get(&paths);
            let _ = std::fs::remove_file(path);
            match oddities.get(*what) {
                Some(bytes) => { let _ = std::fs::write(path, bytes); }
                None if *what == oddities.len() => { let _ = std::fs::create_dir(path); }
                None => { let _ = std::os::unix::fs::symlink(path.file_name().expect("a name"), path); }
            }
        }
        let facts = machine.facts();
        judge(&facts);
    }
}
