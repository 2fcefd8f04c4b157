//! As `result-of-another-type`, for a boxed future.

use presence::{Frame, Result, Socket, touch_presence};

struct Chat;

#[async_trait::async_trait]
trait Handler {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<usize>;
}

#[async_trait::async_trait]
impl Handler for Chat {
    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<usize> {
        Ok(1)
    }
}

fn main() {}
