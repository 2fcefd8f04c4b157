//! The tables as sea-orm entities. [`migration`](super::migration) creates them.

#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod last_commit;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod lease;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod node;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod presence;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod prune_request;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod room;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod room_change;
#[expect(unreachable_pub, reason = "the derives of sea-orm make their items `pub`")]
pub(super) mod shared_counts;
