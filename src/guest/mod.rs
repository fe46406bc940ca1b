//! What a guest is: a validated name, a slot, and the session that holds it.

pub mod id;
mod registry;

pub use registry::{Guest, Refusal, Registry, SessionKey, Slot};
