//! What was changed, so that it can be undone: the content of `/var/lib/corelog-tuning/state.json`. Pure.
//!
//! ```text
//! {
//!   "version": 2,
//!   "crc32": 2774123456,             of [boot, entries] as JSON without white space, keys in the order below
//!   "boot": "5f0c3a52-…",            /proc/sys/kernel/random/boot_id when they were written; null: it could not be read
//!   "entries": [                     in the order in which they were written
//!     {"path": "/proc/sys/vm/swappiness", "kind": "words", "old": "60\n", "new": "1", "twin": null},
//!     {"path": "/proc/sys/vm/dirty_bytes", "kind": "words", "old": "0\n", "new": "82463372083",
//!      "twin": {"path": "/proc/sys/vm/dirty_ratio", "old": "20\n"}}
//!   ]
//! }
//! ```
//! `old` is what the file held before the first change, byte by byte. The file is on disk before anything is written to the
//! system, so after a crash of this program at any moment each value is either the old one or ours, and both are known. After a boot
//! none of them is ours: what happens to be equal was set by somebody else.
//!
//! Version 1 had no boot, and its checksum was of the entries alone. It is still read.

use super::items::{Action, ITEMS, Rule};
use super::plan::{Change, Kind, Twin};
use crate::base::limits::TUNING_CHANGES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const VERSION: u64 = 2;
const VERSION_WITHOUT_BOOT: u64 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The boot of the machine in which the entries were written; None: it is not known.
    pub boot: Option<String>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    pub old: String,
    pub new: String,
    pub twin: Option<Twin>,
}

/// A file that is no state, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("it is no JSON of this kind: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has version {found}; this corelog knows {VERSION_WITHOUT_BOOT} and {VERSION}")]
    Version { found: Value },
    #[error("its checksum is {expected}, its entries have {found}")]
    Checksum { expected: Value, found: u32 },
    #[error("it names {path:?}, which is no setting of a machine")]
    Path { path: String },
    #[error("it has {found} entries, more than {TUNING_CHANGES_MAX}")]
    TooMany { found: usize },
}

impl State {
    pub fn encode(&self) -> String {
        let entries = serde_json::to_value(&self.entries).expect("plain data");
        let document =
            serde_json::json!({ "version": VERSION, "crc32": self.checksum(), "boot": self.boot, "entries": entries });
        serde_json::to_string_pretty(&document).expect("plain data") + "\n"
    }

    pub fn decode(text: &str) -> Result<State, StateError> {
        let mut document: Value = serde_json::from_str(text)?;
        let mut field = |name| document.get_mut(name).map(Value::take).unwrap_or_default();
        let version = field("version");
        let has_boot = version == VERSION;
        if !has_boot && version != VERSION_WITHOUT_BOOT {
            return Err(StateError::Version { found: version });
        }
        let boot = if has_boot { serde_json::from_value(field("boot"))? } else { None };
        let state = State { boot, entries: serde_json::from_value(field("entries"))? };
        let found = if has_boot { state.checksum() } else { checksum(&state.entries) };
        let expected = field("crc32");
        if expected != found {
            return Err(StateError::Checksum { expected, found });
        }
        if state.entries.len() > TUNING_CHANGES_MAX {
            return Err(StateError::TooMany { found: state.entries.len() });
        }
        let paths =
            state.entries.iter().flat_map(|entry| [Some(&entry.path), entry.twin.as_ref().map(|twin| &twin.path)]);
        let stranger = paths.flatten().find(|path| !is_setting(path)).cloned();
        match stranger {
            Some(path) => Err(StateError::Path { path }),
            None => Ok(state),
        }
    }

    /// Goes on in this boot of the machine, and returns what was written in another: that is gone, and not ours to undo. A boot
    /// that is not known, then or now, counts as the same.
    pub fn enter(&mut self, boot: Option<String>) -> Vec<Entry> {
        let is_other = matches!((&self.boot, &boot), (Some(then), Some(now)) if then != now);
        self.boot = boot.or(self.boot.take());
        if is_other { std::mem::take(&mut self.entries) } else { Vec::new() }
    }

    /// Takes over changes that are about to be made. A value that is still ours keeps what was there before us; one that somebody
    /// else has set since is what to go back to.
    pub fn add(&mut self, changes: &[Change]) {
        for Change { path, kind, current, value, twin, .. } in changes {
            let known = self.entries.iter_mut().find(|entry| entry.path == *path);
            match known {
                Some(entry) if entry.kind == *kind && kind.is_same(current, &entry.new) => entry.new.clone_from(value),
                known => {
                    let entry = Entry {
                        path: path.clone(),
                        kind: *kind,
                        old: current.clone(),
                        new: value.clone(),
                        twin: twin.clone(),
                    };
                    match known {
                        Some(known) => *known = entry,
                        None => self.entries.push(entry),
                    }
                }
            }
        }
    }

    fn checksum(&self) -> u32 {
        checksum(&(&self.boot, &self.entries))
    }
}

fn checksum(data: &impl Serialize) -> u32 {
    crc32fast::hash(serde_json::to_string(data).expect("plain data").as_bytes())
}

