//! Who is there.

use super::bed::{bed, room, user};

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
