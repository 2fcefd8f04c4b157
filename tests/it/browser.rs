//! The page in a real browser: the member list is right in each window, whatever happens to one of them.

use crate::support::member::{RoomClient, Told, encoded};
use crate::support::proxy::Proxy;
use crate::support::roster::ClientRoster;
use crate::support::server::ChatServer;
use crate::support::webdriver::{Browser, BrowserWindow, Timers};
use crate::support::{BOUND, Duration, alone, millis, secs, within};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What the page shows: the connection's state, the users with their tabs, the anonymous sockets.
const SHOWN: &str = "
    const members = [...document.querySelectorAll('#members [data-user]')];
    return {
        state: document.querySelector('#status')?.dataset.state ?? null,
        members: members.map(member => [member.dataset.user, Number(member.dataset.tabs)]).sort(),
        anonymous: Number(document.querySelector('#anonymous')?.dataset.count ?? 0),
    };";

/// The texts of the log, of one kind.
const LOG: &str = "
    const entries = [...document.querySelectorAll(`#log [data-kind=\"${arguments[0]}\"]`)];
    return entries.map(entry => entry.textContent);";

/// A browser, and the server that its pages connect to.
struct Stage {
    browser: Browser,
    server: ChatServer,
}

impl Stage {
    async fn set(arguments: &[&str], timers: Timers) -> Option<Self> {
        let browser = Browser::start(timers).await?;
        Some(Self { browser, server: ChatServer::start(arguments).await })
    }

    fn url(&self, user: &str) -> String {
        format!("http://{}/?room=lobby&user={}", self.server.address(), encoded(user))
    }

    /// Two windows of Ann and one of Bob, each showing all three.
    async fn ann_ann_bob(&self) -> [BrowserWindow; 3] {
        let first = self.browser.first(&self.url("ann")).await;
        self.all_show(&[&first], &[("ann", 1)], 0).await;
        let second = self.browser.window(&self.url("ann")).await;
        self.all_show(&[&first, &second], &[("ann", 2)], 0).await;
        let bob = self.browser.window(&self.url("bob")).await;
        self.all_show(&[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
        [first, second, bob]
    }

    /// Each of the windows comes to be live and to show these users with their tabs, and no other.
    async fn all_show(&self, windows: &[&BrowserWindow], members: &[(&str, u32)], anonymous: u32) {
        self.all_show_within(BOUND, windows, members, anonymous).await;
    }

    async fn all_show_within(
        &self,
        bound: Duration,
        windows: &[&BrowserWindow],
        members: &[(&str, u32)],
        anonymous: u32,
    ) {
        let expected = json!({"state": "live", "members": members, "anonymous": anonymous});
        for window in windows {
            self.browser.becomes(window, bound, SHOWN, &expected).await;
        }
    }

    async fn state_becomes(&self, window: &BrowserWindow, state: &str) {
        let script = "return document.querySelector('#status').dataset.state";
        self.browser.becomes(window, BOUND, script, &state.into()).await;
    }
}

#[tokio::test]
async fn joins_second_tabs_and_closes_are_right_in_each_window() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.browser.close(&second).await;
    stage.all_show(&[&first, &bob], &[("ann", 1), ("bob", 1)], 0).await;
    stage.browser.close(&first).await;
    stage.all_show(&[&bob], &[("bob", 1)], 0).await;
    let again = stage.browser.window(&stage.url("ann")).await;
    stage.all_show(&[&again, &bob], &[("ann", 1), ("bob", 1)], 0).await;
}

#[tokio::test]
async fn of_two_tabs_one_is_closed_and_nobody_sees_the_user_leave() {
    let Some(stage) = Stage::set(&["--grace", "2s"], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    stage.browser.close(&second).await;
    let diff = watcher.diff().await;
    assert_eq!((diff.joined(), diff.left(), diff.updated()), (vec![], vec!["ann"], vec![]), "one presence goes");
    assert_eq!(watcher.roster.tabs("ann"), 1, "the user stays");
    stage.all_show(&[&first, &bob], &[("ann", 1), ("bob", 1), ("watcher", 1)], 0).await;
    for kind in ["leave", "join"] {
        let of_ann = "return [...document.querySelectorAll(`#log [data-kind=\"${arguments[0]}\"]`)]
            .map(entry => entry.textContent).filter(text => text.includes('ann'))";
        assert_eq!(stage.browser.run(&bob, of_ann, vec![kind.into()]).await, json!([]), "{kind} in Bob's page");
    }
    watcher.sees_nothing_before(&stage.server, "fence").await;
}

#[tokio::test]
async fn a_reload_is_right_in_every_window() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.browser.reload(&second).await;
    stage.all_show(&[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
}

#[tokio::test]
async fn a_reload_flickers_for_nobody() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    // Its meta may change, as the page likes; its id may not.
    let id = only_tab(&watcher.roster, "ann");
    for _ in 0..3 {
        let loaded = "window.before = true; return true";
        stage.browser.run(&ann, loaded, vec![]).await;
        stage.browser.reload(&ann).await;
        stage.browser.becomes(&ann, BOUND, "return window.before ?? null", &Value::Null).await;
        stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
    }
    let fence = RoomClient::join(&stage.server, "lobby", "fence").await;
    watcher
        .until("the fence", |roster| {
            assert_eq!(only_tab(roster, "ann"), id, "one presence, and always the same");
            roster.tabs("fence") == 1
        })
        .await;
    fence.leave().await;
}

/// A browser copies what a tab remembers into the tab that is opened from it.
#[tokio::test]
async fn a_duplicated_tab_is_a_tab_more_and_does_not_fight_with_the_first() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    let copied = "window.open(location.href); return Object.keys(sessionStorage).length";
    assert_eq!(stage.browser.run(&ann, copied, vec![]).await, json!(1));
    watcher
        .until("two tabs of ann", |roster| {
            assert!(roster.tabs("ann") >= 1);
            roster.tabs("ann") == 2
        })
        .await;
    stage.all_show(&[&ann], &[("ann", 2), ("watcher", 1)], 0).await;
    // Nothing more happens: each has a token of its own now.
    let ids = watcher.roster.ids()["ann"].iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    stage.browser.reload(&ann).await;
    stage.all_show(&[&ann], &[("ann", 2), ("watcher", 1)], 0).await;
    let fence = RoomClient::join(&stage.server, "lobby", "fence").await;
    watcher.until("the fence", |roster| roster.tabs("fence") == 1).await;
    assert_eq!(watcher.roster.ids()["ann"].iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), ids);
    fence.leave().await;
}

