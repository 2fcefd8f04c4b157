//! An attribute on a method that is not async.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
