//! Whole-daemon and whole-part tests on loopback and in virtual time: one binary, so that it links once.

mod rtmp;
