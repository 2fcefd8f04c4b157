//! A real web proxy that ends TLS in front of the chat server, with the very configuration that `docs/proxies.md` shows.

use super::server::ChatServer;
use super::{BOUND, eventually, secs};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The name by which browsers know the site.
const HOST: &str = "chat.example";

/// The file with the proxy's configuration, in its folder.
const CONFIGURATION: &str = "configuration";

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    Nginx,
    HaProxy,
    Caddy,
    Apache,
}

impl ProxyKind {
    const fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Apache => "apache2",
        }
    }

    /// The language by which the page marks its configuration.
    const fn fence(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddyfile",
            Self::Apache => "apacheconf",
        }
    }
}

/// A running proxy with a folder of its own. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Front {
    kind: ProxyKind,
    child: Child,
    port: u16,
    folder: TempDir,
    bridge: Bridge,
}

impl Front {
    /// Starts the proxy in front of `server`, and waits until it serves.
    pub(crate) async fn start(kind: ProxyKind, server: &ChatServer) -> Self {
        let folder = super::folder();
        certify(folder.path()).await;
        let port = free_port();
        let file = folder.path().join(CONFIGURATION);
        fs::write(&file, configuration(kind, folder.path(), port, server.address())).unwrap();
        let child = command(kind, folder.path(), &file).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{} is needed, `tests/run` installs it: {error}", kind.program()));
        let bridge = Bridge::to(port, &folder.path().join("cert.pem")).await;
        let front = Self { kind, child, port, folder, bridge };
        eventually(BOUND, &format!("{kind:?} to serve"), async || {
            front.bridge.is_answered().await.map_err(|error| format!("{error}\n{}", front.log()))
        })
        .await;
        front
    }

    /// Where plain TCP reaches the proxy's TLS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.bridge.address
    }

    /// The site's host and port, as a browser writes them.
    pub(crate) fn host(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the proxy runs")
    }

    /// Has the proxy read its configuration again, without an end of its service, and waits until it has.
    pub(crate) async fn reload(&self) {
        let before = children(self.pid());
        match self.kind {
            ProxyKind::Nginx => signal(self.pid(), "HUP"),
            ProxyKind::HaProxy => signal(self.pid(), "USR2"),
            ProxyKind::Apache => signal(self.pid(), "USR1"),
            ProxyKind::Caddy => {
                let file = self.folder.path().join(CONFIGURATION);
                let mut reload = Command::new("caddy");
                reload.args(["reload", "--force", "--adapter", "caddyfile", "--config"]).arg(&file);
                reload.arg("--address").arg(admin(self.folder.path()));
                let done = reload.env("HOME", self.folder.path()).output().await.unwrap();
                assert!(done.status.success(), "{done:?}");
                return;
            }
        }
        eventually(BOUND, "a worker of the new configuration", async || {
            let now = children(self.pid());
            if now.is_subset(&before) { Err(format!("{now:?}\n{}", self.log())) } else { Ok(()) }
        })
        .await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Its workers would survive a SIGKILL of their parent.
        let Some(pid) = self.child.id() else { return };
        let workers = children(pid);
        signal(pid, "TERM");
        let end = std::time::Instant::now() + secs(15);
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            workers.into_iter().chain([pid]).for_each(|pid| signal(pid, "KILL"));
        }
        if std::thread::panicking() {
            eprintln!("--- the proxy's log\n{}", self.log());
        }
    }
}

fn signal(pid: u32, name: &str) {
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -s {name} {pid} 2>/dev/null")]).status();
    assert!(kill.is_ok(), "SIG{name} can be sent");
}

/// The processes that `parent` started and that are still there.
fn children(parent: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("a Linux with /proc").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // "pid (name) state parent …", and a name may hold anything.
    let parent_of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    numbers.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

/// A port that was free just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}

/// A certificate for the site that signs itself, its key, and both in one file.
async fn certify(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=chat.example", "-addext", "subjectAltName=DNS:chat.example"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .await
        .expect("openssl is needed");
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    fs::write(folder.join("both.pem"), read("cert.pem") + &read("key.pem")).unwrap();
}

/// The configuration that the page shows for this proxy.
fn shown(kind: ProxyKind) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/proxies.md");
    let page = fs::read_to_string(page).unwrap();
    let fence = format!("\n```{}\n", kind.fence());
    let mut blocks = page.split(&fence).skip(1);
    let block = blocks.next().unwrap_or_else(|| panic!("the page shows a configuration of {kind:?}"));
    assert!(blocks.next().is_none(), "one configuration of {kind:?}");
    block.split_once("\n```").expect("the end of the block").0.to_owned()
}

