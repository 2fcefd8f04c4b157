//! An attribute on the block instead of a method of it: the trait is implemented nonetheless.

use presence::{Consumer, Frame, Result, Socket, remove_presence};

struct Chat;

#[remove_presence]
impl Consumer for Chat {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

fn main() {}
