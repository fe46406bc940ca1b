//! The STUN and TURN servers that guests are told of. With a TURN key, credentials of an hour ago at most are handed on,
//! made on a worker thread when somebody wants them; one call at a time, whoever else wants them waits for the same one.
//! When there are none to be had the STUN server alone has to do, which it does wherever UDP gets through.
//!
//! ```text
//!            ┌─────────────────somebody asks─────────────────┐
//!            ▼                                               │
//!  none ─▶ asking ──answer──▶ fresh ──FRESH over──▶ old: handed on while asking ──USABLE over──▶ none
//!           │  ▲
//!           │  └──somebody asks, RETRY over──┐
//!           └──failure──▶ left alone ────────┘
//! ```
//! After a failure, old ones are still handed on.
//!
//! Bounds: a page waits for [`PATIENCE`]; after a failure the API is left alone for [`RETRY`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::channel::{Receiver, bounded};

use crate::config::Config;
use crate::http::backend::IceServer;
use crate::log_once::LogOnce;
use crate::secret::Secret;
use crate::sfu::CallError;
use crate::sfu::turn::{self, TurnClient};
use crate::within::within;

/// Credentials live for a day ([`turn::TTL`]): whoever gets them may then stay for most of it.
const FRESH: Duration = Duration::from_secs(3_600);
/// Older ones serve while new ones cannot be had.
const USABLE: Duration = Duration::from_secs(12 * 3_600);
/// The page gives up after 2 s.
const PATIENCE: Duration = Duration::from_millis(1_500);
const RETRY: Duration = Duration::from_secs(30);
/// A failure that goes on is logged again after so long.
const REMIND_AFTER: Duration = Duration::from_secs(600);

pub(super) struct IceServers {
    turn: Option<Arc<TurnClient>>,
    executor: &'static LocalExecutor<'static>,
    state: RefCell<State>,
}

struct State {
    servers: Option<(Vec<IceServer>, Instant)>,
    /// Ends when the call that is under way does.
    asking: Option<Receiver<()>>,
    failed_at: Option<Instant>,
    failures: LogOnce,
}

impl IceServers {
    pub(super) fn new(config: &Config, executor: &'static LocalExecutor<'static>) -> Self {
        let cloudflare = &config.cloudflare;
        let turn = cloudflare.turn_key().map(|(id, token)| TurnClient::new(&cloudflare.api_base, id, token.clone()));
        let failures = LogOnce::new(Some(REMIND_AFTER));
        let state = RefCell::new(State { servers: None, asking: None, failed_at: None, failures });
        Self { turn: turn.map(Arc::new), executor, state }
    }

    /// What to tell a guest now.
    pub(super) async fn current(self: &Rc<Self>) -> Vec<IceServer> {
        if let Some(fresh) = self.known(FRESH) {
            return fresh;
        }
        if let Some(asking) = self.ask() {
            // Nothing is sent: the channel's end is the news.
            let _ = within(PATIENCE, asking.recv()).await;
        }
        self.known(USABLE).unwrap_or_else(|| vec![IceServer::cloudflare_stun()])
    }

    fn known(&self, age: Duration) -> Option<Vec<IceServer>> {
        let state = self.state.borrow();
        let (servers, at) = state.servers.as_ref()?;
        (at.elapsed() < age).then(|| servers.clone())
    }

    /// Sees to it that credentials are being asked for, where that makes sense. Ends when they are there or are not coming.
    fn ask(self: &Rc<Self>) -> Option<Receiver<()>> {
        let turn = Arc::clone(self.turn.as_ref()?);
        let mut state = self.state.borrow_mut();
        if let Some(asking) = &state.asking {
            return Some(asking.clone());
        }
        if state.failed_at.is_some_and(|at| at.elapsed() < RETRY) {
            return None;
        }
        let (done, asking) = bounded(1);
        state.asking = Some(asking.clone());
        let this = Rc::clone(self);
        let task = async move {
            let generated = smol::unblock(move || turn.generate()).await;
            this.take(generated);
            drop(done);
        };
        self.executor.spawn(task).detach();
        Some(asking)
    }

    fn take(&self, generated: Result<Vec<turn::IceServer>, CallError>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        state.asking = None;
        match generated {
            Ok(servers) => {
                log::debug!("TURN credentials for {} servers", servers.len());
                let servers = servers.into_iter().map(|server| IceServer {
                    urls: server.urls,
                    username: server.username,
                    credential: server.credential.map(Secret::new),
                });
                state.servers = Some((servers.collect(), now));
                state.failed_at = None;
                state.failures.reset();
            }
            Err(error) => {
                state.failed_at = Some(now);
                let level = state.failures.level((), now);
                log::log!(level, "no TURN credentials: {error}; guests whose network blocks UDP cannot join");
            }
        }
    }
}
