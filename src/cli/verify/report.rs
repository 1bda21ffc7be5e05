//! What `corelog verify` prints: findings as they are known, then a summary; progress on a terminal.

use super::COULD_NOT_READ;
use super::finding::{Findings, Severity};
use super::segment::SegmentFacts;
use crate::base::show::show_bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::{self, IsTerminal, Write};

pub struct Report {
    is_json: bool,
    bar: Option<ProgressBar>,
    errors: u64,
    warnings: u64,
    infos: u64,
    unread: bool,
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
}

impl Report {
    pub fn new(is_json: bool) -> Report {
        Report {
            is_json,
            bar: None,
            errors: 0,
            warnings: 0,
            infos: 0,
            unread: false,
            partitions: 0,
            segments: 0,
            batches: 0,
            records: 0,
            bytes: 0,
        }
    }

    pub fn begin(&mut self, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(bytes);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let template = "[{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("invariant: a constant template"));
        self.bar = Some(bar);
    }

    pub fn progress(&mut self, read: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(read.min(bar.length().unwrap_or(read)));
        if self.errors + self.warnings > 0 {
            bar.set_message(format!("{} errors, {} warnings", self.errors, self.warnings));
        }
    }

    pub fn add_partition(&mut self, facts: &[SegmentFacts]) {
        self.partitions += 1;
        self.segments += facts.len() as u64;
        self.batches += facts.iter().map(|fact| fact.batches).sum::<u64>();
        self.records += facts.iter().map(|fact| fact.records).sum::<u64>();
        self.bytes += facts.iter().map(|fact| fact.bytes).sum::<u64>();
    }

    /// Prints findings and counts them.
    pub fn tell(&mut self, findings: &Findings) -> io::Result<()> {
        self.errors += findings.count(Severity::Error);
        self.warnings += findings.count(Severity::Warning);
        self.infos += findings.count(Severity::Info);
        self.unread |= findings.unread;
        if findings.kept().is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for finding in findings.kept() {
            match self.is_json {
                true => {
                    serde_json::to_writer(&mut text, &finding.json())?;
                    text.push(b'\n');
                }
                false => writeln!(text, "{}", finding.lines())?,
            }
        }
        let untold = findings.untold();
        if untold > 0 && !self.is_json {
            writeln!(text, "         and {untold} more of the same files")?;
        }
        let print = || io::stdout().lock().write_all(&text);
        // The bar stands aside while something is printed.
        self.bar.as_ref().map_or_else(print, |bar| bar.suspend(print))
    }

    /// Prints the summary; gives the exit code.
    pub fn finish(&self) -> io::Result<u8> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let code = match (self.errors, self.unread, self.warnings) {
            (1.., _, _) => 2,
            (_, true, _) => COULD_NOT_READ,
            (_, _, 1..) => 1,
            _ => 0,
        };
        let mut out = io::stdout().lock();
        if self.is_json {
            let summary = json!({ "type": "summary", "partitions": self.partitions, "segments": self.segments,
                "batches": self.batches, "records": self.records, "bytes": self.bytes, "errors": self.errors,
                "warnings": self.warnings, "infos": self.infos, "exit_code": code });
            serde_json::to_writer(&mut out, &summary)?;
            writeln!(out)?;
            return Ok(code);
        }
        let found = match (self.errors, self.warnings) {
            (0, 0) if self.unread => "not everything could be read".to_owned(),
            (0, 0) => "clean".to_owned(),
            (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
        };
        writeln!(
            out,
            "{}, {}, {}, {}, {}: {found}",
            count(self.partitions, "partition"),
            count(self.segments, "segment"),
            match self.batches {
                1 => "1 batch".to_owned(),
                n => format!("{n} batches"),
            },
            count(self.records, "record"),
            show_bytes(self.bytes),
        )?;
        Ok(code)
    }
}

fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
