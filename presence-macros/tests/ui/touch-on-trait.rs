//! An attribute on a trait.

use presence::touch_presence;

#[touch_presence]
trait Chat {
    fn receive(&mut self);
}

fn main() {}
