//! A real headless Chromium, through its driver, and what only a browser can suffer: crashes, freezing, hiding.

use super::server::end;
use super::{Duration, eventually, http, secs, within};
use fantoccini::wd::WindowHandle;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// How long a browser may need for one command. On a machine that runs eight browsers on two cores it needs long.
const COMMAND: Duration = secs(60);
/// How long a browser may need to start, or to load a page.
const START: Duration = secs(120);

/// Whether the timers of hidden pages run as in front, which the driver arranges, or slowed as in a person's browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timers {
    Free,
    /// A timer of a hidden page's main thread fires once a second, and after a second once a minute if the page has no
    /// connection open: what Chromium does after five minutes.
    Throttled,
}

/// A window or tab of a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrowserWindow(WindowHandle);

/// A browser with a fresh profile. Ended, with its driver, when dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    client: Client,
    session: String,
    driver: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Browser {
    /// Starts a browser; `None`, with a warning, where there is none. In CI and under `tests/run` that is a failure.
    pub(crate) async fn start(timers: Timers) -> Option<Self> {
        // Browsers that start at once start slowly, and the driver's own patience is a minute.
        static STARTING: Mutex<()> = Mutex::const_new(());
        let _starting = STARTING.lock().await;
        let folder = super::folder();
        let driver = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
        let process = Command::new(&driver)
            .arg("--port=0")
            // The profile goes where it is removed with the test.
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut process = match process {
            Ok(process) => process,
            Err(error) if ["CI", "REQUIRE_BROWSER"].iter().all(|variable| std::env::var_os(variable).is_none()) => {
                eprintln!("SKIPPED: {driver}: {error}. `tests/run` installs Chromium and its driver.");
                return None;
            }
            Err(error) => panic!("{driver}: {error}"),
        };
        let output = process.stdout.take().expect("a piped output");
        let port = within(COMMAND, "the driver's port", port(BufReader::new(output))).await;
        let address = SocketAddr::from(([127, 0, 0, 1], port));

        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities(timers));
        let client = within(START, "the browser", builder.connect(&format!("http://{address}"))).await;
        let client = client.unwrap_or_else(|error| panic!("the browser starts: {error}"));
        let session = client.session_id().await.expect("the driver answers").expect("a session");
        Some(Self { client, session, driver: address, process, _folder: folder })
    }

    /// Opens the address in the window that the browser started with.
    pub(crate) async fn first(&self, url: &str) -> BrowserWindow {
        let window = BrowserWindow(self.client.window().await.expect("a first window"));
        self.go(&window, url).await;
        window
    }

    /// Opens the address in a window of its own: all windows are visible.
    pub(crate) async fn window(&self, url: &str) -> BrowserWindow {
        self.open(url, false).await
    }

    /// Opens the address in a tab in front of the current one, which is hidden by it.
    pub(crate) async fn tab(&self, url: &str) -> BrowserWindow {
        self.open(url, true).await
    }

    async fn open(&self, url: &str, as_tab: bool) -> BrowserWindow {
        let opened = self.client.new_window(as_tab).await.expect("a new window");
        let window = BrowserWindow(opened.handle);
        self.go(&window, url).await;
        window
    }

    pub(crate) async fn go(&self, window: &BrowserWindow, url: &str) {
        self.switch(window).await;
        within(START, url, self.client.goto(url)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Makes the window the one that commands go to. A hidden tab comes to the front by it.
    pub(crate) async fn switch(&self, window: &BrowserWindow) {
        self.client.switch_to_window(window.0.clone()).await.expect("the window is there");
    }

    pub(crate) async fn close(&self, window: &BrowserWindow) {
        self.switch(window).await;
        self.client.close_window().await.expect("a window can be closed");
    }

    pub(crate) async fn reload(&self, window: &BrowserWindow) {
        self.switch(window).await;
        self.client.refresh().await.expect("a page can be loaded again");
    }

    /// Goes on to another page as by a link, which the driver's own command does not.
    pub(crate) async fn follow(&self, window: &BrowserWindow, url: &str) {
        self.run(window, "location.href = arguments[0]", vec![url.into()]).await;
    }

    pub(crate) async fn back(&self, window: &BrowserWindow) {
        self.switch(window).await;
        self.client.back().await.expect("there is a page to go back to");
    }

    /// Runs a script in the page and gives what it returns.
    pub(crate) async fn run(&self, window: &BrowserWindow, script: &str, arguments: Vec<Value>) -> Value {
        self.switch(window).await;
        let value = within(COMMAND, script, self.client.execute(script, arguments)).await;
        value.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Asks the page until its answer is as expected.
    pub(crate) async fn becomes(&self, window: &BrowserWindow, bound: Duration, script: &str, expected: &Value) {
        eventually(bound, &expected.to_string(), async || match self.run(window, script, vec![]).await {
            now if now == *expected => Ok(()),
            now => Err(now.to_string()),
        })
        .await;
    }

    pub(crate) async fn types(&self, window: &BrowserWindow, selector: &str, text: &str) {
        self.switch(window).await;
        let field = self.client.find(fantoccini::Locator::Css(selector)).await;
        let field = field.unwrap_or_else(|error| panic!("{selector}: {error}"));
        field.send_keys(text).await.unwrap_or_else(|error| panic!("typing into {selector}: {error}"));
    }

    /// Crashes the page's renderer, as a bug or the kernel's out-of-memory killer does.
    pub(crate) async fn crash(&self, window: &BrowserWindow) {
        self.switch(window).await;
        let answer = self.command("Page.crash", json!({})).await;
        assert!(answer["value"]["error"] == "tab crashed", "the tab crashes: {answer}");
    }

    /// Stops the page's timers and workers, as the browser does with pages it thinks forgotten. The network goes on:
    /// the connection stays open and answers pings.
    pub(crate) async fn freeze(&self, window: &BrowserWindow) {
        self.switch(window).await;
        let answer = self.command("Page.setWebLifecycleState", json!({"state": "frozen"})).await;
        assert_eq!(answer["value"], json!({}), "the page freezes");
    }

    pub(crate) async fn thaw(&self, window: &BrowserWindow) {
        self.switch(window).await;
        let answer = self.command("Page.setWebLifecycleState", json!({"state": "active"})).await;
        assert_eq!(answer["value"], json!({}), "the page goes on");
    }

    /// A command of the browser's own protocol, to the current window.
    async fn command(&self, name: &str, parameters: Value) -> Value {
        let path = format!("/session/{}/goog/cdp/execute", self.session);
        let answer = http::post(self.driver, &path, &json!({"cmd": name, "params": parameters})).await;
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{name}: {answer:?}"))
    }

    /// What the pages complained of on the console since last asked: errors alone.
    pub(crate) async fn errors(&self) -> Vec<Value> {
        let path = format!("/session/{}/se/log", self.session);
        let answer = http::post(self.driver, &path, &json!({"type": "browser"})).await;
        let mut answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        let Value::Array(entries) = answer["value"].take() else { panic!("a list of log entries: {answer}") };
        entries.into_iter().filter(|entry| entry["level"] == "SEVERE").collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In a panic, too, and so without the runtime: killing the driver alone would leave the browser running.
        let request = format!("DELETE /session/{} HTTP/1.1\r\nHost: {}\r\n\r\n", self.session, self.driver);
        let ended = std::net::TcpStream::connect(self.driver).and_then(|mut stream| {
            stream.set_read_timeout(Some(secs(10)))?;
            stream.write_all(request.as_bytes())?;
            stream.read(&mut [0; 1024])
        });
        if let Err(error) = ended {
            eprintln!("the browser may still be running: {error}");
        }
        end(&mut self.process);
    }
}

async fn port(output: BufReader<tokio::process::ChildStdout>) -> u16 {
    let mut lines = output.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return port.trim_end_matches('.').parse().expect("a port");
        }
    }
    panic!("the driver ended before it named its port");
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().expect("it is short")
}

fn capabilities(timers: Timers) -> fantoccini::wd::Capabilities {
    let mut arguments = vec![
        "--headless=new",
        // Root has no sandbox and many containers neither; the only pages seen are our own.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    let mut options = json!({});
    if timers == Timers::Throttled {
        arguments.push("--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1");
        options["excludeSwitches"] = json!([
            "disable-background-timer-throttling",
            "disable-renderer-backgrounding",
            "disable-backgrounding-occluded-windows",
        ]);
    }
    options["args"] = json!(arguments);
    if let Ok(binary) = std::env::var("CHROME") {
        options["binary"] = json!(binary);
    }
    // The driver's own patience with a script is 30 s, which a page on a busy machine may need to begin.
    let timeouts = json!({"script": millis(COMMAND), "pageLoad": millis(START)});
    let logs = json!({"browser": "ALL"});
    let capabilities = json!({"goog:chromeOptions": options, "goog:loggingPrefs": logs, "timeouts": timeouts});
    let Value::Object(capabilities) = capabilities else { unreachable!("it is written as an object") };
    capabilities
}
