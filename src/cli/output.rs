//! What commands print: tables for people, JSON for scripts.

use crate::client::error::ClientError;
use std::fmt::Display;
use std::io::{self, Write};

/// Whether the error only says that whoever read our output stopped (`| head`): no failure of ours.
pub fn reader_has_gone(error: &anyhow::Error) -> bool {
    // A broker's broken pipe is another matter: of the client's errors only one means our own output.
    let output = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Output(e)) => Some(e.kind()),
        Some(_) => None,
        None => error.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    output == Some(io::ErrorKind::BrokenPipe)
}

/// Prints one line to standard output. Not `println!`, which panics when the reader has gone.
pub fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Prints one line to standard error. That nobody reads it is no reason to stop, as it is to `eprintln!`.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints one JSON document.
pub fn json(value: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Columns aligned to their widest cell; numbers to the right.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|cell| cell.to_string()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn lines(&self, indent: usize) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..columns).map(|c| self.is_numeric(c)).collect();
        self.rows.iter().map(|row| " ".repeat(indent) + render(row, &widths, &numeric).trim_end()).collect()
    }

    pub fn print(&self, indent: usize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.lines(indent).iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(|cell| cell == "-" || cell.parse::<f64>().is_ok())
    }
}

fn render(row: &[String], widths: &[usize], numeric: &[bool]) -> String {
    let cells = row.iter().zip(widths).zip(numeric).map(|((cell, width), right)| match right {
        true => format!("{cell:>width$}"),
        false => format!("{cell:<width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}

/// `1, 2, 3`, or `-` for none.
pub fn show_ids(ids: &[i32]) -> String {
    match ids {
        [] => "-".to_owned(),
        ids => ids.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_left_and_numbers_right() {
        let mut table = Table::new(&["TOPIC", "PARTITIONS"]);
        table.row(vec!["clicks".to_owned(), "8".to_owned()]);
        table.row(vec!["a".to_owned(), "100".to_owned()]);
        assert_eq!(table.lines(0), ["TOPIC   PARTITIONS", "clicks           8", "a              100"]);
    }
}
