//! The calls that the test makes, at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{NODES, PRESENCES, REQUESTS};

/// A call to a store. Numbers are indexes of small tables of names and ids.
#[derive(Debug, Clone)]
pub(super) enum StoreCall {
    Commit {
        node: usize,
        writes: BTreeMap<u8, BTreeMap<usize, PresenceStep>>,
    },
    Touch {
        node: usize,
        presences: BTreeSet<usize>,
        ago: u64,
    },
    Pass {
        seconds: u64,
    },
    /// A new incarnation under the name of this node.
    Restart {
        node: usize,
    },
    Renew {
        node: usize,
    },
    Fence {
        node: usize,
    },
    Clear {
        node: usize,
        dead: usize,
        all: bool,
    },
    Sweep {
        node: usize,
    },
    Prune {
        node: usize,
        age: u64,
    },
    PruneRooms {
        node: usize,
    },
    RemoveRoom {
        node: usize,
        room: u8,
    },
    RemoveUser {
        node: usize,
        user: u8,
    },
    Ask {
        node: usize,
        request: usize,
        /// `None`: to remove user 0.
        age: Option<u64>,
    },
    Withdraw {
        node: usize,
        request: usize,
    },
    Answer {
        node: usize,
        request: usize,
        pruned: u64,
    },
    Retire {
        node: usize,
        closed: u64,
    },
}

#[derive(Debug, Clone)]
pub(super) enum PresenceStep {
    Join { channel: u8, user: Option<u8>, meta: u8 },
    Restore { channel: u8, user: Option<u8>, token: u8 },
    Resume { channel: u8, user: Option<u8>, token: u8 },
    JoinWithin { channel: u8, token: Option<u8>, limit: usize },
    Hold { channel: u8, grace: u64 },
    Leave { channel: u8 },
    Update { channel: u8, user: Option<Option<u8>>, meta: u8 },
}

fn change() -> impl Strategy<Value = PresenceStep> {
    prop_oneof![
        4 => (0..4_u8, proptest::option::of(0..2_u8), 0..3_u8)
            .prop_map(|(channel, user, meta)| PresenceStep::Join { channel, user, meta }),
        2 => (0..4_u8, proptest::option::of(0..2_u8), 0..3_u8)
            .prop_map(|(channel, user, token)| PresenceStep::Restore { channel, user, token }),
        4 => (0..4_u8, proptest::option::of(0..2_u8), 0..3_u8)
            .prop_map(|(channel, user, token)| PresenceStep::Resume { channel, user, token }),
        2 => (0..4_u8, proptest::option::of(0..3_u8), 0..4_usize)
            .prop_map(|(channel, token, limit)| PresenceStep::JoinWithin { channel, token, limit }),
        3 => (0..4_u8, 0..20_u64).prop_map(|(channel, grace)| PresenceStep::Hold { channel, grace }),
        2 => (0..4_u8).prop_map(|channel| PresenceStep::Leave { channel }),
        2 => (0..4_u8, proptest::option::of(proptest::option::of(0..2_u8)), 0..3_u8)
            .prop_map(|(channel, user, meta)| PresenceStep::Update { channel, user, meta }),
    ]
}

pub(super) fn request() -> impl Strategy<Value = StoreCall> {
    let changes = proptest::collection::btree_map(0..PRESENCES, change(), 0..4);
    let writes = proptest::collection::btree_map(0..2_u8, changes, 0..3);
    let presences = proptest::collection::btree_set(0..PRESENCES, 0..PRESENCES);
    prop_oneof![
        12 => (0..NODES, writes).prop_map(|(node, writes)| StoreCall::Commit { node, writes }),
        2 => (0..NODES, presences, 0..40_u64).prop_map(|(node, presences, ago)| StoreCall::Touch { node, presences, ago }),
        3 => (0..15_u64).prop_map(|seconds| StoreCall::Pass { seconds }),
        1 => (0..NODES).prop_map(|node| StoreCall::Restart { node }),
        2 => (0..NODES).prop_map(|node| StoreCall::Renew { node }),
        2 => (0..NODES).prop_map(|node| StoreCall::Fence { node }),
        3 => (0..NODES, 0..NODES * 2, any::<bool>()).prop_map(|(node, dead, all)| StoreCall::Clear { node, dead, all }),
        1 => (0..NODES).prop_map(|node| StoreCall::Sweep { node }),
        1 => (0..NODES, 0..60_u64).prop_map(|(node, age)| StoreCall::Prune { node, age }),
        1 => (0..NODES).prop_map(|node| StoreCall::PruneRooms { node }),
        1 => (0..NODES, 0..2_u8).prop_map(|(node, room)| StoreCall::RemoveRoom { node, room }),
        1 => (0..NODES, 0..2_u8).prop_map(|(node, user)| StoreCall::RemoveUser { node, user }),
        2 => (0..NODES, 0..REQUESTS, proptest::option::of(0..60_u64)).prop_map(|(node, request, age)| {
            StoreCall::Ask { node, request, age }
        }),
        1 => (0..NODES, 0..REQUESTS).prop_map(|(node, request)| StoreCall::Withdraw { node, request }),
        2 => (0..NODES, 0..REQUESTS, 0..9_u64).prop_map(|(node, request, pruned)| {
            StoreCall::Answer { node, request, pruned }
        }),
        1 => (0..NODES, 0..15_u64).prop_map(|(node, closed)| StoreCall::Retire { node, closed }),
    ]
}
