//! Who is there.

use super::bed::{bed, room, secs, user};
use presence::UserId;

// behaviour: 2.7 distinct-users
#[actix_web::test]
async fn users_are_distinct_and_anonymous_ones_left_out() {
    // Adds to it: there no order is promised, here it is that of the names' bytes.
    let bed = bed().await;
    for (channel, who) in [("1", "bob"), ("2", "ann"), ("3", "bob"), ("4", "")] {
        bed.add(channel, who).await;
    }
    assert_eq!(bed.rooms.users(&room("lobby")).await.unwrap(), [user("ann"), user("bob")]);
}

// behaviour: 2.7 anonymous-sockets
#[actix_web::test]
async fn lurkers_are_counted_by_socket() {
    let bed = bed().await;
    bed.add("1", "").await;
    bed.add("2", "").await;
    assert_eq!(bed.rooms.anonymous_count(&room("lobby")).await.unwrap(), 2);
}

// behaviour: 2.7 stale-are-not-counted
#[actix_web::test]
async fn who_is_stale_is_not_counted() {
    // Differs on purpose (W9): there a stale row counts until somebody prunes; here a deadline passes by itself.
    let bed = bed().await;
    bed.add("1", "ann").await;
    bed.add("2", "").await;
    bed.leap(secs(61)).await;
    let counts = bed.rooms.count(&room("lobby")).await.unwrap();
    assert_eq!((counts.users, counts.anonymous, counts.presences), (0, 0, 0));
}

// behaviour: 7 who-is-there
#[actix_web::test]
async fn members_are_listed_and_counted_without_asking_them() {
    let bed = bed().await;
    let _bob = bed.member("bob").await;
    bed.add("2", "ann").await;
    bed.add("3", "").await;
    let members = bed.rooms.members(&room("lobby")).await.unwrap();
    let names = members.iter().map(|member| member.user().map_or("?", UserId::as_str));
    assert_eq!(names.collect::<Vec<_>>(), ["ann", "bob", "?"]);
    assert!(bed.rooms.is_here(&room("lobby"), &user("bob")).await.unwrap());
    assert_eq!(bed.rooms.rooms_of(&user("ann")).await.unwrap(), [room("lobby")]);
}
