//! Writing to the kernel: several frames in one call, and the rest by the response.

use super::prelude::*;
use crate::Notify;

/// A node without notices.
async fn silent(config: ConfigBuilder) -> TestNode {
    new_node(config.notify(Notify::Silent)).await
}

/// Some members of the lobby, whose kernels accept so many bytes from here on.
async fn members(node: &TestNode, count: usize, accepts: usize) -> Vec<FakeClient> {
    let mut members = Vec::new();
    for n in 0..count {
        members.push(node.member(&format!("user{n}")).await);
    }
    for member in &members {
        member.kernel.accepts.set(Some(accepts));
        // The server polls the response, and finds nothing.
        assert!(member.bytes().is_empty());
    }
    members
}

/// Texts of so many bytes.
fn texts(count: usize, size: usize) -> Vec<Outgoing> {
    (0..count).map(|n| Outgoing::text(format!("{n:0size$}"))).collect()
}

fn bytes_of(texts: &[Outgoing]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.frames().bytes.to_vec()).collect()
}

/// Sends all texts at once, each by a sender of its own.
async fn send_all(node: &TestNode, texts: &[Outgoing]) {
    join_all(texts.iter().map(|text| node.send(lobby(), text.clone()))).await.into_iter().for_each(Result::unwrap);
    settle().await;
}

#[actix::test]
async fn messages_that_wait_together_are_written_in_one_call_to_each_member() {
    tokio::time::pause();
    // Two of 4 KiB do not fit into one piece of the response. After 64 members the hub lets other tasks run.
    for (count, size, crowd) in [(8, 4096, 3), (30, 64, 3), (8, 64, 200), (1, 64, 3)] {
        let node = silent(config()).await;
        let members = members(&node, crowd, usize::MAX).await;
        let (texts, begun) = (texts(count, size), Instant::now());
        send_all(&node, &texts).await;
        for member in &members {
            assert_eq!(member.kernel.writes.take(), [bytes_of(&texts)], "{count} texts of {size} bytes");
            assert!(member.bytes().is_empty(), "nothing is left");
        }
        assert!(begun.elapsed().is_zero(), "no message waits for others");
    }
}

#[actix::test]
async fn a_hub_that_writes_to_a_crowd_lets_other_tasks_run_after_64_sockets_and_after_2_mib() {
    tokio::time::pause();
    for (size, crowd, most) in [(64, 200, 64), (60_000, 100, 35)] {
        let node = silent(config()).await;
        let members = members(&node, crowd, usize::MAX).await;
        let written = || members.iter().filter(|member| !member.kernel.writes.borrow().is_empty()).count();
        let other_task = async {
            let (mut before, mut largest) = (0, 0);
            while before < crowd {
                tokio::task::yield_now().await;
                let now = written();
                largest = largest.max(now - before);
                before = now;
            }
            largest
        };
        let text = texts(1, size).remove(0);
        let (sent, largest) = join(node.send(lobby(), text), other_task).await;
        sent.unwrap();
        assert_eq!(largest, most, "texts of {size} bytes");
    }
}

#[actix::test]
async fn the_answers_to_a_broadcast_are_written_together_also_if_they_come_one_turn_apart() {
    tokio::time::pause();
    let node = silent(config()).await;
    let members = members(&node, 2, usize::MAX).await;
    let (texts, kernel) = (texts(3, 64), &members[0].kernel);
    let answers = texts[1..].iter().enumerate().map(async |(turns, text)| {
        while kernel.writes.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        node.send(lobby(), text.clone()).await.unwrap();
    });
    let begun = Instant::now();
    join(node.send(lobby(), texts[0].clone()), join_all(answers)).await.0.unwrap();
    settle().await;
    assert!(begun.elapsed().is_zero(), "no time passes meanwhile");
    for member in &members {
        assert_eq!(member.kernel.writes.take(), [bytes_of(&texts[..1]), bytes_of(&texts[1..])]);
    }
}

#[actix::test]
async fn more_than_64_kib_are_written_in_several_calls() {
    tokio::time::pause();
    let node = silent(config()).await;
    let member = members(&node, 1, usize::MAX).await.remove(0);
    let texts = texts(20, 16_000);
    send_all(&node, &texts).await;
    let writes = member.kernel.writes.take();
    assert_eq!(writes.iter().map(|write| write.len() / 16_000).collect::<Vec<_>>(), [4; 5]);
    assert_eq!(writes.concat(), bytes_of(&texts));
}

#[actix::test]
async fn what_the_kernel_does_not_accept_goes_by_the_response_and_nothing_is_written_past_it() {
    tokio::time::pause();
    for accepts in [0, 1, 67, 68, 69, 500, 20_000] {
        let node = silent(config()).await;
        let member = members(&node, 1, accepts).await.remove(0);
        let texts = texts(8, 4096);
        send_all(&node, &texts[..4]).await;
        assert_eq!(member.kernel.writes.borrow().len(), 1);
        // The kernel accepts bytes again, and the server has not polled the response yet.
        member.kernel.accepts.set(Some(usize::MAX));
        send_all(&node, &texts[4..]).await;
        let mut all = member.kernel.writes.take().concat();
        if accepts < 16_400 {
            assert_eq!(all.len(), accepts);
        }
        all.extend(member.bytes());
        assert!(all == bytes_of(&texts), "{accepts}");
    }
}

#[actix::test]
async fn a_ping_does_not_go_between_the_parts_of_a_frame() {
    tokio::time::pause();
    let node = silent(config()).await;
    let member = members(&node, 1, 1000).await.remove(0);
    let (texts, ping) = (texts(2, 4096), texts(1, 2).remove(0));
    send_all(&node, &texts).await;
    member.outbox.push_ping(ping.frames());
    let mut all = member.kernel.writes.take().concat();
    all.extend(member.bytes());
    assert!(all == bytes_of(&[texts[0].clone(), ping, texts[1].clone()]));
}

#[actix::test]
async fn a_sender_waits_for_a_client_whose_kernel_accepts_nothing() {
    tokio::time::pause();
    let node = silent(config().outbox_frames(4).paused_bytes(1)).await;
    let member = members(&node, 1, 0).await.remove(0);
    let texts = texts(5, 64);
    let begun = Instant::now();
    send_all(&node, &texts[..4]).await;
    assert!(begun.elapsed().is_zero());
    let (_, waited) = join(
        async {
            pass(ms(500)).await;
            member.bytes();
        },
        async {
            send_all(&node, &texts[4..]).await;
            begun.elapsed()
        },
    )
    .await;
    assert!((ms(500)..ms(600)).contains(&waited), "{waited:?}");
}
