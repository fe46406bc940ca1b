//! What `async-h1` reads in a request that the guard has passed, and the reason phrases of `http-types`: the only file that
//! uses either.
//!
//! `async_h1::server::decode` gets exactly the bytes of one request, as a stream in memory, which can neither wait nor read
//! on. Bounds: those of the guard.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use smol::io::{AsyncRead, AsyncWrite, Cursor};

use super::guard::Head;

/// A request as `async-h1` reads it.
#[derive(Debug)]
pub struct Decoded {
    /// As in the request line.
    pub method: String,
    /// Names in lower case with their values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Has `async-h1` read the request. `None` when it does not take what the guard let through.
pub async fn decode(head: &Head, body: &[u8]) -> Option<Decoded> {
    let (mut decoded, _) = async_h1::server::decode(InMemory::new(head.with_body(body))).await.ok().flatten()?;
    let body = decoded.body_bytes().await.ok()?;
    let headers = decoded
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.to_string())))
        .collect();
    Some(Decoded { method: decoded.method().to_string(), headers, body })
}

/// The words that go with a status code; none for one that is not registered.
pub(super) fn reason(status: u16) -> &'static str {
    http_types::StatusCode::try_from(status).map_or("", |status| status.canonical_reason())
}

/// A request in memory, in the shape that `decode` asks for. Writing to it goes nowhere.
#[derive(Clone)]
struct InMemory(Arc<Mutex<Cursor<Vec<u8>>>>);

impl InMemory {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Cursor::new(bytes))))
    }
}

impl AsyncRead for InMemory {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut cursor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *cursor).poll_read(cx, buf)
    }
}

impl AsyncWrite for InMemory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
