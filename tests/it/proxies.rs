//! Behind nginx, HAProxy, Caddy and Apache, each with the configuration that `docs/proxies.md` shows.

use crate::support::front::{Front, ProxyKind};
use crate::support::member::{RoomClient, Told};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{alone, secs, within};
use futures_util::future::join_all;

/// How many visitors are behind the proxy when it reloads.
const VISITORS: usize = 40;

/// The request of a page at `origin` for the site behind the proxy.
fn page(front: &Front, user: &str, origin: &str) -> HandshakeRequest {
    let token = format!("token-of-visitor-{user}");
    let path = format!("/ws/lobby?user={user}&session={token}");
    HandshakeRequest::to(path).with("Host", front.host()).with("Origin", origin)
}

async fn enter(front: &Front, user: &str) -> RoomClient {
    let upgrade = page(front, user, &format!("https://{}", front.host()));
    match upgrade.open(front.address()).await {
        Ok(socket) => RoomClient::begin(socket).await,
        Err(response) => panic!("a page of the site was refused: {response:?}"),
    }
}

/// What a reload does to the connections that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reload {
    Keeps,
    Closes,
}

/// The site's own pages get in and others do not; and of a reload nobody in the room sees anything.
async fn serves_and_reloads_unseen(kind: ProxyKind, reload: Reload) {
    let _alone = alone().await;
    let server = ChatServer::start(&[]).await;
    let front = Front::start(kind, &server).await;
    for foreign in
        ["https://evil.example".to_owned(), format!("http://{}", front.host()), "https://chat.example".into()]
    {
        let refused = page(&front, "mallory", &foreign).open(front.address()).await;
        assert_eq!(refused.expect_err("a page of another origin").status, 403, "{foreign}");
    }

    let mut watcher = RoomClient::join(&server, "lobby", "watcher").await;
    let users: Vec<_> = (0..VISITORS).map(|n| format!("visitor{n}")).collect();
    let mut visitors = join_all(users.iter().map(|user| enter(&front, user))).await;
    watcher.until_all(VISITORS + 1).await;
    let here = watcher.roster.users.clone();

    front.reload().await;
    if reload == Reload::Closes {
        // As a browser's page does: it is closed, and comes back with its token.
        visitors = join_all(visitors.into_iter().zip(&users).map(async |(mut visitor, user)| {
            // Caddy 2.6.2 closes both sides at once, without a mask towards the server, whose answer to that may come first.
            let code = visitor.socket.closing().await;
            assert!(matches!(code, Some(1001 | 1002)), "{kind:?} closes at its reload with {code:?}");
            drop(visitor);
            enter(&front, user).await
        }))
        .await;
    }
    let mut newcomer = enter(&front, "newcomer").await;
    watcher.sees_join("newcomer").await;
    watcher.says("after the reload").await;
    watcher.hears("watcher", "after the reload").await;
    for visitor in visitors.iter_mut().chain([&mut newcomer]) {
        within(secs(60), "a message behind the proxy", async {
            while !matches!(visitor.told().await, Told::Message { .. }) {}
        })
        .await;
    }
    let fence = watcher.sees_nothing_before(&server, "fence").await;
    for user in users.iter().map(String::as_str).chain(["watcher"]) {
        assert_eq!(fence.roster.users[user], here[user], "{user} has the presence of before");
    }
}

#[tokio::test]
async fn nginx_serves_the_sites_pages_and_reloads_unseen() {
    serves_and_reloads_unseen(ProxyKind::Nginx, Reload::Keeps).await;
}

#[tokio::test]
async fn haproxy_serves_the_sites_pages_and_reloads_unseen() {
    serves_and_reloads_unseen(ProxyKind::HaProxy, Reload::Keeps).await;
}

#[tokio::test]
async fn caddy_serves_the_sites_pages_and_reloads_unseen() {
    serves_and_reloads_unseen(ProxyKind::Caddy, Reload::Closes).await;
}

#[tokio::test]
async fn apache_serves_the_sites_pages_and_reloads_unseen() {
    serves_and_reloads_unseen(ProxyKind::Apache, Reload::Keeps).await;
}
