//! A method that has no result for the heartbeat that is swallowed.

use presence::{Frame, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) {}
}

fn main() {}
