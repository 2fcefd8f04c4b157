//! One node as a process: it reads what it is to do from its input, a line for each, and answers with a line when that is done.

use std::{
    cell::{Cell, RefCell},
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    rc::Rc,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use presence::{ChannelName, Config, NodeName, PruningSupervisor, RoomName, Rooms, SqlStore};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{sleep, sleep_until},
};

use super::{
    super::{HOUR, Place, user},
    percentile,
};

/// How long callers join before it counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Each caller of a cold room joins this often, whether the last join has ended in time or not.
const COLD_PACE: Duration = Duration::from_millis(50);

/// Nodes of one database.
pub(super) struct Nodes(Vec<Process>);

struct Process {
    child: Child,
    input: ChildStdin,
    output: UnboundedReceiver<String>,
}

/// The lines that come from a pipe, read by a thread of their own.
fn lines(pipe: impl Read + Send + 'static) -> UnboundedReceiver<String> {
    let (send, lines) = unbounded_channel();
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    lines
}

impl Nodes {
    pub(super) async fn start(place: &Place, count: usize) -> Self {
        // The first of them makes the tables.
        drop(place.store().await);
        let mut nodes = Vec::new();
        for n in 0..count {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["as-node", &place.url, &format!("node-{n}")]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts again");
            let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
            nodes.push(Process { child, input, output: lines(output) });
        }
        join_all(nodes.iter_mut().map(Process::answer)).await;
        Self(nodes)
    }

    /// What the first of the nodes do at the same time, each with its number.
    pub(super) async fn all_do(&mut self, count: usize, order: impl Fn(usize) -> String) -> Vec<String> {
        let orders = (0..).zip(self.0.iter_mut().take(count)).map(|(n, node)| {
            let order = order(n);
            async move { node.does(&order).await }
        });
        join_all(orders).await
    }

    pub(super) async fn does(&mut self, node: usize, order: &str) -> String {
        self.0[node].does(order).await
    }

    /// What the first of the nodes do for some seconds: so many callers of each join rooms whose names begin with `rooms`.
    pub(super) async fn join(&mut self, count: usize, load: impl Fn(usize) -> Load) -> Joined {
        let answers = self.all_do(count, |node| load(node).to_string()).await;
        let mut joined = Joined::default();
        for answer in answers {
            let mut words = answer.split_whitespace();
            joined.per_second += next::<f64>(&mut words);
            joined.cold.extend(words.map(|word| f64::from_str(word).expect("a time")));
        }
        joined
    }
}

impl Process {
    async fn does(&mut self, order: &str) -> String {
        writeln!(self.input, "{order}").expect("the node listens");
        self.answer().await
    }

    async fn answer(&mut self) -> String {
        self.output.recv().await.expect("the node runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a node is to do for some seconds.
pub(super) struct Load {
    /// The names of its rooms begin so.
    pub(super) rooms: String,
    /// Into so many rooms its callers join.
    pub(super) count: usize,
    pub(super) callers: usize,
    /// So many more join cold rooms, each in its own time.
    pub(super) cold: usize,
    pub(super) seconds: f64,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rooms, count, callers, cold, seconds } = self;
        write!(f, "join {rooms} {count} {callers} {cold} {seconds}")
    }
}

/// What became of it.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) per_second: f64,
    /// How long joins into cold rooms took, in seconds.
    pub(super) cold: Vec<f64>,
}

impl Joined {
    pub(super) fn p99(&self) -> f64 {
        assert!(self.cold.len() >= 100, "only {} joins into cold rooms", self.cold.len());
        percentile(0.99, &self.cold)
    }
}

fn next<T: FromStr>(words: &mut std::str::SplitWhitespace<'_>) -> T {
    let word = words.next().expect("another word");
    word.parse().unwrap_or_else(|_| panic!("not {word}"))
}

