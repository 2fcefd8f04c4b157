//! A request of another node is carried out once, so that presences which join later stay.

use crate::rooms::tests::prelude::*;
use crate::{
    name::RequestId,
    store::{Order, Removal, RemovalTarget, Request},
};

use super::removals;

/// Writes a request to remove ann to the other nodes, and does not wait for their answers.
async fn ask(asker: &TestNode) -> RequestId {
    let order = Order::Remove(Removal { target: RemovalTarget::User(user("ann")), close: None });
    let request = Request { id: RequestId::random(), order };
    asker.store.database().send_request(asker.node().unwrap(), request.clone()).await.unwrap();
    request.id
}

/// How many presences each of the other nodes removed; `None` while it has not answered.
async fn answers(asker: &TestNode, request: RequestId) -> Vec<Option<u64>> {
    let answers = asker.store.database().answers(request).await.unwrap();
    answers.iter().map(|answer| answer.removed).collect()
}

#[actix::test]
async fn a_lost_answer_is_sent_again_and_a_presence_that_joined_since_stays() {
    let [here, there, _] = nodes::<3>(quick).await;
    let ann = there.member("ann").await;
    let request = ask(&here).await;
    there.store.lose_answers_to_requests(1);
    pass(ms(1100)).await;
    assert_eq!((removals(&ann).len(), answers(&here, request).await), (1, vec![None]), "it could not answer");
    ann.join(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(answers(&here, request).await, [Some(1)]);
    assert_eq!((removals(&ann).len(), here.rows(lobby()).await), (0, vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_list_of_requests_that_is_older_than_an_answer_removes_nothing_again() {
    // The request was forgotten when it was answered, and the late list caused it to be carried out again.
    let [here, there, _] = nodes::<3>(quick).await;
    let ann = there.member("ann").await;
    there.store.commits_take(ms(1500));
    let request = ask(&here).await;
    pass(ms(1100)).await;
    there.store.hang_after_reading_requests();
    pass(secs(2)).await;
    assert_eq!((removals(&ann).len(), answers(&here, request).await), (1, vec![Some(1)]));
    there.store.commits_take(secs(0));
    ann.join(lobby()).await.unwrap();
    there.store.release_requests();
    settle().await;
    assert_eq!((removals(&ann).len(), here.rows(lobby()).await), (0, vec!["ann".to_owned()]));
}

#[actix::test]
async fn the_list_of_requests_is_read_when_a_sweep_has_found_one_or_nobody_sweeps() {
    let [here, there] = nodes::<2>(quick).await;
    let ann = there.member("ann").await;
    pass(secs(3)).await;
    let before = there.store.requests_read();
    pass(secs(30)).await;
    assert_eq!(there.store.requests_read(), before);
    let request = ask(&here).await;
    pass(ms(1100)).await;
    assert_eq!((removals(&ann).len(), answers(&here, request).await), (1, vec![Some(1)]));
    let alone = unsupervised_node_on(here.store.database(), "yonder", quick());
    alone.ready().await;
    let bob = alone.member("bob").await;
    let before = alone.store.requests_read();
    pass(secs(30)).await;
    let read = alone.store.requests_read() - before;
    assert!((28..=30).contains(&read), "{read}");
    let order = Order::Remove(Removal { target: RemovalTarget::User(user("bob")), close: None });
    let request = Request { id: RequestId::random(), order };
    here.store.database().send_request(here.node().unwrap(), request.clone()).await.unwrap();
    pass(ms(1100)).await;
    assert_eq!(removals(&bob).len(), 1);
}
