//! The options in the parentheses of `#[task(…)]`.

use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitBool, LitStr, Path, Token};

/// The options, with their defaults.
pub(crate) struct Options {
    /// A name other than the function's.
    pub(crate) name: Option<String>,
    /// The path of the attribute's crate, if not its own name.
    pub(crate) krate: Option<Path>,
    /// Whether the task adds itself to the registry of every program that links it.
    pub(crate) register: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Options {
            name: None,
            krate: None,
            register: true,
        };
        let mut given = Vec::new();
        while !input.is_empty() {
            let unknown = |at| {
                Error::new(
                    at,
                    "unknown option; #[task] takes `name = \"…\"` and `crate = \"…\"`",
                )
            };
            let key = input
                .call(Ident::parse_any)
                .map_err(|error| unknown(error.span()))?;
            if given.contains(&key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            if key == "name" {
                let name: LitStr = input.parse()?;
                let text = name.value();
                if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                    let message = "a task's name has at least one character, and no white space";
                    return Err(Error::new(name.span(), message));
                }
                options.name = Some(text);
            } else if key == "crate" {
                options.krate = Some(input.parse::<LitStr>()?.parse()?);
            } else if key == "register" {
                options.register = input.parse::<LitBool>()?.value;
            } else {
                return Err(unknown(key.span()));
            }
            given.push(key);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}
