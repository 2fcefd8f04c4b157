use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
};

use super::*;

/// A server that sends the first text to each client at once, and the others when the client sends something.
fn server(texts: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut sockets = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            for (place, text) in texts.iter().enumerate() {
                if place == 1 {
                    socket.read_exact(&mut [0]).unwrap();
                }
                socket.write_all(&[0x81, text.len() as u8]).unwrap();
                socket.write_all(text.as_bytes()).unwrap();
            }
            sockets.push(socket);
        }
    });
    address
}

/// What is found wrong with such a server, by one client that says something.
fn failure(texts: &'static [&'static str]) -> String {
    let mut load = Load::new(server(texts), Duration::from_millis(300)).unwrap();
    let client = load.open(1).unwrap();
    while !matches!(load.next_event(), Some(Event::Joined { .. })) {
        load.turn(Instant::now() + LONGEST_WAIT).unwrap();
    }
    let sender = load.add_sender(client).unwrap();
    load.say(sender, 16, &[]).unwrap();
    loop {
        if let Err(failure) = load.turn(Instant::now() + LONGEST_WAIT) {
            return failure;
        }
    }
}

const LIST: &str = r#"{"type":"presence","payload":{"channel_name":"r1","members":["u0000000"],"lurkers":0}}"#;
const JOIN: &str = r#"{"type":"join","user":"u0000005"}"#;
const LEAVE: &str = r#"{"type":"leave","user":"u0000005"}"#;
const MESSAGE: &str = r#"{"type":"message","from":"u0000000","text":"0000000001xxxxxx"}"#;
const NEXT: &str = r#"{"type":"message","from":"u0000000","text":"0000000002xxxxxx"}"#;

#[test]
fn a_notice_that_comes_twice_or_not_at_all_is_a_failure() {
    let twice = failure(&[LIST, JOIN, JOIN]);
    assert!(twice.contains("u0000005 joined a second time"), "{twice}");
    let absent = failure(&[LIST, JOIN, LEAVE, LEAVE]);
    assert!(absent.contains("u0000005 left and was not there"), "{absent}");
}

#[test]
fn a_message_that_comes_twice_or_not_at_all_is_a_failure() {
    let twice = failure(&[LIST, MESSAGE, MESSAGE]);
    assert!(twice.contains("message 1 of sender 0 came, and 2 was the next"), "{twice}");
    let skipped = failure(&[LIST, NEXT]);
    assert!(skipped.contains("message 2 of sender 0 came, and 1 was the next"), "{skipped}");
    let invented = failure(&[LIST, MESSAGE, NEXT]);
    assert!(invented.contains("nobody sent message 2 of 0"), "{invented}");
    let missing = failure(&[LIST]);
    assert!(missing.contains("it received 0 of 1 messages of sender 0"), "{missing}");
}

#[test]
fn a_wrong_view_is_a_failure() {
    const WRONG: &str = r#"{"type":"presence","payload":{"channel_name":"r1","members":["u0000005"],"lurkers":0}}"#;
    let mut load = Load::new(server(&[WRONG]), Duration::from_secs(10)).unwrap();
    load.open(1).unwrap();
    assert_eq!(
        load.settle_within(Duration::from_millis(100)).unwrap_err(),
        "u0000000 in room r1 (joined): its view of the room has 1 users instead of 1; missing: u0000000; too many: u0000005"
    );
}

#[test]
fn many_joins_of_one_diff_are_added_in_order_and_none_of_them_twice() {
    let member = |user: &u32| format!(r#"{{"user":"u{user:07}","id":"i","meta":{{}}}}"#);
    let diff = |users: &[u32]| {
        let joins: Vec<_> = users.iter().map(member).collect();
        let joins = joins.join(",");
        format!(
            r#"{{"type":"presence.diff","room":"r","epoch":"e","from":1,"version":2,"joins":[{joins}],"leaves":[],"updates":[],"anonymous":0}}"#
        )
    };
    let mut load = Load::new(server(&[LIST]), Duration::from_secs(10)).unwrap();
    let index = load.open(1).unwrap();
    while !matches!(load.next_event(), Some(Event::Joined { .. })) {
        load.turn(Instant::now() + LONGEST_WAIT).unwrap();
    }
    let client = load.clients[index].as_mut().unwrap();
    let mut take = |text: String| {
        let mut bytes = vec![0x81, 126];
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text.as_bytes());
        client.take(&bytes, &mut load.books, &mut Vec::new(), &mut false)?;
        Ok::<_, String>(client.view.clone())
    };
    let odd: Vec<u32> = (0..20).map(|place| 2 * place + 1).collect();
    let even: Vec<u32> = (1..20).map(|place| 2 * place).collect();
    take(diff(&odd)).unwrap();
    assert_eq!(take(diff(&even)).unwrap(), (0..40).collect::<Vec<_>>());
    let failure = take(diff(&even)).unwrap_err();
    assert!(failure.contains("joined a second time"), "{failure}");
}
