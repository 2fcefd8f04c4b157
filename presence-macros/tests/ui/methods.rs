//! Items that the attributes cannot be used on, and methods that lack something.

use presence::{CloseCode, Consumer, Frame as Message, Result, Socket, remove_presence, touch_presence};

#[touch_presence]
struct OnStruct;

#[touch_presence]
trait OnTrait {
    fn receive(&mut self);
}

struct OnImpl;

#[remove_presence]
impl Consumer for OnImpl {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Message) -> Result<()> {
        Ok(())
    }
}

trait WithoutBody {
    #[remove_presence]
    fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()>;
}

struct Frame {
    text: String,
}

#[touch_presence]
fn not_async(socket: &mut Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[remove_presence]
fn boxed_future(socket: &mut Socket) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + '_>> {
    Box::pin(async { Ok(()) })
}

#[touch_presence]
async fn frame_taken_apart(socket: &mut Socket, Frame { text }: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence]
async fn no_frame(_: &mut Socket) -> Result<()> {
    Ok(())
}

#[touch_presence]
async fn no_mutable_socket(socket: &Socket, frame: Frame) -> Result<()> {
    Ok(())
}

#[touch_presence(heartbeat = none)]
#[remove_presence]
async fn no_socket_for_two(code: CloseCode) -> Result<()> {
    Ok(())
}

#[touch_presence]
async fn no_result(socket: &mut Socket, frame: Frame) {}

fn main() {}
