//! The database is away: at the start of the process, and for half a minute under load.

use super::{BEAT, LogSince, NOTICED, is_healthy_but_not_ready, is_refused, serve};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::{becomes, get};
use crate::support::member::RoomClient;
use crate::support::server::ChatServer;
use crate::support::{BOUND, SLACK, secs};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

const OUTAGE: std::time::Duration = secs(30);

pub(super) async fn at_start(kind: BackendKind) {
    let mut backend = Backend::own(kind).await;
    backend.goes_away().await;
    let begun = Instant::now();
    let server = ChatServer::start(&["--database-url", &backend.url()]).await;
    assert!(begun.elapsed() <= secs(3) + SLACK, "it does not wait for its database: {:?}", begun.elapsed());
    is_healthy_but_not_ready(&server).await;
    assert_eq!(get(server.address(), "/").await.status, 200, "the page is served");
    is_refused(&server, "ann").await;
    is_refused(&server, "ann").await;
    backend.comes_back().await;
    becomes(&server, "/readyz", 200, NOTICED).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    ann.sees_nothing_before(&server, "bob").await;
    assert_eq!(ann.roster.names(), ["ann", "bob"], "nothing is left of those who were refused");
    let lines = LogSince(0).lines(&server);
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (count("store is away"), count("store is back"), count("WARN") + count("ERROR")),
        (1, 1, 1),
        "{lines:#?}"
    );
}

pub(super) async fn under_load(kind: BackendKind) {
    let mut backend = Backend::own(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let mut cid = Guest::join(&server, "lobby", "cid", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    let mut eve = Guest::join(&server, "kitchen", "eve", BEAT).await;
    let _nobody = Guest::join(&server, "lobby", None, BEAT).await;
    ann.until("all of them", BOUND, |seen| seen.roster.users.len() == 4 && seen.roster.anonymous == 1).await;
    let (before, log) = (ann.seen().told.len(), LogSince::of(&server));

    backend.goes_away().await;
    let begun = Instant::now();
    dan.leaves().await;
    cid.asks(json!({"type": "update", "meta": {"a": 1}}));
    for turn in 0.. {
        // Each refusal takes its time; meanwhile messages go on.
        is_refused(&server, "fay").await;
        cid.says(&format!("after refusal {turn}"));
        ann.hears(&format!("after refusal {turn}")).await;
        bob.hears(&format!("after refusal {turn}")).await;
        if turn == 0 {
            is_healthy_but_not_ready(&server).await;
            cid.until("the refusal of the update", BOUND, |seen| seen.refused == ["unavailable"]).await;
            eve.asks(json!({"type": "leave"}));
            eve.asks(json!({"type": "join"}));
        }
        if begun.elapsed() >= OUTAGE {
            break;
        }
    }
    assert_eq!(ann.seen().told.len(), before, "nobody is told of what is not committed");
    assert!(eve.seen().refused.iter().all(|code| code == "unavailable") && !eve.seen().refused.is_empty());
    let back = now_ms();
    backend.comes_back().await;
    let returned = Instant::now();
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    println!("{kind:?}: a leave is told {:?} after the return", returned.elapsed());
    becomes(&server, "/readyz", 200, NOTICED).await;
    let gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    ann.until("Gus", BOUND, |seen| seen.told.contains(&"+gus".to_owned())).await;
    eve.asks(json!({"type": "join"}));
    eve.until("her return", BOUND, |seen| seen.roster.users.contains_key("eve")).await;
    // Those who were here all the time are not seen to have left, nor to have come.
    let told: Vec<_> = ann.seen().told[before..].iter().filter(|told| **told != "~cid").cloned().collect();
    assert_eq!(told, ["-dan", "+gus"]);
    assert_eq!(ann.seen().roster.names(), ["ann", "bob", "cid", "gus"]);
    let all = ann.seen().roster;
    bob.until("the same", BOUND, |seen| seen.roster.ids() == all.ids()).await;
    backend.rows_become("presences", 6, BOUND).await;
    // Touches waited as well, and are written.
    let old = format!("presences WHERE last_seen < {back} AND channel_name <> ''");
    backend.rows_become(&old, 0, secs(20) + BOUND).await;
    log.tells_one_outage(&server).await;
    drop((gus, cid));
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis()
}
