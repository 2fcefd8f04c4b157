//! Which statements SQLite executes, and with which indexes.

use super::*;
use crate::store::sql::commit::{CommitKeys, CommitWrite};

#[tokio::test]
async fn no_statement_scans_all_presences() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let sqlite = DbBackend::Sqlite;
    let by_key = "SEARCH presences USING INDEX sqlite_autoindex_presences_1 (id=?)";
    let (id, hash) = (node.as_uuid(), SessionHash::from_bytes([0; 32]));
    let ann = UserId::new("ann").unwrap();
    let filters = [
        RemovalFilter::OrphansIn { room: Epoch::from_uuid(id), now: 1 },
        RemovalFilter::OrphansOf { user: &ann, room: None, now: 1 },
        RemovalFilter::UnheldOf(node),
        RemovalFilter::PastGrace { now: 1 },
        RemovalFilter::Stale { caller: NodeId::random(), now: 1, cut: 1, unheld_cut: 1 },
        RemovalFilter::StaleHeld { cut: 1 },
        RemovalFilter::StaleOf { node, cut: 1 },
    ];
    let mut statements = vec![
        statement::lock_presences(vec![id, id]).into_statement(sqlite),
        statement::page(id, "a", 10).into_statement(sqlite),
        statement::unheld(sqlite, node, 10).into_statement(sqlite),
        statement::unheld_ids(sqlite, node, 10).into_statement(sqlite),
        statement::receivers(node, None, 1).into_statement(sqlite),
        statement::nodes(Expr::val(1)).into_statement(sqlite),
        statement::live_nodes(Expr::val(1)).into_statement(sqlite),
        statement::room_summaries("", 10).into_statement(sqlite),
        statement::rooms_of(&ann).into_statement(sqlite),
        statement::uncleared_orphans(node, 1).into_statement(sqlite),
        statement::survey(node, Expr::val(1)).into_statement(sqlite),
        statement::forgettable(1).into_statement(sqlite),
        statement::forget_incarnations(vec![id], 1).build(sqlite),
        statement::existing(vec![id, id]).into_statement(sqlite),
        statement::rooms_with_presences_of(node).into_statement(sqlite),
        statement::lock_empty_rooms(id, 10).into_statement(sqlite),
        statement::delete_empty_rooms(vec![id]).build(sqlite),
        statement::delete_presences(vec![id, id]).build(sqlite),
        statement::hold(vec![id, id], 1, 1).build(sqlite),
        statement::hold_presences_of(node, vec![id, id], 1, 1).build(sqlite),
        statement::ids_by_session(vec![hash, hash]).into_statement(sqlite),
        store.once.database.dialect().touch(node, 1, &[]),
        store.once.database.dialect().have_more(&[]),
    ];
    for filter in filters {
        statements.push(statement::removable(filter, 10).into_statement(sqlite));
        statements.push(statement::removable_ids(filter, 10).into_statement(sqlite));
        statements.push(statement::lock_removable(vec![id, id], filter).into_statement(sqlite));
        statements.push(sqlite.build(&statement::delete_removable(vec![id, id], filter)));
    }
    let lobby = room("lobby");
    for target in [
        RemovalTarget::Room(lobby.clone()),
        RemovalTarget::User(ann.clone()),
        RemovalTarget::UserIn { user: ann.clone(), room: lobby.clone() },
        RemovalTarget::Channel { channel: ChannelName::new("a").unwrap(), room: Some(lobby.clone()) },
        RemovalTarget::Presence { room: lobby, id: PresenceId::from_uuid(id) },
    ] {
        statements.push(statement::receivers(node, Some(&target), 1).into_statement(sqlite));
        statements.push(statement::remaining(&target, 1, 10).into_statement(sqlite));
    }
    let (key, room) = (PresenceId::from_uuid(id), Epoch::from_uuid(id));
    let keys = CommitKeys { node, rooms: &[], presences: &[key], sessions: &[hash] };
    let new = [(room, (presence(node, "a"), None))];
    let write =
        CommitWrite { node, attempt: Attempt::next(), now: 1, gone: &[key, key], new: &new, changed: &[room, room] };
    let dialect = store.once.database.dialect();
    for text in [dialect.read_commit(&keys).unwrap().sql, dialect.write_commit(&write).unwrap().sql] {
        // The values do not matter, since no plan depends on them.
        let texts: Vec<_> = text.split("; ").collect();
        assert_eq!(texts.len(), 4, "{text}");
        statements.extend(texts.into_iter().map(|one| Statement::from_string(sqlite, one)));
    }
    let mut ordered = 0;
    for mut statement in statements {
        statement.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
        let sql = statement.sql.clone();
        let plan = store.once.database.readers().query_all_raw(statement).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|step| step.try_get("", "detail").unwrap()).collect();
        assert!(!plan.iter().any(|step| step.starts_with("SCAN presences")), "{sql}: {plan:?}");
        if sql.contains("ORDER BY \"presences\".\"room_id\"") {
            assert!(plan.iter().any(|step| step.contains("presences_node_room")), "{sql}: {plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}: {plan:?}");
            ordered += 1;
        }
        if sql.contains("touch") || sql.contains("grace") && !sql.contains("INSERT") {
            // With the index on the node, each presence was compared with every touch, and 2,000 touches took seconds.
            assert!(plan.iter().any(|step| step == by_key), "{sql}: {plan:?}");
        }
    }
    assert_eq!(ordered, 2, "presences of a dead node are read room by room, without sorting");
}

