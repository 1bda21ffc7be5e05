//! What of a machine's settings matters to a node: what is read, what is wanted and why, and changing it so that it can be undone.
//!
//! `items` is the table of everything that is looked at. `gather` reads the facts, below any root directory; everything between
//! is pure: `check` judges facts, `place` says which CPUs serve interrupts, `plan` says what to write, and `script` says it to a shell.
//! `apply` writes it, once `state` is on disk (`store`), and takes it back. Nothing is written
//! but below the root that it was given, through `files::Root`, which links do not leave either; but for a state that the operator wants elsewhere.

pub mod apply;
pub mod check;
mod cpus;
mod devices;
pub mod facts;
pub mod files;
pub mod gather;
pub mod items;
mod parse;
pub mod place;
pub mod plan;
pub mod script;
mod state;
pub mod store;
mod sysctl;
#[cfg(test)]
mod tests;

pub use cpus::Cpus;
