//! What a guest is: a validated name, a slot, the session that holds it, and a life cycle.

pub mod id;
mod registry;
mod state;
pub mod store;

pub use registry::{Guest, Refusal, Registry, SessionKey, Slot};
pub use state::{Signs, State};
