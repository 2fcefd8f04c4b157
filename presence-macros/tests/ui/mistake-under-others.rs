//! A mistake between other attributes.

use presence::{Consumer, Frame, Result, Socket, touch_presence};

struct Chat;

impl Consumer for Chat {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    #[doc(hidden)]
    #[touch_presence(heartbeat = true)]
    #[inline]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
