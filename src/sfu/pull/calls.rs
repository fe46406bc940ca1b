//! The calls that a pull has made, each with an id of its own, and its queue of outputs.

use std::collections::VecDeque;

use super::interface::{ApiCall, CallId, Output, PeerId};

#[derive(Debug, Default)]
pub(super) struct ApiCalls {
    pub(super) made: u64,
    pub(super) outputs: VecDeque<Output>,
}

impl ApiCalls {
    pub(super) fn make(&mut self, call: ApiCall) -> CallId {
        self.made += 1;
        let id = CallId(self.made);
        self.outputs.push_back(Output::Call(id, call));
        id
    }

    pub(super) fn drop_peer(&mut self, peer: PeerId) {
        self.outputs.push_back(Output::DropPeer { peer });
    }
}
