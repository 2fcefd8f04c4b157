//! How many messages a commit sends to SQLite, each of which wakes two threads.

use super::*;

#[tokio::test]
async fn a_commit_reads_by_one_message_and_writes_by_another() {
    let folder = TempDir::new().unwrap();
    let (mut store, node) = prepared(folder.path()).await;
    store.keep_changes(false);
    let messages = Arc::new(Mutex::new(Vec::new()));
    let sent = messages.clone();
    store.once.database.writer.set_metric_callback(move |info| sent.lock().push(info.statement.sql.clone()));
    let here = crowd(node, 5);
    store.commit(node, Attempt::next(), joins("lobby", &here).into()).await.unwrap();
    let of_first = std::mem::take(&mut *messages.lock());
    assert_eq!(of_first.len(), 4, "a new room is inserted and read: {of_first:?}");
    let others = crowd(node, 7);
    let mut writes = joins("lobby", &others);
    writes[0].writes.extend(here.iter().map(|one| Write::Leave { id: one.id, channel: one.channel.clone() }));
    let commits = store.commit(node, Attempt::next(), writes.into()).await.unwrap();
    assert_eq!((commits[0].delta.joined.len(), commits[0].delta.left.len()), (7, 5));
    let of_second = std::mem::take(&mut *messages.lock());
    assert_eq!(of_second.len(), 2, "{of_second:?}");
    let loaded = store.load(room("lobby")).await.unwrap().unwrap();
    assert_eq!((loaded.presences.len(), loaded.version), (7, commits[0].version));
}

#[tokio::test]
async fn texts_with_special_characters_are_stored_as_they_are() {
    let folder = TempDir::new().unwrap();
    let (store, node) = prepared(folder.path()).await;
    let strange = "a\"b\\c'd;--é\u{1F600}?1";
    let meta = Meta::from_json("{\n\t\"k\\u0000\\\"\": \"\\\\ '\u{2028}\" }").unwrap();
    let one = Presence { user: Some(UserId::new(strange).unwrap()), meta, ..Presence::clone(&presence(node, strange)) };
    store.commit(node, Attempt::next(), joins(strange, &[Arc::new(one.clone())]).into()).await.unwrap();
    let loaded = store.load(room(strange)).await.unwrap().unwrap();
    assert_eq!(*loaded.presences[0], one);
    let again = store.commit(node, Attempt::next(), joins(strange, &[Arc::new(one)]).into()).await.unwrap();
    assert!(again[0].delta.is_empty(), "the room and the presence are found by their names");
}
