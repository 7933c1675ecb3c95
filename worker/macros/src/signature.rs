//! What a task's signature may be, and what is wrong with it if it is something else.

use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, PathArguments, ReturnType, Safety, Type, parse_quote};

/// A signature that can be a task's.
pub(crate) struct Signature<'f> {
    signature: &'f syn::Signature,
    /// The parameters' types.
    pub(crate) types: Vec<&'f Type>,
    /// The return type; `()` if there is none.
    pub(crate) returned: Type,
    /// Whether the return type is some `Result`.
    pub(crate) fallible: bool,
}

impl<'f> Signature<'f> {
    /// Checks a function's signature.
    pub(crate) fn check(signature: &'f syn::Signature) -> syn::Result<Self> {
        let refuse = |at: &dyn ToTokens, why: &str| Err(Error::new(at.span(), why));
        if let Some(token) = &signature.asyncness {
            return refuse(
                token,
                "a task is no async function: a worker runs one call at a time, so block in it",
            );
        }
        if let Safety::Unsafe(token) = &signature.safety {
            return refuse(
                token,
                "a task is a safe function: put the unsafe part into a block",
            );
        }
        if let Some(token) = &signature.abi {
            return refuse(token, "a task is an ordinary Rust function, without an ABI");
        }
        if let Some(token) = &signature.variadic {
            return refuse(token, "a task has a fixed number of parameters");
        }
        if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
            return refuse(
                &signature.generics,
                "a task is not generic: the worker finds it by its name alone; write a task for each type you need",
            );
        }
        let types = signature
            .inputs
            .iter()
            .map(parameter)
            .collect::<syn::Result<_>>()?;
        let returned = match &signature.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, returned) => (**returned).clone(),
        };
        match &returned {
            Type::ImplTrait(_) => {
                return refuse(
                    &returned,
                    "a task returns a named type: its value travels to another process",
                );
            }
            Type::Reference(_) => {
                return refuse(
                    &returned,
                    "a task returns an owned value, which travels to another process: `String` instead of `&str`",
                );
            }
            _ => {}
        }
        let fallible = is_result(&returned);
        Ok(Signature {
            signature,
            types,
            returned,
            fallible,
        })
    }

    /// As it stands in the source, without the qualifiers that say nothing about its use.
    pub(crate) fn text(&self) -> String {
        tidy(&self.signature.to_token_stream().to_string())
    }

    /// The types alone: `(i64) -> i64`.
    pub(crate) fn types_text(&self) -> String {
        let types: Vec<_> = self
            .types
            .iter()
            .map(|ty| ty.to_token_stream().to_string())
            .collect();
        let returned = self.returned.to_token_stream().to_string();
        tidy(&format!("({}) -> {returned}", types.join(", ")))
    }
}

fn parameter(argument: &FnArg) -> syn::Result<&Type> {
    let typed = match argument {
        FnArg::Receiver(receiver) => {
            let message = "a task is a free function: it has no self, because there is no object in the other process";
            return Err(Error::new(receiver.span(), message));
        }
        FnArg::Typed(typed) => typed,
    };
    let why = match &*typed.ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => {
                "a task takes owned values, because the input comes from another process: `String` instead of `&str`"
            }
            Type::Slice(_) => {
                "a task takes owned values, because the input comes from another process: `Vec<T>` instead of `&[T]`"
            }
            _ => {
                "a task takes owned values, because the input comes from another process: leave out the `&`"
            }
        },
        Type::ImplTrait(_) => "a task is not generic: name the type of this parameter",
        _ => return Ok(&typed.ty),
    };
    Err(Error::new(typed.ty.span(), why))
}

/// Whether a type is written as some `Result` that holds a value.
fn is_result(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        let holds_type = match &last.arguments {
            PathArguments::AngleBracketed(arguments) => arguments
                .args
                .iter()
                .any(|argument| matches!(argument, GenericArgument::Type(_))),
            _ => false,
        };
        last.ident == "Result" && holds_type
    })
}

/// Tokens print with spaces between them; a signature reads better without most of these.
fn tidy(tokens: &str) -> String {
    let mut text = tokens.split_whitespace().collect::<Vec<_>>().join(" ");
    for (spaced, tight) in [
        (" ,", ","),
        (" :", ":"),
        (": :", "::"),
        (":: ", "::"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ;", ";"),
        ("& ", "&"),
        (",)", ")"),
    ] {
        text = text.replace(spaced, tight);
    }
    // An arrow and a tuple behind a comma keep their space.
    text = text.replace("->", " -> ").replace(" >", ">");
    for (tight, spaced) in [(" ->(", " -> ("), (" ->", " ->"), (",(", ", (")] {
        text = text.replace(tight, spaced);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
