//! The HTTP side of the daemon: WHIP endpoint, guest API, pages.
//!
//! ```text
//!  TCP ─▶ server ─▶ guard ─▶ router ─┬─▶ whip   /whip/… /api/calls/whip/…   (RFC 9725)
//!         sockets,  head      route  ├─▶ calls  /api/calls/… /api/ice-servers
//!                                    ├─▶ api    /api/guests /api/page /healthz
//!         deadlines rules            ├─▶ events /api/events     metrics /metrics
//!                                    └─▶ pages  /guest_join /static/…
//!                                          │
//!                                    backend::Backend (implemented by the composition root)
//! ```
//!
//! Everything here runs on the control thread, on a `LocalExecutor`; nothing here touches the packet path. One request
//! per connection: a request is read and checked completely before anything else sees it, answered, and the connection
//! closes; a stream of events alone stays open. `server` is the only file that knows `async-h1` and `http-types`; the others work on [`Request`] and
//! [`Response`].

pub mod api;
pub mod backend;
pub mod events;
pub mod guard;
pub mod message;
pub mod metrics;
pub mod pages;
pub mod process;
pub mod rate;
pub mod router;
pub mod server;
mod sfu;
pub mod status;
pub mod whip;

pub use backend::Backend;
pub use message::{Method, Request, Response};
pub use router::Site;
pub use server::{Limits, serve};
