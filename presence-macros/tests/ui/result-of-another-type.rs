//! A result that a swallowed heartbeat does not have: a type error points at the return type.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<usize> {
        Ok(1)
    }
}

fn main() {}
