//! Names of rooms and users: which are good, and how they stand in a URL.

use crate::support::http::get;
use crate::support::member::{RoomClient, encoded, path};
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};

/// The status and the body of the refusal of a path.
async fn refused(server: &ChatServer, path: &str) -> (u16, String) {
    match HandshakeRequest::to(path).open(server.address()).await {
        Ok(_) => panic!("{path} was accepted"),
        Err(response) => (response.status, response.body),
    }
}

/// The path is a bad request, and the answer has the reason.
async fn bad(server: &ChatServer, path: &str) {
    let (status, body) = refused(server, path).await;
    assert_eq!(status, 400, "{path}: {body}");
    assert!(body.trim().len() > 5, "{path}: a 400 carries a reason, not {body:?}");
}

/// The first frame at this path shows this room and this user, and nobody else: each call needs a room of its own, since who
/// has just left may still be listed.
async fn is(server: &ChatServer, path: &str, room: &str, user: &str) {
    let member = RoomClient::begin(ClientSocket::open(server, path).await).await;
    assert_eq!((member.roster.room.as_str(), member.roster.names()), (room, vec![user]), "at {path}");
}

#[tokio::test]
async fn a_room_needs_a_name() {
    let server = ChatServer::start(&[]).await;
    bad(&server, "/ws/").await;
    bad(&server, "/ws/?user=ann").await;
    assert_eq!(refused(&server, "/ws").await.0, 404);
    assert_eq!(refused(&server, "/ws?user=ann").await.0, 404);
}

#[tokio::test]
async fn a_raw_slash_in_a_room_is_not_found() {
    let server = ChatServer::start(&[]).await;
    for path in ["/ws/a/b", "/ws/a/", "/ws//", "/ws//a", "/ws/a/b?user=ann"] {
        assert_eq!(refused(&server, path).await.0, 404, "{path}");
    }
}

// behaviour: 2.1 no-half-made-user
#[tokio::test]
async fn a_user_is_named_once_or_not_at_all() {
    let server = ChatServer::start(&[]).await;
    for query in ["user=", "user", "user=ann&user=bob", "user=ann&user=ann", "user=ann&user=", "x=1&user="] {
        bad(&server, &format!("/ws/lobby?{query}")).await;
    }
    // Each in a room of its own, as in `is`.
    for (number, query) in ["", "?", "?x=1", "?User=ann", "?users=ann"].iter().enumerate() {
        let member = RoomClient::begin(ClientSocket::open(&server, &format!("/ws/none{number}{query}")).await).await;
        assert_eq!((member.roster.names(), member.roster.anonymous), (vec![], 1), "{query:?} names nobody");
    }
    is(&server, "/ws/one?x=1&user=ann&y=2", "one", "ann").await;
}

// behaviour: W18 names; 7 names; W18 long-names
#[tokio::test]
async fn a_name_has_at_most_255_bytes() {
    let server = ChatServer::start(&[]).await;
    let (longest, wide) = ("x".repeat(255), "é".repeat(127) + "x");
    for name in [&longest, &wide] {
        is(&server, &path(name, &name[..]), name, name).await;
    }
    let (too_long, too_wide) = ("x".repeat(256), "é".repeat(128));
    for name in [&too_long, &too_wide] {
        bad(&server, &path(name, "ann")).await;
        bad(&server, &path("lobby", &name[..])).await;
    }
}

#[tokio::test]
async fn a_name_has_no_control_characters() {
    let server = ChatServer::start(&[]).await;
    for control in ["\0", "\u{1}", "\t", "\n", "\r", "\u{1b}", "\u{1f}", "\u{7f}", "\u{80}", "\u{85}", "\u{9f}"] {
        for name in [control.to_owned(), format!("a{control}"), format!("{control}b")] {
            bad(&server, &path(&name, "ann")).await;
            bad(&server, &path("lobby", &name[..])).await;
        }
    }
    // The neighbours of the forbidden ranges.
    for good in ["a ", "~", "a\u{a0}"] {
        is(&server, &path(good, good), good, good).await;
    }
}

