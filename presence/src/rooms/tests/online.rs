//! `user_online` and `user_offline`: the first and the last presence of a user in a room.

mod history;
mod leave_groups;
mod subscriber_view;

use super::prelude::*;

// behaviour: W24 first-and-last
#[actix::test]
async fn only_the_first_tab_is_online_and_only_the_last_offline() {
    let node = node().await;
    let mut changes = node.changes();
    let [first, second] = node.members_named(["ann", "ann"]).await;
    let guest = node.anonymous();
    guest.join(lobby()).await.unwrap();
    first.join(&room("attic")).await.unwrap();
    first.leave(lobby()).await.unwrap();
    second.update(lobby(), r#"{"n":1}"#).await.unwrap();
    second.leave(lobby()).await.unwrap();
    guest.leave(lobby()).await.unwrap();
    let expected = ["+ann: +ann", "+ann:", "+-:", "+ann: +ann", "-ann:", "~ann:", "-ann: -ann", "--:"];
    assert_eq!(online_events(&mut changes), expected);
}
