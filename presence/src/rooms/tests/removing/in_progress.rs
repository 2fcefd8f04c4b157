//! Removals during a join, a leave or a change of the user: all that was acknowledged before is removed.

use crate::rooms::tests::prelude::*;

/// By which call ann is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    User,
    Room,
    Age,
}

const ALL: [By; 3] = [By::User, By::Room, By::Age];

async fn remove(rooms: &Rooms, by: By) -> crate::Result<usize> {
    match by {
        By::User => rooms.remove_user(&user("ann"), Some(close())).await,
        By::Room => rooms.remove_room(lobby(), Some(close())).await,
        By::Age => rooms.prune_presences(Some(Duration::ZERO)).await,
    }
}

fn close() -> Close {
    Close::new(CloseCode(4003), "it is late")
}

fn with_token(client: FakeClient) -> FakeClient {
    client.with_token("ann", secs(20))
}

/// Checks that nobody is in the room, and that the token of ann resumes nothing.
async fn check_gone(node: &TestNode, first: &FakeClient) {
    pass(secs(5)).await;
    assert_eq!((node.rows(lobby()).await.len(), node.children()), (0, 0));
    let second = with_token(node.client("ann"));
    second.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_ne!(second.me(), first.id(lobby()).to_string());
    assert_eq!(second.sees(), ["ann"]);
}

#[actix::test]
async fn a_relaxed_join_that_is_not_written_yet_is_removed() {
    // The roster did not contain it yet, so it was not removed.
    tokio::time::pause();
    for by in ALL {
        let node = new_node(config().durability(Durability::Relaxed)).await;
        node.store.commits_take(secs(2));
        let other = node.client("bob");
        other.join(lobby()).await.unwrap();
        settle().await;
        let ann = with_token(node.client("ann"));
        ann.join(lobby()).await.unwrap();
        let count = if by == By::User { 1 } else { 2 };
        assert_eq!(remove(&node, by).await.unwrap(), count, "{by:?}");
        assert_eq!(ann.close_codes().len(), 1, "{by:?}");
        other.leave(lobby()).await.unwrap();
        pass(secs(5)).await;
        node.store.commits_take(secs(0));
        check_gone(&node, &ann).await;
    }
}

#[actix::test]
async fn a_join_in_progress_is_refused_and_its_socket_closed() {
    tokio::time::pause();
    for by in ALL {
        let node = new_node(config()).await;
        node.store.commits_take(secs(2));
        let ann = with_token(node.client("ann"));
        let mut joins = Box::pin(ann.join(lobby()));
        assert!(joins.as_mut().now_or_never().is_none());
        settle().await;
        let (removed, joined) = tokio::join!(remove(&node, by), joins);
        assert!(matches!(joined, Err(Error::LeftWhileJoining { .. })), "{by:?}: {joined:?}");
        assert_eq!((removed.unwrap(), ann.close_codes().len()), (1, 1), "{by:?}");
        node.store.commits_take(secs(0));
        check_gone(&node, &ann).await;
    }
}

#[actix::test]
async fn a_join_that_waits_to_resume_a_join_in_progress_is_refused_with_it() {
    tokio::time::pause();
    let node = new_node(config()).await;
    node.store.commits_take(secs(2));
    let (first, second) = (with_token(node.client("ann")), with_token(node.client("ann")));
    let mut joins = Box::pin(async { tokio::join!(first.join(lobby()), second.join(lobby())) });
    assert!(joins.as_mut().now_or_never().is_none());
    settle().await;
    let (removed, joined) = tokio::join!(remove(&node, By::User), joins);
    assert_eq!(removed.unwrap(), 1);
    assert!(matches!(joined, (Err(Error::LeftWhileJoining { .. }), Err(Error::LeftWhileJoining { .. }))), "{joined:?}");
    assert_eq!((first.close_codes().len(), second.close_codes().len()), (1, 1));
    node.store.commits_take(secs(0));
    check_gone(&node, &first).await;
}

#[actix::test]
async fn a_presence_with_a_new_user_is_removed_with_that_user_and_not_with_the_former() {
    tokio::time::pause();
    let node = new_node(config().durability(Durability::Relaxed)).await;
    let channel = channel("job");
    node.add(lobby(), &channel, Some(&user("bob"))).await.unwrap();
    pass(secs(1)).await;
    for (was, is) in [("bob", "ann"), ("ann", "bob")] {
        node.store.commits_take(secs(2));
        node.add(lobby(), &channel, Some(&user(is))).await.unwrap();
        settle().await;
        assert_eq!(node.remove_user(&user(was), None).await.unwrap(), 0, "{was} is {is} now");
        if is == "bob" {
            assert_eq!(node.remove_user(&user(is), None).await.unwrap(), 1);
        }
        pass(secs(5)).await;
    }
    assert_eq!(node.rows(lobby()).await.len(), 0);
}

#[actix::test]
async fn a_presence_whose_socket_was_just_lost_is_removed_and_not_resumed() {
    // The database did not have it as held yet, and a prune with age zero did not remove it.
    tokio::time::pause();
    for by in ALL {
        let node = new_node(config()).await;
        let (bob, ann) = (node.member("bob").await, with_token(node.client("ann")));
        ann.join(lobby()).await.unwrap();
        pass(secs(1)).await;
        node.store.commits_take(secs(2));
        let _under_way = bob.update(lobby(), r#"{"n":1}"#).now_or_never();
        settle().await;
        ann.lose(lobby());
        let count = if by == By::User { 1 } else { 2 };
        assert_eq!(remove(&node, by).await.unwrap(), count, "{by:?}");
        node.store.commits_take(secs(0));
        bob.leave(lobby()).await.unwrap();
        check_gone(&node, &ann).await;
    }
}

#[actix::test]
async fn a_presence_that_is_lost_while_it_is_resumed_is_removed_and_not_resumed_again() {
    // The answer of the database showed that the presence has a grace, so it was held.
    tokio::time::pause();
    for by in ALL {
        let database = MemoryStore::new(Clock::system());
        let [here, there] = [node_on(&database, "here", config()).await, node_on(&database, "there", config()).await];
        let first = with_token(there.client("ann"));
        first.join(lobby()).await.unwrap();
        first.lose(lobby());
        pass(secs(1)).await;
        here.store.hang_after_commit();
        let second = with_token(here.client("ann"));
        let mut joins = Box::pin(second.join(lobby()));
        assert!(joins.as_mut().now_or_never().is_none());
        settle().await;
        second.lose(lobby());
        settle().await;
        let (removed, ()) = tokio::join!(remove(&here, by), async {
            pass(secs(1)).await;
            here.store.release_commits();
        });
        assert_eq!(removed.unwrap(), 1, "{by:?}");
        check_gone(&here, &first).await;
    }
}

#[actix::test]
async fn a_held_presence_on_a_node_without_others_is_removed_and_not_resumed() {
    // That node received no request, since the database could remove the row alone. Then it resumed the presence by its token.
    tokio::time::pause();
    for by in [By::User, By::Room] {
        let database = MemoryStore::new(Clock::system());
        let [here, there] = [node_on(&database, "here", config()).await, node_on(&database, "there", config()).await];
        let ann = with_token(there.client("ann"));
        ann.join(lobby()).await.unwrap();
        ann.lose(lobby());
        pass(secs(1)).await;
        assert_eq!(remove(&here, by).await.unwrap(), 1, "{by:?}");
        let second = with_token(there.client("ann"));
        second.join(lobby()).await.unwrap();
        assert_ne!(second.me(), ann.id(lobby()).to_string());
    }
}
