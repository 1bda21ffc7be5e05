//! Data directories from format to loss, and every crash between.

use super::*;
use crate::node::manifest::TEMPORARY;

const ANY: Wanted = Wanted { node_id: None, shards: None, shards_default: 2, forget: Vec::new() };

fn asked(node: i32, shards: u16) -> Wanted {
    Wanted { node_id: Some(NodeId(node)), shards: Some(shards), shards_default: 9, forget: Vec::new() }
}

fn forgetting(dirs: &[&Path]) -> Wanted {
    Wanted { forget: dirs.iter().map(|dir| dir.display().to_string()).collect(), ..ANY }
}

fn open(dirs: &[PathBuf], wanted: Wanted) -> Result<Opened, FormatError> {
    survey(dirs, &wanted)?.open()
}

fn refusal(dirs: &[PathBuf], wanted: Wanted) -> String {
    open(dirs, wanted).expect_err("must be refused").to_string()
}

#[test]
fn what_is_fixed_at_format_is_found_again() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().join("deep/a"), temp.path().join("b")];
    let first = open(&dirs, asked(7, 3)).expect("missing directories are formatted");
    assert!(first.freshly_formatted && first.dirs.iter().all(|dir| dir.was_clean));
    assert_eq!(first.cluster_id.len(), 22);
    assert_ne!(first.dirs[0].id, first.dirs[1].id);
    let (cluster, found) = (first.cluster_id.clone(), first.dirs.clone());
    drop(first);
    let again = open(&dirs, ANY).expect("they are ours");
    assert_eq!((again.cluster_id, again.node_id, again.shards), (cluster.clone(), NodeId(7), 3));
    assert!(!again.freshly_formatted && again.dirs.iter().all(|dir| !dir.was_clean), "no clean stop came before");
    assert!(again.dirs.iter().zip(&found).all(|(one, other)| one.id == other.id));
    let meta = fs::read_to_string(dirs[0].join("meta.properties")).expect("Kafka's file");
    assert_eq!(meta, format!("version=0\nbroker.id=7\ncluster.id={cluster}\n"));
}

#[test]
fn a_clean_stop_counts_once() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().to_owned()];
    mark_clean(&open(&dirs, ANY).expect("empty").dirs).expect("writable");
    let mark = fs::read_to_string(temp.path().join(".kafka_cleanshutdown")).expect("the mark");
    assert_eq!(mark, "{\"version\":0,\"brokerEpoch\":-1}");
    assert!(open(&dirs, ANY).expect("ours").dirs[0].was_clean);
    assert!(!temp.path().join(".kafka_cleanshutdown").exists());
    assert!(!open(&dirs, ANY).expect("ours").dirs[0].was_clean, "then the process was killed");
}

#[test]
fn other_ids_and_shards_are_refused_with_what_to_do() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().to_owned()];
    drop(open(&dirs, asked(1, 2)).expect("empty"));
    let text = refusal(&dirs, asked(1, 4));
    assert!(text.contains("formatted with shards 2, and 4 is asked for") && text.contains("set shards to 2"), "{text}");
    assert!(refusal(&dirs, asked(5, 2)).contains("broker.id 1, and 5"));
    open(&dirs, asked(1, 2)).expect("the same as before");
}

#[test]
fn a_second_opener_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().to_owned()];
    let held = open(&dirs, ANY).expect("empty");
    assert!(refusal(&dirs, ANY).contains("in use by another process"));
    drop(held);
    open(&dirs, ANY).expect("free again");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    fs::write(temp.path().join("thesis.txt"), "x").expect("writable");
    let text = refusal(&[temp.path().to_owned()], ANY);
    assert!(text.contains("thesis.txt"), "{text}");
    assert_eq!(fs::read_dir(temp.path()).expect("listable").count(), 1, "not even a lock was made");
    assert!(refusal(&[temp.path().join("thesis.txt")], ANY).contains("is not a directory"));
    assert!(refusal(&[temp.path().join("thesis.txt/b")], ANY).contains("thesis.txt"));
}

#[test]
fn a_directory_of_kafka_is_recognised() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    for name in ["meta.properties", "recovery-point-offset-checkpoint"] {
        fs::write(temp.path().join(name), "").expect("writable");
    }
    assert!(refusal(&[temp.path().to_owned()], ANY).contains("Apache Kafka"));
}

