//! Joins of many callers at once through rooms, writer and store, against one transaction for each join, and against bare
//! inserts of 1,000 rows.

use std::time::Instant;

use futures_util::future::join_all;
use presence::{
    ChannelName, NodeId, PresenceId, Rooms,
    store::{Attempt, RoomStore, RoomWrites},
};
use presence_test_servers::Server;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, prelude::Uuid, sqlx};

use super::{HOUR, Place, RUNS, begin, joins, own_cpu, room, since, tell, user};

/// Over how many rooms the joins are spread.
const ROOMS: usize = 100;
/// How many callers a crowd is, and how often each joins.
const CALLERS: usize = 2_000;
const TIMES: usize = 20;

/// Something was done so often per second, and took so many seconds of this process's processor time each.
#[derive(Default)]
struct Speed {
    per_second: Vec<f64>,
    processor: Vec<f64>,
}

impl Speed {
    async fn measure(&mut self, times: usize, work: impl Future<Output = ()>) {
        let (begun, cpu) = (Instant::now(), own_cpu());
        work.await;
        self.per_second.push(times as f64 / since(begun));
        self.processor.push((own_cpu() - cpu) / times as f64);
    }

    /// How many times as fast this was as the other, run by run.
    fn by(&self, other: &Self) -> Vec<f64> {
        self.per_second.iter().zip(&other.per_second).map(|(this, other)| this / other).collect()
    }

    fn tell(self, database: &str, what: &str) {
        tell(database, what, self.per_second, 1.0, "/s");
        tell(database, "  processor time of this process for each", self.processor, 1e6, "µs");
    }
}

/// So many callers join one after the other, each `times` times.
async fn together(rooms: &Rooms, run: usize, callers: usize, times: usize) {
    let caller = async |caller: usize| {
        for time in 0..times {
            let channel = ChannelName::new(format!("caller {run} {caller} {time}")).expect("a good name");
            rooms.add(&room((caller + time) % ROOMS), &channel, Some(&user(caller))).await.expect("it joins");
        }
    };
    join_all((0..callers).map(caller)).await;
}

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let [mut one, mut own, mut few, mut many, mut bare] = [const { Speed::NONE }; 5];
    for run in 0..RUNS {
        let place = Place::new(server).await;
        let (store, node) = place.writer().await;
        // One transaction for each, one after the other; and 256 at once, each with its own.
        let commit = async |node: NodeId, n: usize| {
            let write = RoomWrites { room: room(n % ROOMS), writes: joins(node, 1) };
            store.commit(node, Attempt::next(), [write].clone().into()).await.expect("the commit works");
        };
        let one_by_one = async {
            for n in 0..1_000 {
                commit(node, n).await;
            }
        };
        one.measure(1_000, one_by_one).await;
        // Those of one node would wait for one another.
        let mut nodes = Vec::new();
        for caller in 0..256 {
            nodes.push(begin(&store, &format!("caller {caller}"), HOUR).await);
        }
        let caller = async |caller: usize| {
            for n in 0..8 {
                commit(nodes[caller], caller + n).await;
            }
        };
        own.measure(2_048, async { drop(join_all((0..256).map(caller)).await) }).await;

        let (rooms, _) = place.rooms().await;
        few.measure(256 * 40, together(&rooms, run, 256, 40)).await;
        // Before and after, since the table grows: the better one counts.
        let mut inserts = Speed::default();
        inserts.insert(&place).await;
        many.measure(CALLERS * TIMES, together(&rooms, run + RUNS, CALLERS, TIMES)).await;
        inserts.insert(&place).await;
        bare.add_best_of(inserts);
        rooms.shutdown().await;
    }
    let (few_by_one, few_by_own, many_by_bare) = (few.by(&one), few.by(&own), many.by(&bare));
    one.tell(database, "one transaction for each join, one after the other");
    own.tell(database, "one transaction for each join, 256 at once");
    few.tell(database, "joins of 256 callers");
    tell(database, "= times as many as one after the other", few_by_one, 1.0, "x");
    tell(database, "= times as many as 256 at once with their own", few_by_own, 1.0, "x");
    many.tell(database, "joins of 2,000 callers");
    bare.tell(database, "rows of bare inserts of 1,000");
    tell(database, "= share of the bare inserts", many_by_bare, 1.0, "x");
}

