//! The `#[task]` attribute. Use it as `worker::task`; the `worker` crate documents it.

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
/// `#[task(name = "images.resize")]` gives it another name for calls and listings.
/// See `worker::Task` for what a function must be like.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(item.clone())
        .and_then(function)
        .and_then(|function| expand(&syn::parse(options)?, function));
    match expanded {
        Ok(expanded) => expanded.into(),
        // With the item left as it was, its other uses give no errors of their own.
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

fn expand(options: &Options, mut function: ItemFn) -> syn::Result<Tokens> {
    let declared = function.sig.clone();
    let signature = Signature::check(&declared)?;
    let ident = &declared.ident;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| ident.unraw().to_string());
    let text = signature.text();
    let types_text = signature.types_text();
    let doc = doc_of(&function);
    let (outer, inner) = split_attributes(&mut function);
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);

    let types: Vec<_> = signature.types().collect();
    // No other name: a task's own name can't be that of a variable where it is in scope, so any name
    // that a task may have would not do.
    let given = Ident::new("__input", Span::call_site());
    let (input, arguments) = match types.as_slice() {
        [one] => (quote!(#one), quote!(#given)),
        several => {
            let fields = (0..several.len()).map(syn::Index::from);
            let mut tuple = Group::new(Delimiter::Parenthesis, quote!(#(#several,)*));
            // What is wrong with the input is shown at the parameters.
            tuple.set_span(declared.paren_token.span.join());
            (quote!(#tuple), quote!(#(#given.#fields),*))
        }
    };
    let returned = &signature.returned;
    // With one place for all that mentions it, what is wrong with a return type is said once.
    let at = Span::call_site().located_at(returned.span());
    let (output, run) = if signature.fallible {
        let fallible = quote_spanned!(at=> <#returned as ::worker::private::Fallible>);
        (
            quote_spanned!(at=> #fallible::Value),
            quote_spanned! {at=>
                #[allow(unused_imports)]
                use ::worker::private::{BoxedText as _, DisplayText as _, ErrorText as _, NoText as _};
                #[allow(clippy::needless_borrow)]
                #fallible::into_result(__output)
                    .map_err(|error| (&&&::worker::private::Told(&error)).as_text())
            },
        )
    } else {
        (
            quote!(#returned),
            quote!(::core::result::Result::Ok(__output)),
        )
    };
    let run = quote_spanned! {at=>
        #[allow(clippy::let_unit_value, clippy::unit_arg)]
        fn run(#given: Self::Input) -> ::core::result::Result<Self::Output, ::std::string::String> {
            let __output = #ident(#arguments);
            #run
        }
    };
    // The name is all that the attribute sees of a type. Where it hides a `Result`, failures would be values.
    let no_alias = (!signature.fallible).then(|| {
        let why = format!(
            "`{0}` is a `Result` under another name, so `#[task]` takes its errors for values: write `Result<…>`, or \
             rename it to `Result`; if they are meant to be values, wrap it in a type of your own",
            signature.returned_text()
        );
        quote_spanned! {at=>
            #[allow(deprecated)]
            const _: () = {
                #[allow(unused_imports)]
                use ::worker::private::NoResult as _;
                ::core::assert!(!::worker::private::Returned::<#returned>::IS_RESULT, #why);
            };
        }
    });
    let register = options.register.then(|| {
        quote! {
            #[allow(deprecated)]
            const _: () = {
                ::worker::private::inventory::submit! {
                    ::worker::private::Entry::new::<#ident>(
                        ::core::concat!(::core::file!(), ":", ::core::line!())
                    )
                }
            };
        }
    });

    Ok(quote! {
        // In an `impl` the compiler says that it can't have a struct, and names this macro, which explains it.
        ::worker::private::a_task_is_a_free_function_so_move_it_out_of_the_impl! {
            #(#outer)*
            #[allow(non_camel_case_types)]
            #[derive(Clone, Copy)]
            #visibility #ident
        }

        const _: () = {
            #no_alias
            // In here the name is the function as a value, and the task as a type.
            #(#inner)*
            #function

            #[allow(deprecated)]
            #[diagnostic::do_not_recommend] // as an example, where something is not a task
            impl ::worker::Task for #ident {
                type Input = #input;
                type Output = #output;
                const NAME: &'static str = #name;
                const SIGNATURE: &'static str = #text;
                const TYPES: &'static str = #types_text;
                const DOC: &'static str = #doc;
                #run
            }

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

/// The doc comment as text, one line per `///`.
fn doc_of(function: &ItemFn) -> String {
    let lines = function
        .attrs
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

/// What is said of the task as a whole goes to the struct, all else stays with the function.
fn split_attributes(function: &mut ItemFn) -> (Vec<syn::Attribute>, Vec<syn::Attribute>) {
    let attributes = std::mem::take(&mut function.attrs);
    attributes.into_iter().partition(|attribute| {
        ["doc", "cfg", "deprecated", "must_use"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    })
}
