//! Keeps the house: who may import whom, what is on the map, how large files and functions are, what the documents say.
//!
//! The sources of truth are `src/lib.rs` (the rooms in rank order), the map in `ARCHITECTURE.md`, and the API table in
//! `README.md`. Source is read as text: rustfmt keeps it regular enough for that.

use corelog::api::registry;
use corelog::base::limits;
use kafka_protocol::messages::ApiKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
/// From `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 90;

/// Larger than `FILE_LINES_MAX`, each with its reason.
const LARGE_FILES: &[(&str, &str)] = &[];

/// What a room may import where its rank alone would allow more.
const NARROW_ROOMS: &[(&str, &[&str])] = &[
    // The command line's client works against any cluster: it must not know our broker from the inside.
    ("client", &["base", "record", "wire"]),
    ("load", &["base", "record", "wire", "client"]),
];

/// Decides without clock, disk, network or chance.
const PURE: &[&str] = &[
    "api/fetch/session.rs",
    "cli/bench/html.rs",
    "cli/bench/plot.rs",
    "cli/bench/sweep_plots.rs",
    "cli/group/plan.rs",
    "client/consumer/lane.rs",
    "client/groups/assign.rs",
    "client/groups/protocol.rs",
    "client/partitioner.rs",
    "client/producer/outbox.rs",
    "cluster",
    "controller/plan",
    "coordination/tree.rs",
    "journal/format.rs",
    "journal/ring.rs",
    "journal/scan.rs",
    "log/compact/keep.rs",
    "log/compact/map.rs",
    "log/compact/plan.rs",
    "log/core.rs",
    "log/corrupt.rs",
    "log/epochs.rs",
    "log/inline.rs",
    "log/inspect.rs",
    "log/producers.rs",
    "group/classic",
    "group/consumer",
    "group/consumer_records.rs",
    "group/offsets.rs",
    "group/records.rs",
    "group/subscription.rs",
    "load/batches.rs",
    "load/cutter.rs",
    "load/frames.rs",
    "load/identity.rs",
    "load/outbox.rs",
    "load/pipeline.rs",
    "load/plan.rs",
    "load/reading.rs",
    "load/skew.rs",
    "load/skim.rs",
    "load/spread.rs",
    "log/retain.rs",
    "maintenance/pace.rs",
    "maintenance/rate.rs",
    "maintenance/scrub_progress.rs",
    "partition/durability.rs",
    "partition/watermark.rs",
    "record",
    "tuning/check",
    "tuning/cpus.rs",
    "tuning/facts.rs",
    "tuning/items.rs",
    "tuning/parse.rs",
    "tuning/place.rs",
    "tuning/plan.rs",
    "tuning/script.rs",
    "tuning/state.rs",
    "tuning/sysctl.rs",
    "wire",
];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "tokio",
    "Instant::now",
    "SystemTime",
    "now_ms()",
    "fastrand::Rng::new",
    "Uuid::new_v4",
];

/// Rooms that live on one shard's thread: locks would mean that something is shared.
const ON_SHARDS: &[&str] = &["record", "wire", "journal", "log", "partition", "group", "api", "shard"];
const SHARED: &[&str] = &["Mutex", "RwLock", "Atomic"];

/// The files that know tokio-uring, so that it can be replaced.
const RING_FILES: &[&str] = &["journal/file.rs", "log/file.rs", "shard/runtime.rs"];

