//! From an attribute and its item to the code in their place.
//!
//! What happens to a presence is written in the library; here is only the call. In the end there is always the user's
//! item, also beside an error, so that one mistake is one error.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Error, Result, ReturnType, Token, spanned::Spanned};

use crate::{
    args::{Args, Attribute},
    method::{Method, Role, Shape, hidden_at},
};

/// Expands one attribute. The only place where an error becomes `compile_error!`.
pub(crate) fn expand_with(attribute: Attribute, args: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(attribute, &args, item.clone()) {
        Ok(expanded) => expanded,
        Err(error) => {
            let error = error.into_compile_error();
            let item = without_further_errors(item);
            quote!(#error #item)
        }
    }
}

fn try_expand(attribute: Attribute, args: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut method: Method = syn::parse2(item)?;
    let Args { moved, socket, frame, heartbeats } = Args::parse(attribute, args.clone())?;

    // The attribute that is expanded last acts first. So wait for the others, in front of the ones that wait already:
    // the upper of two acts first, and neither sees what `#[tracing::instrument]` and the like make of the body.
    let waiting = method.attrs.iter().position(Attribute::is_moved).unwrap_or(method.attrs.len());
    if !moved && method.attrs[..waiting].iter().any(|other| !other.path().is_ident("doc")) {
        method.attrs.insert(waiting, attribute.moved(args));
        return Ok(method.into_token_stream());
    }

    let shape = method.shape()?;
    let socket = method.argument(Role::Socket, socket.as_ref())?;
    let socket = quote_spanned!(hidden_at(socket.span())=> &mut *#socket);
    let statement = match attribute {
        Attribute::Remove => quote!(::presence::__private::remove_presence(#socket).await;),
        Attribute::Touch if heartbeats.is_empty() => quote!(::presence::__private::touch_only(#socket);),
        Attribute::Touch => {
            let frame = method.argument(Role::Frame, frame.as_ref())?;
            let frame = quote_spanned!(hidden_at(frame.span())=> &#frame);
            let swallowed = swallowed(&method, &shape)?;
            // The semicolon keeps the `if` from being the value of a body that is empty.
            quote! {
                if ::presence::__private::touch_presence(#socket, #frame, &[#(#heartbeats),*]).await {
                    return #swallowed;
                };
            }
        }
    };
    // `_socket` is fine, although we use it.
    method.prepend(shape, &quote!(#[allow(clippy::used_underscore_binding)] #statement));
    Ok(method.into_token_stream())
}

/// What the method returns for a heartbeat. A type that does not fit is reported where the user wrote it.
fn swallowed(method: &Method, shape: &Shape) -> Result<TokenStream> {
    match (shape, &method.sig.output) {
        (Shape::Boxed { output, .. }, _) => {
            let span = hidden_at(output.span());
            Ok(quote_spanned!(span=> ::core::convert::identity::<#output>(::core::result::Result::Ok(()))))
        }
        (Shape::Async, ReturnType::Type(_, output)) => {
            Ok(quote_spanned!(hidden_at(output.span())=> ::core::result::Result::Ok(())))
        }
        (Shape::Async, ReturnType::Default) => Err(Error::new(
            method.sig.ident.span(),
            "a swallowed heartbeat returns `Ok(())`: return `presence::Result<()>`, or write `heartbeat = none` to touch only",
        )),
    }
}

/// The item as the user wrote it, save what would make the compiler report the one mistake again.
///
/// A function that lacks its `async` gets it, for the sake of the trait that asks for it and of every `.await` in the
/// body. And arguments that the attribute would have used are not called unused.
fn without_further_errors(item: TokenStream) -> TokenStream {
    let Ok(mut method) = syn::parse2::<Method>(item.clone()) else { return item };
    if method.shape().is_err() {
        method.sig.asyncness = Some(Token![async](method.sig.fn_token.span));
    }
    quote!(#[allow(unused_variables)] #method)
}
