//! The HTTP side of the daemon: WHIP endpoint, guest API, pages.
//!
//! ```text
//!  TCP ─▶ server ─▶ guard ─▶ routes ─┬─▶ whip   /whip/… /api/calls/whip/…   (RFC 9725)
//!         sockets,  head     path to ├─▶ sfu    /api/calls/… /api/ice-servers
//!         deadlines rules    handler ├─▶ api    /api/guests /api/page /healthz
//!                                    ├─▶ events /api/events     metrics /metrics
//!                                    └─▶ pages  /guest_join /static/…
//!                                          │
//!                              site::Site: limits, listeners, the backend
//!                                          │
//!                              backend::Backend (implemented by the composition root)
//! ```
//!
//! Everything here runs on the control thread, on a `LocalExecutor`; nothing here touches the packet path. One request
//! per connection: a request is read and checked completely before anything else sees it, answered, and the connection
//! closes; a stream of events alone stays open. `codec` is the only file that knows `async-h1` and `http-types`; the others
//! work on [`Request`] and [`Response`].

pub mod api;
pub mod backend;
pub mod chunked;
pub mod codec;
pub mod events;
pub mod guard;
pub mod listeners;
pub mod message;
pub mod metrics;
pub mod pages;
pub mod process;
pub mod rate;
pub mod routes;
pub mod server;
mod sfu;
pub mod site;
pub mod status;
pub mod whip;

pub use backend::Backend;
pub use message::{Method, Request, Response};
pub use server::{Limits, serve};
pub use site::Site;