/// Undoing writes what a state names, as root: nothing but the files that a plan can name, whoever wrote the state.
fn is_setting(path: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('/');
    let is_number = |part: &str| part.parse::<u32>().is_ok();
    let between = |start: &str, end: &str| path.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    let is_sysctl = ITEMS.iter().any(|item| match item.action {
        Action::Sysctl(Rule::DirtyAtMost(_, bytes) | Rule::DirtyAtLeast(_, bytes)) => {
            path == item.reads || path == bytes
        }
        Action::Sysctl(_) => path == item.reads,
        Action::Told | Action::Written => false,
    });
    is_sysctl
        || path == "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        || between("/proc/irq/", "/smp_affinity_list").is_some_and(is_number)
        || between("/sys/devices/system/cpu/cpu", "/cpufreq/scaling_governor").is_some_and(is_number)
        || between("/sys/class/block/", "/queue/scheduler").is_some_and(is_name)
        || between("/sys/class/net/", "/rps_flow_cnt")
            .and_then(|rest| rest.split_once("/queues/"))
            .is_some_and(|(card, queue)| is_name(card) && is_name(queue))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::items::Id;
    use proptest::prelude::*;

    fn change(path: &str, current: &str, value: &str) -> Change {
        Change {
            id: Id::Swappiness,
            subject: String::new(),
            path: path.to_owned(),
            kind: Kind::Words,
            current: current.to_owned(),
            value: value.to_owned(),
            twin: None,
        }
    }

    #[test]
    fn the_first_old_value_is_kept_unless_somebody_else_came_between() {
        let mut state = State::default();
        state.add(&[change("/proc/sys/vm/swappiness", "60\n", "1")]);
        state.add(&[change("/proc/sys/vm/swappiness", "1\n", "2")]);
        assert_eq!((state.entries[0].old.as_str(), state.entries[0].new.as_str()), ("60\n", "2"));
        state.add(&[change("/proc/sys/vm/swappiness", "30\n", "2")]);
        assert_eq!((state.entries.len(), state.entries[0].old.as_str()), (1, "30\n"));
    }

    #[test]
    fn what_was_written_in_another_boot_is_gone() {
        let boot = |name: &str| Some(name.to_owned());
        for (then, now, is_gone, left) in [
            (boot("a"), boot("a"), false, boot("a")),
            (boot("a"), boot("b"), true, boot("b")),
            (boot("a"), None, false, boot("a")),
            (None, boot("b"), false, boot("b")),
            (None, None, false, None),
        ] {
            let mut state = State { boot: then.clone(), ..State::default() };
            state.add(&[change("/proc/sys/vm/swappiness", "60\n", "1")]);
            let gone = state.enter(now.clone());
            assert_eq!((gone.len(), state.entries.len()), if is_gone { (1, 0) } else { (0, 1) }, "{then:?}, {now:?}");
            assert_eq!(state.boot, left);
        }
    }

    #[test]
    fn states_of_the_first_version_are_read() {
        let entries = r#"[{"path":"/proc/sys/vm/swappiness","kind":"words","old":"60\n","new":"1","twin":null}]"#;
        let text = |crc| format!("{{\"version\": 1, \"crc32\": {crc}, \"entries\": {entries}}}");
        let crc = crc32fast::hash(entries.as_bytes());
        let read = State::decode(&text(crc)).expect("as it was written");
        assert_eq!((read.boot, read.entries[0].old.as_str()), (None, "60\n"));
        assert!(matches!(State::decode(&text(crc ^ 1)), Err(StateError::Checksum { .. })));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_any_flipped_bit_is_noticed(
            boot in proptest::option::of("[0-9a-f-]{1,36}"), olds in proptest::collection::vec("\\PC{0,20}\n?", 1..5), at in any::<proptest::sample::Index>(), bit in 0..7u8,
        ) {
            let mut state = State { boot, ..State::default() };
            for (number, old) in olds.iter().enumerate() {
                state.add(&[change(&format!("/proc/irq/{number}/smp_affinity_list"), old, "1")]);
            }
            let text = state.encode();
            prop_assert_eq!(&State::decode(&text).expect("as it was written"), &state);
            let mut bytes = text.into_bytes();
            *at.get_mut(&mut bytes) ^= 1 << bit;
            // Some bits only change white space, or a letter of a key to one that JSON does not mind: then nothing is lost.
            if let Ok(Ok(read)) = String::from_utf8(bytes).map(|text| State::decode(&text)) {
                prop_assert_eq!(read, state);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,100}") {
            prop_assert!(State::decode(&text).is_err());
        }
    }

    #[test]
    fn what_is_no_state_says_so() {
        for path in [
            "/etc/passwd",
            "/proc/sys/kernel/core_pattern",
            "/sys/class/block/../queue/scheduler",
            "/proc/irq/x/smp_affinity_list",
        ] {
            let mut state = State::default();
            state.add(&[change(path, "a", "b")]);
            assert!(matches!(State::decode(&state.encode()), Err(StateError::Path { .. })), "{path}");
        }
        assert!(matches!(State::decode("{\"version\": 3, \"entries\": []}"), Err(StateError::Version { .. })));
        assert!(matches!(
            State::decode("{\"version\": 2, \"crc32\": 1, \"entries\": []}"),
            Err(StateError::Checksum { .. })
        ));
        assert!(matches!(State::decode("[]"), Err(StateError::Version { .. })));
        assert!(matches!(State::decode("x"), Err(StateError::Json(_))));
    }
}
