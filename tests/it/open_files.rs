//! The limit of open files is raised, logged and observed.

use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, secs, within};

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one_and_logged() {
    let server = ChatServer::start_with(&[], &[("ULIMIT", "-S -n 512")]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).collect();
    assert!(numbers[0] == numbers[1] && numbers[0] > 512, "{line}");
    let log = server.log();
    assert!(log.contains(&format!("open_files={}", numbers[0])) && log.contains("max_sockets="), "{log}");
}

#[tokio::test]
async fn sockets_beyond_what_the_limit_of_open_files_carries_are_answered_503_and_the_others_go_on() {
    // 256 descriptors: a quarter is kept for everything else, and a socket takes two.
    const CARRIED: usize = 96;
    let server = ChatServer::start_with(&["--workers", "1"], &[("ULIMIT", "-n 256")]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut crowd = Vec::new();
    for n in 1..CARRIED {
        crowd.push(RoomClient::join(&server, "attic", &format!("user{n}")[..]).await);
    }
    for _ in 0..50 {
        let late = HandshakeRequest::to(path("attic", "late"));
        let refused = within(BOUND, "an answer", late.open(server.address())).await.expect_err("the server is full");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{refused:?}");
    }
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("`max_sockets`")).collect();
    assert!(!lines.is_empty() && lines.len() < 5, "one line in 10 s: {lines:?}");
    bob.says("still here").await;
    bob.hears("bob", "still here").await;
    // A place that becomes free is given to the next one.
    crowd.pop().unwrap().leave().await;
    let next = async { while HandshakeRequest::to(path("attic", "next")).open(server.address()).await.is_err() {} };
    within(secs(10), "a free place", next).await;
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_too_low_for_max_sockets_is_a_warning_at_the_start_with_both_numbers() {
    let server = ChatServer::start_with(&[], &[("ULIMIT", "-n 256"), ("PRESENCE_MAX_SOCKETS", "97")]).await;
    let log = server.log();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("`max_sockets`")).expect(&log);
    assert!(warning.contains("max_sockets=97 open_files=256 allowed=96"), "{warning}");
    let server = ChatServer::start_with(&[], &[("ULIMIT", "-n 256"), ("PRESENCE_MAX_SOCKETS", "96")]).await;
    assert!(!server.log().contains("WARN"), "{}", server.log());
}

#[tokio::test]
async fn how_many_sockets_there_may_be_is_a_setting() {
    let server = ChatServer::start_with(&[], &[("PRESENCE_MAX_SOCKETS", "2")]).await;
    let _two = [RoomClient::join(&server, "lobby", "ann").await, RoomClient::join(&server, "lobby", "bob").await];
    let refused = HandshakeRequest::to(path("lobby", "eve")).open(server.address()).await.expect_err("a third one");
    assert_eq!(refused.status, 503);
}
