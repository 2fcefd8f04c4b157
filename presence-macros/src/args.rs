//! The options of an attribute. An error points at the wrong token, and names what is correct.

use proc_macro2::{Ident, Span, TokenStream};
use syn::{
    Error, LitStr, Result, Token, bracketed,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    punctuated::Punctuated,
    token::Bracket,
};

/// The heartbeat of django-channels-presence: a JSON string, quotes included.
const HEARTBEAT: &str = "\"heartbeat\"";

mod keyword {
    syn::custom_keyword!(moved);
    syn::custom_keyword!(none);
}

/// Which attribute is expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    Touch,
    Remove,
}

impl Attribute {
    /// The same attribute with a mark that it was moved to another place in the list, by a path that is valid everywhere.
    pub(crate) fn moved(self, args: &TokenStream) -> syn::Attribute {
        match self {
            Attribute::Touch => syn::parse_quote!(#[::presence::touch_presence(@moved #args)]),
            Attribute::Remove => syn::parse_quote!(#[::presence::remove_presence(@moved #args)]),
        }
    }

    /// Whether `attribute` has the mark of [`moved`](Self::moved).
    pub(crate) fn is_moved(attribute: &syn::Attribute) -> bool {
        attribute
            .parse_args_with(|input: ParseStream<'_>| {
                let moved = parse_mark(input);
                input.parse::<TokenStream>().map(|_| moved)
            })
            .is_ok_and(|moved| moved)
    }
}

/// The options of one attribute.
pub(crate) struct AttributeArgs {
    /// Whether the attribute was written by [`Attribute::moved`].
    pub(crate) moved: bool,
    /// The name of the argument that is the socket. Without it, the type decides.
    pub(crate) socket: Option<Ident>,
    /// The name of the argument that is the frame, likewise.
    pub(crate) frame: Option<Ident>,
    /// The heartbeats that are not answered. If it is empty, no frame is swallowed.
    pub(crate) heartbeats: Vec<LitStr>,
}

impl AttributeArgs {
    pub(crate) fn parse(attribute: Attribute, tokens: TokenStream) -> Result<AttributeArgs> {
        let expected = match attribute {
            Attribute::Touch => "`heartbeat`, `socket` or `frame`",
            Attribute::Remove => "`socket`",
        };
        (|input: ParseStream<'_>| AttributeArgs::parse_options(expected, input)).parse2(tokens)
    }

    fn parse_options(expected: &str, input: ParseStream<'_>) -> Result<AttributeArgs> {
        let moved = parse_mark(input);
        let (mut socket, mut frame, mut heartbeats) = (None, None, None);
        while !input.is_empty() {
            let option = input
                .call(Ident::parse_any)
                .map_err(|error| Error::new(error.span(), format!("expected an option: {expected}")))?;
            let name = option.to_string();
            let wrong = |message| Err(Error::new(option.span(), message));
            if !expected.contains(&format!("`{name}`")) {
                return wrong(format!("unknown option `{name}`, expected {expected}"));
            }
            if input.parse::<Option<Token![=]>>()?.is_none() {
                return wrong(format!("the option `{name}` needs a value: `{name} = …`"));
            }
            let is_repeated = match name.as_str() {
                "socket" => socket.replace(argument_name(input)?).is_some(),
                "frame" => frame.replace(argument_name(input)?).is_some(),
                _ => heartbeats.replace(texts(input)?).is_some(),
            };
            if is_repeated {
                return wrong(format!("the option `{name}` is given twice: remove one"));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let heartbeats = heartbeats.unwrap_or_else(|| vec![LitStr::new(HEARTBEAT, Span::call_site())]);
        Ok(AttributeArgs { moved, socket, frame, heartbeats })
    }
}

/// Reads the mark of [`Attribute::moved`], if it is there.
fn parse_mark(input: ParseStream<'_>) -> bool {
    let is_marked = input.peek(Token![@]) && input.peek2(keyword::moved);
    is_marked && input.parse::<Token![@]>().is_ok() && input.parse::<keyword::moved>().is_ok()
}

fn argument_name(input: ParseStream<'_>) -> Result<Ident> {
    input.parse().map_err(|error| Error::new(error.span(), "expected the name of an argument of this method"))
}

fn texts(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let expected = "expected a text such as \"\\\"heartbeat\\\"\", a list of texts in brackets, or `none`";
    let explain = |error: Error| Error::new(error.span(), expected);
    if input.parse::<Option<keyword::none>>()?.is_some() {
        return Ok(Vec::new());
    }
    if !input.peek(Bracket) {
        return input.parse().map(|text| vec![text]).map_err(explain);
    }
    let list;
    let bracket = bracketed!(list in input);
    let texts = Punctuated::<LitStr, Token![,]>::parse_terminated(&list).map_err(explain)?;
    if texts.is_empty() {
        return Err(Error::new(bracket.span.join(), "an empty list swallows nothing: write `heartbeat = none`"));
    }
    Ok(texts.into_iter().collect())
}
