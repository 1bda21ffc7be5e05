//! The controller: decides about topics (pure, `plan`), performs on the coordination store, publishes images.

pub mod handle;
pub mod publish;
