//! Values whose large piece was received apart: they are what they would be in one piece, whatever the piece
//! is, and where it is a field's, that has it without a copy.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::parcel::Apart;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Something of everything that serde knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Value {
    Unit,
    Unlike(Unit),
    Bytes(ByteBuf),
    Text(String),
    Wrapped(Wrapped),
    Numbers(bool, char, i8, i16, i32, i64, i128),
    More {
        u: u128,
        f: f32,
        g: f64,
        h: (u8, u16, u32, u64),
    },
    Perhaps(Option<Box<Value>>),
    List(Vec<Value>),
    Named(BTreeMap<String, Value>),
    Both {
        before: Box<Value>,
        behind: Box<Value>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(ByteBuf, String);

fn value() -> impl Strategy<Value = Value> {
    let bytes = || vec(any::<u8>(), 0..300).prop_map(ByteBuf::from);
    let leaf = prop_oneof![
        Just(Value::Unit),
        Just(Value::Unlike(Unit)),
        bytes().prop_map(Value::Bytes),
        any::<String>().prop_map(Value::Text),
        (bytes(), any::<String>()).prop_map(|(bytes, text)| Value::Wrapped(Wrapped(bytes, text))),
        any::<(bool, char, i8, i16, i32, i64, i128)>()
            .prop_map(|(a, b, c, d, e, f, g)| Value::Numbers(a, b, c, d, e, f, g)),
        // No NaN, which is not what it is.
        (
            any::<u128>(),
            0_f32..1e9,
            0_f64..1e9,
            any::<(u8, u16, u32, u64)>()
        )
            .prop_map(|(u, f, g, h)| Value::More { u, f, g, h }),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            proptest::option::of(boxed()).prop_map(Value::Perhaps),
            vec(inner.clone(), 0..4).prop_map(Value::List),
            btree_map(any::<String>(), inner.clone(), 0..4).prop_map(Value::Named),
            (boxed(), boxed()).prop_map(|(before, behind)| Value::Both { before, behind }),
        ]
    })
}

/// With bytes from one place to another apart.
fn apart(bytes: &[u8], from: usize, to: usize) -> Apart {
    let around = [&bytes[..from], &bytes[to..]].concat();
    Apart::new(around, from, bytes[from..to].to_vec()).unwrap()
}

/// All buffers and texts in a value.
fn pieces(value: &Value) -> Vec<&[u8]> {
    match value {
        Value::Bytes(bytes) => vec![bytes],
        Value::Text(text) => vec![text.as_bytes()],
        Value::Wrapped(Wrapped(bytes, text)) => vec![bytes, text.as_bytes()],
        Value::Perhaps(Some(value)) => pieces(value),
        Value::List(values) => values.iter().flat_map(pieces).collect(),
        Value::Named(values) => (values.iter())
            .flat_map(|(name, value)| [vec![name.as_bytes()], pieces(value)].concat())
            .collect(),
        Value::Both { before, behind } => [pieces(before), pieces(behind)].concat(),
        _ => Vec::new(),
    }
}

proptest! {
    /// A piece may be anything: what is decoded is what would have been otherwise, also if it is nothing.
    #[test]
    fn it_makes_no_difference_to_be_apart(
        value in value(),
        cuts in any::<[Index; 2]>(),
        change in proptest::option::of((any::<Index>(), any::<u8>())),
    ) {
        let mut bytes = postcard::to_stdvec(&value).unwrap();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let [a, b] = cuts.map(|cut| cut.index(bytes.len() + 1));
        let apart = apart(&bytes, a.min(b), a.max(b));
        prop_assert_eq!(&apart.join(), &bytes);
        prop_assert_eq!(apart.decode::<Value>(), protocol::decode::<Value>(&bytes));
    }

    /// Whichever field's it is, it stays where it is.
    #[test]
    fn a_field_takes_its_piece(value in value(), which: Index) {
        let bytes = postcard::to_stdvec(&value).unwrap();
        let all = pieces(&value);
        prop_assume!(!all.is_empty());
        let wanted = which.index(all.len());
        let piece = all[wanted];
        // Several may be alike, and one part of another: it is where its predecessors end.
        let before = all[..wanted].iter().fold(0, |at, piece| find(&bytes, at, piece) + piece.len());
        let from = find(&bytes, before, piece);
        let whole = piece.len() > 8;
        let piece = bytes[from..from + piece.len()].to_vec();
        let memory = piece.as_ptr();
        let around = [&bytes[..from], &bytes[from + piece.len()..]].concat();
        let read: Value = Apart::new(around, from, piece).unwrap().decode().unwrap();
        prop_assert_eq!(&read, &value);
        if whole {
            prop_assert!(pieces(&read).iter().any(|piece| piece.as_ptr() == memory));
        }
    }
}