impl Speed {
    const NONE: Self = Self { per_second: Vec::new(), processor: Vec::new() };

    fn add_best_of(&mut self, other: Self) {
        let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
        self.per_second.push(other.per_second.into_iter().fold(0.0, f64::max));
        self.processor.push(least(other.processor));
    }

    /// Bare sqlx puts as many rows, in the same rooms and of the same users, into the same table: one statement and one
    /// transaction for each 1,000.
    async fn insert(&mut self, place: &Place) {
        const ROWS: usize = 1_000;
        let (store, node) = place.writer().await;
        let names: Vec<_> = (0..ROOMS).map(room).collect();
        let rooms = store.positions(names.clone().into()).await.expect("it reads");
        let rooms: Vec<Uuid> = rooms.iter().map(|(_, epoch, _)| epoch.as_uuid()).collect();
        assert_eq!(rooms.len(), ROOMS);
        let mut options = ConnectOptions::new(&place.url);
        options.max_connections(1).sqlx_logging(false);
        let connection = Database::connect(options).await.expect("the database is there");
        let backend = connection.get_database_backend();
        if backend == DbBackend::Sqlite {
            // As the store has it.
            connection.execute_unprepared("PRAGMA synchronous = NORMAL").await.expect("SQLite knows it");
        }
        let columns = COLUMNS.split(", ").count();
        let mark = |n: usize| if backend == DbBackend::Postgres { format!("${n}") } else { "?".to_owned() };
        let marks = |row: usize| (1..=columns).map(|n| mark(row * columns + n)).collect::<Vec<_>>().join(",");
        let marks: Vec<String> = (0..ROWS).map(|row| format!("({})", marks(row))).collect();
        let sql = format!("INSERT INTO presences ({COLUMNS}) VALUES {}", marks.join(","));
        let all = async {
            for thousand in 0..CALLERS * TIMES / ROWS {
                let row = |n| Row::new(node, &rooms, thousand * ROWS + n);
                let rows: Vec<Row> = (0..ROWS).map(row).collect();
                match backend {
                    DbBackend::Sqlite => insert_by!(connection.get_sqlite_connection_pool(), &sql, rows),
                    DbBackend::Postgres => insert_by!(connection.get_postgres_connection_pool(), &sql, rows),
                    _ => insert_by!(connection.get_mysql_connection_pool(), &sql, rows),
                }
            }
        };
        self.measure(CALLERS * TIMES, all).await;
    }
}

const COLUMNS: &str =
    "id, room_id, channel_name, user_id, meta, node_id, session_hash, grace, held_until, joined_at, last_seen";

struct Row {
    id: Uuid,
    room: Uuid,
    channel: String,
    user: String,
    node: Uuid,
    at: i64,
}

impl Row {
    /// The n-th, of the n-th join.
    fn new(node: NodeId, rooms: &[Uuid], n: usize) -> Self {
        let (caller, time) = (n % CALLERS, n / CALLERS);
        let (id, room) = (PresenceId::random().as_uuid(), rooms[(caller + time) % rooms.len()]);
        let channel = format!("bare {node} {caller} {time}");
        Self { id, room, channel, user: user(caller).to_string(), node: node.as_uuid(), at: n as i64 }
    }
}

/// Each database has a type of its own for a statement.
macro_rules! insert_by {
    ($pool:expr, $sql:expr, $rows:expr) => {{
        let mut transaction = $pool.begin().await.expect("it begins");
        let mut insert = sqlx::query(sqlx::AssertSqlSafe($sql.as_str()));
        for row in $rows {
            insert = insert.bind(row.id).bind(row.room).bind(row.channel).bind(row.user).bind("{}").bind(row.node);
            insert = insert.bind(None::<Vec<u8>>).bind(None::<i64>).bind(None::<i64>).bind(row.at).bind(row.at);
        }
        insert.execute(&mut *transaction).await.expect("it inserts");
        transaction.commit().await.expect("it commits");
    }};
}
use insert_by;
