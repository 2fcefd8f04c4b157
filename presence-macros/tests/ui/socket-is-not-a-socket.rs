//! A type error points at the argument.

use presence::{CloseCode, Result, remove_presence};

struct Socket;

struct Chat;

impl Chat {
    #[remove_presence]
    async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()> {
        Ok(())
    }
}

fn main() {}
