//! Where a caught panic happened: `catch_unwind` tells its message alone, and a fault that was survived must be found again.
//!
//! A panic's place is kept for the thread it happened on, until it is taken. The message goes to stderr as before.

use std::cell::RefCell;
use std::panic;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the place of each panic from now on, for as long as the process lives.
pub fn keep_places() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // A panic within a panic's own clean-up may find the cell in use.
        if let (Some(place), Ok(true)) = (info.location(), PLACE.try_with(|kept| kept.try_borrow_mut().is_ok())) {
            PLACE.with(|kept| *kept.borrow_mut() = Some(place.to_string()));
        }
        tell(info);
    }));
}

/// The place of this thread's last panic, as `file:line:column`.
pub fn take_place() -> Option<String> {
    PLACE.with(|kept| kept.borrow_mut().take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_panic_that_was_caught_is_told_once() {
        keep_places();
        let caught = panic::catch_unwind(|| panic!("on purpose"));
        assert!(caught.is_err());
        let place = take_place().expect("it was kept");
        assert!(place.starts_with("src/panics.rs:"), "{place}");
        assert_eq!(take_place(), None);
    }
}
