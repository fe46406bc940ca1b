pub mod bytes;
pub mod demux;
pub mod ice;
pub mod stun;