#[test]
fn a_fresh_file_system_is_empty() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(temp.path().join("lost+found")).expect("writable");
    assert!(open(&[temp.path().to_owned()], ANY).expect("as mkfs leaves it").freshly_formatted);
}

#[test]
fn a_directory_that_is_added_joins_the_cluster() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (a, b, c) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("c"));
    let cluster = open(std::slice::from_ref(&a), asked(3, 5)).expect("missing").cluster_id;
    let grown = open(&[b.clone(), a.clone()], ANY).expect("one more");
    assert_eq!((grown.cluster_id.as_str(), grown.node_id, grown.shards), (cluster.as_str(), NodeId(3), 5));
    assert!(!grown.freshly_formatted && grown.dirs[0].was_clean && !grown.dirs[1].was_clean);
    drop(grown);
    drop(open(std::slice::from_ref(&c), asked(3, 5)).expect("another cluster"));
    assert!(refusal(&[a.clone(), c], ANY).contains("cluster.id"));
    assert!(refusal(&[a.clone(), temp.path().join("b/../a")], ANY).contains("the same directory"));
}

#[test]
fn a_damaged_manifest_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().to_owned()];
    drop(open(&dirs, asked(1, 2)).expect("empty"));
    let path = temp.path().join(MANIFEST);
    let sound = fs::read_to_string(&path).expect("written");
    for damaged in [sound.replace("shards=2", "shards=3"), sound[..sound.len() - 4].to_owned(), String::new()] {
        fs::write(&path, damaged).expect("writable");
        assert!(refusal(&dirs, ANY).contains("checksum"));
    }
    let newer = sound.split_once("crc32").expect("last line").0.replace("version=1", "version=2");
    fs::write(&path, format!("{newer}crc32={:08x}\n", crc32fast::hash(newer.as_bytes()))).expect("writable");
    assert!(refusal(&dirs, ANY).contains("newer corelog"));
}

/// A survey that found nothing wrong changes nothing, nor does an opening that cannot make all directories.
#[test]
fn a_start_that_fails_leaves_no_new_directories() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().join("deep/a"), PathBuf::from("/proc/corelog/b")];
    drop(survey(&dirs, &ANY).expect("nothing speaks against it yet"));
    let text = refusal(&dirs, ANY);
    assert!(text.starts_with("/proc/corelog/b: cannot make this directory"), "{text}");
    assert!(!temp.path().join("deep").exists());
}

/// Opens all but one, which is to be told of.
fn offline(dirs: &[PathBuf], lost: &Path, why: &str) {
    let opened = open(dirs, ANY).expect("the others are there");
    assert!(opened.dirs.iter().all(|dir| dir.path != lost) && opened.dirs.len() == dirs.len() - 1);
    assert!(
        matches!(&opened.offline[..], [(path, text)] if path == lost && text.contains(why)),
        "{:?}",
        opened.offline
    );
}

#[test]
fn a_missing_directory_is_offline_or_stops_the_start_until_it_is_back_or_given_up() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (a, b, aside) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("aside"));
    let both = [a.clone(), b.clone()];
    let opened = open(&both, asked(1, 2)).expect("missing");
    let lost = opened.dirs[1].id.clone();
    drop(opened);
    let text = refusal(&both[..1], ANY);
    let name = format!("{} (directory.id {lost}): log.dirs does not name it", b.display());
    let remedy = format!("give it up: --forget-dir {}", b.display());
    assert!(text.contains(&name) && text.contains(&remedy), "{text}");
    fs::rename(&b, &aside).expect("its disk is unmounted");
    offline(&both, &b, "there is no such directory: is its disk mounted?");
    assert!(!b.exists(), "nothing is made in its place");
    fs::create_dir(&b).expect("the mount point");
    offline(&both, &b, "the directory is empty: is its disk mounted?");
    assert_eq!(fs::read_dir(&b).expect("listed").count(), 0, "nothing is written in its place");
    offline(&both, &b, "the directory is empty: is its disk mounted?");
    open(&[a.clone(), aside.clone()], ANY).expect("back under another path");
    assert!(refusal(&both[..1], ANY).contains(&format!("{} (directory.id {lost})", aside.display())), "as last seen");
    assert!(
        refusal(&both[..1], forgetting(&[&b])).contains("no directory of this node with that path or id is missing")
    );
    let one = open(&both[..1], forgetting(&[&aside])).expect("given up");
    assert!(!one.freshly_formatted);
    drop(one);
    open(&both[..1], ANY).expect("it is not asked about again");
    open(&both, ANY).expect("one may be added in its place");
    assert!(refusal(&both[1..], ANY).contains("log.dirs does not name it"), "and knows of the others");
    fs::remove_dir_all(&b).expect("lost");
    let id = Wanted { forget: vec![lost.clone()], ..ANY };
    assert!(refusal(&both, id).contains(&format!("--forget-dir {lost}: no directory")), "that was the first one");
    open(&both, forgetting(&[&b])).expect("a new disk at the same place");
}

