//! What is known of a partition besides its files: how the last stop was, up to where everything was on disk, what the
//! checkpoints say. It decides what damage means. Pure.

use super::finding::Severity;
use crate::base::ids::Offset;
use crate::log::epochs::EpochHistory;
use std::borrow::Cow;
use std::sync::Arc;

/// Whether offsets may be missing from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// The topic is compacted.
    Legal,
    /// Nothing says whether it is: Kafka keeps topics' settings elsewhere.
    Unknown,
    /// Its settings say that it is not.
    Unlikely,
}

/// How the broker was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In good order: everything was on disk, and a start scans nothing.
    Clean,
    /// A start scans from the recovery points on.
    Unclean,
    /// What was named lies outside of a data directory.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Context {
    pub stop: Stop,
    /// A broker has the directory open.
    pub live: bool,
    /// Formatted by Corelog, not by Kafka.
    pub ours: bool,
    pub gaps: Gaps,
    pub recovery_point: Option<i64>,
    pub log_start: Option<i64>,
    pub high_watermark: Option<i64>,
    pub epochs: Option<Arc<EpochHistory>>,
}

impl Context {
    /// Whether the next start reads the segment that ends at `next_base` (None: the last one), rebuilds its indexes and cuts
    /// it where it is not whole.
    pub fn rescans(&self, next_base: Option<i64>) -> bool {
        match self.stop {
            Stop::Clean => false,
            Stop::Unclean => next_base.is_none_or(|next| next >= self.recovery_point.unwrap_or(0)),
            Stop::Unknown => next_base.is_none(),
        }
    }

    /// Whether a crash may have come between writing this offset and what is kept of it elsewhere.
    pub fn may_be_unwritten(&self, next_base: Option<i64>, offset: i64) -> bool {
        self.rescans(next_base) && offset >= self.recovery_point.unwrap_or(0)
    }

    /// The epoch that the checkpoint has for an offset; None where it does not reach.
    pub fn epoch_at(&self, offset: Offset) -> Option<i32> {
        self.epochs.as_ref()?.epoch_at(offset).map(|epoch| epoch.0)
    }

    /// What it means that bytes hold no batch: `from` is the first offset that is missing, `until` the last if that is
    /// known; `resumes`: whole batches follow.
    pub fn judge_damage(
        &self,
        next_base: Option<i64>,
        (from, until): (i64, Option<i64>),
        (bytes, resumes): (u64, bool),
    ) -> (Severity, Cow<'static, str>) {
        let range = match until {
            Some(until) if until > from => format!("offsets {from} to {until}"),
            Some(_) => format!("offset {from}"),
            None => format!("the offsets from {from} on"),
        };
        let is_promised = self.recovery_point.is_some_and(|point| from < point);
        let is_tail = next_base.is_none() && !resumes;
        if self.live && next_base.is_none() && !is_promised {
            let meaning = "behind the recovery point of a log that a broker writes to: it may be half written now; verify \
                           again when the broker has stopped";
            return (Severity::Info, meaning.into());
        }
        if self.live || !self.rescans(next_base) {
            return (Severity::Error, self.unreadable(&range, next_base, is_tail).into());
        }
        match (is_promised, self.stop) {
            (false, Stop::Unknown) if is_tail => {
                let meaning = format!(
                    "{bytes} bytes at the end; after a crash that is usual: the next start cuts them, and no record that \
                     was acknowledged as durable is lost. After a stop in good order it would be damage"
                );
                (Severity::Warning, meaning.into())
            }
            (_, Stop::Unknown) => (Severity::Error, self.unreadable(&range, next_base, is_tail).into()),
            (false, _) => {
                let more = if is_tail { "" } else { ", with the whole batches and segments behind them" };
                let meaning = format!(
                    "the trace of a crash, behind the recovery point: the next start cuts these {bytes} bytes{more}; no \
                     record that was acknowledged as durable is lost"
                );
                (Severity::Warning, meaning.into())
            }
            (true, _) => {
                let next = match self.ours {
                    true => "refuses the partition, and cuts nothing: copy this directory before you mend it",
                    false => {
                        "cuts the log here, with everything behind: copy this directory before you start the broker"
                    }
                };
                let meaning = format!("{range} were on disk once and cannot be read; the next start {next}");
                (Severity::Error, meaning.into())
            }
        }
    }

    fn unreadable(&self, range: &str, next_base: Option<i64>, is_tail: bool) -> String {
        match (self.stop, next_base, is_tail) {
            (Stop::Clean, None, true) => format!(
                "{range} are lost although the broker was stopped in good order; the next start cuts the log here: copy \
                 this directory first"
            ),
            _ => format!("{range} cannot be read; consumers fail there until they are told to go on behind it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(stop: Stop, recovery_point: i64) -> Context {
        Context {
            stop,
            live: false,
            ours: true,
            gaps: Gaps::Unlikely,
            recovery_point: Some(recovery_point),
            log_start: None,
            high_watermark: None,
            epochs: None,
        }
    }

    #[test]
    fn what_recovery_will_cut_is_a_warning_and_what_was_promised_an_error() {
        let crashed = context(Stop::Unclean, 100);
        let judge = |context: &Context, next, from| context.judge_damage(next, (from, None), (10, false)).0;
        assert_eq!(judge(&crashed, None, 100), Severity::Warning);
        assert_eq!(judge(&crashed, None, 99), Severity::Error);
        assert_eq!(judge(&crashed, Some(90), 50), Severity::Error, "a sealed segment that no start reads");
        assert_eq!(judge(&crashed, Some(200), 150), Severity::Warning, "a roll that no flush has covered");
        assert_eq!(judge(&context(Stop::Clean, 100), None, 100), Severity::Error);
        assert_eq!(judge(&Context { live: true, ..crashed.clone() }, None, 100), Severity::Info);
        assert_eq!(judge(&Context { live: true, ..crashed }, None, 99), Severity::Error);
        let bare = Context { recovery_point: None, ..context(Stop::Unknown, 0) };
        assert_eq!(judge(&bare, None, 100), Severity::Warning);
        assert_eq!(judge(&bare, Some(200), 100), Severity::Error);
    }
}
