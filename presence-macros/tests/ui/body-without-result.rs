//! A mistake in the body stays a mistake in the body.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {}
}

fn main() {}
