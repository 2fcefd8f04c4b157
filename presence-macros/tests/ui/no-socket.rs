//! No argument is a socket.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &Socket, frame: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