/// A directory that cannot be read or written kept the node from starting.
#[test]
fn a_directory_that_cannot_be_used_is_offline_and_is_not_forgotten() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (temp.path().join("a"), temp.path().join("b"));
    let both = [a.clone(), b.clone()];
    fs::write(&b, "").expect("a file in the place of a directory");
    assert!(refusal(&both, asked(1, 2)).contains("b is not a directory"), "a first start needs all of them");
    assert!(!a.exists());
    fs::remove_file(&b).expect("removed");
    let found = open(&both, asked(1, 2)).expect("missing").dirs;
    let sound = fs::read_to_string(b.join(MANIFEST)).expect("written");
    fs::write(b.join(MANIFEST), sound.replace("shards=2", "shards=3")).expect("damaged");
    offline(&both, &b, "its checksum is");
    assert!(!fs::read_to_string(b.join(MANIFEST)).expect("there").contains("shards=2"), "it is left as it is");
    fs::write(b.join(MANIFEST), sound).expect("mended");
    // A lock that cannot be opened, as on a file system that is mounted read-only.
    fs::remove_file(b.join(LOCK)).expect("there");
    fs::create_dir(b.join(LOCK)).expect("made");
    offline(&both, &b, "cannot open it");
    fs::remove_dir(b.join(LOCK)).expect("there");
    let again = open(&both, ANY).expect("both can be used").dirs;
    assert!(again.iter().zip(&found).all(|(one, other)| one.id == other.id));
}

#[test]
fn a_directory_that_fails_after_the_survey_is_offline_unless_it_is_the_last() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let both = [temp.path().join("a"), temp.path().join("b")];
    drop(open(&both, asked(1, 2)).expect("missing"));
    let mut taken = survey(&both, &ANY).expect("sound");
    taken.lose(&both[0], "cannot list it: EIO".to_owned()).expect("there is another");
    assert_eq!(taken.dirs().len(), 1);
    taken.lose(&both[1], "the same".to_owned()).expect_err("the last one");
    let mut taken = {
        drop(taken);
        survey(&both, &ANY).expect("sound")
    };
    taken.lose(&both[0], "cannot list it: EIO".to_owned()).expect("there is another");
    let opened = taken.open().expect("the other");
    assert_eq!((opened.dirs.len(), opened.offline.len(), opened.freshly_formatted), (1, 1, false));
    let known = Manifest::read(&both[1]).expect("readable").expect("formatted").known;
    assert_eq!(known.len(), 2, "it is still known");
}

#[test]
fn a_copy_of_a_directory_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().join("a"), temp.path().join("b")];
    drop(open(&dirs[..1], ANY).expect("missing"));
    fs::create_dir(&dirs[1]).expect("writable");
    fs::copy(dirs[0].join(MANIFEST), dirs[1].join(MANIFEST)).expect("copied");
    assert!(refusal(&dirs, ANY).starts_with("duplicate log directories found"));
}

/// Directories that were formatted before the lists were kept open as ever, and are protected from then on.
#[test]
fn directories_without_a_list_get_one() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dirs = [temp.path().join("a"), temp.path().join("b")];
    drop(open(&dirs, asked(1, 2)).expect("missing"));
    for dir in &dirs {
        let manifest = Manifest::read(dir).expect("readable").expect("formatted");
        let old = Manifest { known: BTreeMap::new(), ..manifest };
        assert_eq!(old.text().lines().count(), 6, "as it was written then");
        fs::write(dir.join(MANIFEST), old.text()).expect("writable");
    }
    drop(open(&dirs[..1], ANY).expect("nobody knows of the other"));
    drop(open(&dirs, ANY).expect("ours"));
    assert!(refusal(&dirs[..1], ANY).contains("missing: "));
}

