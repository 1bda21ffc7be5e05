//! Which seeds a random test runs.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// After so many it ends.
const FAILURES_MAX: usize = 20;

/// `CORELOG_SEED=7` runs that seed alone, `CORELOG_SEEDS=3000` the first 3,000, `CORELOG_SEEDS=500..900` those; else the
/// first `few`.
pub fn seeds(few: u64) -> Range<u64> {
    let set = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().ok();
    let only = set("CORELOG_SEED").as_deref().and_then(number).map(|seed| seed..seed + 1);
    let range = || {
        let text = set("CORELOG_SEEDS")?;
        match text.split_once("..") {
            Some((from, to)) => Some(number(from)?..number(to)?),
            None => Some(0..number(&text)?),
        }
    };
    only.or_else(range).unwrap_or(0..few)
}

/// All seeds that a test always runs: then it may ask that enough happened.
pub fn are_all(seeds: &Range<u64>, few: u64) -> bool {
    *seeds == (0..few)
}

/// Runs each seed by itself, and names those that fail.
pub fn each_seed(few: u64, run: impl Fn(u64)) {
    let fails = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed))).is_err();
    let failed: Vec<u64> = seeds(few).filter(fails).take(FAILURES_MAX).collect();
    assert!(failed.is_empty(), "seeds {failed:?} fail; CORELOG_SEED={} runs the first alone", failed[0]);
}
