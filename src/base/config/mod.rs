//! Settings: one typed table for every key, what the broker runs with, and what a topic resolves to.

pub mod topic;
