//! Plans, done and undone on counterfeit machines.

use super::machine::{BARE_METAL, CLOUD_VM, CONTAINER, Machine};
use crate::tuning::apply::{Applied, STATE_PATH, TuneError, Undone, apply, undo};
use crate::tuning::check::{Verdict, check, placement};
use crate::tuning::files::{Files, Root};
use crate::tuning::items::{Action, Id};
use crate::tuning::plan::{Change, Plan, plan};
use crate::tuning::script::script;
use crate::tuning::store::Store;
use proptest::prelude::*;
use std::io;
use std::process::Command;

/// A root whose files behave like the kernel's: choices have brackets, one of a pair is 0, interrupts may be managed.
struct Kernel<'a> {
    root: &'a Root,
    managed: &'a [u32],
    /// Whatever is written there, this is what it becomes.
    clamped: Option<(&'a str, &'a str)>,
    /// Everything below these is refused, with this error.
    forbidden: Option<(&'a str, io::ErrorKind)>,
}

impl Kernel<'_> {
    fn plain(root: &Root) -> Kernel<'_> {
        Kernel { root, managed: &[], clamped: None, forbidden: None }
    }

    fn allow(&self, path: &str) -> io::Result<()> {
        match self.forbidden {
            Some((start, error)) if path.starts_with(start) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Files for Kernel<'_> {
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.allow(path)?;
        if self.managed.iter().any(|irq| path == format!("/proc/irq/{irq}/smp_affinity_list")) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if let Some((_, value)) = self.clamped.filter(|(clamped, _)| path == *clamped) {
            return self.root.write(path, value.as_bytes());
        }
        let text = String::from_utf8_lossy(bytes);
        let before = String::from_utf8_lossy(&self.root.read(path, 1 << 16)?).into_owned();
        if path.ends_with("/scheduler") {
            let chosen = text.trim();
            let words = before.split_whitespace().map(|word| word.trim_matches(['[', ']']));
            let words: Vec<String> =
                words.map(|word| if word == chosen { format!("[{word}]") } else { word.to_owned() }).collect();
            return self.root.write(path, format!("{}\n", words.join(" ")).as_bytes());
        }
        for (one, other) in [("_bytes", "_ratio"), ("_ratio", "_bytes")] {
            if let Some(twin) = path.strip_suffix(one).filter(|_| path.starts_with("/proc/sys/vm/dirty")) {
                if one == "_bytes" && text.trim() == "0" {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                self.root.write(&format!("{twin}{other}"), b"0\n")?;
            }
        }
        self.root.write(path, bytes)
    }

    fn try_open_for_writing(&self, path: &str) -> io::Result<()> {
        self.allow(path)?;
        self.root.try_open_for_writing(path)
    }

    fn read(&self, path: &str, max: usize) -> io::Result<Vec<u8>> {
        self.root.read(path, max)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.root.list(path)
    }
    fn link(&self, path: &str) -> io::Result<String> {
        self.root.link(path)
    }
    fn resolved(&self, path: &str) -> io::Result<String> {
        self.root.resolved(path)
    }
    fn has_write_bit(&self, path: &str) -> io::Result<bool> {
        self.root.has_write_bit(path)
    }
    fn space(&self, path: &str) -> io::Result<(u64, u64)> {
        self.root.space(path)
    }
}

fn store(machine: &Machine) -> Store {
    Store::new(machine.root.clone(), STATE_PATH)
}

fn plan_of(machine: &Machine) -> Plan {
    let facts = machine.facts();
    plan(&facts, &placement(&facts, None))
}

fn find<'a>(plan: &'a Plan, path: &str) -> &'a Change {
    plan.changes.iter().find(|change| change.path == path).unwrap_or_else(|| panic!("{path}: {:?}", plan.changes))
}

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";