/// A browser keeps a page that was left, in case of a step back, and its socket open with it: the page must close it.
#[tokio::test]
async fn a_page_that_was_navigated_away_from_leaves_after_the_grace_and_comes_back_with_a_step_back() {
    let Some(stage) = Stage::set(&["--grace", "2s"], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.browser.go(&second, &format!("http://{}/healthz", stage.server.address())).await;
    stage.all_show(&[&first, &bob], &[("ann", 1), ("bob", 1)], 0).await;
    stage.browser.back(&second).await;
    stage.all_show(&[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
}

/// A link opens another page of the site, which joins the same room. The browser keeps the page that was left, as it does for a
/// person: if it did not, it would close the socket itself, and this would prove nothing.
#[tokio::test]
async fn links_between_pages_of_a_room_and_the_steps_back_flicker_for_nobody() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    let id = only_tab(&watcher.roster, "ann");
    let note = "window.addEventListener('pageshow', ({ persisted }) => { window.kept = persisted })";
    stage.browser.run(&ann, note, vec![]).await;
    for page in 0..4 {
        stage.browser.follow(&ann, &format!("{}&page={page}", stage.url("ann"))).await;
        stage.browser.becomes(&ann, BOUND, "return location.search.at(-1)", &page.to_string().into()).await;
        stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
    }
    for _ in 0..4 {
        stage.browser.back(&ann).await;
        stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
    }
    assert_eq!(stage.browser.run(&ann, "return window.kept ?? null", vec![]).await, json!(true), "it was in the cache");
    let fence = RoomClient::join(&stage.server, "lobby", "fence").await;
    watcher
        .until("the fence", |roster| {
            assert_eq!(only_tab(roster, "ann"), id, "one presence, and always the same");
            roster.tabs("fence") == 1
        })
        .await;
    fence.leave().await;
}

/// Nothing reaches the server any more, and the connection does not end: a page cannot notice that by itself.
#[tokio::test]
async fn a_page_notices_within_30_s_that_its_server_is_silent_and_comes_back_without_a_flicker() {
    let _alone = alone().await;
    // A beat each 5 s, and 8 s for an answer: found before the server would take the page for stale.
    let Some(stage) = Stage::set(&["--max-age", "15s"], Timers::Free).await else { return };
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    watcher.socket.beats_every(secs(4));
    let proxy = Proxy::before(stage.server.address()).await;
    let ann = stage.browser.first(&format!("http://{}/?room=lobby&user=ann", proxy.address())).await;
    stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
    watcher.until("ann", |roster| roster.tabs("ann") == 1).await;
    let id = only_tab(&watcher.roster, "ann");
    let record = "
        window.record = [];
        new MutationObserver(() => record.push(document.querySelector('#reason').textContent))
            .observe(document.querySelector('#reason'), { childList: true, characterData: true, subtree: true });";
    stage.browser.run(&ann, record, vec![]).await;
    let page = async {
        proxy.lose();
        let noticed = "return record.some((text) => text.startsWith('The server does not answer any more.'))";
        stage.browser.becomes(&ann, secs(30), noticed, &true.into()).await;
        stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
        stage.browser.types(&ann, "#text", "here again\n").await;
    };
    // Which beats only while it reads.
    let watching = within(secs(60), "the message", async {
        while !matches!(watcher.told().await, Told::Message { .. }) {
            assert_eq!(only_tab(&watcher.roster, "ann"), id, "one presence, and always the same");
        }
    });
    tokio::join!(page, watching);
}

#[tokio::test]
async fn anonymous_visitors_are_shown_as_a_count() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    let ghost = RoomClient::join(&stage.server, "lobby", None).await;
    let second = RoomClient::join(&stage.server, "lobby", None).await;
    stage.all_show(&[&ann], &[("ann", 1)], 2).await;
    ghost.leave().await;
    stage.all_show(&[&ann], &[("ann", 1)], 1).await;
    second.leave().await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
}

#[tokio::test]
async fn a_message_is_read_in_every_window_as_text_and_not_as_html() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    let hostile = "<img src=x onerror='window.hacked = true'> & \"so on\"";
    stage.browser.types(&first, "#text", &format!("{hostile}\n")).await;
    for window in [&first, &second, &bob] {
        within(BOUND, "the message", async {
            let shown = |log: Value| log.as_array().is_some_and(|log| log.iter().any(|entry| contains(entry, hostile)));
            while !shown(stage.browser.run(window, LOG, vec!["message".into()]).await) {}
        })
        .await;
        assert_eq!(stage.browser.run(window, "return window.hacked ?? null", vec![]).await, Value::Null);
    }
}

