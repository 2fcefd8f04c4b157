//! A name that another process has put into a room, on each kind of database: each says so in words of its own.

use super::bench::{lobby, user};
use crate::{
    Config, Error, PruningSupervisor, Rooms,
    name::{ChannelName, NodeName},
    store::{
        SqlStore,
        trial::{Kind, Trial, on_each_kind},
    },
};

on_each_kind! { a_name_that_another_process_has_put_into_the_room_is_taken_until_it_leaves }

async fn node(trial: &Trial, name: &str) -> Rooms {
    let rooms = Rooms::start(Config::default(), SqlStore::connect(&trial.url).unwrap(), NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

fn a_name_that_another_process_has_put_into_the_room_is_taken_until_it_leaves(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (here, there) = (node(&trial, "here").await, node(&trial, "there").await);
        let job = ChannelName::new("job 7").unwrap();
        there.add(lobby(), &job, Some(&user("job"))).await.unwrap();
        // Others who join in the same transaction are not refused with it.
        let other = ChannelName::new("job 8").unwrap();
        let (taken, other) = futures_util::join!(here.add(lobby(), &job, None), here.add(lobby(), &other, None));
        assert!(matches!(&taken, Err(Error::ChannelTaken { channel, .. }) if *channel == job), "{taken:?}");
        assert!(taken.unwrap_err().is_retryable());
        assert!(other.is_ok(), "{other:?}");
        there.remove(lobby(), &job).await.unwrap();
        here.add(lobby(), &job, None).await.unwrap();
        here.shutdown().await;
        there.shutdown().await;
    });
}
