//! What every [`Store`] must do, one statement per test.
//!
//! `store_suite!` makes the tests. It takes a function that is given a [`ManualClock`] and returns a store which is
//! empty, prepared and on that clock's time, together with whatever must outlive the store:
//!
//! ```
//! # mod tests {
//! use presence::{MemoryStore, testing::store::ManualClock};
//!
//! async fn memory(time: ManualClock) -> (MemoryStore, ()) {
//!     (MemoryStore::new(time.clock()), ())
//! }
//!
//! presence::store_suite!(memory);
//! # }
//! ```

pub mod asking;
pub mod change;
pub mod cleaning;
pub mod life;
pub mod listing;
pub mod online;
pub mod outcome;
pub mod places;
pub mod reading;
pub mod resuming;

use std::{sync::Arc, time::Duration};

use crate::{
    model::{Meta, Presence},
    name::{ChannelName, NodeId, NodeName, PresenceId, RoomName, UserId},
    store::{Attempt, RoomCommit, RoomWrites, Store, StoreError, Write},
};

use super::ManualClock;

/// Makes one test of each statement of the [suite](crate::testing::store::suite). Needs `tokio` with `rt` and `macros`.
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::store_suite! { $make;
            change {
                the_first_change_of_a_room_makes_it_and_gives_version_1,
                versions_never_skip_or_repeat,
                a_change_of_many_presences_is_one_version,
                a_change_of_nothing_gives_no_version,
                a_join_done_twice_is_one,
                a_join_of_a_held_presence_ends_its_hold,
                a_join_takes_nothing_from_another_channel,
                a_join_that_moves_a_presence_to_another_room_is_refused,
                a_channel_speaks_for_one_presence_of_a_room,
                a_channel_may_leave_and_join_anew_in_one_commit,
                a_channel_may_be_in_many_rooms,
                naming_a_room_or_a_presence_twice_is_refused,
                a_refused_commit_writes_nothing_at_all,
                leaving_takes_the_right_presence_and_channel,
                updating_takes_the_right_presence_and_channel,
                an_update_to_an_equal_meta_is_nothing,
                an_update_beyond_the_precision_of_a_double_is_one,
                a_leave_tells_the_last_user_and_meta,
                one_commit_changes_many_rooms_and_answers_in_order,
                a_thousand_changes_ride_in_one_commit,
                concurrent_commits_each_get_a_version,
                a_dropped_call_leaves_the_store_usable,
            }
            outcome {
                of_a_commit_that_was_given_up_it_is_known_what_it_did,
                a_commit_that_failed_or_never_was_did_nothing,
                of_a_life_that_is_over_the_last_commit_is_known_as_long_as_the_life_is,
            }
            life {
                a_life_that_was_never_registered_writes_nothing,
                registering_again_renews_the_lease,
                a_later_life_takes_the_name_and_fences_the_former,
                a_life_that_lost_its_name_is_told_so,
                a_life_that_lost_its_name_is_remembered_for_a_day,
                a_life_over_before_it_had_cleared_the_former_leaves_both_to_the_next,
                registering_again_tells_of_the_former_life_again,
                a_lease_that_ran_out_unfenced_is_renewed_and_all_is_kept,
                a_renewal_tells_the_time_by_the_clock_of_the_database,
                a_live_life_is_not_fenced,
                a_lease_is_live_to_its_very_end,
                a_fenced_life_can_not_write,
                a_fenced_life_is_told_of_until_it_is_cleared,
                a_former_life_is_left_to_its_successor_while_that_lives,
                nothing_of_a_live_life_is_cleared,
                a_restart_holds_all_in_batches_and_changes_no_room,
                without_a_token_a_dead_nodes_presences_leave_in_batches,
                held_presences_keep_their_grace_when_cleared_again,
                a_cleared_life_is_forgotten,
                retiring_takes_ones_own_presences_along,
                retiring_twice_is_retiring_once,
                retiring_leaves_what_is_held,
                a_grace_does_not_run_while_a_node_is_closed_or_gone,
                a_grace_that_was_over_before_its_node_closed_is_over,
                a_grace_does_not_run_between_a_kill_and_the_next_start,
                a_grace_of_another_node_runs_on_over_a_restart,
                registering_again_extends_no_grace_again,
            }
            cleaning {
                a_held_presence_stays_for_its_grace_and_not_longer,
                a_sweep_works_in_batches,
                a_removal_changes_at_most_512_rooms_at_once_and_says_that_there_is_more,
                pruning_spares_presences_of_live_nodes,
                pruning_spares_presences_of_the_node_that_asks_though_its_lease_ran_out,
                pruning_takes_the_held_and_those_of_dead_nodes,
                a_presence_seen_exactly_max_age_ago_stays,
                a_presence_that_is_taken_over_counts_as_seen,
                pruning_works_in_batches,
                a_touch_keeps_a_presence_from_being_pruned,
                a_touch_never_goes_back,
                a_touch_gives_no_version,
                a_touch_of_what_is_gone_or_another_nodes_is_passed_over,
                only_empty_rooms_are_pruned,
                a_new_life_of_a_room_has_another_epoch_and_starts_over,
                a_room_that_is_being_joined_stays,
                a_removal_spares_presences_of_live_nodes,
                a_room_is_removed_in_batches_and_stays_empty,
                a_user_is_removed_from_every_room_with_one_version_each,
                a_user_is_removed_from_one_room_and_stays_in_the_others,
                one_presence_that_no_live_node_answers_for_is_removed_by_its_id_or_its_channel,
                removing_a_user_works_in_batches_and_takes_what_is_held,
            }
            resuming {
                a_lost_presence_is_held_for_its_grace_and_nobody_is_told,
                a_hold_takes_the_right_presence_and_channel,
                a_hold_done_again_is_one_hold,
                who_is_held_is_not_pruned_before_its_grace_is_over,
                who_returns_with_the_token_has_its_presence_again,
                a_resume_done_twice_is_one,
                one_who_comes_with_a_token_that_nobody_has_joins,
                a_token_of_another_room_finds_nobody,
                after_the_grace_the_token_is_that_of_a_new_presence,
                after_a_leave_the_token_is_that_of_a_new_presence,
                a_token_in_use_is_taken_over,
                what_is_taken_from_a_live_socket_of_another_node_takes_a_version,
                what_the_former_owner_does_late_is_nothing,
                of_two_claimants_the_later_has_it,
                two_claimants_at_once_agree_on_who_has_it,
                a_restored_presence_keeps_its_token,
                one_who_was_resumed_elsewhere_is_not_restored,
                one_who_lost_its_token_to_another_is_restored_without_it,
                two_who_come_with_one_token_in_one_commit_are_refused,
                a_presence_that_changes_hands_loses_its_token,
                a_presence_that_is_given_the_user_it_has_loses_its_token_and_nobody_is_told,
                a_dead_nodes_resumable_presences_are_held_and_the_others_leave,
                a_restart_holds_each_for_its_own_grace,
                a_resume_ends_the_hold_of_a_restart,
                a_thousand_return_in_one_commit,
            }
            places {
                of_many_who_join_at_once_as_many_get_in_as_there_are_places,
                the_places_of_one_room_are_not_those_of_another,
                who_leaves_makes_room_and_who_joins_without_a_limit_takes_it,
                who_is_there_or_comes_back_gets_in_however_full_the_room_is,
                of_two_nodes_that_join_at_once_one_gets_the_last_place,
            }
            reading {
                a_room_that_is_not_there_has_no_snapshot,
                a_snapshot_holds_what_was_joined,
                a_large_room_is_loaded_whole,
                positions_tell_of_the_rooms_that_are_there,
                the_rooms_of_a_user_are_sorted_and_told_once,
                names_are_bytes,
            }
            online {
                the_first_presence_of_a_user_comes_online_and_the_last_goes_offline,
                other_rooms_other_users_and_the_anonymous_do_not_count,
                of_many_presences_in_one_commit_the_first_told_and_the_last_told_count,
                a_presence_that_changes_hands_may_be_the_last_of_one_and_the_first_of_another,
                who_is_held_is_online_until_it_is_swept,
                what_is_done_again_is_told_once,
                whoever_removes_presences_tells_who_went_offline,
                one_commit_counts_in_each_of_its_rooms,
                a_thousand_users_come_online_in_one_commit,
                of_rooms_that_many_leave_at_once_each_user_is_counted_where_somebody_stays,
                of_tabs_that_come_or_go_at_once_one_is_the_first_and_one_the_last,
            }
            asking {
                a_node_that_is_asked_to_prune_answers_once,
                an_age_is_passed_on_to_the_millisecond,
                only_live_nodes_that_have_a_presence_are_asked,
                a_node_all_of_whose_presences_are_held_is_asked,
                asking_again_asks_those_that_came_to_life_and_nobody_twice,
                two_who_ask_at_once_get_answers_of_their_own,
                a_request_ends_with_the_life_that_asked,
                an_answer_outlives_the_node_that_gave_it,
                a_fenced_life_does_not_answer,
                a_removal_is_passed_on_as_it_was_asked,
                one_who_asks_is_not_asked,
                a_withdrawn_request_asks_nobody,
            }
            listing {
                a_room_is_listed_with_who_is_in_it,
                rooms_are_listed_page_by_page,
                when_presences_were_last_seen_is_listed,
                rooms_are_listed_in_the_order_of_their_bytes_empty_ones_too,
                all_positions_are_those_of_every_room,
                a_node_is_listed_with_its_age_its_lease_and_its_presences,
                registering_again_does_not_make_a_node_younger,
                a_lease_that_ran_out_is_listed_and_then_that_it_was_fenced,
                a_former_life_is_listed_under_the_name_that_it_lost,
                who_leaves_is_no_longer_counted,
            }
        }
    };
    ($make:expr; $($module:ident { $($statement:ident,)* })*) => {
        $(mod $module {
            #[allow(unused_imports, reason = "what makes the store may be anywhere")]
            use super::*;
            $(
                #[tokio::test]
                async fn $statement() {
                    let time = $crate::testing::store::ManualClock::new();
                    let (store, _keep) = ($make)(time.clone()).await;
                    $crate::testing::store::suite::$module::$statement(&store, &time).await;
                }
            )*
        })*
    };
}

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(10);

