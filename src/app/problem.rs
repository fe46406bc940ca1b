//! What is wrong with a slot just now, for the producer: [`Cause`]s in, [`Problem`](backend::Problem)s out.
//!
//! ```text
//!          record                               clear, or STALE without a repetition
//! well ─────────────▶ one cause a hop, the latest ─────────────────────────────────▶ well
//!                     (since: when it began)
//! ```
//! A cause is over when its hop is well again, when the guest leaves, or when nobody repeats it: whoever retries says it
//! again and again. Bounds: one problem for each [`Hop`].

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use crate::http::backend::{self, Hop};
use crate::rtmp;
use crate::sfu::CallError;
use crate::sfu::publish::PublishError;
use crate::sfu::pull;

/// The longest pause between two attempts, of a pull or of a page, and the longest call, and some.
const STALE: Duration = Duration::from_secs(60);

/// What is wrong, in the words of the part that noticed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The media server does not take the publication of this path.
    Rtmp { trouble: rtmp::Trouble, path: String },
    /// The SFU did not take a guest's offer.
    SfuPublish { facts: String, remedy: Option<&'static str> },
    /// The guest's tracks do not come back from the SFU.
    SfuPull { facts: String, remedy: Option<&'static str> },
}

impl From<&PublishError> for Cause {
    fn from(error: &PublishError) -> Self {
        let (facts, remedy) = match error {
            PublishError::Call(call) => facts_and_remedy(call),
            error => (error.to_string(), None),
        };
        Self::SfuPublish { facts, remedy }
    }
}

impl From<&pull::Trouble> for Cause {
    fn from(trouble: &pull::Trouble) -> Self {
        let (facts, remedy) = match trouble {
            pull::Trouble::Call(call) => facts_and_remedy(call),
            trouble => (trouble.to_string(), None),
        };
        Self::SfuPull { facts, remedy }
    }
}

fn facts_and_remedy(call: &CallError) -> (String, Option<&'static str>) {
    (call.facts(), call.remedy())
}

impl Cause {
    fn hop(&self) -> Hop {
        match self {
            Self::Rtmp { .. } => Hop::Rtmp,
            Self::SfuPublish { .. } | Self::SfuPull { .. } => Hop::Sfu,
        }
    }

    /// Names the kind of cause for programs; never changes.
    fn code(&self) -> &'static str {
        match self {
            Self::Rtmp { trouble, .. } => match trouble {
                rtmp::Trouble::Unreachable => "rtmp-unreachable",
                rtmp::Trouble::NotRtmp => "rtmp-not-understood",
                rtmp::Trouble::PathUndeclared => "rtmp-path-undeclared",
                rtmp::Trouble::WrongPassword => "rtmp-wrong-password",
                rtmp::Trouble::Refused(_) => "rtmp-refused",
                rtmp::Trouble::MediaRefused => "rtmp-media-refused",
                rtmp::Trouble::Stalled => "rtmp-stalled",
                rtmp::Trouble::Ended => "rtmp-ended",
            },
            Self::SfuPublish { .. } => "sfu-publish",
            Self::SfuPull { .. } => "sfu-pull",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Rtmp { trouble, path } => match trouble {
                rtmp::Trouble::Unreachable => "the media server cannot be reached".to_owned(),
                rtmp::Trouble::NotRtmp => "no RTMP can be spoken with what answers at relay.output".to_owned(),
                rtmp::Trouble::PathUndeclared => {
                    format!("the media server closes the connection when it is asked for the path {path}")
                }
                rtmp::Trouble::WrongPassword => {
                    format!("the media server refuses the user or the password for the path {path}")
                }
                rtmp::Trouble::Refused(code) => format!("the media server refuses the path {path}: {code}"),
                rtmp::Trouble::MediaRefused => {
                    format!("the media server closes the path {path} soon after its publication began")
                }
                rtmp::Trouble::Stalled => "the media server is there and takes nothing".to_owned(),
                rtmp::Trouble::Ended => format!("the media server ended the publication of the path {path}"),
            },
            Self::SfuPublish { facts, .. } => format!("not published at the SFU: {facts}"),
            Self::SfuPull { facts, .. } => facts.clone(),
        }
    }

    fn remedy(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::Rtmp { trouble, path } => match trouble {
                rtmp::Trouble::Unreachable => {
                    "start the media server (systemctl start mediamtx), or set relay.output to where it is"
                }
                rtmp::Trouble::NotRtmp => {
                    "set relay.output to MediaMTX's rtmpAddress; without encryption (rtmpEncryption: no)"
                }
                rtmp::Trouble::PathUndeclared => {
                    return Some(Cow::Owned(format!(
                        "add `{path}: {{}}` under paths: in mediamtx.yml; MediaMTX before 1.20 closes for a wrong password too"
                    )));
                }
                rtmp::Trouble::WrongPassword => {
                    "set user= and pass= in relay.output to those under authInternalUsers: in mediamtx.yml"
                }
                rtmp::Trouble::Refused(_) | rtmp::Trouble::Ended => "its log says why: journalctl -u mediamtx",
                rtmp::Trouble::MediaRefused => {
                    "its log says why (journalctl -u mediamtx): somebody else has the path, or it does not take the codecs"
                }
                rtmp::Trouble::Stalled => {
                    "it hangs or has too much to do: see its log (journalctl -u mediamtx), restart it"
                }
            },
            Self::SfuPublish { remedy, .. } | Self::SfuPull { remedy, .. } => (*remedy)?,
        };
        Some(Cow::Borrowed(text))
    }
}

