//! A function that returns a future in another way.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence]
    fn receive(&mut self, socket: &mut Socket, frame: Frame) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }
}

fn main() {}