#[tokio::test]
async fn hostile_names_are_names() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let bob = stage.browser.first(&stage.url("bob")).await;
    for name in
        ["<img src=x onerror='window.hacked = true'>", "__proto__", "constructor", "ann\" data-tabs=\"9", "😀 ü"]
    {
        let member = RoomClient::join(&stage.server, "lobby", name).await;
        let mut members = [(name, 1), ("bob", 1)];
        // As JavaScript sorts lists: by their UTF-16 text.
        members.sort_by_key(|(user, tabs)| format!("{user},{tabs}").encode_utf16().collect::<Vec<_>>());
        stage.all_show(&[&bob], &members, 0).await;
        member.leave().await;
        stage.all_show(&[&bob], &[("bob", 1)], 0).await;
    }
    assert_eq!(stage.browser.run(&bob, "return window.hacked ?? null", vec![]).await, Value::Null);
}

#[tokio::test]
async fn a_crashed_tab_leaves_in_the_other_windows() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.browser.crash(&second).await;
    stage.all_show(&[&first, &bob], &[("ann", 1), ("bob", 1)], 0).await;
    stage.browser.crash(&bob).await;
    stage.all_show(&[&first], &[("ann", 1)], 0).await;
}

#[tokio::test]
async fn a_page_whose_heartbeat_stops_leaves_at_max_age_and_comes_back_when_it_wakes() {
    let _alone = alone().await;
    let Some(stage) = Stage::set(&["--max-age", "3s"], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    // The connection stays open and answers pings: only the heartbeats are missing.
    stage.browser.freeze(&second).await;
    stage.all_show_within(secs(3) + BOUND, &[&first, &bob], &[("ann", 1), ("bob", 1)], 0).await;
    stage.browser.freeze(&bob).await;
    stage.all_show_within(secs(3) + BOUND, &[&first], &[("ann", 1)], 0).await;
    stage.browser.thaw(&second).await;
    stage.browser.thaw(&bob).await;
    stage.all_show(&[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
}

/// Longer than the server waits for the pong of a silent client, and less than `max_age`.
const FROZEN: Duration = secs(20);

/// A browser closes the socket of a frozen page when the page thaws, even if it was well.
#[tokio::test]
async fn a_page_that_is_frozen_for_20_s_flickers_for_nobody() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    let id = only_tab(&watcher.roster, "ann");
    stage.browser.freeze(&ann).await;
    let told = tokio::time::timeout(FROZEN, watcher.socket.next_frame()).await;
    assert!(told.is_err(), "while the page is frozen: {told:?}");
    stage.browser.thaw(&ann).await;
    stage.all_show(&[&ann], &[("ann", 1), ("watcher", 1)], 0).await;
    stage.browser.types(&ann, "#text", "here again\n").await;
    within(BOUND, "the message", async {
        while !matches!(watcher.told().await, Told::Message { .. }) {
            assert_eq!(only_tab(&watcher.roster, "ann"), id, "one presence, and always the same");
        }
    })
    .await;
}

#[tokio::test]
async fn a_hidden_tab_left_alone_beyond_max_age_stays() {
    let _alone = alone().await;
    let Some(stage) = Stage::set(&["--max-age", "3s"], Timers::Throttled).await else { return };
    let hidden = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&hidden], &[("ann", 1)], 0).await;
    // The page keeps its own record of what it was, and a timer by which to see that it really was slowed.
    let record = "
        window.record = {seen: [], ticks: 0};
        document.addEventListener('visibilitychange', () => record.seen.push(document.visibilityState));
        setInterval(() => { if (document.hidden) record.ticks += 1 }, 250);";
    stage.browser.run(&hidden, record, vec![]).await;
    let begun = Instant::now();
    let front = stage.browser.tab(&stage.url("bob")).await;
    stage.all_show(&[&front], &[("ann", 1), ("bob", 1)], 0).await;

    // Four silent sockets one after the other go stale: so often `max_age` passes, while nothing touches the pages.
    let mut watcher = RoomClient::join(&stage.server, "lobby", "watcher").await;
    watcher.socket.beats_every(millis(500));
    for _ in 0..4 {
        let _silent = RoomClient::join(&stage.server, "lobby", "clock").await;
        watcher.sees_join("clock").await;
        watcher.sees_leave("clock").await;
    }
    assert_eq!(watcher.roster.names(), ["ann", "bob", "watcher"]);

    let record = stage.browser.run(&hidden, "return record", vec![]).await;
    assert_eq!(record["seen"], json!(["hidden", "visible"]), "it was hidden until it was asked");
    let (ticks, seconds) = (record["ticks"].as_u64().unwrap(), begun.elapsed().as_secs());
    assert!(ticks < 2 * seconds, "its timers were slowed, or this proves nothing: {ticks} in {seconds} s");
    stage.all_show(&[&hidden], &[("ann", 1), ("bob", 1), ("watcher", 1)], 0).await;
}

