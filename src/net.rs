//! What this machine's network says of itself: its own addresses, and the one by which the internet knows it. The daemon
//! and `doctor` call the same functions.

pub mod addresses;
pub mod stun_query;
