//! No argument is a frame.

use presence::{Consumer, Frame, Result, Socket, touch_presence};

struct Chat;

impl Consumer for Chat {
    #[touch_presence]
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