#[test]
fn a_server_is_tuned_until_check_has_nothing_to_say_and_back_again() {
    let machine = Machine::new(BARE_METAL);
    let before = machine.tree();
    let planned = plan_of(&machine);
    assert_eq!(find(&planned, SWAPPINESS).value, "1");
    assert_eq!(find(&planned, "/proc/sys/net/ipv4/tcp_wmem").value, "4096 16384 16777216");
    assert_eq!(find(&planned, "/sys/class/block/nvme0n1/queue/scheduler").value, "none");
    assert_eq!(find(&planned, "/sys/class/net/eth0/queues/rx-1/rps_flow_cnt").value, "16384");
    let irqs: Vec<&str> =
        (100..108).map(|irq| &*find(&planned, &format!("/proc/irq/{irq}/smp_affinity_list")).value).collect();
    assert_eq!(irqs, ["0", "16", "32", "48", "0", "16", "32", "48"], "one core of each socket, both its threads");
    assert_eq!(planned.changes.iter().filter(|change| change.id == Id::Governor).count(), 64);
    assert!(planned.boot[0].argument.starts_with("isolcpus=managed_irq,domain,1-15,17-31"));
    assert!(planned.notes.iter().any(|note| note.id == Id::Irqbalance), "it would move them again");

    let done = apply(&Kernel::plain(&machine.root), &planned, &store(&machine)).expect("nothing forbids it");
    assert!(done.results.iter().all(|result| matches!(result, Applied::Written)), "{done:?}");
    let facts = machine.facts();
    for line in check(&facts, &placement(&facts, None)) {
        let is_ours = line.item.action != Action::Told;
        assert!(!is_ours || line.verdict <= Verdict::NotApplicable, "{} {}", line.item.name, line.current);
    }
    assert_eq!(plan_of(&machine).changes, [], "nothing is left to do");

    let results = undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert!(results.iter().all(|(_, result)| matches!(result, Undone::Restored)), "{results:?}");
    assert!(machine.tree() == before, "the whole tree is as it was");
    assert!(undo(&machine.root, &store(&machine)).expect("nothing to do").is_empty());
}

#[test]
fn much_memory_counts_dirty_pages_in_bytes_and_undo_brings_the_percentage_back() {
    let machine = Machine::new(BARE_METAL);
    machine.set("/proc/meminfo", "MemTotal: 1056763904 kB\n");
    let before = machine.tree();
    apply(&Kernel::plain(&machine.root), &plan_of(&machine), &store(&machine)).expect("nothing forbids it");
    assert_eq!(machine.get("/proc/sys/vm/dirty_bytes"), "82463372083\n");
    assert_eq!(machine.get("/proc/sys/vm/dirty_ratio"), "0\n");
    undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert!(machine.tree() == before);
}

#[test]
fn what_somebody_else_has_set_since_stays() {
    let machine = Machine::new(BARE_METAL);
    apply(&machine.root, &plan_of(&machine), &store(&machine)).expect("nothing forbids it");
    machine.set(SWAPPINESS, "10\n");
    machine.set("/proc/sys/vm/max_map_count", "65530\n");
    let results = undo(&machine.root, &store(&machine)).expect("nothing forbids it");
    let of = |path: &str| results.iter().find(|(at, _)| at == path).map(|(_, result)| result);
    assert!(matches!(of(SWAPPINESS), Some(Undone::Foreign { found }) if found == "10"));
    assert!(matches!(of("/proc/sys/vm/max_map_count"), Some(Undone::WasOld)));
    assert_eq!(machine.get(SWAPPINESS), "10\n");
    assert_eq!(machine.get("/proc/sys/vm/dirty_ratio"), "20\n", "everything else is back");
}

