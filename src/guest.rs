//! What a guest is: a validated name, a slot, the session that holds it, and a life cycle.

pub mod id;
mod state;
mod table;

pub use state::{Signs, State};
pub use table::{GUESTS_MAX, Guest, Held, Refusal, SessionKey, Slot, Table};