#[tokio::test]
async fn tracking_online_users_is_one_statement_more_and_none_without_subscribers() {
    let folder = TempDir::new().unwrap();
    let (mut store, node) = prepared(folder.path()).await;
    let statements = Arc::new(Mutex::new(Vec::new()));
    let seen = statements.clone();
    store.once.database.writer.set_metric_callback(move |info| seen.lock().push(info.statement.sql.clone()));
    let user = |n: usize| Some(UserId::new(format!("u{}", n / 2)).unwrap());
    let two_of_each = crowd(node, 100).into_iter().enumerate();
    let two_of_each: Vec<_> =
        two_of_each.map(|(n, one)| Arc::new(Presence { user: user(n), ..Presence::clone(&one) })).collect();
    let leave = |one: &Arc<Presence>| Write::Leave { id: one.id, channel: one.channel.clone() };
    let leaves = vec![RoomWrites { room: room("lobby"), writes: two_of_each.iter().map(leave).collect() }];
    let anonymous = || joins("lobby", &[presence(node, PresenceId::random().to_string())]);
    store.commit(node, Attempt::next(), anonymous().into()).await.unwrap();
    let mut commits = Vec::new();
    for tracks in [false, true] {
        for writes in [joins("lobby", &two_of_each), leaves.clone(), anonymous()] {
            statements.lock().clear();
            let changes = &store.commit(node, Attempt::next(), writes.clone().into()).await.unwrap()[0].online_changes;
            let count = changes.online.len() + changes.offline.len();
            assert_eq!(count, if tracks && writes[0].writes.len() > 1 { 50 } else { 0 });
            commits.push(std::mem::take(&mut *statements.lock()));
        }
        store.track_online();
    }
    let counts = |sql: &String| sql.contains("COUNT(*)");
    assert!(commits[..3].iter().all(|commit| !commit.is_empty() && !commit.iter().any(counts)), "{commits:?}");
    // When many leave, one more statement checks whether the room is empty.
    for ((before, after), (more, counted)) in commits[..3].iter().zip(&commits[3..]).zip([(1, 1), (2, 1), (0, 0)]) {
        assert_eq!((after.len(), after.iter().filter(|sql| counts(sql)).count()), (before.len() + more, counted));
    }
}

#[tokio::test]
async fn recent_changes_are_found_by_an_index() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let query = statement::recent_changes(DbBackend::Sqlite, node, Expr::val(1), 1, 10);
    let mut statement = DbBackend::Sqlite.build(&query);
    statement.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
    let plan = store.once.database.readers().query_all_raw(statement).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|step| step.try_get("", "detail").unwrap()).collect();
    assert!(plan.iter().any(|step| step == "SEARCH rooms USING INDEX rooms_changed (changed_at>?)"), "{plan:?}");
}
