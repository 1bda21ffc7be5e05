//! Which of its sets of partitions a connection sends to next. Pure.

use std::sync::Arc;

/// How requests are spread over partitions, where they do not take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Each gets as many, by chance.
    Uniform,
    /// The n-th gets one n-th of what the first gets.
    Zipf,
    /// The first gets nine of ten, the others the rest.
    Hot,
}

/// What the first gets of a hot partition's work.
const HOT_SHARE: f64 = 0.9;

impl Skew {
    /// For each of so many sets: by which part of all requests it, or one before it, is meant.
    pub fn shares(self, count: usize) -> Arc<[f64]> {
        let weight = |number: usize| match self {
            Skew::Uniform => 1.0,
            Skew::Zipf => 1.0 / (number + 1) as f64,
            Skew::Hot if number == 0 => HOT_SHARE,
            Skew::Hot => (1.0 - HOT_SHARE) / (count - 1) as f64,
        };
        let all: f64 = (0..count).map(weight).sum();
        let sum = |sum: &mut f64, number| {
            *sum += weight(number) / all;
            Some(*sum)
        };
        (0..count).scan(0.0, sum).collect()
    }
}

/// The sets of one connection, by their numbers among all.
pub struct Turns {
    sets: Arc<[usize]>,
    /// None: they take turns.
    chance: Option<(Arc<[f64]>, fastrand::Rng)>,
}

impl Turns {
    pub fn in_order(sets: Arc<[usize]>) -> Turns {
        Turns { sets, chance: None }
    }

    /// `shares` are [`Skew::shares`] of these sets.
    pub fn by_chance(sets: Arc<[usize]>, shares: Arc<[f64]>, seed: u64) -> Turns {
        Turns { sets, chance: Some((shares, fastrand::Rng::with_seed(seed))) }
    }

    /// The set that the request of this number goes to.
    pub fn next(&mut self, number: u64) -> usize {
        let at = match &mut self.chance {
            None => (number % self.sets.len() as u64) as usize,
            Some((shares, random)) => {
                let drawn = random.f64();
                // The sum may end a little below one.
                shares.partition_point(|share| *share <= drawn).min(self.sets.len() - 1)
            }
        };
        self.sets[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of ten is drawn in a hundred thousand requests.
    fn drawn(skew: Skew) -> Vec<f64> {
        let mut turns = Turns::by_chance((100..110).collect(), skew.shares(10), 3);
        let mut counts = vec![0u32; 10];
        (0..100_000).for_each(|number| counts[turns.next(number) - 100] += 1);
        counts.into_iter().map(|count| f64::from(count) / 100_000.0).collect()
    }

    #[test]
    fn chance_keeps_to_the_shares() {
        let harmonic: f64 = (1..=10).map(|n| 1.0 / f64::from(n)).sum();
        for skew in [Skew::Uniform, Skew::Zipf, Skew::Hot] {
            for (number, found) in drawn(skew).into_iter().enumerate() {
                let wanted = match skew {
                    Skew::Uniform => 0.1,
                    Skew::Zipf => 1.0 / (number + 1) as f64 / harmonic,
                    Skew::Hot if number == 0 => 0.9,
                    Skew::Hot => 0.1 / 9.0,
                };
                assert!((found - wanted).abs() < 0.005, "{skew:?} {number}: {found}, wanted {wanted}");
            }
        }
    }

    #[test]
    fn turns_come_round() {
        let mut turns = Turns::in_order([4, 9].into());
        assert_eq!((0..5).map(|number| turns.next(number)).collect::<Vec<_>>(), [4, 9, 4, 9, 4]);
    }

    #[test]
    fn one_alone_gets_everything() {
        for skew in [Skew::Uniform, Skew::Zipf, Skew::Hot] {
            let mut turns = Turns::by_chance([7].into(), skew.shares(1), 1);
            assert!((0..100).all(|number| turns.next(number) == 7), "{skew:?}");
        }
    }
}