/// Runs the node `name` of a database until its input ends.
pub(crate) async fn serve(url: &str, name: &str) {
    let config = Config::builder().max_age(HOUR).store_timeout(Duration::from_secs(30)).overlay_env();
    let config = config.expect("settings").build().expect("good settings");
    let store = SqlStore::connect(url).expect("a good URL");
    let rooms = Rooms::start(config, store, NodeName::new(name).expect("a good name"));
    let _supervisor = PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    println!("ready");
    let mut orders = lines(std::io::stdin());
    while let Some(line) = orders.recv().await {
        let mut words = line.split_whitespace();
        let answer = match words.next() {
            Some("join") => {
                let (prefix, count, callers) = (next(&mut words), next(&mut words), next(&mut words));
                let (cold, seconds) = (next(&mut words), next(&mut words));
                join(&rooms, name, &Load { rooms: prefix, count, callers, cold, seconds }).await
            }
            Some("fill") => fill(&rooms, name, next(&mut words)).await,
            Some("enter") => enter(&rooms, name, next(&mut words)).await,
            Some("await") => until_others_came(&rooms, next(&mut words), next(&mut words)).await,
            order => panic!("what is {order:?}?"),
        };
        println!("{answer}");
    }
}

/// Callers join, each again as soon as its last join has ended. Answers how many joins a second there were, and how long those into cold
/// rooms took.
async fn join(rooms: &Rooms, name: &str, load: &Load) -> String {
    let number = Cell::new(0_u64);
    let channel = || {
        number.set(number.get() + 1);
        let rooms = &load.rooms;
        ChannelName::new(format!("{name} {rooms} {}", number.get())).expect("a good name")
    };
    let (begin, seconds) = (Instant::now() + WARM_UP, Duration::from_secs_f64(load.seconds));
    let end = begin + seconds;
    let count = Cell::new(0_u64);
    let caller = async |caller: usize| {
        for time in 0.. {
            let room = RoomName::new(format!("{} {}", load.rooms, (caller + time) % load.count)).expect("a good name");
            rooms.add(&room, &channel(), Some(&user(caller))).await.expect("it joins");
            let now = Instant::now();
            if now >= end {
                return;
            }
            count.set(count.get() + u64::from(now >= begin));
        }
    };
    let cold = RefCell::new(Vec::new());
    let cold_caller = async |caller: usize| {
        let mut due = Instant::now() + COLD_PACE.mul_f64(caller as f64 / load.cold as f64);
        for time in 0_usize.. {
            sleep_until(due.into()).await;
            if due >= end {
                return;
            }
            let room = RoomName::new(format!("cold {name} {caller} {}", time % 10)).expect("a good name");
            rooms.add(&room, &channel(), Some(&user(caller))).await.expect("it joins");
            if due >= begin {
                cold.borrow_mut().push(due.elapsed().as_secs_f64());
            }
            due += COLD_PACE;
        }
    };
    tokio::join!(join_all((0..load.callers).map(caller)), join_all((0..load.cold).map(cold_caller)));
    let per_second = count.get() as f64 / load.seconds;
    let times: Vec<String> = cold.borrow().iter().map(|time| format!("{time:.6}")).collect();
    format!("{per_second} {}", times.join(" "))
}

/// One channel joins each of so many rooms, which the node has in memory from then on.
async fn fill(rooms: &Rooms, name: &str, count: usize) -> String {
    let next = Rc::new(Cell::new(0_usize));
    let caller = async || {
        while next.get() < count {
            let n = next.replace(next.get() + 1);
            let room = RoomName::new(format!("filled {n}")).expect("a good name");
            let channel = ChannelName::new(format!("{name} {n}")).expect("a good name");
            rooms.add(&room, &channel, Some(&user(n))).await.expect("it joins");
        }
    };
    join_all((0..500).map(|_| caller())).await;
    "filled".to_owned()
}

async fn enter(rooms: &Rooms, name: &str, n: usize) -> String {
    let room = RoomName::new("filled 0").expect("a good name");
    let channel = ChannelName::new(format!("{name} enters {n}")).expect("a good name");
    rooms.add(&room, &channel, None).await.expect("it joins");
    "entered".to_owned()
}

/// Waits until the first room has so many, for so many seconds at most.
async fn until_others_came(rooms: &Rooms, count: usize, seconds: f64) -> String {
    let room = RoomName::new("filled 0").expect("a good name");
    let begun = Instant::now();
    while rooms.count(&room).await.expect("it counts").presences < count {
        assert!(begun.elapsed().as_secs_f64() < seconds, "{count} have not come");
        sleep(Duration::from_millis(10)).await;
    }
    "all there".to_owned()
}
