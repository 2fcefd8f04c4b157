//! A guest that signs in, and so gets a user, on an open connection.

use super::prelude::*;

/// Joins the room that a frame names, becomes a user by `sign in as NAME`, and a guest by `sign out`.
struct SigningConsumer;

impl Consumer for SigningConsumer {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let text = std::str::from_utf8(frame.as_bytes()).expect("a test sends text");
        if text == "sign out" {
            return socket.set_user(None).await;
        }
        let Some(name) = text.strip_prefix("sign in as ") else { return socket.join(&room(text)).await };
        socket.set_user(Some(user(name))).await?;
        assert_eq!(socket.user().map(UserId::as_str), Some(name));
        Ok(())
    }
}

/// A visitor whose tab has a resume token.
async fn visitor(node: &TestNode, who: Option<UserId>) -> TestSocket {
    let token = ResumeToken::new("the-token-of-this-tab").unwrap();
    let upgrade = TestSocket::upgrade(&node.rooms).user(who).resume_token(Some(token));
    TestSocket::connect(upgrade, SigningConsumer).await.expect("accepted")
}

/// Sends these texts, each when the one before is handled.
async fn say(socket: &mut TestSocket, texts: &[&str]) {
    for text in texts {
        socket.send_text(*text);
        pass(secs(1)).await;
    }
}

fn attic() -> RoomName {
    room("attic")
}

#[actix::test]
async fn a_guest_that_signs_in_becomes_the_user_in_all_its_rooms_with_one_event_each() {
    let node = node().await;
    let bob = node.member("bob").await;
    let mut guest = visitor(&node, None).await;
    say(&mut guest, &["lobby", "attic"]).await;
    assert_eq!((bob.sees(), bob.view().anonymous), (vec!["bob".to_owned()], 1));
    let mut changes = node.changes();
    say(&mut guest, &["sign in as ann"]).await;
    assert_eq!(published(&mut changes), ["~ann", "~ann"]);
    assert_eq!(node.rows(lobby()).await, ["ann", "bob"]);
    assert_eq!(node.rows(&attic()).await, ["ann"]);
    assert_eq!((bob.sees(), bob.view().anonymous), (vec!["ann".to_owned(), "bob".to_owned()], 0));
    say(&mut guest, &["cellar", "sign in as ann"]).await;
    assert_eq!(
        published(&mut changes),
        ["+ann"],
        "what it joins later is hers, and who she is already changes nothing"
    );
}

#[actix::test]
async fn after_a_sign_in_only_later_joins_can_be_resumed_and_only_by_this_user() {
    let node = node().await;
    let mut guest = visitor(&node, None).await;
    say(&mut guest, &["lobby", "sign in as ann", "attic"]).await;
    let mut changes = node.changes();
    guest.lose();
    settle().await;
    assert_eq!(published(&mut changes), ["-ann"], "from the lobby; in the attic she is held");
    assert_eq!(node.rows(&attic()).await, ["ann"]);
    // Other users come with the same token.
    for (other, name) in [(None, "-"), (Some(user("eve")), "eve")] {
        let mut other = visitor(&node, other).await;
        say(&mut other, &["attic", "lobby"]).await;
        assert_eq!(published(&mut changes), [format!("+{name}"), format!("+{name}")]);
    }
    let mut ann = visitor(&node, Some(user("ann"))).await;
    say(&mut ann, &["attic"]).await;
    assert_eq!((published(&mut changes), node.rows(&attic()).await.len()), (vec![], 3), "she has it again");
}

#[actix::test]
async fn a_guest_that_signs_in_does_not_resume_a_held_presence_of_the_user() {
    // The guest reads nothing, and must not be cut off for that within a grace.
    let node = node_with(config().write_timeout(secs(60))).await;
    let mut ann = visitor(&node, Some(user("ann"))).await;
    say(&mut ann, &["lobby"]).await;
    ann.lose();
    settle().await;
    let mut changes = node.changes();
    // The guest is the same tab with the same token.
    let mut guest = visitor(&node, None).await;
    say(&mut guest, &["lobby", "sign in as ann"]).await;
    assert_eq!(published(&mut changes), ["+-", "~ann"]);
    assert_eq!(node.rows(lobby()).await, ["ann", "ann"], "a presence that is held is resumed by a join alone");
    pass(secs(12)).await;
    assert_eq!(
        (published(&mut changes), node.rows(lobby()).await),
        (vec!["-[ann]".to_owned()], vec!["ann".to_owned()])
    );
}

#[actix::test]
async fn a_guest_that_signs_in_and_out_during_an_outage_is_a_guest_again() {
    let node = node_with(config().durability(Durability::Relaxed)).await;
    let mut guest = visitor(&node, None).await;
    say(&mut guest, &["lobby"]).await;
    let mut changes = node.changes();
    node.store.faults.hang();
    say(&mut guest, &["sign in as ann", "sign out"]).await;
    node.store.faults.release();
    pass(secs(3)).await;
    assert_eq!(published(&mut changes), ["~ann", "~-"].map(str::to_owned).to_vec());
    assert_eq!(node.rows(lobby()).await, ["-"]);
}

#[actix::test]
async fn of_two_users_that_a_channel_is_given_at_once_the_later_counts() {
    let node = node().await;
    let guest = node.member("ann").await;
    pass(secs(1)).await;
    let [bob, ann] = ["bob", "ann"].map(user);
    let add = |user| node.rooms.add(lobby(), &guest.channel, Some(user));
    let (first, second) = join(add(&bob), add(&ann)).await;
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(node.rows(lobby()).await, ["ann"]);
    pass(secs(1)).await;
    assert_eq!(node.rows(lobby()).await, ["ann"]);
}

#[actix::test]
async fn a_sign_in_ends_the_token_also_if_the_guest_signs_out_before_it_is_written() {
    let node = node_with(config().durability(Durability::Relaxed)).await;
    let mut guest = visitor(&node, None).await;
    say(&mut guest, &["lobby"]).await;
    node.store.faults.hang();
    // The transaction in progress is that of another socket, so that both updates are pending and are merged.
    node.client("bob").join(&attic()).await.unwrap();
    let mut changes = node.changes();
    say(&mut guest, &["sign in as ann", "sign out"]).await;
    node.store.faults.release();
    pass(secs(3)).await;
    assert_eq!(published(&mut changes), ["+bob"]);
    let mut next = visitor(&node, None).await;
    say(&mut next, &["lobby"]).await;
    assert_eq!((published(&mut changes), node.rows(lobby()).await.len()), (vec!["+-".to_owned()], 2));
    guest.lose();
    pass(ms(6)).await;
    assert_eq!((published(&mut changes), node.rows(lobby()).await.len()), (vec!["--".to_owned()], 1));
}
