//! What verifying finds in directories that were damaged in one known way, and in any.

mod any_damage;
mod fixture;
mod kinds;
