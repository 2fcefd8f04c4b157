//! An option of the other attribute.

use presence::{Consumer, Frame, Result, Socket, remove_presence};

struct Chat;

impl Consumer for Chat {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    #[remove_presence(heartbeat = "ping")]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
