//! A type error points at the argument.

use presence::{Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence(frame = text)]
    async fn receive(&mut self, socket: &mut Socket, text: String) -> Result<()> {
        Ok(())
    }
}

fn main() {}
