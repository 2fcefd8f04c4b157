//! The attributes of the `presence` crate, which re-exports them: use them from there.
//!
//! [`#[touch_presence]`](macro@touch_presence) and [`#[remove_presence]`](macro@remove_presence) put one statement
//! before the body of a consumer's method and leave the rest of it alone. They take their names, and what they do, from
//! the decorators of django-channels-presence.
//!
//! ```
//! use presence::{CloseCode, Consumer, Frame, Result, Socket, remove_presence, touch_presence};
//!
//! struct Chat;
//!
//! impl Consumer for Chat {
//!     async fn connect(&mut self, _: &mut Socket) -> Result<()> {
//!         Ok(())
//!     }
//!
//!     #[touch_presence]
//!     async fn receive(&mut self, _: &mut Socket, frame: Frame) -> Result<()> {
//!         println!("no heartbeat, so it is for us: {frame:?}");
//!         Ok(())
//!     }
//!
//!     #[remove_presence]
//!     async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()> {
//!         println!("already out of every room: {code:?}");
//!         Ok(())
//!     }
//! }
//! ```
//!
//! # Which methods
//!
//! An `async fn`, or a function that returns `Pin<Box<dyn Future>>` (also under its usual names `BoxFuture` and
//! `LocalBoxFuture`), which is what `#[async_trait]` makes of the methods of your own object-safe traits. A boxed body
//! is wrapped whole, at the cost of one more box. The two are told apart by the signature alone.
//!
//! `Consumer` itself is a native trait. `#[async_trait]` over an `impl Consumer` fails with error E0195, "lifetime
//! parameters or bounds on method `connect` do not match the trait declaration", with or without these attributes:
//! remove the `#[async_trait]`.
//!
//! # Which arguments
//!
//! The first argument whose type is written `&mut Socket` and, for `touch_presence`, the first that is written `Frame`
//! or a reference to one: only the last part of the path counts. They may be called anything, `_` included. Where the
//! type has another name, say which argument is meant:
//!
//! ```
//! use presence::{Frame, Result, Socket, touch_presence};
//!
//! type Wire = Socket;
//! type Incoming = Frame;
//!
//! #[touch_presence(socket = wire, frame = incoming)]
//! async fn answer(wire: &mut Wire, incoming: Incoming) -> Result<()> {
//!     Ok(())
//! }
//! ```
//!
//! # Order
//!
//! The presence attributes act before anything that another attribute, such as `#[tracing::instrument]`, adds to the
//! method, whichever is written first; a swallowed heartbeat opens no span. Of two presence attributes the upper one
//! acts first, as with decorators: beneath `#[touch_presence]`, `#[remove_presence]` does not see heartbeats. To that
//! end an attribute that finds others below it first moves to the end of the list.
//!
//! # The name `presence`
//!
//! The attributes expand to paths that begin with `::presence`: the crate cannot be renamed where it is depended on.

mod args;
mod expand;
mod method;

use proc_macro::TokenStream;

use crate::{args::Attribute, expand::expand_with};

/// Touches the presences of the socket, swallows the heartbeat, and runs the method for every other frame.
///
/// Every frame touches, text or binary. The heartbeat is the text frame that is exactly `"heartbeat"`, the 11 bytes
/// with the double quotes, which a browser sends with `JSON.stringify("heartbeat")`; for it the method returns `Ok(())`
/// and its body does not run. So it does for the JSON object `{"type":"heartbeat"}`, which is also answered: the same text goes
/// back to this client alone, so that it knows that the server is there. Anything else reaches the body: the plain heartbeat with a
/// blank more, other quotes, capitals or an escape, an object with another key, binary frames. This is `touch_presence` of
/// django-channels-presence, but on async methods, and binary frames are touches like any other.
///
/// # Options
///
/// - `heartbeat = "…"`: another exact text in the place of `"heartbeat"`. The object is swallowed and answered all the same.
/// - `heartbeat = ["…", "…"]`: any of these exact texts, likewise.
/// - `heartbeat = none`: touch only: nothing is swallowed, and nothing is answered. The method needs neither a frame nor a
///   result then.
/// - `socket = name`, `frame = name`: the arguments of these names, where their types are not written `Socket` and `Frame`.
///
/// ```
/// use presence::{Frame, Result, Socket, touch_presence};
///
/// struct Cursors;
///
/// impl Cursors {
///     #[touch_presence(heartbeat = ["ping", r#"{"type":"ping"}"#])]
///     async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
///         Ok(())
///     }
///
///     #[touch_presence(heartbeat = none)]
///     async fn moved(&mut self, _: &mut Socket, x: u16, y: u16) {}
/// }
/// ```
#[proc_macro_attribute]
pub fn touch_presence(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_with(Attribute::Touch, args.into(), item.into()).into()
}

/// Takes the socket out of every room it is in, and then runs the method.
///
/// When the body runs, the others have been told already; whether it fails or panics changes nothing about that.
/// This is `remove_presence` of django-channels-presence, but on async methods.
///
/// # Options
///
/// - `socket = name`: the argument of this name, where its type is not written `&mut Socket`.
///
/// ```
/// use presence::{CloseCode, Result, Socket, remove_presence};
///
/// struct Chat;
///
/// impl Chat {
///     #[remove_presence]
///     async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn remove_presence(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_with(Attribute::Remove, args.into(), item.into()).into()
}
