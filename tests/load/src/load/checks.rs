//! Whether each client has what it must have.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::wire::User;

use super::{LONGEST_WAIT, Load, client::Phase};

/// How long the last notices may take at the end.
const SETTLE: Duration = Duration::from_secs(20);
/// How long the views must stay right at the end, so that a notice that comes twice is seen.
const QUIET: Duration = Duration::from_millis(150);
impl Load {
    /// Waits until each client's view of its room is the truth and all messages have come, and that it stays so.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.settle_within(SETTLE)
    }

    pub(super) fn settle_within(&mut self, bound: Duration) -> Result<(), String> {
        let end = Instant::now() + bound;
        self.deadline = end + Duration::from_secs(1);
        loop {
            self.turns(LONGEST_WAIT)?;
            match self.wrong() {
                None => break,
                Some(wrong) if Instant::now() > end => return Err(wrong),
                Some(_) => {}
            }
        }
        self.turns(QUIET)?;
        self.wrong().map_or(Ok(()), Err)
    }

    /// The first view that differs from the truth, or the first client that misses a message.
    pub(crate) fn wrong(&self) -> Option<String> {
        let mut truth = BTreeMap::<u32, Vec<User>>::new();
        for client in self.clients.iter().flatten().filter(|client| !client.is_ending()) {
            truth.entry(client.room).or_default().push(client.user);
        }
        truth.values_mut().for_each(|users| users.sort_unstable());
        let joined = self.clients.iter().flatten().filter(|client| client.phase == Phase::Joined);
        joined
            .filter_map(|client| {
                client.difference(truth.get(&client.room)?).or_else(|| client.loss(&self.books.senders))
            })
            .next()
    }

    pub(super) fn late(&self) -> String {
        let mut phases = BTreeMap::<String, usize>::new();
        for client in self.clients.iter().flatten() {
            *phases.entry(format!("{:?}", client.phase).to_lowercase()).or_default() += 1;
        }
        let wrong = self.wrong().unwrap_or_else(|| "nothing is wrong with what they have received".to_owned());
        format!("the scenario does not end: its clients are {phases:?}; {wrong}")
    }
}