#[tokio::test]
async fn a_name_can_be_seen_and_turns_no_text_around() {
    // Users and rooms of this kind looked like nobody, or like others.
    let server = ChatServer::start(&[]).await;
    for bad_name in [" ", "\u{a0}\u{3000}", "\u{200b}", "\u{feff}", "ann\u{202e}", "\u{2066}ann\u{2069}", "a\u{200f}nn"]
    {
        bad(&server, &path(bad_name, "ann")).await;
        bad(&server, &path("lobby", bad_name)).await;
    }
    for good in ["שלום", "👩\u{200d}👧", "نمی\u{200c}شود"] {
        is(&server, &path(good, good), good, good).await;
    }
}

#[tokio::test]
async fn a_name_is_utf_8() {
    let server = ChatServer::start(&[]).await;
    for bytes in ["%ff", "%c3", "%c3%28", "%ed%a0%80", "%f5%80%80%80", "a%80", "%c0%af"] {
        bad(&server, &format!("/ws/{bytes}")).await;
        bad(&server, &format!("/ws/lobby?user={bytes}")).await;
    }
}

#[tokio::test]
async fn percent_encoding_is_decoded_once() {
    let server = ChatServer::start(&[]).await;
    is(&server, "/ws/%6cobby?user=%61nn", "lobby", "ann").await;
    is(&server, "/ws/a%252Fb?user=a%2541", "a%2Fb", "a%41").await;
    is(&server, "/ws/100%25?user=100%25", "100%", "100%").await;
    is(&server, "/ws/%E6%97%A5%e6%9c%ac?user=%F0%9F%98%80", "日本", "😀").await;
    is(&server, "/ws/a%3Fb%23c%26d?user=a%26b%3Dc%23d%3Fe", "a?b#c&d", "a&b=c#d?e").await;
}

#[tokio::test]
async fn an_encoded_slash_is_part_of_the_name() {
    let server = ChatServer::start(&[]).await;
    is(&server, "/ws/a%2Fb?user=c%2fd", "a/b", "c/d").await;
    is(&server, "/ws/%2F?user=%2F", "/", "/").await;
    is(&server, "/ws/..%2F..%2Fetc?user=a/b", "../../etc", "a/b").await;
}

#[tokio::test]
async fn a_plus_is_a_space_in_the_query_and_itself_in_the_path() {
    let server = ChatServer::start(&[]).await;
    is(&server, "/ws/a+b?user=a+b", "a+b", "a b").await;
    is(&server, "/ws/c%2Bd?user=a%2Bb", "c+d", "a+b").await;
    is(&server, "/ws/a%20b?user=a%20b", "a b", "a b").await;
}

#[tokio::test]
async fn names_are_compared_as_bytes() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    // Letter case, composed and decomposed, a space at the end: each is somebody else, in the same room.
    for user in ["Ann", "ann ", "\u{e5}nn", "a\u{30a}nn", "ａnn"] {
        let other = RoomClient::join(&server, "lobby", user).await;
        assert_eq!((other.roster.tabs("ann"), other.roster.tabs(user)), (1, 1), "{user:?}");
        ann.sees_join(user).await;
        other.leave().await;
        ann.sees_leave(user).await;
    }
    for room in ["Lobby", "lobby ", "lobb\u{fd}", "lobbＹ"] {
        assert_eq!(RoomClient::join(&server, room, "bob").await.roster.names(), ["bob"], "{room:?} is another room");
    }
    ann.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn a_long_name_survives_the_way_to_the_others() {
    let server = ChatServer::start(&[]).await;
    let room = "🏠".repeat(63);
    let user = "ü".repeat(127);
    let mut ann = RoomClient::join(&server, &room, "ann").await;
    let mut bob = RoomClient::join(&server, &room, &user[..]).await;
    ann.sees_join(&user).await;
    bob.says("hello").await;
    ann.hears(&user[..], "hello").await;
}

#[tokio::test]
async fn a_bad_name_is_refused_before_the_upgrade_is_looked_at() {
    let server = ChatServer::start(&[]).await;
    // A plain GET: the reason can be read in a browser's address bar.
    let response = get(server.address(), &format!("/ws/{}", encoded(&"x".repeat(256)))).await;
    assert_eq!(response.status, 400);
}
