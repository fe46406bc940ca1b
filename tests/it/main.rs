//! it
mod dtls;
mod rng;
mod rtc;
mod srtp;
