//! The method under an attribute, as far as the attributes need to know it.
//!
//! The signature is parsed, the body stays the tokens that the user wrote. What kind of method it is, and which of its
//! arguments are the socket and the frame, is read off the signature.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Error, FnArg, GenericArgument, Pat, PatIdent, PathArguments, PathSegment, Result, ReturnType, Signature, Token,
    Type, TypeParamBound, Visibility, braced,
    parse::{Parse, ParseStream},
    spanned::Spanned,
    token::Brace,
};

/// A function with a body.
pub(crate) struct Method {
    pub(crate) attrs: Vec<syn::Attribute>,
    vis: Visibility,
    pub(crate) sig: Signature,
    brace: Brace,
    /// Attributes written inside the braces, which have to stay in front of every statement.
    inner: Vec<syn::Attribute>,
    body: TokenStream,
}

/// How a method gives its caller a future.
pub(crate) enum Shape {
    /// `async fn`.
    Async,
    /// `fn` that returns a boxed `future` of an `output`.
    Boxed { future: Box<Type>, output: Box<Type> },
}

/// What an argument is to the attributes.
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

    /// Whether a type is written as the type of this role is.
    fn is_type(self, ty: &Type) -> bool {
        match (self, bare(ty)) {
            (Role::Socket, Type::Reference(reference)) => {
                reference.mutability.is_some() && ends_in(&reference.elem, "Socket")
            }
            (Role::Socket, _) => false,
            (Role::Frame, Type::Reference(reference)) => ends_in(&reference.elem, "Frame"),
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
    /// Tells an `async fn` from a function that returns a boxed future, by the signature alone.
    pub(crate) fn shape(&self) -> Result<Shape> {
        if self.sig.asyncness.is_some() {
            return Ok(Shape::Async);
        }
        if let ReturnType::Type(_, future) = &self.sig.output
            && let Some(output) = output_of_boxed(future)
        {
            return Ok(Shape::Boxed { future: future.clone(), output: Box::new(output.clone()) });
        }
        Err(Error::new(self.sig.fn_token.span, "expected an `async fn` of an `impl Consumer` block"))
    }

    /// Finds an argument by its name if one is given, else by its type, and returns what it is bound to.
    ///
    /// An argument that is `_` gets a name, which the body of the method cannot see.
    pub(crate) fn argument(&mut self, role: Role, name: Option<&Ident>) -> Result<Ident> {
        let nowhere = self.sig.paren_token.span.join();
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
                .ok_or_else(|| Error::new(nowhere, role.missing()))?,
        };
        match &*argument.pat {
            Pat::Ident(bound) => Ok(bound.ident.clone()),
            Pat::Wild(wild) => {
                let ident = Ident::new(role.name(), hidden_at(wild.underscore_token.span));
                *argument.pat = Pat::Ident(PatIdent {
                    attrs: wild.attrs.clone(),
                    by_ref: None,
                    mutability: None,
                    ident: ident.clone(),
                    subpat: None,
                });
                Ok(ident)
            }
            taken_apart => Err(Error::new_spanned(
                taken_apart,
                format!("the {0} is needed whole: bind it to a name here and take it apart in the body", role.name()),
            )),
        }
    }

    /// Puts `statement` before the body. It may await, and may return what the method's future returns.
    pub(crate) fn prepend(&mut self, shape: Shape, statement: &TokenStream) {
        let body = std::mem::take(&mut self.body);
        self.body = match shape {
            Shape::Async => quote!(#statement #body),
            Shape::Boxed { future, .. } => {
                let brace = self.brace;
                let mut block = TokenStream::new();
                brace.surround(&mut block, |block| block.extend(body));
                let span = hidden_at(future.span());
                // The closure keeps a `return` of the body what it was. `unwrap_or_else` tells the compiler that it
                // runs once, so that it may give away what it captured, as a function may its arguments; a closure
                // called on the spot may not.
                quote_spanned! {span=>
                    ::std::boxed::Box::pin(async move {
                        #statement
                        ::core::option::Option::<#future>::None.unwrap_or_else(move || -> #future #block).await
                    })
                }
            }
        };
    }
}

impl Parse for Method {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attrs = input.call(syn::Attribute::parse_outer)?;
        let vis = input.parse()?;
        let start = input.span();
        // The compiler has parsed the item before us: what is no signature here is another kind of item.
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

/// A span for code that the user has not written but that errors should point to by what they have.
pub(crate) fn hidden_at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// The type without the parentheses of the user and the invisible ones of `macro_rules!`.
fn bare(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            other => return other,
        };
    }
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match bare(ty) {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

fn ends_in(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name)
}

/// The last type between the angle brackets of a path that ends in `name`.
fn inside<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let segment = last_segment(ty).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().rev().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(bare(ty)),
        _ => None,
    })
}

/// What a boxed future gives, if the type is written as one.
fn output_of_boxed(ty: &Type) -> Option<&Type> {
    let alias = || inside(ty, "BoxFuture").or_else(|| inside(ty, "LocalBoxFuture"));
    let Some(Type::TraitObject(object)) = inside(ty, "Pin").and_then(|pinned| inside(pinned, "Box")) else {
        return alias();
    };
    let future = object.bounds.iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().filter(|segment| segment.ident == "Future"),
        _ => None,
    })?;
    let PathArguments::AngleBracketed(arguments) = &future.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(&output.ty),
        _ => None,
    })
}
