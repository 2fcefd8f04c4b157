//! An attribute where a trait only asks for a method.

use presence::{CloseCode, Result, Socket, remove_presence};

trait Handler {
    #[remove_presence]
    fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()>;
}

fn main() {}
