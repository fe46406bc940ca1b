//! The SFU's side of the daemon: its client, the form of its pulls, and the state file.

use std::cell::Cell;
use std::sync::Arc;

use smol::LocalExecutor;
use smol::channel::{Receiver, bounded};

use super::publication::Publication;
use crate::config::Config;
use crate::guest::id::GuestId;
use crate::sfu::client::Client;
use crate::sfu::publish;
use crate::sfu::pull::PullForm;
use crate::sfu::store::{SfuSession, Store};

/// There when an app and its secret are configured.
pub(in crate::app) struct SfuPath {
    pub(super) client: Arc<Client>,
    pub(super) form: PullForm,
    pub(super) executor: &'static LocalExecutor<'static>,
    pub(super) store: Option<Arc<Store>>,
    revision: Cell<u64>,
}

impl SfuPath {
    /// `None` when no app or no secret is configured.
    pub(in crate::app) fn new(config: &Config, executor: &'static LocalExecutor<'static>) -> Option<Self> {
        let (app_id, token) = config.cloudflare.app()?;
        Some(Self {
            client: Arc::new(Client::new(&config.cloudflare.api_base, app_id, token.clone())),
            form: config.cloudflare.pull_form,
            executor,
            store: config.relay.state_file.as_ref().map(|path| Arc::new(Store::new(path))),
            revision: Cell::new(0),
        })
    }

    /// Ends a publication: its pull stops, its tracks are closed at the SFU, which the receiver hears of by its channel's
    /// end.
    pub(in crate::app) fn end(&self, guest: GuestId, publication: Publication) -> Receiver<()> {
        publication.inputs.stop();
        let mids = publication.tracks.into_iter().map(|track| track.mid).collect();
        self.close(guest, publication.session_id, mids)
    }

    pub(super) fn close(&self, guest: GuestId, session_id: String, mids: Vec<String>) -> Receiver<()> {
        let (closed, is_closed) = bounded(1);
        let client = Arc::clone(&self.client);
        let closing = async move {
            if let Err(error) = publish::close(&client, &session_id, &mids).await {
                log::warn!("{guest}: closing the tracks at the SFU: {error}; they expire by themselves");
            }
            drop(closed);
        };
        self.executor.spawn(closing).detach();
        is_closed
    }

    /// Writes what is published now, on a worker thread. The channel's end tells that it is done with, well or not; nobody
    /// need listen.
    pub(in crate::app) fn save(&self, sessions: Vec<SfuSession>) -> Receiver<()> {
        let (written, is_written) = bounded(1);
        let Some(store) = &self.store else { return is_written };
        let store = Arc::clone(store);
        self.revision.set(self.revision.get() + 1);
        let revision = self.revision.get();
        let saving = async move {
            if let Err(error) = smol::unblock(move || store.save(revision, &sessions)).await {
                log::error!("{error}");
            }
            drop(written);
        };
        self.executor.spawn(saving).detach();
        is_written
    }
}
