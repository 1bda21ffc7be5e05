//! How simulations of groups are run: many seeds, each of which reproduces what it found.

use std::collections::HashSet;
use std::env;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};

/// Runs `CORELOG_GROUP_SEEDS` seeds (150) from `CORELOG_GROUP_SEED` (0) on; how many, and all that any of them met.
pub fn each_seed(run: impl Fn(u64) -> HashSet<String> + UnwindSafe + Copy) -> (u64, HashSet<String>) {
    let wanted = |name: &str, default: u64| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seeds, first) = (wanted("CORELOG_GROUP_SEEDS", 150), wanted("CORELOG_GROUP_SEED", 0));
    let mut met = HashSet::new();
    for seed in first..first + seeds {
        match catch_unwind(move || run(seed)) {
            Ok(one) => met.extend(one),
            Err(panic) => {
                eprintln!("seed {seed}: CORELOG_GROUP_SEED={seed} CORELOG_GROUP_SEEDS=1 reproduces it");
                resume_unwind(panic);
            }
        }
    }
    (seeds, met)
}