#[test]
fn rooms_import_only_lower_rooms() {
    let ranks = ranks();
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let Some(room) = room_of(&file) else { continue };
        for (line, imported) in imports(&read(&file)) {
            let Some(rank) = ranks.get(imported.as_str()) else {
                faults.push(format!("{}:{line}: crate::{imported} is no room of src/lib.rs", file.display()));
                continue;
            };
            let narrow = NARROW_ROOMS.iter().find(|(name, _)| *name == room);
            let allowed = match narrow {
                Some((_, rooms)) => rooms.contains(&imported.as_str()),
                None => *rank < ranks[room.as_str()],
            };
            if imported != room && !allowed {
                faults.push(format!("{}:{line}: {room} may not import {imported}", file.display()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn no_path_climbs_out_of_its_room() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let Some(room) = room_of(&file) else { continue };
        let inside = file.strip_prefix(Path::new("src").join(&room)).expect("the file lies in its room");
        // src/log/core.rs is crate::log::core: `super` is the room, `super::super` has left it. A test module is deeper.
        // log/core_tests.rs, if there were one, would be crate::log::core::tests.
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let own_name = usize::from(stem != "mod") + usize::from(stem.ends_with("_tests"));
        let depth = inside.components().count() - 1 + own_name;
        for (at, line) in read(&file).lines().enumerate() {
            let indented = usize::from(line.starts_with(' '));
            if line.matches("super::").count() > depth + indented && line.contains("super::super::") {
                faults.push(format!("{}:{}: {}", file.display(), at + 1, line.trim()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_map_names_every_folder_with_its_rank() {
    let on_map: BTreeMap<String, Option<usize>> = map_rows().into_iter().collect();
    let mut folders = BTreeSet::new();
    collect_folders(Path::new("src"), &mut folders);
    let top = fs::read_dir(root()).expect("the repository can be listed").filter_map(|entry| {
        let entry = entry.expect("the repository can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = entry.path().is_dir() && !name.starts_with('.') && !["target", "corelog-data"].contains(&&*name);
        is_ours.then_some(name)
    });
    folders.extend(top);
    let mut faults = Vec::new();
    for folder in &folders {
        if !on_map.contains_key(folder) {
            faults.push(format!("{folder}/ is not on the map of ARCHITECTURE.md"));
        }
    }
    for (folder, rank) in &on_map {
        if !folders.contains(folder) {
            faults.push(format!("{folder}/ is on the map and does not exist"));
        }
        let is_room = folder.matches('/').count() == 1 && folder.starts_with("src/");
        let real = ranks().get(folder.trim_start_matches("src/")).copied();
        if is_room && *rank != real {
            faults.push(format!("{folder}/ has rank {rank:?} on the map and {real:?} in src/lib.rs"));
        }
    }
    assert_none(&faults);
}

#[test]
fn files_and_functions_are_small() {
    let mut faults = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("tests")).chain(rust_files("bench")) {
        let text = read(&file);
        let lines = text.lines().count();
        let excused = LARGE_FILES.iter().any(|(name, reason)| Path::new(name) == file && !reason.is_empty());
        if lines > FILE_LINES_MAX && !excused {
            faults.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.display()));
        }
        for (name, at, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{at}: {name} has {lines} lines", file.display()));
            }
        }
    }
    for (name, _) in LARGE_FILES {
        if !root().join(name).exists() {
            faults.push(format!("{name} is excused and does not exist"));
        }
    }
    assert_none(&faults);
}

#[test]
fn what_decides_has_no_clock_and_no_disk() {
    assert_absent(IMPURE, |path| PURE.iter().any(|pure| path.starts_with(pure)));
}

#[test]
fn shards_share_nothing_that_needs_a_lock() {
    assert_absent(SHARED, |path| ON_SHARDS.iter().any(|room| path.starts_with(room)));
}

#[test]
fn few_files_know_the_ring() {
    assert_absent(&["tokio_uring::"], |path| !RING_FILES.iter().any(|known| path == Path::new(known)));
}

/// They panic where nobody reads (`corelog topic list | head -1`): `cli::output` has what takes their place.
#[test]
fn nothing_is_printed_that_minds_a_reader_who_has_gone() {
    assert_absent(&[concat!("print", "ln!("), concat!("print", "!(")], |_| true);
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelled apart, so that this file does not find itself.
    let words = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!(")];
    let mut faults = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("tests")).chain(rust_files("bench")) {
        for (at, line) in read(&file).lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", file.display(), at + 1));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn no_machine_of_ours_is_named() {
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("../sha", "red"), concat!("session ", "cut")];
    let mut faults = Vec::new();
    for file in text_files() {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", file.display(), at + 1));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_dependency_has_a_reason_and_a_use() {
    let mut source = String::new();
    for file in ["src", "tests", "bench"].into_iter().flat_map(rust_files) {
        source.push_str(&read(&file));
    }
    let (mut faults, mut seen) = (Vec::new(), 0);
    let (mut in_dependencies, mut has_reason) = (false, false);
    for line in read("Cargo.toml").lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.starts_with('#') {
            has_reason = line.trim_start_matches(['#', ' ']).len() > 10;
            continue;
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| in_dependencies) {
            seen += 1;
            if !has_reason {
                faults.push(format!("{name}: no comment above it says why it is there"));
            }
            let ident = name.replace('-', "_");
            if ![format!("{ident}::"), format!("{ident}!")].iter().any(|used| source.contains(used.as_str())) {
                faults.push(format!("{name}: nothing uses it"));
            }
        }
        has_reason = false;
    }
    assert!(seen > 10, "Cargo.toml has other dependencies than this test understands");
    assert_none(&faults);
}

#[test]
fn the_readme_tells_which_apis_are_served() {
    let expected: Vec<String> = registry::APIS
        .iter()
        .map(|api| {
            let name = ApiKey::try_from(api.key).expect("a key of Kafka's");
            let range = format!("{}–{}", api.accepted_min, api.max);
            let advertised = format!(" (advertised {}–{})", api.advertised_min, api.max);
            let advertised = if api.advertised_min == api.accepted_min { "" } else { &advertised };
            format!("| {} | {name:?} | {range}{advertised} |", api.key)
        })
        .collect();
    let readme = read("README.md");
    let section = section(&readme, "### APIs");
    let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(found, expected, "put these lines into the README's table:\n{}\n", expected.join("\n"));
}

#[test]
fn the_readme_tells_the_bounds_that_hold() {
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let rows = [
        ("requests in flight of one connection", limits::CONNECTION_IN_FLIGHT_MAX.to_string()),
        ("bytes of requests held for one connection", mib(limits::CONNECTION_HELD_BYTES_MAX)),
        ("bytes of requests held by one shard", mib(limits::SHARD_RECEIVE_BYTES_MAX)),
        ("bytes that one batch may decompress to", mib(limits::DECOMPRESSED_BATCH_BYTES_MAX)),
        ("array elements in one request", thousands(limits::REQUEST_ELEMENTS_MAX)),
        ("idempotent producers remembered by one partition", thousands(limits::PRODUCERS_PER_PARTITION_MAX)),
        ("partitions in one request that creates them", thousands(limits::CREATE_PARTITIONS_MAX)),
        ("partitions of a node", thousands(limits::CLUSTER_PARTITIONS_MAX)),
    ];
    let readme = read("README.md");
    let section = section(&readme, "## Limits");
    for (what, bound) in rows {
        let row = format!("| {what} | {bound} |");
        assert!(section.lines().any(|line| line == row), "the README's limits lack the line\n{row}\n");
    }
}

// ---- what this test itself relies on

#[test]
fn imports_are_found_in_all_their_forms() {
    let text = "use crate::base::ids;\nuse crate::{log::core, wire};\nlet x = crate::record::batch::f();\n\
                // crate::cli in a comment\npub(crate) fn f() {}\n$crate::node::x\n";
    let found: Vec<String> = imports(text).into_iter().map(|(_, room)| room).collect();
    assert_eq!(found, ["base", "log", "wire", "record"]);
}

#[test]
fn functions_are_measured_from_name_to_brace() {
    let text =
        "impl A {\n    pub fn one(&self) {\n        {\n        }\n    }\n}\nfn two() {}\nasync fn three(\n) {\n}\n";
    assert_eq!(functions(text), [("one".to_owned(), 2, 4), ("two".to_owned(), 7, 1), ("three".to_owned(), 8, 3)]);
}

/// Rooms with their ranks: modules of src/lib.rs, where an empty line begins the next rank.
fn ranks() -> BTreeMap<String, usize> {
    let text = read("src/lib.rs");
    let modules = &text[text.find("pub mod").expect("src/lib.rs has modules")..];
    let groups = modules.split("\n\n").enumerate();
    groups
        .flat_map(|(rank, group)| {
            let names = group.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
            names.map(move |name| (name.to_owned(), rank))
        })
        .collect()
}

/// The folder directly under src that a file lies in; lib.rs and main.rs have none.
fn room_of(file: &Path) -> Option<String> {
    let mut inside = file.strip_prefix("src").ok()?.components();
    let room = inside.next()?.as_os_str().to_string_lossy().into_owned();
    inside.next().map(|_| room)
}

/// Rooms that a file names, with the line; comments do not count, nor does `$crate` of a macro.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        for (position, _) in code.match_indices("crate::") {
            if code[..position].ends_with(|c: char| c == '$' || c.is_alphanumeric() || c == '_') {
                continue;
            }
            let path = &code[position + "crate::".len()..];
            let names: Vec<&str> = match path.strip_prefix('{') {
                Some(group) => group.split([',', '}']).map(str::trim).collect(),
                None => vec![path],
            };
            for name in names {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !name.is_empty() && !name.starts_with(char::is_uppercase) {
                    found.push((at + 1, name));
                }
            }
        }
    }
    // `crate::limited!` is a macro of base.
    found.retain(|(_, name)| name != "limited");
    found
}

/// Functions of formatted source: name, first line, number of lines.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let modifiers = ["pub", "pub(super)", "pub(crate)", "async", "const", "unsafe"];
        let Some(name) = words.iter().position(|word| *word == "fn").and_then(|fn_at| {
            words[..fn_at].iter().all(|word| modifiers.contains(word)).then(|| words.get(fn_at + 1)).flatten()
        }) else {
            continue;
        };
        let name = name.split(['(', '<']).next().unwrap_or(name).to_owned();
        if line.ends_with('}') || line.ends_with(';') {
            found.push((name, at + 1, 1));
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[at..].iter().position(|line| {
            *line == closing || (line.ends_with(';') && line.starts_with(&format!("{})", &closing[..indent])))
        });
        found.push((name, at + 1, end.map_or(1, |end| end + 1)));
    }
    found
}

/// Folders on the map of ARCHITECTURE.md, with the rank that its first column gives: rows `` | 1 | `src/wire/` | … | ``.
fn map_rows() -> Vec<(String, Option<usize>)> {
    let text = read("ARCHITECTURE.md");
    section(&text, "## The map")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let rank = cells.next()?.parse().ok();
            let folder = cells.next()?.strip_prefix('`')?.strip_suffix("/`")?;
            Some((folder.to_owned(), rank))
        })
        .collect()
}

