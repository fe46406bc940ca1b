pub mod bytes;
pub mod demux;
pub mod dtls;
pub mod ice;
pub mod srtp;
pub mod stun;
