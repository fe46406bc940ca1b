//! What a guest is told who was not published at the SFU: a [`PublishError`] in; the status and the words of the WHIP
//! endpoint's answer out. No names, no numbers, what to do.

use std::time::Duration;

use crate::http::backend::{Fault, Refusal};
use crate::sfu::publish::PublishError;
use crate::sfu::{Call, CallError, Cause};

pub(super) fn refusal(error: &PublishError) -> Refusal {
    let mut refusal = Refusal::new(status(error), guest_text(error));
    refusal.retry_after = retry_after(error);
    match error {
        PublishError::Call(call) if call.is_misconfiguration() => refusal.fault(Fault::SfuMisconfigured),
        PublishError::Call(_) => refusal.fault(Fault::SfuUnreachable),
        _ => refusal,
    }
}

fn status(error: &PublishError) -> u16 {
    match error {
        PublishError::Offer(error) => error.status(),
        PublishError::FurtherMedia | PublishError::NoMid => 400,
        PublishError::Call(error) if error.is_misconfiguration() => 503,
        PublishError::Call(error) => match error.cause {
            Cause::Unreachable(_) => 503,
            Cause::Refused { status: 429, .. } => 429,
            // The API found fault with the offer that we passed on.
            Cause::Refused { status: 400, ref code, .. } if code == "invalid_session_description" => 400,
            Cause::Refused { .. } | Cause::ReplyLost(_) | Cause::TimedOut(_) => 502,
        },
        PublishError::Track { .. } | PublishError::NoAnswer(_) => 502,
    }
}

/// When the guest may try again, for the answers that say so.
fn retry_after(error: &PublishError) -> Option<Duration> {
    match error {
        PublishError::Call(call) if matches!(status(error), 429 | 503) => {
            Some(call.retry_after().unwrap_or(Duration::from_secs(5)))
        }
        _ => None,
    }
}

fn guest_text(error: &PublishError) -> String {
    match error {
        PublishError::Offer(error) => error.to_string(),
        PublishError::FurtherMedia | PublishError::NoMid => error.to_string(),
        PublishError::Call(error) => call_text(error).to_owned(),
        PublishError::Track { .. } | PublishError::NoAnswer(_) => {
            "The video service did not accept the camera or the microphone. Please try again.".to_owned()
        }
    }
}

fn call_text(error: &CallError) -> &'static str {
    match &error.cause {
        _ if error.is_misconfiguration() => {
            "The studio's connection is not set up correctly. Please tell the people who invited you."
        }
        Cause::Unreachable(_) => {
            "The studio cannot reach the video service at the moment. Please try again in a minute."
        }
        Cause::Refused { status: 429, .. } => "The video service is busy. Please try again in a few seconds.",
        Cause::Refused { status: 400..=499, .. } if error.call != Call::Inspect && !error.is_transient() => {
            "The video service did not accept the connection. Please reload the page and join again."
        }
        _ => "The video service did not answer properly. Please try again.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtc::sdp::OfferError;
    use crate::sfu::publish::prepare;

    #[test]
    fn failed_calls_become_the_statuses_that_a_whip_client_understands() {
        let refused = |call, status, code: &str, retry_after| CallError {
            call,
            cause: Cause::Refused {
                status,
                code: code.to_owned(),
                description: "words".to_owned(),
                cf_ray: "ray".to_owned(),
                retry_after,
            },
        };
        let lost = CallError { call: Call::NewTracks, cause: Cause::ReplyLost("x".to_owned()) };
        let unreachable = CallError { call: Call::NewSession, cause: Cause::Unreachable("x".to_owned()) };
        let (five, nine) = (Duration::from_secs(5), Duration::from_secs(9));
        for (error, status, retry_after) in [
            (unreachable, 503, Some(five)),
            (lost, 502, None),
            (refused(Call::NewSession, 401, "unauthorized", None), 503, Some(five)),
            (refused(Call::NewSession, 404, "not_found", None), 503, Some(five)),
            (refused(Call::NewTracks, 400, "invalid_session_description", None), 400, None),
            (refused(Call::NewTracks, 400, "decoding_error", None), 502, None),
            (refused(Call::NewTracks, 406, "invalid_params", None), 502, None),
            (refused(Call::NewTracks, 410, "session_error", None), 502, None),
            (refused(Call::NewTracks, 429, "", Some(nine)), 429, Some(nine)),
            (refused(Call::NewTracks, 500, "internal_error", None), 502, None),
        ] {
            let name = error.to_string();
            let error = PublishError::Call(error);
            let refusal = refusal(&error);
            assert_eq!((refusal.status, refusal.retry_after), (status, retry_after), "{name}");
            // A guest sees no codes.
            assert!(!refusal.reason.contains(|c: char| c.is_ascii_digit() || c == '_'), "{}", refusal.reason);
        }
    }

    #[test]
    fn an_offer_that_the_sfu_could_not_serve_is_refused_with_a_status_and_a_reason() {
        let text = prepare("hello").expect_err("no SDP");
        for (error, status) in [
            (PublishError::FurtherMedia, 400),
            (PublishError::NoMid, 400),
            (PublishError::Offer(OfferError::NoH264), 406),
            (PublishError::Offer(OfferError::NothingSent), 422),
            (text, 400),
        ] {
            let refusal = refusal(&error);
            assert_eq!(refusal.status, status, "{error}");
            assert!(!refusal.reason.is_empty() && refusal.retry_after.is_none());
        }
    }

    #[test]
    fn a_track_or_an_answer_that_is_missing_is_worth_another_try() {
        let text = String::new;
        let track = PublishError::Track { name: text(), code: text(), description: text(), cf_ray: text() };
        for error in [track, PublishError::NoAnswer("the reply holds no answer")] {
            let refusal = refusal(&error);
            assert_eq!(refusal.status, 502, "{error}");
            assert!(refusal.reason.contains("try again"), "{error}");
        }
    }

    #[test]
    fn each_refusal_of_the_api_tells_the_guest_what_to_do() {
        for (status, words) in [
            (401, "not set up correctly"),
            (403, "not set up correctly"),
            (404, "did not accept"),
            (400, "did not accept"),
            (406, "did not accept"),
            (410, "did not accept"),
            (425, "did not answer properly"),
            (429, "busy"),
            (500, "did not answer properly"),
            (503, "did not answer properly"),
        ] {
            let (code, description, cf_ray) = (String::new(), String::new(), String::new());
            let cause = Cause::Refused { status, code, description, cf_ray, retry_after: None };
            let error = CallError { call: Call::Renegotiate, cause };
            assert!(call_text(&error).contains(words), "{status}: {}", call_text(&error));
        }
    }
}
