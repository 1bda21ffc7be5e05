//! A progress bar on standard error, when that is a terminal.

use super::input::Counter;
use crate::client::producer::Summary;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

pub struct Progress {
    bar: Option<ProgressBar>,
    read: Counter,
    last: Instant,
}

const REDRAW: Duration = Duration::from_millis(100);

impl Progress {
    pub fn new(topic: &str, read: Counter, silent: bool) -> Progress {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| bar(topic));
        Progress { bar, read, last: Instant::now() }
    }

    pub fn show(&mut self, summary: &Summary) {
        let Some(bar) = self.bar.as_ref().filter(|_| self.last.elapsed() >= REDRAW) else { return };
        self.last = Instant::now();
        bar.set_position(self.read.bytes());
        let trouble = summary.trouble.as_deref().filter(|_| summary.delivered_records < summary.read_records);
        let trouble = trouble.map(|t| format!("; last trouble: {t}")).unwrap_or_default();
        bar.set_message(format!("{} records stored{trouble}", summary.delivered_records));
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(topic: &str) -> ProgressBar {
    let size = rustix::fs::fstat(std::io::stdin()).ok().and_then(|stat| {
        let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        u64::try_from(stat.st_size).ok().filter(|_| regular)
    });
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}"),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("invariant: a constant template"));
    bar.with_prefix(topic.to_owned())
}