#[test]
fn applying_twice_keeps_the_first_old_value() {
    let machine = Machine::new(BARE_METAL);
    let before = machine.tree();
    let first = plan_of(&machine);
    apply(&Kernel::plain(&machine.root), &first, &store(&machine)).expect("nothing forbids it");
    // A later release wants something else.
    let mut second = Plan { changes: vec![find(&first, SWAPPINESS).clone()], ..Plan::default() };
    second.changes[0].current = machine.get(SWAPPINESS);
    second.changes[0].value = "0".to_owned();
    apply(&Kernel::plain(&machine.root), &second, &store(&machine)).expect("nothing forbids it");
    assert_eq!(machine.get(SWAPPINESS), "0\n");
    undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert!(machine.tree() == before);
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const FIRST_BOOT: &str = "0d1e9f5e-6a52-4a5c-9c1b-4f1d2a3b4c5d\n";
const SECOND_BOOT: &str = "7c0b8a44-1b3e-4f0f-8d2a-99aabbccddee\n";

#[test]
fn what_was_set_before_another_boot_is_nobody_s_to_undo() {
    let machine = Machine::new(BARE_METAL);
    machine.set(BOOT_ID, FIRST_BOOT);
    let planned = plan_of(&machine);
    apply(&Kernel::plain(&machine.root), &planned, &store(&machine)).expect("nothing forbids it");
    // The same values, but a file in /etc/sysctl.d has set them this time.
    machine.set(BOOT_ID, SECOND_BOOT);
    let (tuned, state) = (machine.tree(), machine.root.outside(STATE_PATH));
    let undone = undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert_eq!(undone.len(), planned.changes.len());
    assert!(undone.iter().all(|(_, result)| matches!(result, Undone::Gone)), "{undone:?}");
    assert!(!state.exists(), "nothing is left to be told again");
    assert!(machine.tree() == tuned.into_iter().filter(|(path, _)| *path != state).collect());
    assert!(undo(&machine.root, &store(&machine)).expect("nothing to do").is_empty());
}

#[test]
fn applying_after_a_boot_starts_anew() {
    let machine = Machine::new(BARE_METAL);
    machine.set(BOOT_ID, FIRST_BOOT);
    let planned = plan_of(&machine);
    let first = apply(&Kernel::plain(&machine.root), &planned, &store(&machine)).expect("nothing forbids it");
    assert_eq!(first.gone, 0);
    machine.set(BOOT_ID, SECOND_BOOT);
    machine.set("/proc/sys/vm/max_map_count", "65530\n");
    let before = machine.tree();
    let second =
        apply(&Kernel::plain(&machine.root), &plan_of(&machine), &store(&machine)).expect("nothing forbids it");
    assert_eq!((second.gone, second.results.len()), (planned.changes.len(), 1));
    let undone = undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert!(matches!(&undone[..], [(path, Undone::Restored)] if path == "/proc/sys/vm/max_map_count"), "{undone:?}");
    assert_eq!(machine.get(SWAPPINESS), "1\n");
    let state = machine.root.outside(STATE_PATH);
    assert!(machine.tree() == before.into_iter().filter(|(path, _)| *path != state).collect());
}

#[test]
fn a_boot_that_cannot_be_told_counts_as_the_same() {
    for unreadable in [None, Some(""), Some("no id\n"), Some("\u{fffd}")] {
        let machine = Machine::new(BARE_METAL);
        machine.set(BOOT_ID, FIRST_BOOT);
        let before = machine.tree();
        apply(&Kernel::plain(&machine.root), &plan_of(&machine), &store(&machine)).expect("nothing forbids it");
        match unreadable {
            Some(text) => machine.set(BOOT_ID, text),
            None => machine.remove(BOOT_ID),
        }
        let undone = undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
        assert!(undone.iter().all(|(_, result)| matches!(result, Undone::Restored)), "{undone:?}");
        machine.set(BOOT_ID, FIRST_BOOT);
        assert!(machine.tree() == before, "{unreadable:?}");
    }
}

#[test]
fn without_privileges_nothing_is_changed_and_the_reason_is_told() {
    let machine = Machine::new(CONTAINER);
    let before = machine.tree();
    for (error, told) in [
        (io::ErrorKind::PermissionDenied, "run it as root"),
        (io::ErrorKind::ReadOnlyFilesystem, "this looks like a container"),
    ] {
        let kernel = Kernel { forbidden: Some(("/proc/sys/kernel", error)), ..Kernel::plain(&machine.root) };
        let refused = apply(&kernel, &plan_of(&machine), &store(&machine)).expect_err("it is forbidden");
        let text = refused.to_string();
        assert!(matches!(refused, TuneError::Refused(_)) && text.contains(told), "{text}");
        assert!(text.starts_with("nothing was changed: /proc/sys/kernel/sched_autogroup_enabled"), "{text}");
        assert!(machine.tree() == before, "one that is refused keeps all from being written");
    }
    apply(&machine.root, &plan_of(&machine), &store(&machine)).expect("a privileged one");
    let kernel = Kernel { forbidden: Some(("/proc", io::ErrorKind::PermissionDenied)), ..Kernel::plain(&machine.root) };
    let tuned = machine.tree();
    assert!(matches!(undo(&kernel, &store(&machine)), Err(TuneError::Refused(_))));
    assert!(machine.tree() == tuned, "the state stays, for somebody who may");
    let source = io::Error::from(io::ErrorKind::PermissionDenied);
    let text = TuneError::State { path: STATE_PATH.into(), source }.to_string();
    assert_eq!(text, "/var/lib/corelog-tuning/state.json: permission denied; run it as root");
}

#[test]
fn interrupts_that_the_kernel_keeps_are_told_and_no_failure() {
    let machine = Machine::new(BARE_METAL);
    let before = machine.tree();
    let kernel = Kernel { managed: &[200, 201, 202, 203], ..Kernel::plain(&machine.root) };
    let planned = plan_of(&machine);
    let results = apply(&kernel, &planned, &store(&machine)).expect("nothing forbids it").results;
    let managed = results.iter().filter(|result| matches!(result, Applied::Managed(_))).count();
    assert_eq!((managed, results.iter().filter(|r| matches!(r, Applied::Written)).count()), (4, results.len() - 4));
    let undone = undo(&kernel, &store(&machine)).expect("nothing forbids it");
    assert!(undone.iter().all(|(path, _)| !path.contains("/20")), "they were never ours");
    assert!(machine.tree() == before);

    let cloud = plan_of(&Machine::new(CLOUD_VM));
    assert!(cloud.changes.iter().all(|change| !change.path.contains("/irq/3")), "a new kernel says so beforehand");
    assert!(cloud.notes.iter().any(|note| note.subject == "vda" && note.text.contains("2 are managed")));
}

#[test]
fn a_write_that_is_not_taken_fails_and_is_not_undone() {
    let machine = Machine::new(BARE_METAL);
    let mut planned = Plan { changes: vec![find(&plan_of(&machine), SWAPPINESS).clone()], ..Plan::default() };
    planned.changes.push(Change {
        path: "/proc/sys/vm/none".into(),
        current: "1".into(),
        ..planned.changes[0].clone()
    });
    let results = apply(&machine.root, &planned, &store(&machine)).expect("nothing forbids it").results;
    assert!(matches!(results[..], [Applied::Written, Applied::Failed(_)]), "{results:?}");
    let undone = undo(&machine.root, &store(&machine)).expect("nothing forbids it");
    assert_eq!(undone.len(), 1);
}

#[test]
fn what_the_kernel_makes_of_a_value_is_told_and_undone() {
    let machine = Machine::new(CONTAINER);
    let before = machine.tree();
    let clamping = Kernel { clamped: Some((SWAPPINESS, "7\n")), ..Kernel::plain(&machine.root) };
    let planned = Plan { changes: vec![find(&plan_of(&machine), SWAPPINESS).clone()], ..Plan::default() };
    let results = apply(&clamping, &planned, &store(&machine)).expect("nothing forbids it").results;
    assert!(matches!(&results[..], [Applied::NotTaken { found }] if found == "7"), "{results:?}");
    undo(&Kernel::plain(&machine.root), &store(&machine)).expect("nothing forbids it");
    assert!(machine.tree() == before);
}

#[test]
fn the_state_is_on_disk_before_the_system_is_touched() {
    let machine = Machine::new(CONTAINER);
    // Whatever lies in the way of the state: nothing is changed.
    machine.set("/var/lib/corelog-tuning", "a file");
    let before = machine.tree();
    assert!(matches!(apply(&machine.root, &plan_of(&machine), &store(&machine)), Err(TuneError::State { .. })));
    assert!(machine.tree() == before);
    machine.remove("/var/lib/corelog-tuning");
    machine.set("/var/lib/corelog-tuning/state.json", "{\"version\": 1");
    let before = machine.tree();
    assert!(matches!(apply(&machine.root, &plan_of(&machine), &store(&machine)), Err(TuneError::Damaged { .. })));
    assert!(matches!(undo(&machine.root, &store(&machine)), Err(TuneError::Damaged { .. })));
    assert!(machine.tree() == before, "a state that cannot be read is not overwritten");
}

#[test]
fn the_script_does_and_undoes_the_same() {
    let text = BARE_METAL.replace("@cpus 2 16 2", "@cpus 2 3 1").replace(" 0-63", " 0-5");
    let (one, other) = (Machine::new(&text), Machine::new(&text));
    let planned = plan_of(&one);
    let text = script(&planned);
    let run = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.env("ROOT", other.root.outside("")).args(["-c", &text, "script"]).args(arguments);
        shell.output().expect("there is a shell")
    };
    let before = other.tree();
    let done = run(&[]);
    assert!(done.status.success(), "{done:?}");
    apply(&one.root, &planned, &store(&one)).expect("nothing forbids it");
    for change in &planned.changes {
        assert_eq!(other.get(&change.path), one.get(&change.path), "{}", change.path);
    }
    other.set(SWAPPINESS, "33\n");
    let undone = run(&["undo"]);
    assert!(undone.status.success() && String::from_utf8_lossy(&undone.stdout).contains("33, not 1 any more"));
    other.set(SWAPPINESS, "60\n");
    for (path, bytes) in &before {
        let (now, then) = (std::fs::read(path).unwrap_or_default(), String::from_utf8_lossy(bytes));
        // These files show choices only where a kernel is behind them; the others come back with blanks for tabs.
        let is_plain = !path.ends_with("scheduler") && std::fs::symlink_metadata(path).expect("it is there").is_file();
        let now = String::from_utf8_lossy(&now).into_owned();
        assert!(!is_plain || now.split_whitespace().eq(then.split_whitespace()), "{}: {now}", path.display());
    }
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the values were before: undo brings them back byte by byte.
    #[test]
    fn undo_after_apply_changes_nothing(
        numbers in proptest::collection::vec(0..200_000u64, 12), memory in 20..42u32,
        cores in 1..6usize, scheduler in 0..3usize, managed in proptest::collection::vec(100..108u32, 0..4),
    ) {
        let text = BARE_METAL.replace("@cpus 2 16 2", &format!("@cpus 2 {cores} 1")).replace(" 0-63", " 0-1");
        let machine = Machine::new(&text);
        let names = ["vm/swappiness", "vm/dirty_background_ratio", "vm/dirty_ratio", "vm/max_map_count", "net/core/somaxconn",
            "net/core/rps_sock_flow_entries", "net/ipv4/tcp_max_syn_backlog", "net/ipv4/tcp_slow_start_after_idle",
            "kernel/sched_autogroup_enabled"];
        for (name, number) in names.iter().zip(&numbers) {
            machine.set(&format!("/proc/sys/{name}"), format!("{number}\n"));
        }
        machine.set("/proc/sys/net/ipv4/tcp_rmem", format!("{}\t{}\t{}\n", numbers[9], numbers[10], numbers[11] * 200));
        machine.set("/proc/meminfo", format!("MemTotal: {} kB\n", (1u64 << memory) / 1024));
        let choices = ["[none] kyber\n", "none [kyber]\n", "[mq-deadline] none\n"];
        machine.set("/sys/class/block/nvme0n1/queue/scheduler", choices[scheduler]);
        let before = machine.tree();
        let kernel = Kernel { managed: &managed, ..Kernel::plain(&machine.root) };
        let results = apply(&kernel, &plan_of(&machine), &store(&machine)).expect("nothing forbids it").results;
        prop_assert!(results.iter().all(|result| matches!(result, Applied::Written | Applied::Managed(_))), "{:?}", results);
        let results = undo(&kernel, &store(&machine)).expect("nothing forbids it");
        prop_assert!(results.iter().all(|(_, result)| matches!(result, Undone::Restored)), "{:?}", results);
        prop_assert!(machine.tree() == before);
    }
}
