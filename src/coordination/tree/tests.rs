//! The tree against a model so simple that it is right at a glance: a flat map of paths.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelNode {
    data: Bytes,
    version: i32,
    creations: i32,
    owner: u64,
}

type Model = BTreeMap<String, ModelNode>;

fn model_children(model: &Model, path: &str) -> Vec<String> {
    let prefix = if path == "/" { "/".to_string() } else { format!("{path}/") };
    model
        .keys()
        .filter_map(|other| other.strip_prefix(&prefix))
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .map(str::to_string)
        .collect()
}

fn parent_of(path: &str) -> String {
    let (parent, _) = path.rsplit_once('/').expect("absolute");
    if parent.is_empty() { "/".into() } else { parent.into() }
}

fn model_step(model: &mut Model, session: u64, op: &Op) -> Result<(), StoreError> {
    match op {
        Op::Create { path, data, mode } => {
            let parent = model.get_mut(&parent_of(path)).ok_or(StoreError::NoNode)?;
            if parent.owner != 0 {
                return Err(StoreError::NoChildrenForEphemerals);
            }
            let name = if mode.is_sequential() { format!("{path}{:010}", parent.creations) } else { path.to_string() };
            if model.contains_key(&name) {
                return Err(StoreError::NodeExists);
            }
            model.get_mut(&parent_of(path)).expect("seen").creations += 1;
            let owner = if mode.is_ephemeral() { session } else { 0 };
            model.insert(name, ModelNode { data: data.clone(), version: 0, creations: 0, owner });
        }
        Op::Set { path, data, version } => {
            let node = model.get_mut(path).ok_or(StoreError::NoNode)?;
            if version.is_some_and(|version| version != node.version) {
                return Err(StoreError::BadVersion);
            }
            node.data = data.clone();
            node.version += 1;
        }
        Op::Delete { path, version } => {
            let node = model.get(path).ok_or(StoreError::NoNode)?;
            if version.is_some_and(|version| version != node.version) {
                return Err(StoreError::BadVersion);
            }
            if !model_children(model, path).is_empty() {
                return Err(StoreError::NotEmpty);
            }
            model.remove(path);
        }
        Op::Check { path, version } => {
            if model.get(path).ok_or(StoreError::NoNode)?.version != *version {
                return Err(StoreError::BadVersion);
            }
        }
    }
    Ok(())
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| format!("/{}", parts.join("/")))
}

fn any_op() -> impl Strategy<Value = Op> {
    let mode = prop::sample::select(vec![
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Ephemeral,
        CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential,
    ]);
    let version = prop::option::of(0..3i32);
    let data = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        4 => (any_path(), data.clone(), mode).prop_map(|(path, data, mode)| Op::create(path, data, mode)),
        2 => (any_path(), data, version.clone()).prop_map(|(path, data, version)| Op::set(path, data, version)),
        2 => (any_path(), version).prop_map(|(path, version)| Op::delete(path, version)),
        1 => (any_path(), 0..3i32).prop_map(|(path, version)| Op::check(path, version)),
    ]
}

fn any_change() -> impl Strategy<Value = (u64, Change)> {
    let change = prop_oneof![
        9 => prop::collection::vec(any_op(), 1..4).prop_map(Change::Multi),
        1 => Just(Change::CloseSession),
    ];
    (1..4u64, change)
}

fn assert_same(tree: &Tree, model: &Model) {
    let mut seen = Model::new();
    tree.for_each(|record| {
        let Meta { version, creations, owner, .. } = record.meta;
        seen.insert(record.path, ModelNode { data: record.data, version, creations, owner });
    });
    assert_eq!(&seen, model);
    for path in model.keys() {
        assert_eq!(tree.children(path).unwrap(), model_children(model, path));
    }
}

proptest! {
    #[test]
    fn behaves_as_the_model(changes in prop::collection::vec(any_change(), 0..40)) {
        let mut tree = Tree::default();
        let mut model = Model::new();
        model.insert("/".into(), ModelNode { data: Bytes::new(), version: 0, creations: 0, owner: 0 });
        for (session, change) in changes {
            let zxid = tree.zxid() + 1;
            let txn = Txn { zxid, time_ms: 5, session: SessionId(session), change };
            let outcome = tree.apply(&txn);
            tree.check_invariants();
            match &txn.change {
                Change::Multi(ops) => {
                    let mut next = model.clone();
                    let failed = ops.iter().enumerate().find_map(|(index, op)| {
                        model_step(&mut next, session, op).err().map(|error| MultiError { index, error })
                    });
                    prop_assert_eq!(outcome.err(), failed.clone());
                    if failed.is_none() {
                        model = next;
                    }
                }
                Change::CloseSession => {
                    prop_assert!(outcome.is_ok());
                    model.retain(|_, node| node.owner != session);
                }
            }
            assert_same(&tree, &model);
        }
        let mut records = Vec::new();
        tree.for_each(|record| records.push(record));
        prop_assert_eq!(Tree::restore(tree.zxid(), records).unwrap(), tree);
    }
}

fn run(tree: &mut Tree, ops: Vec<Op>) -> Result<Vec<OpResult>, MultiError> {
    let zxid = tree.zxid() + 1;
    tree.apply(&Txn { zxid, time_ms: 0, session: SessionId(1), change: Change::Multi(ops) })
}

#[test]
fn a_refused_multi_leaves_no_trace() {
    let mut tree = Tree::default();
    run(&mut tree, vec![Op::create("/a", "1", CreateMode::Persistent)]).unwrap();
    let error = run(
        &mut tree,
        vec![
            Op::create("/a/b", "", CreateMode::Ephemeral),
            Op::set("/a", "2", Some(0)),
            Op::delete("/a/b", None),
            Op::check("/a", 0),
        ],
    )
    .unwrap_err();
    assert_eq!(error, MultiError { index: 3, error: StoreError::BadVersion });
    let (data, stat) = tree.get("/a").unwrap();
    assert_eq!((&data[..], stat.version, stat.cversion, tree.zxid()), (&b"1"[..], 0, 0, 1));
    tree.check_invariants();
}

#[test]
fn a_new_life_of_a_path_has_a_new_czxid() {
    let mut tree = Tree::default();
    let created = |results: Vec<OpResult>| match &results[0] {
        OpResult::Create { stat, .. } => stat.czxid,
        other => panic!("{other:?}"),
    };
    let first = created(run(&mut tree, vec![Op::create("/id", "", CreateMode::Ephemeral)]).unwrap());
    run(&mut tree, vec![Op::delete("/id", None)]).unwrap();
    let second = created(run(&mut tree, vec![Op::create("/id", "", CreateMode::Ephemeral)]).unwrap());
    assert!(second > first);
}

#[test]
fn paths_are_checked() {
    let mut tree = Tree::default();
    for path in ["", "a", "/a/", "//a", "/a/../b", "/.", "/a\u{0}b"] {
        let error = run(&mut tree, vec![Op::create(path, "", CreateMode::Persistent)]).unwrap_err();
        assert!(matches!(error.error, StoreError::BadArguments(_)), "{path:?}: {error}");
    }
    let long = format!("/{}", "x".repeat(crate::base::limits::STORE_PATH_BYTES_MAX));
    assert!(matches!(tree.get(&long), Err(StoreError::BadArguments(_))));
}
