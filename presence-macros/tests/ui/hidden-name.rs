//! What an `_` is bound to cannot be seen from the body.

use presence::{CloseCode, Result, Socket, remove_presence};

struct Chat;

impl Chat {
    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()> {
        drop(socket);
        Ok(())
    }
}

fn main() {}
