//! An attribute on a struct.

use presence::touch_presence;

#[touch_presence]
struct Chat;

fn main() {}
