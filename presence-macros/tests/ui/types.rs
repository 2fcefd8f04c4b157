//! Errors of types point at what the user wrote.

use presence::{CloseCode, Frame, Result, Socket, remove_presence, touch_presence};

mod other {
    pub struct Socket;
}

#[touch_presence]
async fn body_without_result(socket: &mut Socket, frame: Frame) -> Result<()> {}

#[touch_presence(frame = text)]
async fn frame_is_not_a_frame(socket: &mut Socket, text: String) -> Result<()> {
    Ok(())
}

#[touch_presence]
async fn result_of_another_type(socket: &mut Socket, frame: Frame) -> Result<usize> {
    Ok(1)
}

#[remove_presence]
async fn socket_is_not_a_socket(_: &mut other::Socket, code: CloseCode) -> Result<()> {
    Ok(())
}

fn main() {}
