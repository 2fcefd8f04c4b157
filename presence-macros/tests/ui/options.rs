//! Mistakes in the options of an attribute.

use presence::{Frame, Result, Socket, remove_presence, touch_presence};

#[touch_presence(heartbeat = b"ping")]
async fn heartbeat_is_not_a_text(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat = ["ping", 1])]
async fn one_of_the_heartbeats_is_not_a_text(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat = [])]
async fn no_heartbeats(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heart_beat = "ping")]
async fn unknown_option(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[remove_presence(heartbeat = "ping")]
async fn option_of_the_other_attribute(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat = "ping", heartbeat = "pong")]
async fn option_twice(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat = "ping" socket = socket)]
async fn option_without_comma(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence("ping")]
async fn option_without_name(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat)]
async fn option_without_value(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(socket = "socket")]
async fn name_is_a_text(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(frame = message)]
async fn name_of_no_argument(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(@move)]
async fn the_mark_is_internal(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[doc(hidden)]
#[touch_presence(heartbeat = true)]
#[inline]
async fn between_other_attributes(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

fn main() {}
