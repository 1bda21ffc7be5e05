//! Whole machines: what is found on them, and what becomes of it.

mod checks;
mod documents;
mod hostile;
mod machine;
mod tune;
