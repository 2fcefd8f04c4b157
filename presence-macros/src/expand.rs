//! Expands an attribute: puts a call of the library before the body of its method.
//!
//! The result always contains the user's method, also after an error, so that one mistake is one error.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Error, Result, ReturnType, Token, spanned::Spanned};

use crate::{
    args::{Attribute, AttributeArgs},
    method::{Method, Role, ends_in, hidden_at},
};

pub(crate) fn expand(attribute: Attribute, args: TokenStream, item: TokenStream) -> TokenStream {
    try_expand(attribute, &args, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        let item = without_further_errors(item);
        quote!(#error #item)
    })
}

fn try_expand(attribute: Attribute, args: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut method: Method = syn::parse2(item)?;
    let AttributeArgs { moved, socket, frame, heartbeats } = AttributeArgs::parse(attribute, args.clone())?;

    // The attribute that is expanded last acts first. So this one waits for the others, before those that wait already. Then the upper of
    // two acts first, and it acts before the code of `#[tracing::instrument]` and the like.
    let waiting = method.attrs.iter().position(Attribute::is_moved).unwrap_or(method.attrs.len());
    if !moved && method.attrs[..waiting].iter().any(|other| !other.path().is_ident("doc")) {
        method.attrs.insert(waiting, attribute.moved(args));
        return Ok(method.into_token_stream());
    }

    if method.sig.asyncness.is_none() {
        return Err(Error::new(method.sig.fn_token.span, "expected an `async fn` of an `impl Consumer` block"));
    }
    let socket = method.argument(Role::Socket, socket.as_ref())?;
    let socket = quote_spanned!(hidden_at(socket.span())=> &mut *#socket);
    let statement = match attribute {
        Attribute::Remove => quote!(::presence::__private::remove_presence(#socket).await;),
        Attribute::Touch if heartbeats.is_empty() => quote!(::presence::__private::touch_only(#socket);),
        Attribute::Touch => {
            let frame = method.argument(Role::Frame, frame.as_ref())?;
            let frame = quote_spanned!(hidden_at(frame.span())=> &#frame);
            let swallowed = swallowed(&method)?;
            // The semicolon keeps the `if` from being the value of a body that is empty.
            quote! {
                if ::presence::__private::touch_presence(#socket, #frame, &[#(#heartbeats),*]).await {
                    return #swallowed;
                };
            }
        }
    };
    let body = method.body;
    // The argument may be called `_socket`, although the statement uses it.
    method.body = quote!(#[allow(clippy::used_underscore_binding)] #statement #body);
    Ok(method.into_token_stream())
}

/// What the method returns for a heartbeat. An error of its type points to the type that the user wrote.
fn swallowed(method: &Method) -> Result<TokenStream> {
    match &method.sig.output {
        ReturnType::Type(_, output) => Ok(quote_spanned!(hidden_at(output.span())=> ::core::result::Result::Ok(()))),
        ReturnType::Default => Err(Error::new(
            method.sig.ident.span(),
            "a swallowed heartbeat returns `Ok(())`: return `presence::Result<()>`, or write `heartbeat = none` to touch only",
        )),
    }
}

/// The user's item, changed so that the compiler does not report the same mistake again: a function becomes `async`, because its trait and
/// each `.await` in its body require it, and its arguments count as used. A function that returns a boxed future, as `#[async_trait]` makes
/// it, stays as it is.
fn without_further_errors(item: TokenStream) -> TokenStream {
    let Ok(mut method) = syn::parse2::<Method>(item.clone()) else { return item };
    if !matches!(&method.sig.output, ReturnType::Type(_, output) if ends_in(output, "Pin")) {
        method.sig.asyncness.get_or_insert(Token![async](method.sig.fn_token.span));
    }
    quote!(#[allow(unused_variables)] #method)
}