/// What the page shows, with this test's ports and files in the place of the usual ones, within what a distribution's own
/// configuration would bring: where to log, and that nothing outside of the folder and the loopback is used.
fn configuration(kind: ProxyKind, folder: &Path, port: u16, server: SocketAddr) -> String {
    let folder = folder.display();
    let (listen, before, after) = match kind {
        ProxyKind::Nginx => (
            ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
            format!(
                "daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1;\nevents {{}}\nhttp {{\n\
                 access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n\
                 fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n"
            ),
            "\n}\n",
        ),
        ProxyKind::HaProxy => (("bind :443", format!("bind 127.0.0.1:{port}")), String::new(), "\n"),
        ProxyKind::Caddy => (
            ("chat.example {", format!("chat.example:{port} {{\n    bind 127.0.0.1")),
            format!(
                "{{\n    admin {}\n    auto_https disable_redirects\n    skip_install_trust\n    servers {{\n        protocols h1 h2\n    }}\n}}\n",
                admin(Path::new(&folder.to_string()))
            ),
            "\n",
        ),
        ProxyKind::Apache => {
            let modules = ["mpm_event", "authz_core", "ssl", "proxy", "proxy_http", "headers"];
            let load = |name: &str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
            (
                ("*:443", format!("127.0.0.1:{port}")),
                format!(
                    "ServerRoot {folder}\nServerName {HOST}\nPidFile {folder}/pid\nDefaultRuntimeDir {folder}\n\
                     ErrorLog {folder}/log\nMutex file:{folder}\nUser www-data\nGroup www-data\nListen 127.0.0.1:{port}\n{}",
                    modules.map(load).concat()
                ),
                "\n",
            )
        }
    };
    let mut text = shown(kind);
    let replaced = [
        (listen.0, listen.1),
        ("127.0.0.1:8080", server.to_string()),
        ("/etc/ssl/chat.example.both.pem", format!("{folder}/both.pem")),
        ("/etc/ssl/chat.example.key", format!("{folder}/key.pem")),
        ("/etc/ssl/chat.example.pem", format!("{folder}/cert.pem")),
    ];
    for (usual, ours) in replaced {
        text = text.replace(usual, &ours);
    }
    assert!(text.contains(&server.to_string()) && !text.contains("/etc/"), "{text}");
    format!("{before}{text}{after}")
}

/// Where Caddy takes commands.
fn admin(folder: &Path) -> String {
    format!("unix/{}", folder.join("admin").display())
}

fn command(kind: ProxyKind, folder: &Path, file: &Path) -> Command {
    let mut command = Command::new(kind.program());
    match kind {
        ProxyKind::Nginx => command.arg("-p").arg(folder).arg("-e").arg(folder.join("log")).arg("-c").arg(file),
        ProxyKind::HaProxy => command.args(["-W", "-db", "-f"]).arg(file),
        ProxyKind::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
        ProxyKind::Apache => command.arg("-DFOREGROUND").arg("-f").arg(file),
    };
    // Servers are in the path of no ordinary user.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, folder);
    }
    let log = || fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.env("PATH", path).current_dir(folder).stdin(Stdio::null()).stdout(log()).stderr(log());
    command.kill_on_drop(true);
    command
}

/// Takes plain TCP and carries it to the proxy by TLS, so that the clients of the tests need to know nothing of TLS.
#[derive(Debug)]
struct Bridge {
    address: SocketAddr,
    connector: Connector,
    listening: AbortHandle,
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    port: u16,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Connector {
    async fn connect(&self) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        self.tls.connect(ServerName::try_from(HOST).unwrap(), stream).await
    }
}

impl Bridge {
    async fn to(port: u16, certificate: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(PathBuf::from(certificate)).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector = Connector { tls: TlsConnector::from(Arc::new(config)), port };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = connector.clone();
        let listening = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let connector = shared.clone();
                tokio::spawn(async move {
                    // A proxy that is away: the client is cut off.
                    let Ok(mut proxy) = connector.connect().await else { return };
                    drop(client.set_nodelay(true));
                    drop(tokio::io::copy_bidirectional(&mut client, &mut proxy).await);
                });
            }
        });
        Self { address, connector, listening: listening.abort_handle() }
    }

    async fn is_answered(&self) -> Result<(), String> {
        self.connector.connect().await.map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
