//! A method that forgot its `async`, in the trait that asks for it: no second error about the trait or the `.await`.

use presence::{CloseCode, Consumer, Frame, Result, Socket, remove_presence, touch_presence};

struct Chat;

impl Consumer for Chat {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    #[touch_presence(heartbeat = none)]
    #[remove_presence]
    fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        std::future::ready(()).await;
        Ok(())
    }
}

fn main() {}
