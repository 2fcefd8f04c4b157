//! Removing what is another node's, on each kind of database.

use crate::{
    CloseCode, Config, PruningSupervisor, Rooms,
    model::Close,
    name::{ChannelName, NodeName},
    rooms::tests::bench::{Client, lobby, ms, room, settle, user},
    store::{
        RoomStore, SqlStore,
        trial::{Kind, Trial, on_each_kind},
    },
};

use super::removals;

on_each_kind! { channels_and_presences_of_another_node_are_removed_there }

async fn node(trial: &Trial, name: &str) -> Rooms {
    let config = Config::builder().sweep_interval(ms(200)).build().unwrap();
    let rooms = Rooms::start(config, SqlStore::connect(&trial.url).unwrap(), NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

fn channels_and_presences_of_another_node_are_removed_there(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (here, there) = (node(&trial, "here").await, node(&trial, "there").await);
        let (bar, job) = (room("bar"), ChannelName::new("it's job 7").unwrap());
        let client = || Client::new(&there, Some(user("ann")));
        let [one, two, three, stays] = [client(), client(), client(), client()];
        for client in [&one, &two, &three, &stays] {
            client.join(lobby()).await.unwrap();
        }
        two.join(&bar).await.unwrap();
        there.add(&bar, &job, None).await.unwrap();
        here.remove(lobby(), &one.channel).await.unwrap();
        here.leave_all(&two.channel).await.unwrap();
        let close = Some(Close::new(CloseCode(4003), "enough"));
        assert!(here.remove_presence(lobby(), three.id(lobby()), close.clone()).await.unwrap());
        assert!(!here.remove_presence(lobby(), three.id(lobby()), close.clone()).await.unwrap(), "it is gone");
        here.remove(&bar, &job).await.unwrap();
        settle().await;
        assert_eq!(removals(&one), [("lobby".to_owned(), None)]);
        let mut both = removals(&two);
        both.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(both, [("bar".to_owned(), None), ("lobby".to_owned(), None)]);
        assert_eq!((removals(&three), removals(&stays)), (vec![("lobby".to_owned(), close)], vec![]));
        let in_lobby = here.this_node().store.load(lobby().clone()).await.unwrap().unwrap().presences;
        assert_eq!(in_lobby.iter().map(|one| one.id).collect::<Vec<_>>(), [stays.id(lobby())]);
        assert_eq!(here.this_node().store.load(bar.clone()).await.unwrap().unwrap().presences, []);
        here.shutdown().await;
        there.shutdown().await;
    });
}