/// A life that has just begun.
async fn node(store: &dyn Store, name: &str) -> NodeId {
    let node = NodeId::random();
    let name = NodeName::new(name).expect("a test's name is good");
    store.register(node, name.clone(), LEASE).await.expect("a new life is never refused");
    node
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a test's name is good")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a test's name is good")
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a test's name is good")
}

fn meta(json: &str) -> Meta {
    Meta::from_json(json).expect("a test's meta is good")
}

fn anonymous(node: NodeId, name: &str) -> Arc<Presence> {
    Arc::new(Presence::new(PresenceId::random(), channel(name), None, node))
}

fn of_user(node: NodeId, name: &str, owner: &str) -> Arc<Presence> {
    Arc::new(Presence::new(PresenceId::random(), channel(name), Some(user(owner)), node))
}

fn join(presence: &Arc<Presence>) -> Write {
    Write::Join(presence.clone())
}

fn leave(presence: &Presence) -> Write {
    Write::Leave { id: presence.id, channel: presence.channel.clone() }
}

fn update(presence: &Presence, json: &str) -> Write {
    Write::Update { id: presence.id, channel: presence.channel.clone(), user: None, meta: Some(meta(json)) }
}

fn writes(name: &str, writes: impl IntoIterator<Item = Write>) -> RoomWrites {
    RoomWrites { room: room(name), writes: writes.into_iter().collect() }
}

