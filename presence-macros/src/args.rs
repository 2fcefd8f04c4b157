//! What stands in the parentheses of an attribute.
//!
//! Each mistake is one error at the token that is wrong, and the error names what would be right.

use proc_macro2::{Ident, Span, TokenStream};
use syn::{
    Error, LitStr, Meta, Result, Token, bracketed,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    parse_quote,
    punctuated::Punctuated,
    token::Bracket,
};

/// The text of the ancestor: a JSON string, quotes included.
const HEARTBEAT: &str = "\"heartbeat\"";

mod keyword {
    syn::custom_keyword!(moved);
    syn::custom_keyword!(none);
}

/// Which of the two attributes is being expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    Touch,
    Remove,
}

impl Attribute {
    /// Writes this attribute with a mark that says it has moved to its place, by a path that is right wherever it
    /// stands.
    pub(crate) fn moved(self, args: &TokenStream) -> syn::Attribute {
        match self {
            Attribute::Touch => parse_quote!(#[::presence::touch_presence(@moved #args)]),
            Attribute::Remove => parse_quote!(#[::presence::remove_presence(@moved #args)]),
        }
    }

    /// Whether `attribute` comes from [`Attribute::moved`]: nobody else writes that mark.
    pub(crate) fn is_moved(attribute: &syn::Attribute) -> bool {
        let mark = |input: ParseStream<'_>| Ok(take_mark(input) && input.parse::<TokenStream>().is_ok());
        matches!(&attribute.meta, Meta::List(list) if mark.parse2(list.tokens.clone()).is_ok_and(|moved| moved))
    }

    /// Its options, as an error names them.
    fn options(self) -> &'static str {
        match self {
            Attribute::Touch => "`heartbeat`, `socket` or `frame`",
            Attribute::Remove => "`socket`",
        }
    }
}

/// The options of one attribute, checked.
pub(crate) struct Args {
    /// The attribute was written by [`Attribute::moved`].
    pub(crate) moved: bool,
    /// The name of the argument that is the socket, if it is not to be found by its type.
    pub(crate) socket: Option<Ident>,
    /// The name of the argument that is the frame, likewise.
    pub(crate) frame: Option<Ident>,
    /// The texts to swallow without an answer; with none of them the frame is not looked at.
    pub(crate) heartbeats: Vec<LitStr>,
}

impl Args {
    pub(crate) fn parse(attribute: Attribute, tokens: TokenStream) -> Result<Args> {
        (|input: ParseStream<'_>| Args::parse_in(attribute, input)).parse2(tokens)
    }

    fn parse_in(attribute: Attribute, input: ParseStream<'_>) -> Result<Args> {
        let moved = take_mark(input);
        let (mut socket, mut frame, mut heartbeats) = (None, None, None);
        while !input.is_empty() {
            let expected = attribute.options();
            let option = input
                .call(Ident::parse_any)
                .map_err(|error| Error::new(error.span(), format!("expected an option: {expected}")))?;
            let name = option.to_string();
            if !expected.contains(&format!("`{name}`")) {
                return Err(Error::new(option.span(), format!("unknown option `{name}`, expected {expected}")));
            }
            let given = match name.as_str() {
                "socket" => socket.is_some(),
                "frame" => frame.is_some(),
                _ => heartbeats.is_some(),
            };
            if given {
                return Err(Error::new(option.span(), format!("the option `{name}` is given twice: remove one")));
            }
            if !input.peek(Token![=]) {
                return Err(Error::new(option.span(), format!("the option `{name}` needs a value: `{name} = …`")));
            }
            input.parse::<Token![=]>()?;
            match name.as_str() {
                "socket" => socket = Some(argument_name(input)?),
                "frame" => frame = Some(argument_name(input)?),
                _ => heartbeats = Some(heartbeat(input)?),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let heartbeats = heartbeats.unwrap_or_else(|| vec![LitStr::new(HEARTBEAT, Span::call_site())]);
        Ok(Args { moved, socket, frame, heartbeats })
    }
}

/// Reads past the mark of [`Attribute::moved`], if it is there.
fn take_mark(input: ParseStream<'_>) -> bool {
    let marked = input.peek(Token![@]) && input.peek2(keyword::moved);
    marked && input.parse::<Token![@]>().is_ok() && input.parse::<keyword::moved>().is_ok()
}

fn argument_name(input: ParseStream<'_>) -> Result<Ident> {
    input.parse().map_err(|error| Error::new(error.span(), "expected the name of an argument of this method"))
}

fn heartbeat(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let expected = "expected a text such as \"\\\"heartbeat\\\"\", a list of texts in brackets, or `none`";
    if input.peek(keyword::none) {
        input.parse::<keyword::none>()?;
        return Ok(Vec::new());
    }
    if !input.peek(Bracket) {
        return input.parse().map(|text| vec![text]).map_err(|error| Error::new(error.span(), expected));
    }
    let list;
    let bracket = bracketed!(list in input);
    let texts =
        Punctuated::<LitStr, Token![,]>::parse_terminated(&list).map_err(|error| Error::new(error.span(), expected))?;
    if texts.is_empty() {
        return Err(Error::new(bracket.span.join(), "an empty list swallows nothing: write `heartbeat = none`"));
    }
    Ok(texts.into_iter().collect())
}