struct Problem {
    cause: Cause,
    began: Instant,
    repeated: Instant,
}

/// The problems of one slot.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// The cause is there now; it takes the place of the one that its hop had.
    pub(super) fn record(&mut self, cause: Cause, now: Instant) {
        let known = self.0.iter().find(|problem| problem.cause.code() == cause.code() && problem.is_fresh(now));
        let began = known.map_or(now, |problem| problem.began);
        self.clear(cause.hop());
        self.0.push(Problem { cause, began, repeated: now });
    }

    /// The hop is well.
    pub(super) fn clear(&mut self, hop: Hop) {
        self.0.retain(|problem| problem.cause.hop() != hop);
    }

    /// All that are true, the worst first.
    pub(super) fn current(&self, now: Instant) -> Vec<backend::Problem> {
        let told = |problem: &Problem| backend::Problem {
            hop: problem.cause.hop(),
            code: problem.cause.code(),
            words: problem.cause.words(),
            remedy: problem.cause.remedy(),
            since: SystemTime::now().checked_sub(now.saturating_duration_since(problem.began)),
        };
        let mut current: Vec<_> = self.0.iter().filter(|problem| problem.is_fresh(now)).map(told).collect();
        current.sort_by_key(|problem| problem.hop);
        current
    }
}

impl Problem {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.repeated) < STALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(facts: &str) -> Cause {
        Cause::SfuPull { facts: facts.to_owned(), remedy: None }
    }

    fn rtmp(trouble: rtmp::Trouble) -> Cause {
        Cause::Rtmp { trouble, path: "guest1".to_owned() }
    }

    fn lines(problems: &Problems, now: Instant) -> Vec<String> {
        problems.current(now).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_problem_is_told_until_nobody_repeats_it() {
        let now = Instant::now();
        let mut problems = Problems::default();
        problems.record(pull("refused with 401"), now);
        assert_eq!(lines(&problems, now + STALE / 2), ["refused with 401"]);
        problems.record(pull("refused with 401"), now + STALE / 2);
        assert_eq!(lines(&problems, now + STALE), ["refused with 401"]);
        assert_eq!(lines(&problems, now + STALE / 2 + STALE), Vec::<String>::new());
    }

    #[test]
    fn each_hop_has_its_latest_cause_and_the_one_nearest_to_the_mixer_comes_first() {
        let now = Instant::now();
        let mut problems = Problems::default();
        problems.record(pull("refused with 401"), now);
        problems.record(rtmp(rtmp::Trouble::Ended), now);
        problems.record(rtmp(rtmp::Trouble::Unreachable), now);
        let codes = |problems: &Problems| problems.current(now).iter().map(|problem| problem.code).collect::<Vec<_>>();
        assert_eq!(codes(&problems), ["rtmp-unreachable", "sfu-pull"]);
        problems.clear(Hop::Rtmp);
        assert_eq!(codes(&problems), ["sfu-pull"]);
    }

    #[test]
    fn a_cause_that_goes_on_has_begun_once() {
        let now = Instant::now();
        let minute = Duration::from_secs(59);
        let mut problems = Problems::default();
        let age = |problems: &Problems, now| {
            let since = problems.current(now)[0].since.expect("a clock after 1970");
            SystemTime::now().duration_since(since).expect("in the past").as_secs()
        };
        problems.record(rtmp(rtmp::Trouble::Unreachable), now);
        problems.record(rtmp(rtmp::Trouble::Unreachable), now + minute);
        assert_eq!(age(&problems, now + minute), 59);
        problems.record(rtmp(rtmp::Trouble::WrongPassword), now + minute);
        assert_eq!(age(&problems, now + minute), 0);
    }
}