/// Where a piece stands with its length in front, from there on.
fn find(bytes: &[u8], from: usize, piece: &[u8]) -> usize {
    let mut encoded = postcard::to_stdvec(&piece.len()).unwrap();
    let len = encoded.len();
    encoded.extend(piece);
    let at = bytes[from..]
        .windows(encoded.len())
        .position(|window| window == encoded);
    from + at.unwrap() + len
}

#[test]
fn what_is_missing_or_too_much_is_said_in_the_same_words() {
    let value = (7_u8, "a text".to_owned(), 9_u8);
    let bytes = postcard::to_stdvec(&value).unwrap();
    type Read = (u8, String, u8);
    for bytes in [&bytes[..bytes.len() - 1], &[&bytes[..], &[1, 2]].concat()] {
        let error = protocol::decode::<Read>(bytes).unwrap_err();
        let apart = apart(bytes, 2, 8);
        assert_eq!(apart.decode::<Read>(), Err(error));
    }
    // No text: the piece is gone by the time that shows.
    let apart = Apart::new(vec![7, 2, 9], 2, vec![0xff, 0xfe]).unwrap();
    let error = protocol::decode::<Read>(&apart.join()).unwrap_err();
    assert_eq!(apart.decode::<Read>(), Err(error));
}

#[test]
fn a_piece_that_belongs_nowhere_is_refused() {
    assert!(Apart::new(vec![1, 2], 3, Vec::new()).is_none());
    assert!(Apart::new(vec![1, 2], 2, Vec::new()).is_some());
}

/// A text that its reader borrows while he makes a number of it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Borrowing {
    #[serde(with = "length")]
    text: usize,
    #[serde(with = "length")]
    other: usize,
}

mod length {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(len: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&"x".repeat(*len))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        // Whatever it is that went wrong.
        let text = <&str>::deserialize(from).map_err(D::Error::custom)?;
        Ok(text.len())
    }
}

#[test]
fn who_wants_to_borrow_a_piece_may() {
    let value = Borrowing {
        text: 300,
        other: 5,
    };
    let bytes = postcard::to_stdvec(&value).unwrap();
    for (from, to) in [(2, 302), (303, 308), (10, 20)] {
        let read = apart(&bytes, from, to).decode::<Borrowing>();
        assert_eq!(read.as_ref(), Ok(&value), "{from}..{to}");
    }
    // What is refused and wrong stays wrong.
    let wrong = apart(&bytes[..307], 2, 302).decode::<Borrowing>();
    assert_eq!(wrong, protocol::decode(&bytes[..307]));
}

/// A number that is read with complaints of a text that stands nowhere.
#[derive(Debug, PartialEq, Serialize)]
struct Complaining(u8);

impl<'de> Deserialize<'de> for Complaining {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::{Error, Unexpected};
        let number = u8::deserialize(from)?;
        // As long as the piece.
        Err(D::Error::invalid_type(
            Unexpected::Str("another text"),
            &"none",
        ))
        .or(match number {
            0 => Ok(Complaining(0)),
            _ => Err(D::Error::invalid_type(
                Unexpected::Str("another text"),
                &"none",
            )),
        })
    }
}

#[test]
fn a_complaint_of_something_else_does_not_take_its_place() {
    for number in [0, 1] {
        let bytes = postcard::to_stdvec(&("a first text", number)).unwrap();
        let read = apart(&bytes, 1, 13).decode::<(String, Complaining)>();
        assert_eq!(read, protocol::decode::<(String, Complaining)>(&bytes));
        assert_eq!(read.is_ok(), number == 0);
    }
}