/// Commits to one room.
async fn commit(
    store: &dyn Store,
    node: NodeId,
    room: &str,
    changes: impl IntoIterator<Item = Write>,
) -> Result<RoomCommit, StoreError> {
    let mut commits = store.commit(node, Attempt::next(), [writes(room, changes)].into()).await?;
    assert_eq!(commits.len(), 1, "one room, one commit");
    Ok(commits.remove(0))
}

/// Commits to one room, which must work.
async fn change(store: &dyn Store, node: NodeId, room: &str, changes: impl IntoIterator<Item = Write>) -> RoomCommit {
    commit(store, node, room, changes).await.expect("the commit works")
}

/// That many anonymous presences, joined to a room of a node.
async fn crowd(store: &dyn Store, node: NodeId, room: &str, size: usize) -> Vec<Arc<Presence>> {
    let crowd: Vec<_> = (0..size).map(|n| anonymous(node, &format!("{room}/{n}"))).collect();
    let _ = change(store, node, room, crowd.iter().map(join)).await;
    crowd
}

/// The version of a room and who is in it, sorted by id.
async fn members(store: &dyn Store, name: &str) -> (u64, Vec<Arc<Presence>>) {
    match store.load(room(name)).await.expect("loading works") {
        Some(mut snapshot) => {
            snapshot.presences.sort_unstable_by_key(|presence| presence.id);
            (snapshot.version.0, snapshot.presences)
        }
        None => (0, Vec::new()),
    }
}

/// Lets a node die: its lease runs out, and `judge`, which renews its own, fences it.
async fn let_die(store: &dyn Store, time: &ManualClock, judge: NodeId) -> Vec<NodeId> {
    time.advance(LEASE + SECOND);
    store.renew(judge, LEASE).await.expect("nobody fenced it");
    store.fence(judge).await.expect("it may judge")
}

fn is_fenced<T>(answer: &Result<T, StoreError>, whose: NodeId, by_a_later_life: bool) -> bool {
    let Err(StoreError::Fenced { node, superseded }) = answer else { return false };
    (*node, *superseded) == (whose, by_a_later_life)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_statement_is_in_the_list() {
        let this = include_str!("suite.rs");
        let modules = [
            include_str!("suite/asking.rs"),
            include_str!("suite/change.rs"),
            include_str!("suite/cleaning.rs"),
            include_str!("suite/life.rs"),
            include_str!("suite/listing.rs"),
            include_str!("suite/online.rs"),
            include_str!("suite/outcome.rs"),
            include_str!("suite/places.rs"),
            include_str!("suite/reading.rs"),
            include_str!("suite/resuming.rs"),
        ];
        for source in modules {
            for statement in source.split("\npub async fn ").skip(1) {
                let (name, _) = statement.split_once('(').unwrap();
                assert!(this.contains(&format!(" {name},\n")), "{name}");
            }
        }
    }
}
