//! A presence that is resumed on another node while it is to be removed.

use crate::rooms::tests::prelude::*;

/// A socket of ann's with her token.
fn ann(node: &TestNode) -> FakeClient {
    node.client("ann").with_token("ann", secs(10))
}

/// The nodes, and ann on the second one. It reads no requests before they are released.
async fn before_she_moves() -> ([TestNode; 3], FakeClient) {
    let [here, there, yonder] = nodes::<3>(quick).await;
    let first = ann(&there);
    first.join(lobby()).await.unwrap();
    pass(secs(3)).await;
    there.store.hang_after_reading_requests();
    ([here, there, yonder], first)
}

#[actix::test]
async fn a_presence_that_moves_to_a_node_that_was_not_asked_is_removed_there() {
    let ([here, there, yonder], first) = before_she_moves().await;
    let name = user("ann");
    let (removed, second) = join(here.remove_user(&name, None), async {
        pass(ms(100)).await;
        let second = ann(&yonder);
        second.join(lobby()).await.unwrap();
        there.store.release_requests();
        second
    })
    .await;
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(here.rows(lobby()).await, NONE);
    assert_eq!((second.me(), super::removals(&second).len()), (first.me(), 1));
}

#[actix::test]
async fn a_presence_that_moves_to_the_node_that_removes_it_is_removed() {
    let ([here, there, _], first) = before_she_moves().await;
    let name = user("ann");
    let (removed, second) = join(here.remove_user(&name, None), async {
        pass(ms(100)).await;
        let second = ann(&here);
        second.join(lobby()).await.unwrap();
        there.store.release_requests();
        second
    })
    .await;
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(here.rows(lobby()).await, NONE);
    assert_eq!((second.me(), super::removals(&second).len()), (first.me(), 1));
}

#[actix::test]
async fn of_a_node_that_has_answered_only_the_presence_that_moved_there_is_removed() {
    let ([here, there, yonder], first) = before_she_moves().await;
    let other = yonder.member("ann").await;
    pass(ms(100)).await;
    let name = user("ann");
    let (removed, (second, late)) = join(here.remove_user(&name, None), async {
        pass(ms(1500)).await;
        assert_eq!(super::removals(&other).len(), 1, "this node has answered");
        let (second, late) = (ann(&yonder), yonder.client("ann"));
        second.join(lobby()).await.unwrap();
        late.join(lobby()).await.unwrap();
        there.store.release_requests();
        (second, late)
    })
    .await;
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(here.rows(lobby()).await, ["ann"]);
    assert_eq!((second.me(), super::removals(&second).len()), (first.me(), 1));
    assert_eq!(super::removals(&late), [], "it joined since");
}
