//! Clients of a server that ends, and what the others receive.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    Index, Load,
    client::{Client, Phase},
};

impl Load {
    /// Allows a server to close the sockets of all its clients, and returns the rooms of these clients. They are not members any more.
    pub(crate) fn dismiss(&mut self, server: SocketAddr) -> Vec<u32> {
        let clients = self.clients.iter_mut().flatten().filter(|client| client.server == server && !client.is_ending());
        let dismiss = |client: &mut Client| {
            client.phase = Phase::Dismissed;
            client.room
        };
        clients.map(dismiss).collect()
    }

    /// How many dismissed clients were closed with each code since the last call; `None` for an end without a Close. Nothing while a
    /// client has not ended.
    pub(crate) fn take_closes(&mut self) -> Option<BTreeMap<Option<u16>, usize>> {
        let have_ended = !self.clients.iter().flatten().any(Client::is_ending);
        have_ended.then(|| std::mem::take(&mut self.books.closes))
    }

    pub(crate) fn is_member(&self, client: Index) -> bool {
        self.clients.get(client).and_then(Option::as_ref).is_some_and(|client| client.phase == Phase::Joined)
    }

    /// How many members there are, and how many texts and bytes they have received.
    pub(crate) fn received_by_all(&self) -> (usize, u64, u64) {
        let joined = self.clients.iter().flatten().filter(|client| client.phase == Phase::Joined);
        joined.fold((0, 0, 0), |sum, client| (sum.0 + 1, sum.1 + client.frames, sum.2 + client.bytes))
    }
}
