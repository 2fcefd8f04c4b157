//! Joins of many callers at once through rooms, writer and store, against one transaction for each join, and against bare
//! inserts of 1,000 rows.

use std::time::Instant;

use futures_util::future::join_all;
use presence::{
    Rooms,
    name::{ChannelName, Epoch, PresenceId},
    store::{RoomWrites, Store},
};
use presence_test_servers::Server;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, Statement, TransactionTrait, Value};

use super::{Place, RUNS, fill, joins, room, since, tell, user};

/// Over how many rooms the joins are spread.
const ROOMS: usize = 100;

/// So many callers join one after the other, each `times` times. Returns joins per second.
async fn together(rooms: &Rooms, run: usize, callers: usize, times: usize) -> f64 {
    let begun = Instant::now();
    let caller = async |caller: usize| {
        for time in 0..times {
            let channel = ChannelName::new(format!("caller {run} {caller} {time}")).expect("a good name");
            rooms.add(&room((caller + time) % ROOMS), &channel, Some(&user(caller))).await.expect("it joins");
        }
    };
    join_all((0..callers).map(caller)).await;
    (callers * times) as f64 / since(begun)
}

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let [mut one, mut own, mut few, mut many, mut bare] = [const { Vec::new() }; 5];
    for run in 0..RUNS {
        let place = Place::new(server).await;
        let (store, node) = place.writer().await;
        // One transaction for each, one after the other; and 256 at once, each with its own.
        let commit = async |n: usize| {
            let write = RoomWrites { room: room(n % ROOMS), writes: joins(node, 1) };
            store.commit(node, &[write]).await.expect("the commit works");
        };
        let begun = Instant::now();
        for n in 0..1_000 {
            commit(n).await;
        }
        one.push(1_000.0 / since(begun));
        let begun = Instant::now();
        join_all((0..256).map(async |caller| {
            for n in 0..8 {
                commit(caller + n).await;
            }
        }))
        .await;
        own.push(2_048.0 / since(begun));

        let (rooms, _) = place.rooms().await;
        few.push(together(&rooms, run, 256, 40).await);
        many.push(together(&rooms, run + RUNS, 2_000, 20).await);
        bare.push(insert(&place).await);
        rooms.shutdown().await;
    }
    let ratios = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a / b).collect();
    let (few_by_one, few_by_own, many_by_bare) = (ratios(&few, &one), ratios(&few, &own), ratios(&many, &bare));
    tell(database, "one transaction for each join, one after the other", one, 1.0, "/s");
    tell(database, "one transaction for each join, 256 at once", own, 1.0, "/s");
    tell(database, "joins of 256 callers", few, 1.0, "/s");
    tell(database, "= times as many as one after the other", few_by_one, 1.0, "x");
    tell(database, "= times as many as 256 at once with their own", few_by_own, 1.0, "x");
    tell(database, "joins of 2,000 callers", many, 1.0, "/s");
    tell(database, "rows of bare inserts of 1,000", bare, 1.0, "/s");
    tell(database, "= share of the bare inserts", many_by_bare, 1.0, "x");
}

/// The same rows into the same table by one statement for each 1,000, without any other. Returns rows per second.
async fn insert(place: &Place) -> f64 {
    const ROWS: usize = 1_000;
    const TIMES: usize = 20;
    let (store, node) = place.writer().await;
    let own = room(ROOMS);
    fill(&store, node, ROOMS + 1, 1).await;
    let epoch: Epoch = store.load(&own).await.expect("it reads").expect("it is there").epoch;
    let mut options = ConnectOptions::new(&place.url);
    options.max_connections(1).sqlx_logging(false);
    let connection = Database::connect(options).await.expect("the database is there");
    let backend = connection.get_database_backend();
    if backend == DbBackend::Sqlite {
        // As the store has it.
        connection.execute_unprepared("PRAGMA synchronous = NORMAL").await.expect("SQLite knows it");
    }
    let marks: Vec<String> = (0..ROWS)
        .map(|row| match backend {
            DbBackend::Postgres => {
                let marks: Vec<String> = (1..=8).map(|n| format!("${}", row * 8 + n)).collect();
                format!("({})", marks.join(","))
            }
            _ => "(?,?,?,?,?,?,?,?)".to_owned(),
        })
        .collect();
    let insert =
        "INSERT INTO presences (id, room_id, channel_name, user_id, meta, node_id, joined_at, last_seen) VALUES ";
    let insert = format!("{insert}{}", marks.join(","));
    let begun = Instant::now();
    for time in 0..TIMES {
        let mut values: Vec<Value> = Vec::with_capacity(8 * ROWS);
        for row in 0..ROWS {
            let id = PresenceId::random().as_uuid();
            let channel = format!("ws.{}.0!{}", node.as_uuid().simple(), id.simple());
            let (user, at) = (format!("user {row}"), (time * ROWS + row) as i64);
            values.extend([id.into(), epoch.as_uuid().into(), channel.into(), user.into()]);
            values.extend(["{}".into(), node.as_uuid().into(), at.into(), at.into()]);
        }
        let transaction = connection.begin().await.expect("it begins");
        let statement = Statement::from_sql_and_values(backend, insert.clone(), values);
        transaction.execute_raw(statement).await.expect("it inserts");
        transaction.commit().await.expect("it commits");
    }
    (ROWS * TIMES) as f64 / since(begun)
}
