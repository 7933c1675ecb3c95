//! The `#[task]` attribute. Use it as `worker::task`; the `worker` crate documents it.
//!
//! `signature` refuses functions that can't be tasks, `options` reads the parentheses of the attribute, and `print` writes types
//! as text. The rules in prose stand at `worker::Task`, and `worker/tests/ui` has a test for each.

mod options;
mod print;
mod signature;

use proc_macro::TokenStream;
use proc_macro2::{Delimiter, Group, Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Ident, Item, ItemFn};

use options::Options;
use signature::Signature;

/// Turns a function into a task: a unit struct of the same name that implements `worker::Task` and
/// can still be called as the function.
///
/// `#[task(name = "images.resize")]` gives it another name for calls and listings;
/// `#[task(crate = "pool")]` is for those who depend on the crate under another name.
/// See `worker::Task` for what a function must be like.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    attribute(quote!(::worker), options, item)
}

/// The attribute for crates that depend on `coordinator` alone, which exports it as `coordinator::task`.
#[proc_macro_attribute]
pub fn coordinator_task(options: TokenStream, item: TokenStream) -> TokenStream {
    attribute(quote!(::coordinator), options, item)
}

fn attribute(krate: Tokens, options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(item.clone())
        .and_then(function)
        .and_then(|function| expand(krate, &syn::parse(options)?, function));
    match expanded {
        Ok(expanded) => expanded.into(),
        // The item stays in the output, so that its other uses cause no further errors.
        Err(error) => TokenStream::from_iter([error.into_compile_error().into(), item]),
    }
}

fn function(item: Item) -> syn::Result<ItemFn> {
    match item {
        Item::Fn(function) => Ok(function),
        other => Err(syn::Error::new(
            other.span(),
            "#[task] goes on a function with a body",
        )),
    }
}

