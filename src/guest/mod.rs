//! What a guest is.
pub mod id;
