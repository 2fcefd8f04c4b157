//! How many writes of an incarnation the database has confirmed.

use parking_lot::Mutex;

use crate::name::NodeId;

/// The commits and the renewals of the current incarnation that were confirmed. The database counts them, too. If it has fewer than were
/// confirmed before it was asked, then it has lost some, however many followed.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites(Mutex<Option<Counts>>);

#[derive(Debug)]
struct Counts {
    node: NodeId,
    confirmed: u64,
    /// How many of them are renewals.
    renewals: u64,
    /// How many renewals were begun, and how many of these have not ended.
    begun: u64,
    under_way: u64,
}

/// How many renewals an incarnation had begun when none was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AtRest(NodeId, u64);

/// A renewal is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Renewal<'a>(&'a OwnWrites, NodeId);

impl Drop for Renewal<'_> {
    fn drop(&mut self) {
        self.0.change(self.1, |counts| counts.under_way = counts.under_way.saturating_sub(1));
    }
}

impl Renewal<'_> {
    /// The database has confirmed it.
    pub(crate) fn confirm(self) {
        self.0.change(self.1, |counts| {
            counts.confirmed += 1;
            counts.renewals += 1;
        });
    }
}

impl OwnWrites {
    fn change<T>(&self, node: NodeId, change: impl FnOnce(&mut Counts) -> T) -> Option<T> {
        self.0.lock().as_mut().filter(|counts| counts.node == node).map(change)
    }

    /// An incarnation begins, and the count with it.
    pub(crate) fn begin(&self, node: NodeId) {
        *self.0.lock() = Some(Counts { node, confirmed: 0, renewals: 0, begun: 0, under_way: 0 });
    }

    /// The database has confirmed a commit of this incarnation.
    pub(crate) fn confirm(&self, node: NodeId) {
        self.change(node, |counts| counts.confirmed += 1);
    }

    /// A renewal of the lease of this incarnation begins.
    pub(crate) fn renew(&self, node: NodeId) -> Renewal<'_> {
        self.change(node, |counts| {
            counts.begun += 1;
            counts.under_way += 1;
        });
        Renewal(self, node)
    }

    /// How many were confirmed by now. 0 if the incarnation is not the current one.
    pub(crate) fn confirmed(&self, node: NodeId) -> u64 {
        self.change(node, |counts| counts.confirmed).unwrap_or(0)
    }

    /// The database has lost this number of writes. From now on, only a further loss counts.
    pub(crate) fn lose(&self, node: NodeId, lost: u64) {
        self.change(node, |counts| counts.confirmed = counts.confirmed.saturating_sub(lost));
    }

    /// `None` while a renewal is under way.
    pub(crate) fn at_rest(&self, node: NodeId) -> Option<AtRest> {
        self.change(node, |counts| (counts.under_way == 0).then_some(AtRest(node, counts.begun))).flatten()
    }

    /// The database had this number of renewals, and since `asked`, before it was asked, no renewal has begun. It may have more than were
    /// confirmed: if the answer to one was lost. As long as it is not counted, a later loss of one write would not be noticed.
    pub(crate) fn settle(&self, node: NodeId, asked: Option<AtRest>, renewals: u64) {
        if asked.is_none() || asked != self.at_rest(node) {
            return;
        }
        self.change(node, |counts| {
            counts.confirmed += renewals.saturating_sub(counts.renewals);
            counts.renewals = renewals;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_whose_answer_was_lost_is_counted_when_the_database_shows_it() {
        let (own, node) = (OwnWrites::default(), NodeId::random());
        own.begin(node);
        own.confirm(node);
        own.renew(node).confirm();
        drop(own.renew(node));
        assert_eq!(own.confirmed(node), 2);
        own.settle(node, own.at_rest(node), 2);
        assert_eq!(own.confirmed(node), 3, "the database has two renewals");
        own.settle(node, own.at_rest(node), 2);
        own.settle(node, own.at_rest(node), 1);
        assert_eq!(own.confirmed(node), 3);
    }

    #[test]
    fn a_renewal_is_not_counted_twice_if_it_is_under_way_while_the_database_is_asked() {
        let (own, node) = (OwnWrites::default(), NodeId::random());
        own.begin(node);
        let asked = own.at_rest(node);
        let renewal = own.renew(node);
        own.settle(node, asked, 1);
        assert_eq!((own.confirmed(node), own.at_rest(node)), (0, None));
        own.settle(node, own.at_rest(node), 1);
        renewal.confirm();
        assert_eq!(own.confirmed(node), 1);
        own.settle(node, asked, 1);
        own.settle(NodeId::random(), own.at_rest(node), 7);
        assert_eq!(own.confirmed(node), 1);
    }
}
