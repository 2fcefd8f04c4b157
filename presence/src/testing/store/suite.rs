//! The tests that every [`Store`] must pass.
//!
//! `store_suite!` defines the tests. Its argument is a function that takes a [`ManualClock`]. It returns an empty, prepared store that uses
//! this clock, and a value that must outlive the store:
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

pub mod change;
pub mod change_log;
pub mod cleaning;
pub mod incarnations;
pub mod limits;
pub mod listing;
pub mod online;
pub mod outcome;
pub mod reading;
pub mod recent;
pub mod requests;
pub mod resuming;
pub mod sharing;

use std::{sync::Arc, time::Duration};

use crate::{
    model::{Meta, Presence},
    name::{ChannelName, NodeId, NodeName, PresenceId, RoomName, UserId},
    store::{Attempt, RoomCommit, RoomWrites, Store, StoreError, Write},
};

use super::ManualClock;

/// Defines the tests of the [suite](crate::testing::store::suite). Needs `tokio` with `rt` and `macros`.
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::store_suite! { $make;
            change {
                the_first_change_of_a_room_creates_it_with_version_1,
                versions_never_skip_or_repeat,
                a_change_of_many_presences_is_one_version,
                a_commit_without_changes_gives_no_version,
                a_repeated_join_changes_nothing,
                a_join_of_a_held_presence_ends_its_hold,
                a_join_does_not_take_a_presence_from_another_channel,
                a_join_that_moves_a_presence_to_another_room_is_refused,
                a_channel_has_one_presence_in_a_room,
                a_channel_may_leave_and_join_again_in_one_commit,
                a_channel_may_be_in_many_rooms,
                naming_a_room_or_a_presence_twice_is_refused,
                a_refused_commit_writes_nothing_at_all,
                a_leave_needs_the_right_presence_and_channel,
                an_update_needs_the_right_presence_and_channel,
                an_update_to_an_equal_meta_changes_nothing,
                an_update_beyond_the_precision_of_a_double_is_a_change,
                a_leave_has_the_last_user_and_meta,
                one_commit_changes_many_rooms_and_returns_them_in_order,
                one_commit_may_have_a_thousand_changes,
                concurrent_commits_each_get_a_version,
                a_dropped_call_leaves_the_store_usable,
            }
            outcome {
                the_outcome_of_a_dropped_commit_is_known,
                a_commit_that_failed_or_was_never_made_has_no_outcome,
                the_last_commit_of_a_fenced_incarnation_is_known_until_it_is_forgotten,
            }
            incarnations {
                an_unregistered_incarnation_may_not_write,
                registering_again_renews_the_lease,
                a_later_incarnation_takes_the_name_and_fences_the_former,
                an_incarnation_that_lost_its_name_is_superseded,
                an_incarnation_that_lost_its_name_is_kept_for_a_day,
                an_incarnation_that_ends_before_it_cleared_the_former_leaves_both_to_the_next,
                registering_again_returns_the_former_incarnation_again,
                an_expired_lease_can_be_renewed_before_the_node_is_fenced,
                a_renewal_returns_the_time_of_the_database,
                a_live_incarnation_is_not_fenced,
                a_lease_is_valid_to_its_very_end,
                a_fenced_incarnation_may_not_write,
                a_fenced_incarnation_is_returned_until_it_is_cleared,
                a_former_incarnation_is_left_to_its_live_successor,
                a_live_incarnation_is_not_cleared,
                a_restart_holds_all_presences_in_batches_and_changes_no_room,
                presences_of_a_dead_node_without_a_token_leave_in_batches,
                held_presences_keep_their_grace_when_cleared_again,
                a_cleared_incarnation_is_forgotten,
                retiring_removes_the_presences_of_the_node,
                retiring_again_changes_nothing,
                retiring_keeps_held_presences,
                a_grace_is_extended_by_the_time_its_node_is_closed_or_gone,
                a_grace_that_expired_before_its_node_closed_is_not_extended,
                a_grace_is_extended_by_the_time_between_a_kill_and_the_next_start,
                a_grace_of_another_node_is_not_extended_by_a_restart,
                registering_again_does_not_extend_graces_again,
            }
            cleaning {
                a_held_presence_stays_for_its_grace_and_no_longer,
                a_sweep_works_in_batches,
                a_removal_changes_at_most_512_rooms_at_once_and_reports_that_there_are_more,
                pruning_spares_presences_of_live_nodes,
                pruning_spares_presences_of_the_calling_node_after_its_lease_expired,
                pruning_removes_held_presences_and_those_of_dead_nodes,
                only_for_presences_of_dead_nodes_a_later_touch_may_be_unwritten,
                a_presence_seen_exactly_max_age_ago_stays,
                a_presence_that_a_restart_holds_counts_as_seen,
                a_resumed_presence_counts_as_seen,
                pruning_works_in_batches,
                a_touch_keeps_a_presence_from_being_pruned,
                a_touch_never_goes_back,
                a_touch_gives_no_version,
                a_touch_of_a_missing_or_foreign_presence_is_skipped,
                only_empty_rooms_are_pruned,
                a_room_that_is_created_again_has_another_epoch_and_version_1,
                a_room_that_is_being_joined_stays,
                a_removal_spares_presences_of_live_nodes,
                a_room_is_removed_in_batches_and_stays_empty,
                a_user_is_removed_from_every_room_with_one_version_each,
                a_user_is_removed_from_one_room_and_stays_in_the_others,
                an_orphaned_presence_is_removed_by_its_id_or_its_channel,
                removing_a_user_works_in_batches_and_removes_held_presences,
            }
            sharing {
                a_dead_node_is_left_to_the_node_that_clears_it,
                a_node_that_restarts_holds_its_presences_while_another_one_clears_them,
                each_room_is_swept_by_one_node_at_once_and_by_any_after_the_delay,
                a_survey_reports_what_a_sweep_would_find,
                a_survey_reports_former_incarnations_only_without_a_live_successor,
            }
            resuming {
                a_lost_presence_is_held_for_its_grace_without_a_version,
                a_hold_needs_the_right_presence_and_channel,
                a_repeated_hold_changes_nothing,
                a_held_presence_is_not_pruned_before_its_grace_expires,
                a_token_resumes_its_presence,
                a_repeated_resume_changes_nothing,
                a_resume_with_an_unknown_token_is_a_join,
                a_token_of_another_room_resumes_nothing,
                after_the_grace_a_token_makes_a_new_presence,
                after_a_leave_a_token_makes_a_new_presence,
                a_presence_with_a_live_socket_can_be_resumed,
                a_resume_on_another_node_gives_a_version,
                late_changes_of_the_former_owner_have_no_effect,
                of_two_resumes_the_later_counts,
                two_resumes_at_once_agree_on_the_owner,
                a_restored_presence_keeps_its_token,
                a_presence_that_was_resumed_elsewhere_is_not_restored,
                a_presence_that_lost_its_token_is_restored_without_it,
                two_joins_with_one_token_in_one_commit_are_refused,
                a_presence_whose_user_changes_loses_its_token,
                a_presence_whose_user_is_set_to_the_same_user_loses_its_token_without_a_version,
                resumable_presences_of_a_dead_node_are_held_and_the_others_leave,
                a_restart_holds_each_presence_for_its_own_grace,
                a_resume_ends_the_hold_of_a_restart,
                one_commit_may_have_a_thousand_resumes,
            }
            limits {
                of_many_joins_at_once_as_many_succeed_as_there_are_places,
                the_limit_counts_the_presences_of_its_own_room,
                a_leave_frees_a_place_and_a_join_without_a_limit_takes_one,
                repeated_joins_and_resumes_succeed_in_a_full_room,
                of_two_nodes_that_join_at_once_one_gets_the_last_place,
            }
            reading {
                a_missing_room_has_no_snapshot,
                a_snapshot_holds_what_was_joined,
                a_large_room_is_loaded_whole,
                positions_are_those_of_existing_rooms,
                the_rooms_of_a_user_are_sorted_and_unique,
                names_are_compared_as_bytes,
            }
            recent {
                a_changed_room_is_among_the_recent_changes_with_its_position,
                what_gives_no_version_is_no_recent_change,
                every_removal_is_a_recent_change,
                a_resume_on_another_node_is_a_recent_change,
                of_more_recent_changes_than_the_limit_as_many_are_returned,
                renewals_and_commits_are_counted_for_their_own_node,
                prunes_and_set_backs_are_counted_for_all_nodes,
                of_two_reports_of_one_set_back_the_first_counts,
                the_rooms_with_presences_of_a_node_are_those_that_it_has_to_answer_for,
            }
            change_log {
                changes_are_kept_until_the_node_is_alone,
                the_changes_after_a_version_lead_to_the_present_room,
                every_transaction_that_gives_a_version_is_in_the_log,
                changes_that_are_not_all_there_are_not_returned,
                changes_are_forgotten_by_their_age,
            }
            online {
                a_user_goes_online_with_the_first_presence_and_offline_with_the_last,
                other_rooms_other_users_and_the_anonymous_do_not_count,
                of_many_presences_in_one_commit_the_first_and_the_last_announced_count,
                a_presence_whose_user_changes_may_be_the_last_of_one_and_the_first_of_another,
                a_user_with_a_held_presence_is_online_until_the_sweep,
                repeated_changes_are_reported_once,
                every_removal_reports_the_users_who_went_offline,
                one_commit_counts_in_each_of_its_rooms,
                a_thousand_users_go_online_in_one_commit,
                users_are_counted_in_rooms_that_do_not_become_empty,
                of_tabs_that_join_or_leave_at_once_one_is_the_first_and_one_the_last,
            }
            requests {
                a_node_answers_a_request_once,
                an_age_is_kept_to_the_millisecond,
                only_live_nodes_with_a_presence_receive_a_request,
                a_node_with_only_held_presences_receives_a_request,
                a_request_that_is_sent_again_reaches_new_nodes_and_no_node_twice,
                two_requests_at_once_have_separate_answers,
                a_request_ends_with_the_incarnation_that_sent_it,
                an_answer_stays_when_its_node_ends,
                a_fenced_incarnation_may_not_answer,
                a_removal_arrives_unchanged,
                only_nodes_with_presences_of_the_target_receive_a_removal,
                a_removal_that_is_sent_again_reaches_the_node_to_which_a_presence_has_moved,
                a_node_does_not_receive_its_own_request,
                a_withdrawn_request_reaches_no_node,
                a_survey_shows_whether_there_are_unanswered_requests,
            }
            listing {
                a_room_is_listed_with_its_numbers,
                rooms_are_listed_page_by_page,
                the_last_seen_times_of_a_room_are_listed,
                rooms_are_listed_in_the_order_of_their_bytes_empty_ones_too,
                all_positions_are_those_of_every_room,
                a_node_is_listed_with_its_age_its_lease_and_its_presences,
                registering_again_does_not_make_a_node_younger,
                a_lease_that_ran_out_is_listed_and_then_that_it_was_fenced,
                only_nodes_that_are_not_fenced_are_among_the_live_ones,
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

/// A new incarnation.
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

/// Lets the lease of a node expire. `judge` renews its own lease and fences the node.
async fn let_die(store: &dyn Store, time: &ManualClock, judge: NodeId) -> Vec<NodeId> {
    time.advance(LEASE + SECOND);
    store.renew(judge, LEASE).await.expect("it is not fenced");
    store.fence(judge).await.expect("it may judge")
}

fn is_fenced<T>(answer: &Result<T, StoreError>, expected: NodeId, is_superseded: bool) -> bool {
    let Err(StoreError::Fenced { node, superseded }) = answer else { return false };
    (*node, *superseded) == (expected, is_superseded)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_statement_is_in_the_list() {
        let this = include_str!("suite.rs");
        let modules = [
            include_str!("suite/requests.rs"),
            include_str!("suite/change.rs"),
            include_str!("suite/cleaning.rs"),
            include_str!("suite/incarnations.rs"),
            include_str!("suite/listing.rs"),
            include_str!("suite/online.rs"),
            include_str!("suite/outcome.rs"),
            include_str!("suite/limits.rs"),
            include_str!("suite/reading.rs"),
            include_str!("suite/recent.rs"),
            include_str!("suite/resuming.rs"),
            include_str!("suite/sharing.rs"),
        ];
        for source in modules {
            for statement in source.split("\npub async fn ").skip(1) {
                let (name, _) = statement.split_once('(').unwrap();
                assert!(this.contains(&format!(" {name},\n")), "{name}");
            }
        }
    }
}
