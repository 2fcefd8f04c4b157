//! The server of the README, as a process.

use crate::support::process::cargo;
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, eventually, folder, secs, within};
use presence::NodeName;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// The example `readme`, built, which is quick when it is fresh.
fn binary() -> PathBuf {
    // target/{debug,release}/deps/it-…
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let built = cargo()
        .current_dir(super::root())
        .args(["build", "--quiet", "--workspace", "--all-features", "--example", "readme", "--target-dir"])
        .arg(profile.parent().unwrap())
        .args(profile.ends_with("release").then_some("--release"))
        .status();
    assert!(built.unwrap().success(), "the server of the README builds");
    profile.join("examples").join("readme")
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_server_of_the_readme_ends_with_an_error_when_another_process_has_taken_its_name() {
    let (folder, port) = (folder(), free_port());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = Command::new(binary())
        .current_dir(folder.path())
        .env("PORT", port.to_string())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let opened = eventually(BOUND, "the server of the README", async || {
        let socket = HandshakeRequest::to("/ws/lobby").send(address).await.map_err(|error| error.to_string())?;
        socket.answered().await.map_err(|refused| format!("{refused:?}"))
    });
    let mut ann = opened.await;
    let url = format!("sqlite://{}", folder.path().join("presence.db").display());
    let name = NodeName::of_host(port).unwrap();
    let mut other = ChatServer::start(&["--node-name", name.as_str(), "--database-url", &url]).await;
    assert_eq!(ann.closing().await, Some(1012));
    other.signal("TERM").await;
    assert!(other.exit(BOUND).await.success());
    // It looks once in a lease, 10 s, whether the other process has ended.
    let ended =
        within(secs(10) + BOUND, "the end of the server of the README", server.wait_with_output()).await.unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && error.contains("Superseded"), "{}: {error}", ended.status);
}
