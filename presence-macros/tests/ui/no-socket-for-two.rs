//! Two attributes that lack the same argument.

use presence::{CloseCode, Result, remove_presence, touch_presence};

struct Chat;

impl Chat {
    #[touch_presence(heartbeat = none)]
    #[remove_presence]
    async fn disconnect(&mut self, code: CloseCode) -> Result<()> {
        Ok(())
    }
}

fn main() {}