/// Performs the first `done` steps of an opening and, with `torn`, half of the next; true if that were all.
fn crash(dirs: &[PathBuf], wanted: &Wanted, done: usize, torn: bool) -> bool {
    let survey = survey(dirs, wanted).expect("sound");
    let mut opened = survey.dirs();
    make_dirs(opened.iter().filter(|dir| dir.is_new).map(|dir| dir.path.as_path())).expect("writable");
    let _locks: Vec<_> = opened.iter().filter(|dir| dir.is_new).map(|dir| lock(&dir.path).expect("free")).collect();
    let steps = survey.write_manifests(&mut opened);
    steps.iter().take(done).for_each(|step| step.perform().expect("writable"));
    if let (true, Some(PlacedStep { dir, step: Step::WriteTemporary(name, text) })) = (torn, steps.get(done)) {
        fs::write(dir.join(format!("{name}{TEMPORARY}")), &text.as_bytes()[..text.len() / 2]).expect("writable");
    }
    done >= steps.len()
}

/// The power fails at any step at which `wanted` is done to `after`, where there was `before`: the next start takes it
/// up, and the one after that misses whichever directory is not there.
fn crash_everywhere(before: &[&str], after: &[&str], forget: &[&str]) {
    for torn in [false, true] {
        for done in 0.. {
            let temp = tempfile::tempdir().expect("a temporary directory");
            let named = |names: &[&str]| names.iter().map(|name| temp.path().join(name)).collect::<Vec<_>>();
            let cluster = (!before.is_empty()).then(|| open(&named(before), asked(4, 6)).expect("missing").cluster_id);
            let forgotten: Vec<PathBuf> = named(forget).iter().map(|dir| dir.canonicalize().expect("there")).collect();
            let wanted = Wanted {
                forget: forgetting(&forgotten.iter().map(|dir| &**dir).collect::<Vec<_>>()).forget,
                ..asked(4, 6)
            };
            let dirs = named(after);
            let was_all = crash(&dirs, &wanted, done, torn);
            // What was given up may have to be given up once more, and never comes back by itself.
            let again = open(&dirs, asked(4, 6)).or_else(|_| open(&dirs, wanted)).expect("taken up");
            assert!(cluster.is_none_or(|cluster| cluster == again.cluster_id), "after {done} steps");
            for dir in &dirs {
                let meta = fs::read_to_string(dir.join(META)).expect("written");
                assert!(meta.contains(&again.cluster_id), "both files name one cluster");
            }
            drop(again);
            for missing in 0..if dirs.len() > 1 { dirs.len() } else { 0 } {
                let mut fewer = dirs.clone();
                let gone = fewer.remove(missing);
                let text = refusal(&fewer, ANY);
                assert!(text.contains(&format!("{} (directory.id", gone.display())), "after {done} steps: {text}");
            }
            if was_all {
                break;
            }
        }
    }
}

#[test]
fn an_interrupted_format_is_taken_up() {
    crash_everywhere(&[], &["a"], &[]);
    crash_everywhere(&[], &["a", "b", "c"], &[]);
}

#[test]
fn an_interrupted_addition_is_taken_up() {
    crash_everywhere(&["a"], &["b", "a"], &[]);
    crash_everywhere(&["a", "b"], &["a", "b", "c", "d"], &[]);
}

#[test]
fn an_interrupted_giving_up_is_taken_up() {
    crash_everywhere(&["a", "b", "c"], &["a", "c"], &["b"]);
    crash_everywhere(&["a", "b", "c"], &["d", "a"], &["b", "c"]);
}

/// A crash in the middle of an addition, after which the new directory is left out: it has no records yet, so that either
/// answer is right; the start after the next must know what the next one said.
#[test]
fn a_directory_that_was_not_used_yet_may_be_left_out_again() {
    for done in 0..12 {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dirs = [temp.path().join("a"), temp.path().join("b")];
        drop(open(&dirs[..1], asked(4, 6)).expect("missing"));
        crash(&dirs, &ANY, done, false);
        let first = open(&dirs[..1], ANY).map(|opened| opened.dirs.len()).map_err(|error| error.to_string());
        let second = open(&dirs[..1], ANY).map(|opened| opened.dirs.len()).map_err(|error| error.to_string());
        assert_eq!(first, second, "after {done} steps");
        open(&dirs, ANY).expect("both are there");
    }
}
