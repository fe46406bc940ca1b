<<<<<<< HEAD
pub mod bytes;
pub mod demux;
pub mod ice;
pub mod stun;
=======
//! One WebRTC peer, sans-IO.
pub mod bytes;
pub mod dtls;
pub mod srtp;
>>>>>>> dtls
