//! Checks a task's signature, and explains what is wrong with it.

use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, Pat, PatType, ReturnType, Safety, Type, parse_quote};

use crate::print::{print, words};

/// The most parameters of a task: serde implements its traits for tuples of at most this length.
const MOST_PARAMETERS: usize = 16;

/// A signature that can be a task's.
pub(crate) struct Signature<'f> {
    signature: &'f syn::Signature,
    parameters: Vec<&'f PatType>,
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
        let generics = &signature.generics;
        if !generics.params.is_empty() {
            return refuse(
                generics,
                "a task is not generic: the worker finds it by its name alone; write a task for each type you need",
            );
        }
        if let Some(clause) = &generics.where_clause {
            return refuse(clause, "a task is not generic: leave out the `where`");
        }
        let parameters: Vec<_> = signature
            .inputs
            .iter()
            .map(parameter)
            .collect::<syn::Result<_>>()?;
        if parameters.len() > MOST_PARAMETERS {
            let message = "a task has at most 16 parameters, because they travel as a tuple: put some into a struct";
            return refuse(&signature.inputs, message);
        }
        let returned = match &signature.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, returned) => (**returned).clone(),
        };
        check_returned(&returned)?;
        let fallible = is_result(&returned);
        Ok(Signature {
            signature,
            parameters,
            returned,
            fallible,
        })
    }

    /// The parameters' types.
    pub(crate) fn types(&self) -> impl Iterator<Item = &'f Type> {
        self.parameters.iter().map(|parameter| &*parameter.ty)
    }

    /// The signature as in the source, without what concerns only the function itself: `const`, `mut`,
    /// attributes.
    pub(crate) fn text(&self) -> String {
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .map(|parameter| format!("{}: {}", pattern(&parameter.pat), text_of(&parameter.ty)))
            .collect();
        let returned = match &self.signature.output {
            ReturnType::Default => String::new(),
            ReturnType::Type(_, returned) => format!(" -> {}", text_of(returned)),
        };
        let name = self.signature.ident.unraw();
        format!("fn {name}({}){returned}", parameters.join(", "))
    }

    /// The return type as it stands in the source.
    pub(crate) fn returned_text(&self) -> String {
        text_of(&self.returned)
    }

    /// The types alone: `(i64) -> i64`.
    pub(crate) fn types_text(&self) -> String {
        let types: Vec<_> = self.types().map(text_of).collect();
        format!("({}) -> {}", types.join(", "), text_of(&self.returned))
    }
}

fn text_of(part: &impl ToTokens) -> String {
    print(part.to_token_stream())
}

fn pattern(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(ident) if ident.subpat.is_none() => ident.ident.to_string(),
        other => text_of(other),
    }
}

fn parameter(argument: &FnArg) -> syn::Result<&PatType> {
    let typed = match argument {
        FnArg::Receiver(receiver) => {
            let message = "a task is a free function: it has no self, because there is no object in the other process";
            return Err(Error::new(receiver.span(), message));
        }
        FnArg::Typed(typed) => typed,
    };
    let instead = match plain(&typed.ty) {
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "`String` instead of `&str`",
            Type::Slice(_) => "`Vec<T>` instead of `&[T]`",
            _ => "leave out the `&`",
        },
        _ => match Oddity::of(&typed.ty) {
            Some(Oddity::Reference) => "leave out the `&`",
            Some(Oddity::Lifetime) => "no lifetime but `'static`",
            Some(Oddity::Impl) => {
                let message = "a task is not generic: name the type of this parameter";
                return Err(Error::new(typed.ty.span(), message));
            }
            None => return Ok(typed),
        },
    };
    let message = format!(
        "a task takes owned values, because the input comes from another process: {instead}"
    );
    Err(Error::new(typed.ty.span(), message))
}

fn check_returned(returned: &Type) -> syn::Result<()> {
    let why = match (plain(returned), Oddity::of(returned)) {
        (Type::Never(_), _) => "a task returns: one that is not meant to can return `()`",
        (_, Some(Oddity::Reference | Oddity::Lifetime)) => {
            "a task returns an owned value, which travels to another process: `String` instead of `&str`"
        }
        (_, Some(Oddity::Impl)) => {
            "a task returns a named type: its value travels to another process"
        }
        (_, None) => return Ok(()),
    };
    Err(Error::new(returned.span(), why))
}

/// Finds parts that no task's types may contain, at any depth.
enum Oddity {
    Reference,
    Lifetime,
    Impl,
}

impl Oddity {
    fn of(ty: &Type) -> Option<Self> {
        let words = words(ty.to_token_stream());
        let behind = words.iter().skip(1).map(String::as_str).chain([""]);
        words
            .iter()
            .zip(behind)
            .find_map(|(word, behind)| match word.as_str() {
                "&" => Some(Oddity::Reference),
                "'" if behind != "static" => Some(Oddity::Lifetime),
                "impl" => Some(Oddity::Impl),
                _ => None,
            })
    }
}

/// A type without the parentheses, visible or not, that a macro may have put around it.
fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        other => other,
    }
}

/// Whether a type is written as some `Result`.
fn is_result(ty: &Type) -> bool {
    match plain(ty) {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == "Result"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(function: &str) -> (String, String) {
        let function: syn::ItemFn = syn::parse_str(function).unwrap();
        let signature = Signature::check(&function.sig).unwrap();
        (signature.text(), signature.types_text())
    }

    #[test]
    fn the_text_is_the_signature_as_rustfmt_writes_it() {
        let formatted = [
            "fn f()",
            "fn f() -> ()",
            "fn square(x: i64) -> i64",
            "fn power(base: u64, exponent: u32) -> Result<u64, String>",
            "fn f(a: Vec<(u32, String)>, b: [u8; 4], c: Option<Box<dyn Fn(i32) -> i32>>) -> Result<(), String>",
            "fn f((a, b): (u32, u32), _: (), Point { x, .. }: Point) -> (u32,)",
            "fn f(path: std::path::PathBuf) -> std::io::Result<Vec<u8>>",
        ];
        for wanted in formatted {
            assert_eq!(texts(&format!("{wanted} {{ todo() }}")).0, wanted);
        }
    }

    #[test]
    fn the_text_leaves_out_what_concerns_the_function_alone() {
        let function =
            "pub(crate) const fn r#type(#[allow(unused)] mut x : i64 ,) -> ( i64 ) { x }";
        assert_eq!(texts(function).0, "fn type(x: i64) -> (i64)");
    }

    #[test]
    fn the_types_are_the_same_whatever_the_parameters_are_called() {
        assert_eq!(
            texts("fn f(mut a: i64, (b, c): (u8, u8)) {}").1,
            "(i64, (u8, u8)) -> ()"
        );
        assert_eq!(
            texts("fn f(x: i64, y: (u8, u8,),) -> () {}").1,
            "(i64, (u8, u8)) -> ()"
        );
        assert_eq!(texts("fn f(x: (i64,)) {}").1, "((i64,)) -> ()");
        assert_eq!(texts("fn f(x: i64) {}").1, "(i64) -> ()");
    }
}
