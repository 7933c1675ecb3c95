//! Values are written and read as postcard does it, and what is in the way is said.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use proptest::prelude::*;
use serde::{Deserialize, Serialize, Serializer, ser};
use serde_bytes::ByteBuf;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    Newtype(Box<Kind>),
    Tuple(i8, char),
    Struct {
        name: String,
        map: BTreeMap<u16, bool>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(u128);
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(i128, i16);
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct All {
    numbers: (u8, u32, u64, i32, i64),
    parts: Vec<(f32, f64)>,
    kinds: Vec<Kind>,
    maybe: Option<Option<Newtype>>,
    pair: Pair,
    unit: Unit,
    nothing: (),
    bytes: ByteBuf,
    address: std::net::IpAddr,
    three: [String; 3],
}

fn kind() -> impl Strategy<Value = Kind> {
    let map = prop::collection::btree_map(any::<u16>(), any::<bool>(), 0..4);
    let leaf = prop_oneof![
        Just(Kind::Unit),
        any::<(i8, char)>().prop_map(|(number, mark)| Kind::Tuple(number, mark)),
        (".*", map).prop_map(|(name, map)| Kind::Struct { name, map }),
    ];
    leaf.prop_recursive(3, 8, 1, |inner| {
        inner.prop_map(|kind| Kind::Newtype(Box::new(kind)))
    })
}

prop_compose! {
    fn all()(
        numbers in any::<(u8, u32, u64, i32, i64)>(),
        parts in prop::collection::vec((-1e30_f32..1e30, -1e300..1e300), 0..4),
        kinds in prop::collection::vec(kind(), 0..4),
        maybe in any::<Option<Option<u128>>>(),
        pair in any::<(i128, i16)>(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        address in any::<std::net::IpAddr>(),
        three in prop::array::uniform3(".*"),
    ) -> All {
        All {
            numbers,
            parts,
            kinds,
            maybe: maybe.map(|maybe| maybe.map(Newtype)),
            pair: Pair(pair.0, pair.1),
            unit: Unit,
            nothing: (),
            bytes: ByteBuf::from(bytes),
            address,
            three,
        }
    }
}

proptest! {
    #[test]
    fn values_are_written_and_read_as_postcard_does_it(value in all()) {
        let expected = postcard::to_stdvec(&value).unwrap();
        let mut written = Vec::new();
        protocol::encode(&value, &mut written).unwrap();
        prop_assert_eq!(&written, &expected);
        prop_assert_eq!(protocol::decode::<All>(&written), Ok(value));
        // And each part of it is an error.
        let part = &written[..written.len() - 1];
        prop_assert!(protocol::decode::<All>(part).is_err());
    }

    #[test]
    fn rubbish_is_read_as_postcard_reads_it(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        // But for what is left over, which postcard does not mind.
        let expected = postcard::take_from_bytes::<Kind>(&bytes).ok();
        let expected = expected.and_then(|(kind, rest)| rest.is_empty().then_some(kind));
        prop_assert_eq!(protocol::decode::<Kind>(&bytes).ok(), expected);
    }
}

#[test]
fn a_types_own_complaint_is_heard() {
    assert_eq!(
        protocol::decode::<NonZeroU8>(&[0]),
        Err("invalid value: integer `0`, expected a nonzero u8".to_owned())
    );

    struct Full;
    impl Serialize for Full {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("the disk is full"))
        }
    }
    let mut buffer = vec![7];
    let error = protocol::encode(&(1, "text", Full), &mut buffer).unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert_eq!(buffer, [7]);
}

#[test]
fn a_type_that_is_to_be_described_is_named_without_its_modules() {
    #[derive(Serialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
    }
    let value: (Vec<Sparse>, &str) = (vec![Sparse { first: None }], "");
    let error = protocol::encode(&value, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the field `first` is left out (`#[serde(skip_serializing_if)]`), and the encoding of inputs and outputs \
         does not say what comes next: wrap the `(Vec<Sparse>, &str)` in `worker::Described`, or the field in it by \
         `#[serde(with = \"worker::described\")]`"
    );
    // One that is there can be told.
    let value = Sparse { first: Some(1) };
    protocol::encode(&value, &mut Vec::new()).unwrap();
}

/// A value that is written as the text that it displays.
struct Displayed(u32);

impl Serialize for Displayed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("number {}", self.0))
    }
}

#[test]
fn a_value_may_be_the_text_that_it_displays() {
    let mut bytes = Vec::new();
    protocol::encode(&Displayed(7), &mut bytes).unwrap();
    assert_eq!(protocol::decode::<String>(&bytes).unwrap(), "number 7");
    bytes.push(0);
    assert_eq!(
        protocol::decode::<String>(&bytes).unwrap_err(),
        "1 bytes too many"
    );
}
