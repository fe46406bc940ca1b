//! it
mod dtls;
mod rng;
mod srtp;
