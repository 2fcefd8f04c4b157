//! What another node asks is done once, so that those stay who come after it.

use crate::{
    name::RequestId,
    rooms::tests::bench::{Node, lobby, ms, pass, secs, settle, user},
    store::{Order, Removal, RemovalTarget, Request, RequestStore},
};

use super::{removals, three};

/// A node asks the others to remove ann, and does not wait for their answers.
async fn ask(asker: &Node) -> RequestId {
    let order = Order::Remove(Removal { target: RemovalTarget::User(user("ann")), close: None });
    let request = Request { id: RequestId::random(), order };
    asker.store.database().send_request(asker.node().unwrap(), request.clone()).await.unwrap();
    request.id
}

/// How many the others removed, so far as they have answered.
async fn answers(asker: &Node, request: RequestId) -> Vec<Option<u64>> {
    let answers = asker.store.database().answers(request).await.unwrap();
    answers.iter().map(|answer| answer.removed).collect()
}

#[actix::test]
async fn an_answer_that_is_lost_is_given_again_and_who_came_since_stays() {
    let [here, there, _] = three().await;
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
async fn a_list_of_requests_that_is_older_than_an_answer_removes_nobody_again() {
    // The request was forgotten with its answer, and the list that came late had it carried out again.
    let [here, there, _] = three().await;
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
