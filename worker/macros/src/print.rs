//! Tokens as text, spaced as rustfmt spaces them.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Prints a type or a pattern on one line.
pub(crate) fn print(tokens: TokenStream) -> String {
    let words = words(tokens);
    let mut text = String::new();
    for (at, word) in words.iter().enumerate() {
        if at > 0 && spaced(&words[at - 1], word) {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// Identifiers, literals, delimiters and operators, without the commas that rustfmt leaves out.
pub(crate) fn words(tokens: TokenStream) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    // Whether the next punctuation belongs to the one before it: `::`, `->`, `..`.
    let mut joint = false;
    for token in tokens {
        let was_joint = std::mem::take(&mut joint);
        match token {
            TokenTree::Punct(punct) => {
                joint = punct.spacing() == Spacing::Joint && ":-=.".contains(punct.as_char());
                match words.last_mut() {
                    Some(last) if was_joint => last.push(punct.as_char()),
                    Some(last) if last == "," && punct.as_char() == '>' => *last = ">".to_owned(),
                    _ => words.push(punct.to_string()),
                }
            }
            TokenTree::Group(group) => {
                let mut inner = self::words(group.stream());
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let last_comma = inner.last().is_some_and(|last| last == ",");
                let behind_name = words.last().is_some_and(|last| is_name(last));
                if last_comma && (behind_name || open != "(" || !is_single(&inner)) {
                    inner.pop();
                }
                words.extend((!open.is_empty()).then(|| open.to_owned()));
                words.append(&mut inner);
                words.extend((!close.is_empty()).then(|| close.to_owned()));
            }
            other => words.push(other.to_string()),
        }
    }
    words
}

/// Whether a tuple has one element, so that its comma says that it is a tuple.
fn is_single(inner: &[String]) -> bool {
    let mut depth = 0;
    let mut commas = 0;
    for word in inner {
        match word.as_str() {
            "<" | "(" | "[" | "{" => depth += 1,
            ">" | ")" | "]" | "}" => depth -= 1,
            "," if depth == 0 => commas += 1,
            _ => {}
        }
    }
    commas == 1
}

fn spaced(before: &str, after: &str) -> bool {
    match (before, after) {
        ("(" | "[" | "<" | "&" | "::" | "'" | "*" | "?" | "!", _) => false,
        (_, "," | ";" | ":" | ")" | "]" | ">") => false,
        // Here they follow a name, so no space stands before them. Elsewhere they begin an expression.
        (_, "(" | "::") => !is_name(before) && before != ">",
        (_, "<" | "!") => !is_word(before),
        _ => true,
    }
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn is_name(word: &str) -> bool {
    is_word(word) && !["as", "const", "dyn", "for", "mut", "ref"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_patterns_come_out_as_rustfmt_writes_them() {
        let formatted = [
            "i64",
            "()",
            "!",
            "(u32,)",
            "(u32, String)",
            "((u8, u8), (u8,), ())",
            "Vec<(u32, String)>",
            "(Vec<(u8, u8)>,)",
            "[u8; 4]",
            "[[f64; 3]; 3]",
            "Option<Box<dyn Fn(i32) -> i32>>",
            "Option<Box<dyn Fn(i32, (u8, u8)) -> (i32, i32) + Send + 'static>>",
            "Box<dyn for<'a> Fn(&'a str) -> &'a str>",
            "Result<(), String>",
            "std::collections::BTreeMap<String, Vec<Option<u8>>>",
            "::std::io::Result<()>",
            "<Vec<u8> as IntoIterator>::Item",
            "Box<dyn Iterator<Item = (u8, u8)>>",
            "Box<dyn ::core::fmt::Debug>",
            "fn(i32, [u8; 2]) -> Option<u8>",
            "Vec<*const u8>",
            "Cow<'static, [u8]>",
            "Matrix<2, 3>",
            "Matrix<{ SIZE }>",
            "(a, b)",
            "[first, .., last]",
            "Point { x, y: (a, b), .. }",
            "mut whole @ (_, _)",
            "alias!(u8, u16)",
            "r#type::Name<'_>",
        ];
        for wanted in formatted {
            let tokens: TokenStream = wanted.parse().unwrap();
            assert_eq!(print(tokens), wanted);
        }
    }

    #[test]
    fn layout_and_trailing_commas_of_the_source_do_not_matter() {
        let rewritten = [
            ("Vec < u8 , >", "Vec<u8>"),
            ("(\n  u8,\n  Vec<u8>,\n)", "(u8, Vec<u8>)"),
            ("(HashMap<u8, u8>,)", "(HashMap<u8, u8>,)"),
            ("Box<dyn Fn(u8,)->u8>", "Box<dyn Fn(u8) -> u8>"),
            ("fn(u8,)", "fn(u8)"),
            ("Vec<Vec<u8>,>", "Vec<Vec<u8>>"),
        ];
        for (written, wanted) in rewritten {
            let tokens: TokenStream = written.parse().unwrap();
            assert_eq!(print(tokens), wanted);
        }
    }
}
