//! it
mod config;
mod http;
