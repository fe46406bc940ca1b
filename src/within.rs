//! Answer or give up: a future with a limit.

use std::time::Duration;

/// The future's output, or `None` when the time is over first. A large one is passed by reference: by value it would lie
/// in the caller's future several times.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        smol::Timer::after(limit).await;
        None
    };
    smol::future::or(async { Some(future.await) }, late).await
}
