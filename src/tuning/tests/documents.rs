//! `tuning/` against the table of items.

use crate::tuning::items::{Action, Evidence, ITEMS, Rule};
use std::collections::BTreeMap;
use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readme_has_the_whole_table() {
    let mut expected =
        String::from("| item | wanted | `corelog tune` | why | known from | shown by |\n|---|---|---|---|---|---|\n");
    for item in ITEMS {
        let source = match item.evidence {
            Evidence::Measured(source) => format!("*measured:* {source}"),
            Evidence::Cited(source) => source.to_owned(),
        };
        let action = match item.action {
            Action::Told => "tells",
            Action::Sysctl(_) | Action::Written => "sets",
        };
        let shown = item.shown_by.unwrap_or_default();
        expected += &format!("| {} | {} | {action} | {} | {source} | {shown} |\n", item.name, item.wanted, item.why);
    }
    let readme = read("README.md");
    let found = readme.split_once("## Every item\n").map_or("", |(_, rest)| rest);
    let found: String = found.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    assert!(found == expected, "put this table at the end of tuning/README.md:\n{expected}");
}

#[test]
fn the_file_for_sysctl_has_every_value_and_a_reason_for_each() {
    let text = read("90-corelog.conf");
    let mut found = BTreeMap::new();
    let mut has_reason = false;
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(has_reason, "{name}: no comment says why");
            found.insert(format!("/proc/sys/{}", name.replace('.', "/")), value.to_owned());
        } else {
            has_reason = line.starts_with('#');
        }
    }
    for item in ITEMS {
        let Action::Sysctl(rule) = item.action else { continue };
        let value = found.remove(item.reads).unwrap_or_else(|| panic!("{} is missing", item.name));
        let (Rule::AtMost(wanted)
        | Rule::AtLeast(wanted)
        | Rule::MostAtLeast(wanted)
        | Rule::DirtyAtMost(wanted, _)
        | Rule::DirtyAtLeast(wanted, _)) = rule;
        assert_eq!(value.split(' ').next_back(), Some(wanted.to_string().as_str()), "{}", item.name);
    }
    assert!(found.is_empty(), "not in the table of items: {found:?}");
}

/// `corelog tune` leaves what is better than wanted; a file for sysctl cannot.
#[test]
fn what_the_file_for_sysctl_would_lower_is_said_in_it_and_in_the_readme() {
    let is_minimum = |rule: Rule| matches!(rule, Rule::AtLeast(_) | Rule::MostAtLeast(_) | Rule::DirtyAtLeast(..));
    let lowered: Vec<&str> = ITEMS
        .iter()
        .filter_map(|item| matches!(item.action, Action::Sysctl(rule) if is_minimum(rule)).then_some(item.name))
        .collect();
    assert!(lowered.contains(&"vm.max_map_count") && lowered.contains(&"net.ipv4.tcp_rmem"), "{lowered:?}");
    for file in ["90-corelog.conf", "README.md"] {
        let text = read(file);
        let warning = text.lines().find(|line| line.contains("lower what an operator has raised"));
        let warning = warning.unwrap_or_else(|| panic!("{file} has no warning"));
        for name in &lowered {
            assert!(warning.contains(name), "{file}: {name} is not in {warning:?}");
        }
    }
}

#[test]
fn a_start_of_the_unit_that_failed_half_way_is_undone() {
    let unit = read("corelog-tune.service");
    let values = |key: &str| {
        let start = format!("{key}=");
        unit.lines().filter_map(|line| line.strip_prefix(&start).map(str::to_owned)).collect::<Vec<_>>()
    };
    // systemd skips ExecStop where ExecStart has failed.
    assert_eq!((values("ExecStop"), values("ExecStopPost")), (vec![], vec!["/usr/bin/corelog tune undo".to_owned()]));
}
