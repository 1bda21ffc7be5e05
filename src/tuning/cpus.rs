//! Sets of CPUs, as the kernel writes them: `0-3,8`.

use crate::base::limits::TUNING_CPUS_MAX;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// CPUs by number, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(BTreeSet<usize>);

/// A text that is no list of CPUs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no list of CPUs such as 0-3,8")]
pub struct NoCpus(String);

impl Cpus {
    pub fn iter(&self) -> impl Iterator<Item = usize> + Clone + use<'_> {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    pub fn is_subset(&self, other: &Cpus) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Those of both.
    pub fn and(&self, other: &Cpus) -> Cpus {
        Cpus(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that the other one lacks.
    pub fn without(&self, other: &Cpus) -> Cpus {
        Cpus(self.0.difference(&other.0).copied().collect())
    }

    /// As the argument of `--cores`: a number alone would be a count there, so one CPU is a range.
    pub fn to_cores_argument(&self) -> String {
        match self.0.first() {
            Some(only) if self.len() == 1 => format!("{only}-{only}"),
            _ => self.to_string(),
        }
    }

    pub fn extend(&mut self, more: impl IntoIterator<Item = usize>) {
        self.0.extend(more);
    }
}

impl FromIterator<usize> for Cpus {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Cpus {
        Cpus(cpus.into_iter().collect())
    }
}

impl FromStr for Cpus {
    type Err = NoCpus;

    /// Reads `0-3,8`; an empty text is an empty set, as in the kernel's files.
    fn from_str(text: &str) -> Result<Cpus, NoCpus> {
        let refused = || NoCpus(text.trim().chars().take(40).collect());
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |word: &str| word.trim().parse::<usize>().ok().filter(|cpu| *cpu < TUNING_CPUS_MAX);
            let (first, last) = (number(first).ok_or_else(refused)?, number(last).ok_or_else(refused)?);
            if first > last {
                return Err(refused());
            }
            cpus.extend(first..=last);
        }
        Ok(Cpus(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(cpus in proptest::collection::btree_set(0..TUNING_CPUS_MAX, 0..40)) {
            let cpus: Cpus = cpus.into_iter().collect();
            prop_assert_eq!(cpus.to_string().parse::<Cpus>(), Ok(cpus.clone()));
            let argument = cpus.to_cores_argument();
            prop_assert!(cpus.is_empty() || argument.contains(['-', ',']), "{} is a count", argument);
            prop_assert_eq!(argument.parse::<Cpus>(), Ok(cpus));
        }

        #[test]
        fn no_text_is_too_strange(text in "[0-9,\\- a-z\n]{0,30}") {
            let _ = text.parse::<Cpus>();
        }
    }

    #[test]
    fn lists_are_the_kernels() {
        assert_eq!("0-3,8\n".parse::<Cpus>().map(|cpus| cpus.to_string()), Ok("0-3,8".to_owned()));
        assert_eq!("\n".parse::<Cpus>(), Ok(Cpus::default()));
        let argument = |text: &str| text.parse::<Cpus>().expect("a list").to_cores_argument();
        assert_eq!([argument("5"), argument("2-3"), argument("1,5")], ["5-5", "2-3", "1,5"]);
        for wrong in ["3-1", "x", "0-99999999999", "1,,2", "-"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }
}