/// Writes the task that a function becomes.
fn expand(krate: Tokens, options: &Options, mut function: ItemFn) -> syn::Result<Tokens> {
    let declared = function.sig.clone();
    let signature = Signature::check(&declared)?;
    let krate = match &options.krate {
        Some(path) => quote!(#path),
        None => krate,
    };
    let ident = &declared.ident;
    let (outer, inner) = split_attributes(&mut function);
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let no_alias = (!signature.fallible).then(|| refuse_alias(&krate, &signature));
    let implementation = implementation(&krate, options, &declared, &signature, &outer);
    let types: Vec<_> = signature.types().collect();
    let returned = &signature.returned;
    let register = options.register.then(|| register(&krate, ident));
    Ok(quote! {
        // In an `impl` the compiler complains of a struct there, and names this macro, whose name explains the problem.
        #krate::private::a_task_is_a_free_function_so_move_it_out_of_the_impl! {
            #(#outer)*
            #[allow(non_camel_case_types)]
            #[derive(Clone, Copy)]
            #visibility #ident
        }

        const _: () = {
            #no_alias
            // Inside this block the name is the function as a value, and the task as a type.
            #(#inner)*
            #function

            #implementation

            #[allow(deprecated)]
            impl ::core::ops::Deref for #ident {
                type Target = fn(#(#types),*) -> #returned;
                fn deref(&self) -> &Self::Target {
                    &(#ident as fn(#(#types),*) -> #returned)
                }
            }

            #register
        };
    })
}

/// The `impl Task`.
fn implementation(
    krate: &Tokens,
    options: &Options,
    declared: &syn::Signature,
    signature: &Signature<'_>,
    outer: &[syn::Attribute],
) -> Tokens {
    let ident = &declared.ident;
    let own_name = || ident.unraw().to_string();
    let name = options.name.clone().unwrap_or_else(own_name);
    let (text, types_text, doc) = (signature.text(), signature.types_text(), doc_of(outer));
    let types: Vec<_> = signature.types().collect();
    // A variable can't have the name of a task that is in scope, so these variables have names that no task has.
    let given = Ident::new("__input", Span::call_site());
    let (input, arguments) = match types.as_slice() {
        [one] => (quote!(#one), quote!(#given)),
        several => {
            let fields = (0..several.len()).map(syn::Index::from);
            let mut tuple = Group::new(Delimiter::Parenthesis, quote!(#(#several,)*));
            // This span makes the compiler show errors about the input at the parameters.
            tuple.set_span(declared.paren_token.span.join());
            (quote!(#tuple), quote!(#(#given.#fields),*))
        }
    };
    let Returned { at, output, result } = Returned::of(krate, signature);
    let run = quote_spanned! {at=>
        #[allow(clippy::let_unit_value, clippy::unit_arg)]
        fn run(#given: Self::Input) -> ::core::result::Result<Self::Output, ::std::string::String> {
            let __output = #ident(#arguments);
            #result
        }
    };
    quote! {
        #[allow(deprecated)]
        #[diagnostic::do_not_recommend] // as an example, where something is not a task
        impl #krate::Task for #ident {
            type Input = #input;
            type Output = #output;
            const NAME: &'static str = #name;
            const CRATE: &'static str = #krate::private::crate_of(::core::module_path!());
            const SIGNATURE: &'static str = #text;
            const TYPES: &'static str = #types_text;
            const DOC: &'static str = #doc;
            #run
        }
    }
}

/// How the function's return value becomes the task's output.
struct Returned {
    /// The span of the return type. All generated code about the type has this span, so the compiler reports an error once.
    at: Span,
    /// The type of the task's output.
    output: Tokens,
    /// `__output`, which the function returned, as a `Result`.
    result: Tokens,
}

impl Returned {
    fn of(krate: &Tokens, signature: &Signature<'_>) -> Self {
        let returned = &signature.returned;
        let at = Span::call_site().located_at(returned.span());
        if !signature.fallible {
            return Returned {
                at,
                output: quote!(#returned),
                result: quote!(::core::result::Result::Ok(__output)),
            };
        }
        let fallible = quote_spanned!(at=> <#returned as #krate::private::Fallible>);
        Returned {
            at,
            output: quote_spanned!(at=> #fallible::Value),
            result: quote_spanned! {at=>
                #[allow(unused_imports)]
                use #krate::private::{BoxedText as _, DisplayText as _, ErrorText as _, NoText as _};
                #[allow(clippy::needless_borrow)]
                #fallible::into_result(__output)
                    .map_err(|error| (&&&#krate::private::Told(&error)).as_text())
            },
        }
    }
}

/// Refuses a `Result` under another name. The attribute sees only a type's name, so it would take such errors for
/// values.
fn refuse_alias(krate: &Tokens, signature: &Signature<'_>) -> Tokens {
    let returned = &signature.returned;
    let at = Span::call_site().located_at(returned.span());
    let why = format!(
        "`{0}` is a `Result` under another name, so `#[task]` takes its errors for values: write `Result<…>`, or \
         rename it to `Result`; if they are meant to be values, wrap it in a type of your own",
        signature.returned_text()
    );
    quote_spanned! {at=>
        #[allow(deprecated)]
        const _: () = {
            #[allow(unused_imports)]
            use #krate::private::NoResult as _;
            ::core::assert!(!#krate::private::Returned::<#returned>::IS_RESULT, #why);
        };
    }
}

/// Adds the task to the registry of every program that links it.
fn register(krate: &Tokens, ident: &Ident) -> Tokens {
    quote! {
        #[allow(deprecated)]
        const _: () = {
            use #krate::private::linkme;
            #[linkme::distributed_slice(#krate::private::TASKS)]
            #[linkme(crate = linkme)]
            static ENTRY: #krate::private::Entry = #krate::private::Entry::new::<#ident>(
                ::core::concat!(::core::file!(), ":", ::core::line!())
            );
        };
    }
}

/// The doc comment as text, one line per `///`.
fn doc_of(attributes: &[syn::Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
    let lines: Vec<_> = lines.map(|line| line.trim().to_owned()).collect();
    lines.join("\n").trim().to_owned()
}

/// Splits the attributes: those about the task as a whole go to the struct, and the others stay with the function.
fn split_attributes(function: &mut ItemFn) -> (Vec<syn::Attribute>, Vec<syn::Attribute>) {
    let attributes = std::mem::take(&mut function.attrs);
    attributes.into_iter().partition(|attribute| {
        ["doc", "cfg", "deprecated", "must_use"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    })
}
