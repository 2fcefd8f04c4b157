//! A list with something else in it.

use presence::{Consumer, Frame, Result, Socket, touch_presence};

struct Chat;

impl Consumer for Chat {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    #[touch_presence(heartbeat = ["ping", 1])]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
