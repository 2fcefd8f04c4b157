//! The attributes of the `presence` crate, which re-exports them: use them from there.
//!
//! [`#[touch_presence]`](macro@touch_presence) and [`#[remove_presence]`](macro@remove_presence) put one statement before the body of an
//! `async fn`, usually a method of a consumer. Their names and their effects are those of the decorators of django-channels-presence.
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
//!         println!("not a heartbeat: {frame:?}");
//!         Ok(())
//!     }
//!
//!     #[remove_presence]
//!     async fn disconnect(&mut self, _: &mut Socket, code: CloseCode) -> Result<()> {
//!         println!("the socket has left every room: {code:?}");
//!         Ok(())
//!     }
//! }
//! ```
//!
//! # Which arguments
//!
//! The first argument of the type `&mut Socket` and, for `touch_presence`, the first of the type `Frame` or a reference to it. Only the
//! last part of the type's path counts. The arguments may have any name, also `_`. If a type has another name, the options `socket` and
//! `frame` name the argument:
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
//! These attributes act before the code of other attributes such as `#[tracing::instrument]`, wherever they are written, so a swallowed
//! heartbeat opens no span. Of two of them the upper one acts first, as with decorators.
//!
//! # Limits
//!
//! `Consumer` is a native trait: `#[async_trait]` over an `impl Consumer` fails with the error E0195, with or without these attributes.
//! The attributes expand to paths that begin with `::presence`, so a dependency on the crate must not rename it.

mod args;
mod expand;
mod method;

use proc_macro::TokenStream;

use crate::{args::Attribute, expand::expand};

/// Touches the socket, swallows heartbeats, and runs the method for every other frame.
///
/// Every frame touches, text or binary. A heartbeat is the text `"heartbeat"`, exactly these 11 bytes with the double quotes, which a
/// browser sends with `JSON.stringify("heartbeat")`. For a heartbeat the method returns `Ok(())`, and its body does not run. The JSON object
/// `{"type":"heartbeat"}` is a heartbeat, too, and is also answered: this client alone receives the same text, so that it knows that the
/// server is there. This is `touch_presence` of django-channels-presence, but on async methods, and binary frames touch as well.
///
/// # Options
///
/// - `heartbeat = "…"`: another exact text instead of `"heartbeat"`. The object stays a heartbeat.
/// - `heartbeat = ["…", "…"]`: any of these exact texts, likewise.
/// - `heartbeat = none`: touch only. Nothing is swallowed and nothing is answered, so the method needs neither a frame nor a result.
/// - `socket = name`, `frame = name`: the arguments, if their types are not written `Socket` and `Frame`.
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
    expand(Attribute::Touch, args.into(), item.into()).into()
}

/// Removes the socket from all its rooms, and then runs the method.
///
/// When the body runs, the others have been notified already, also if the body then fails or panics. This is `remove_presence` of
/// django-channels-presence, but on async methods. It has the option `socket = name`, as [`macro@touch_presence`] has.
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
    expand(Attribute::Remove, args.into(), item.into()).into()
}
