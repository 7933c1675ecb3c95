//! The `#[task]` attribute. Use it as `worker::task`; the `worker` crate documents it.

mod options;
mod signature;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::{ItemFn, parse_macro_input};

use options::Options;
use signature::Signature;

/// Turns a function into a task: a unit struct of the same name that implements `worker::Task` and
/// can still be called as the function.
///
/// `#[task(name = "images.resize")]` gives it another name for calls and listings.
/// See `worker::Task` for what a function must be like.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as Options);
    let function = parse_macro_input!(item as ItemFn);
    expand(&options, function)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

fn expand(options: &Options, mut function: ItemFn) -> syn::Result<Tokens> {
    let declared = function.sig.clone();
    let signature = Signature::check(&declared)?;
    let ident = &declared.ident;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| ident.to_string().trim_start_matches("r#").to_owned());
    let text = signature.text();
    let types_text = signature.types_text();
    let doc = doc_of(&function);
    let (outer, inner) = split_attributes(&mut function);
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);

    let types = &signature.types;
    let parameters: Vec<_> = (0..types.len())
        .map(|i| format_ident!("input_{i}"))
        .collect();
    let (input, pattern) = match (types.as_slice(), parameters.as_slice()) {
        ([one], [parameter]) => (quote!(#one), quote!(#parameter)),
        _ => (quote!((#(#types,)*)), quote!((#(#parameters,)*))),
    };
    let returned = &signature.returned;
    let (output, run) = if signature.fallible {
        (
            quote!(<#returned as ::worker::private::Fallible>::Value),
            quote!(::worker::private::Fallible::into_result(#ident(#(#parameters),*))),
        )
    } else {
        (
            quote!(#returned),
            quote!(::core::result::Result::Ok(#ident(#(#parameters),*))),
        )
    };
    let register = options.register.then(|| {
        quote! {
            ::worker::private::inventory::submit! {
                ::worker::private::Entry::new::<#ident>(
                    ::core::concat!(::core::file!(), ":", ::core::line!())
                )
            }
        }
    });

    Ok(quote! {
        #(#outer)*
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        #visibility struct #ident;

        const _: () = {
            // In here the name is the function as a value, and the task as a type.
            #(#inner)*
            #function

            impl ::worker::Task for #ident {
                type Input = #input;
                type Output = #output;
                const NAME: &'static str = #name;
                const SIGNATURE: &'static str = #text;
                const TYPES: &'static str = #types_text;
                const DOC: &'static str = #doc;
                #[allow(clippy::let_unit_value, clippy::unit_arg)]
                fn run(#pattern: Self::Input)
                    -> ::core::result::Result<Self::Output, ::std::string::String>
                {
                    #run
                }
            }

            impl ::core::ops::Deref for #ident {
                type Target = fn(#(#types),*) -> #returned;
                fn deref(&self) -> &Self::Target {
                    const FUNCTION: fn(#(#types),*) -> #returned = #ident;
                    &FUNCTION
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
