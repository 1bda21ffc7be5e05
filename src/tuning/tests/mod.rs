//! Whole machines: what is found on them, and what becomes of it.

mod checks;
mod hostile;
mod machine;
