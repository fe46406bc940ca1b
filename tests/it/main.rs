//! it
mod dtls;
mod rng;