#[tokio::test]
async fn after_a_kill_and_a_restart_the_pages_come_back_by_themselves() {
    let _alone = alone().await;
    let Some(mut stage) = Stage::set(&["--grace", "1s"], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.server.kill().await;
    for window in [&first, &second, &bob] {
        stage.state_becomes(window, "reconnecting").await;
    }
    stage.server.start_again().await;
    stage.all_show_within(BOUND * 3, &[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
}

#[tokio::test]
async fn after_a_shutdown_and_a_restart_the_pages_come_back_by_themselves() {
    let _alone = alone().await;
    let Some(mut stage) = Stage::set(&[], Timers::Free).await else { return };
    let [first, second, bob] = stage.ann_ann_bob().await;
    stage.server.signal("TERM").await;
    assert_eq!(stage.server.exit(secs(10)).await.code(), Some(0), "pages do not hold a shutdown up");
    for window in [&first, &second, &bob] {
        stage.state_becomes(window, "reconnecting").await;
    }
    stage.server.start_again().await;
    stage.all_show_within(BOUND * 3, &[&first, &second, &bob], &[("ann", 2), ("bob", 1)], 0).await;
    stage.browser.types(&bob, "#text", "here again\n").await;
    within(BOUND, "the message", async {
        let shown =
            |log: Value| log.as_array().is_some_and(|log| log.iter().any(|entry| contains(entry, "here again")));
        while !shown(stage.browser.run(&first, LOG, vec!["message".into()]).await) {}
    })
    .await;
}

/// Messages that a room gets in a second, and for so long.
const RUSH: u32 = 200;
const RUSH_LASTS: u32 = 10;
/// How often in a second a page lays its log out in the middle of a rush, at most.
const LOOKS: usize = 30;
/// The page keeps this many rows of its log.
const ROWS: u64 = 500;

#[tokio::test]
async fn a_page_lays_its_log_out_at_most_30_times_a_second_while_its_room_sends_200_messages_a_second() {
    let _alone = alone().await;
    let Some(stage) = Stage::set(&["--notify", "diff"], Timers::Free).await else { return };
    let ann = stage.browser.first(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    let mut speakers = Vec::new();
    for n in 0..10 {
        speakers.push(RoomClient::join(&stage.server, "lobby", &format!("speaker-{n}")[..]).await);
    }
    // Notes when the page looks at the height of its log, which lays it out.
    let count = "window.looks = [];
        const height = Object.getOwnPropertyDescriptor(Element.prototype, 'scrollHeight');
        Object.defineProperty(Element.prototype, 'scrollHeight',
            { ...height, get() { looks.push(performance.now()); return height.get.call(this) } });";
    stage.browser.run(&ann, count, vec![]).await;
    let total = RUSH * RUSH_LASTS;
    let mut tick = tokio::time::interval(secs(1) / RUSH);
    let each = speakers.len();
    // The speakers read, too, or they would be too slow for their room.
    let (mut readers, mut writers) = (tokio::task::JoinSet::new(), Vec::new());
    for mut speaker in speakers {
        let (send, mut texts) = tokio::sync::mpsc::unbounded_channel::<String>();
        writers.push(send);
        readers.spawn(async move {
            loop {
                tokio::select! {
                    text = texts.recv() => match text {
                        Some(text) => speaker.says(&text).await,
                        None => return speaker.leave().await,
                    },
                    _ = speaker.socket.next_frame() => {}
                }
            }
        });
    }
    for n in 0..total {
        tick.tick().await;
        let writer = &writers[n as usize % each];
        writer.send(format!("message {n}, as long as what people write to each other")).unwrap();
    }
    writers[0].send("the end".into()).unwrap();
    let shown = "return [...document.querySelectorAll('#log [data-kind=\"message\"]')].some(row => row.textContent.includes('the end'))";
    stage.browser.becomes(&ann, BOUND, shown, &true.into()).await;
    let rush = "return { looks, rows: document.querySelector('#log').childElementCount }";
    let rush = stage.browser.run(&ann, rush, vec![]).await;
    drop(writers);
    readers.join_all().await;
    // Nothing here depends on how fast the machine is: it may show the messages late, in fewer and larger batches.
    let looks: Vec<f64> = rush["looks"].as_array().unwrap().iter().map(|look| look.as_f64().unwrap()).collect();
    let most = looks.iter().map(|from| looks.iter().filter(|look| (*from..from + 1000.0).contains(look)).count()).max();
    println!("{} looks at the log for {total} messages, {most:?} in a second at most", looks.len());
    assert!((1..=LOOKS).contains(&most.unwrap_or(0)), "the log is laid out for batches: {looks:?}");
    assert!(rush["rows"].as_u64() <= Some(ROWS), "{rush}");
}

#[tokio::test]
async fn the_page_has_nothing_to_complain_of_on_the_console() {
    let Some(stage) = Stage::set(&[], Timers::Free).await else { return };
    let start = stage.browser.first(&format!("http://{}/", stage.server.address())).await;
    let loaded = "return document.readyState";
    stage.browser.becomes(&start, BOUND, loaded, &"complete".into()).await;
    assert_eq!(stage.browser.errors().await, [] as [Value; 0]);
    let ann = stage.browser.window(&stage.url("ann")).await;
    stage.all_show(&[&ann], &[("ann", 1)], 0).await;
    stage.browser.types(&ann, "#text", "hello\n").await;
    let said = "return document.querySelectorAll('#log [data-kind=\"message\"]').length";
    stage.browser.becomes(&ann, BOUND, said, &1.into()).await;
    assert_eq!(stage.browser.errors().await, [] as [Value; 0]);
}

/// The id of the only presence of a user, who has to be here.
fn only_tab(roster: &ClientRoster, user: &str) -> String {
    let ids: Vec<_> = roster.users.get(user).into_iter().flatten().map(|(id, _)| id).collect();
    let [id] = ids[..] else { panic!("{user} has the presences {ids:?}") };
    id.clone()
}

fn contains(entry: &Value, text: &str) -> bool {
    entry.as_str().is_some_and(|entry| entry.contains(text))
}
