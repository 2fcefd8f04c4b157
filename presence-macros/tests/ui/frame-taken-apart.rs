//! The frame has no name.

use presence::{Result, Socket, touch_presence};

struct Frame {
    text: String,
}

struct Chat;

impl Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, Frame { text }: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