/// Every folder below that holds source; a room's `tests` and `testdata` speak for themselves.
fn collect_folders(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root().join(folder)).expect("src can be listed") {
        let entry = entry.expect("src can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name != "tests" && name != "testdata" {
            let path = folder.join(name);
            into.insert(path.to_string_lossy().into_owned());
            collect_folders(&path, into);
        }
    }
}

/// Fails where code outside of tests holds one of `words` in a file, told by its path below src, that `applies` picks.
fn assert_absent(words: &[&str], applies: impl Fn(&Path) -> bool) {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for file in rust_files("src") {
        let path = file.strip_prefix("src").expect("the file lies in src");
        let name = path.to_string_lossy();
        if !applies(path) || name.contains("tests") || name.contains("fixture") {
            continue;
        }
        seen += 1;
        let text = read(&file);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        for (at, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or("");
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", file.display(), at + 1));
            }
        }
    }
    assert!(seen > 0, "no file is looked at");
    assert_none(&faults);
}

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let rest = &text[start + heading.len() + 2..];
    let level = heading.split(' ').next().expect("a heading has a level");
    let end = rest.match_indices("\n#").map(|(at, _)| at).find(|at| {
        let found = rest[at + 1..].split(' ').next().expect("a heading has a level");
        found.len() <= level.len() && found.chars().all(|c| c == '#')
    });
    &rest[..end.unwrap_or(rest.len())]
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Rust files below a folder, relative to the repository, without what was built or installed there.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(Path::new(folder)).into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect()
}

fn text_files() -> Vec<PathBuf> {
    files(Path::new("")).into_iter().filter(|path| path.extension().is_none_or(|ext| ext != "gz")).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return found };
    for entry in entries {
        let entry = entry.expect("a folder can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        let foreign = ["target", "corelog-data", "node_modules", "__pycache__", ".git", ".cache"].contains(&&*name);
        match entry.file_type().expect("a file has a type") {
            _ if foreign => {}
            kind if kind.is_dir() => found.extend(files(&path)),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
