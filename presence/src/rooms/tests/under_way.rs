//! Removing those who are just coming, going, or becoming another: whatever was acknowledged by then is removed.

use std::time::Duration;

use futures_util::FutureExt;

use super::bench::{Client, Node, config, lobby, node_on, pass, secs, settle, user};
use crate::{
    CloseCode, Error, Rooms, clock::Clock, config::Durability, model::Close, name::ChannelName, store::MemoryStore,
};

/// What removes ann, and all that is removed with her.
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

async fn node(durability: Durability) -> Node {
    node_on(&MemoryStore::new(Clock::system()), "here", config().durability(durability)).await
}

/// Two nodes on one database.
async fn two() -> [Node; 2] {
    let database = MemoryStore::new(Clock::system());
    [node_on(&database, "here", config()).await, node_on(&database, "there", config()).await]
}

fn with_token(client: Client) -> Client {
    client.with_token("ann", secs(20))
}

/// Nobody is there, and nobody can come back by ann's token.
async fn check_gone(node: &Node, first: &Client) {
    pass(secs(5)).await;
    assert_eq!((node.rows(lobby()).await.len(), node.children()), (0, 0));
    let second = with_token(node.client("ann"));
    second.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_ne!(second.me(), first.id(lobby()).to_string());
    assert_eq!(second.sees(), ["ann"]);
}

#[actix::test]
async fn a_join_that_was_acknowledged_before_it_is_written_is_removed() {
    // It was not there yet, and so it stayed.
    tokio::time::pause();
    for by in ALL {
        let node = node(Durability::Relaxed).await;
        node.store.commits_take(secs(2));
        let other = node.client("bob");
        other.join(lobby()).await.unwrap();
        settle().await;
        let ann = with_token(node.client("ann"));
        ann.join(lobby()).await.unwrap();
        let count = if by == By::User { 1 } else { 2 };
        assert_eq!(remove(&node, by).await.unwrap(), count, "{by:?}");
        assert_eq!(ann.closes().len(), 1, "{by:?}");
        other.leave(lobby()).await.unwrap();
        pass(secs(5)).await;
        node.store.commits_take(secs(0));
        check_gone(&node, &ann).await;
    }
}

#[actix::test]
async fn a_join_under_way_is_refused_and_its_socket_closed() {
    tokio::time::pause();
    for by in ALL {
        let node = node(Durability::Committed).await;
        node.store.commits_take(secs(2));
        let ann = with_token(node.client("ann"));
        let mut joins = Box::pin(ann.join(lobby()));
        assert!(joins.as_mut().now_or_never().is_none());
        settle().await;
        let (removed, joined) = tokio::join!(remove(&node, by), joins);
        assert!(matches!(joined, Err(Error::LeftWhileJoining { .. })), "{by:?}: {joined:?}");
        assert_eq!((removed.unwrap(), ann.closes().len()), (1, 1), "{by:?}");
        node.store.commits_take(secs(0));
        check_gone(&node, &ann).await;
    }
}

#[actix::test]
async fn one_who_waits_behind_the_join_that_it_resumes_is_refused_as_well() {
    tokio::time::pause();
    let node = node(Durability::Committed).await;
    node.store.commits_take(secs(2));
    let (first, second) = (with_token(node.client("ann")), with_token(node.client("ann")));
    let mut joins = Box::pin(async { tokio::join!(first.join(lobby()), second.join(lobby())) });
    assert!(joins.as_mut().now_or_never().is_none());
    settle().await;
    let (removed, joined) = tokio::join!(remove(&node, By::User), joins);
    assert_eq!(removed.unwrap(), 1);
    assert!(matches!(joined, (Err(Error::LeftWhileJoining { .. }), Err(Error::LeftWhileJoining { .. }))), "{joined:?}");
    assert_eq!((first.closes().len(), second.closes().len()), (1, 1));
    node.store.commits_take(secs(0));
    check_gone(&node, &first).await;
}

#[actix::test]
async fn one_who_has_become_another_is_removed_as_that_one_and_not_as_who_it_was() {
    tokio::time::pause();
    let node = node(Durability::Relaxed).await;
    let channel = ChannelName::new("job").unwrap();
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
async fn one_that_is_lost_just_now_is_removed_and_can_not_return() {
    // That it is held was not in the database yet, and an age of zero spared it.
    tokio::time::pause();
    for by in ALL {
        let node = node(Durability::Committed).await;
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
async fn one_that_is_lost_while_it_resumes_is_removed_and_can_not_return() {
    // It turned out to be held when the database answered, and was.
    tokio::time::pause();
    for by in ALL {
        let [here, there] = two().await;
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
async fn one_who_is_held_on_a_node_that_has_nobody_else_can_not_return_there() {
    // That node was not asked, since the database could do without it, and took it back by its token.
    tokio::time::pause();
    for by in [By::User, By::Room] {
        let [here, there] = two().await;
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
