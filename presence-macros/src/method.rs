//! The method that has an attribute. Its signature is parsed; its body stays the tokens that the user wrote.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Error, FnArg, Pat, Result, Signature, Token, Type, Visibility, braced,
    parse::{Parse, ParseStream},
    parse_quote,
    token::Brace,
};

/// A function with a body.
pub(crate) struct Method {
    pub(crate) attrs: Vec<syn::Attribute>,
    vis: Visibility,
    pub(crate) sig: Signature,
    brace: Brace,
    /// The attributes inside the braces, which must stay before every statement.
    inner: Vec<syn::Attribute>,
    pub(crate) body: TokenStream,
}

/// What an argument is for the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Socket,
    Frame,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Socket => "socket",
            Role::Frame => "frame",
        }
    }

    /// Whether a type is written as `&mut Socket`, or as `Frame` or a reference to it.
    fn is_type(self, ty: &Type) -> bool {
        match (self, bare(ty)) {
            (Role::Socket, Type::Reference(to)) => to.mutability.is_some() && ends_in(&to.elem, "Socket"),
            (Role::Socket, _) => false,
            (Role::Frame, Type::Reference(to)) => ends_in(&to.elem, "Frame"),
            (Role::Frame, other) => ends_in(other, "Frame"),
        }
    }

    fn missing(self) -> &'static str {
        match self {
            Role::Socket => "no argument is a `&mut Socket`: add one, or name it with the option `socket = name`",
            Role::Frame => {
                "no argument is a `Frame`: name it with the option `frame = name`, or write `heartbeat = none` to touch only; a `JsonConsumer` needs no `#[touch_presence]`, since every message touches"
            }
        }
    }
}

impl Method {
    /// The name of an argument, which is found by the given name, or else by its type. An argument `_` is given a name that the body cannot
    /// use.
    pub(crate) fn argument(&mut self, role: Role, name: Option<&Ident>) -> Result<Ident> {
        let parentheses = self.sig.paren_token.span.join();
        let mut arguments = self.sig.inputs.iter_mut().filter_map(|input| match input {
            FnArg::Typed(argument) => Some(argument),
            FnArg::Receiver(_) => None,
        });
        let argument = match name {
            Some(name) => arguments
                .find(|argument| matches!(&*argument.pat, Pat::Ident(bound) if bound.ident == *name))
                .ok_or_else(|| Error::new(name.span(), format!("no argument of this method is called `{name}`")))?,
            None => arguments
                .find(|argument| role.is_type(&argument.ty))
                .ok_or_else(|| Error::new(parentheses, role.missing()))?,
        };
        match &*argument.pat {
            Pat::Ident(bound) => Ok(bound.ident.clone()),
            Pat::Wild(wild) => {
                let ident = Ident::new(role.name(), hidden_at(wild.underscore_token.span));
                *argument.pat = parse_quote!(#ident);
                Ok(ident)
            }
            pattern => Err(Error::new_spanned(
                pattern,
                format!("the {0} is needed whole: bind it to a name here and take it apart in the body", role.name()),
            )),
        }
    }
}

impl Parse for Method {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attrs = input.call(syn::Attribute::parse_outer)?;
        let vis = input.parse()?;
        let start = input.span();
        // The compiler has parsed the item before, so anything that is not a signature is another kind of item.
        let sig = input.parse().map_err(|_| {
            Error::new(start, "expected a method: put the attribute on an `async fn` of an `impl Consumer` block")
        })?;
        if input.peek(Token![;]) {
            return Err(input.error("this method has no body: put the attribute where the trait is implemented"));
        }
        let content;
        let brace = braced!(content in input);
        let inner = content.call(syn::Attribute::parse_inner)?;
        let body = content.parse()?;
        Ok(Method { attrs, vis, sig, brace, inner, body })
    }
}

impl ToTokens for Method {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Method { attrs, vis, sig, brace, inner, body } = self;
        tokens.extend(quote!(#(#attrs)* #vis #sig));
        brace.surround(tokens, |block| block.extend(quote!(#(#inner)* #body)));
    }
}

/// A span for generated code. Errors in it point to what the user wrote at `span`.
pub(crate) fn hidden_at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// The type without parentheses, also without the invisible ones of `macro_rules!`.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        other => other,
    }
}

/// Whether the last part of the path is `name`.
pub(crate) fn ends_in(ty: &Type, name: &str) -> bool {
    matches!(bare(ty), Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}
