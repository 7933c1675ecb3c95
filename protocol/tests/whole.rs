//! Sequences of numbers are copied whole, and nobody can tell.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Debug};

use proptest::prelude::*;
use protocol::parcel::Apart;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// From how many items on a sequence is copied whole.
const MANY: usize = 256;

fn encoded<V: Serialize + ?Sized>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    protocol::encode(value, &mut bytes).unwrap();
    bytes
}

/// Writes values, and reads them back in every way.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Clone + Debug>(some: &[T]) {
    for count in [0, 1, MANY - 1, MANY, MANY + 1, 5 * MANY + 3] {
        let items: Vec<T> = some.iter().cycle().take(count).cloned().collect();
        let value = (7_u8, items.clone(), "behind".to_owned());
        let bytes = encoded(&value);
        assert_eq!(bytes, encoded(&(7_u8, &items[..], "behind")));
        assert_eq!(protocol::decode(&bytes), Ok(value.clone()));
        let queue: (u8, VecDeque<T>, String) = protocol::decode(&bytes).unwrap();
        assert!(queue.1.iter().eq(&items));
        // From where a piece of it stands apart, which may be the memory of the items, or any other.
        let end = bytes.len() - "behind".len() - 1;
        for start in [end - size_of_val(&items[..]).min(end), end / 2, 0] {
            let around = [&bytes[..start], &bytes[end..]].concat();
            let apart = Apart::new(around, start, bytes[start..end].to_vec()).unwrap();
            assert_eq!(apart.decode(), Ok(value.clone()), "{start}");
        }
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 8] {
            assert!(protocol::decode::<(u8, Vec<T>, String)>(&bytes[..cut]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn numbers_come_back(
        some in any::<(u8, i8, bool, u16, i16, u32, i32, f32)>(),
        long in any::<(u64, i64, f64, u128, i128, usize, isize)>(),
    ) {
        let (a, b, c, d, e, f, g, h) = some;
        comes_back(&[a, u8::MAX]);
        comes_back(&[b, i8::MIN]);
        comes_back(&[c, true, false]);
        comes_back(&[d, 0, u16::MAX]);
        comes_back(&[e, -1, i16::MIN]);
        comes_back(&[f, 0, u32::MAX]);
        comes_back(&[g, -1, i32::MIN]);
        comes_back(&[h, f32::MIN_POSITIVE]);
        let (a, b, c, d, e, f, g) = long;
        comes_back(&[a, 0, u64::MAX]);
        comes_back(&[b, -1, i64::MIN]);
        comes_back(&[c, f64::INFINITY]);
        comes_back(&[d, 0, u128::MAX]);
        comes_back(&[e, -1, i128::MIN]);
        comes_back(&[f, 0]);
        comes_back(&[g, -1]);
    }

    #[test]
    fn arrays_of_numbers_come_back(bytes in any::<[u8; 16]>(), one in any::<[i32; 3]>(), most in any::<[bool; 32]>()) {
        comes_back(&[bytes, [0; 16]]);
        comes_back(&[one, [-1; 3]]);
        comes_back(&[most]);
        comes_back(&[[f64::from(one[0])]]);
        // These are written item by item.
        comes_back(&[[one, one]]);
        comes_back(&[(one[0], f64::from(one[1]))]);
        comes_back(&['a', 'é']);
        comes_back(&[Some(one[0]), None]);
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..600), mark in 0_u64..9, claimed: u64) {
        let mut hostile = Vec::new();
        for number in [u64::MAX - mark, claimed] {
            protocol::encode(&number, &mut hostile).unwrap();
        }
        hostile.extend(&bytes);
        let _ = protocol::decode::<Vec<u16>>(&hostile);
        let _ = protocol::decode::<Vec<[i64; 3]>>(&hostile);
        let _ = protocol::decode::<Vec<bool>>(&hostile);
        let _ = protocol::decode::<VecDeque<i128>>(&hostile);
        let _ = protocol::decode::<Vec<String>>(&hostile);
        let _ = protocol::decode::<Vec<()>>(&hostile[..2]);
        let apart = Apart::new(hostile[..10].to_vec(), 10, bytes).unwrap();
        let _ = apart.decode::<Vec<u32>>();
    }
}

#[test]
fn what_postcard_copies_is_as_postcard_has_it() {
    let bytes: Vec<u8> = (0..1000).map(|at| at as u8).collect();
    assert_eq!(encoded(&bytes), postcard::to_stdvec(&bytes).unwrap());
    let numbers = vec![1.5_f64; 1000];
    assert_eq!(encoded(&numbers), postcard::to_stdvec(&numbers).unwrap());
    let pairs = vec![[true, false]; 1000];
    assert_eq!(encoded(&pairs), postcard::to_stdvec(&pairs).unwrap());
}

#[test]
fn packed_integers_are_as_the_specification_has_them() {
    let header = |mark: u64| [postcard::to_stdvec(&mark).unwrap(), vec![0x80, 2]].concat();
    let of = |mark, item: &[u8]| [header(mark), item.repeat(256)].concat();
    assert_eq!(encoded(&[0x102_u16; 256][..]), of(u64::MAX, &[2, 1]));
    assert_eq!(encoded(&[-2_i16; 256][..]), of(u64::MAX - 1, &[254, 255]));
    assert_eq!(encoded(&[3_u32; 256][..]), of(u64::MAX - 2, &[3, 0, 0, 0]));
    assert_eq!(encoded(&[-1_i32; 256][..]), of(u64::MAX - 3, &[255; 4]));
    assert_eq!(encoded(&[0_u64; 256][..]), of(u64::MAX - 4, &[0; 8]));
    assert_eq!(encoded(&[0_i64; 256][..]), of(u64::MAX - 5, &[0; 8]));
    assert_eq!(encoded(&[0_u128; 256][..]), of(u64::MAX - 6, &[0; 16]));
    assert_eq!(encoded(&[0_i128; 256][..]), of(u64::MAX - 7, &[0; 16]));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Meters(u32);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    first: u32,
    second: u32,
}

#[test]
fn other_types_read_packed_integers() {
    let many: Vec<u32> = (0..1000).map(|at| at * 3_000_000).collect();
    let bytes = encoded(&many);
    let set: BTreeSet<u32> = protocol::decode(&bytes).unwrap();
    assert!(set.iter().eq(&many));
    let boxed: Box<[u32]> = protocol::decode(&bytes).unwrap();
    assert_eq!(*boxed, many);
    let meters: Vec<Meters> = protocol::decode(&bytes).unwrap();
    assert!(
        meters
            .iter()
            .map(|meters| meters.0)
            .eq(many.iter().copied())
    );
    // postcard does not say how wide a number was, either.
    let wide: Vec<i64> = protocol::decode(&bytes).unwrap();
    assert!(
        wide.iter().eq(&many
            .iter()
            .map(|number| i64::from(*number))
            .collect::<Vec<_>>())
    );
    assert!(
        protocol::decode::<Vec<i32>>(&bytes).is_err(),
        "3,000,000,000 is no i32"
    );
    assert!(protocol::decode::<Vec<f32>>(&bytes).is_err());
    assert!(protocol::decode::<Vec<String>>(&bytes).is_err());

    let pairs: Vec<[u32; 2]> = (0..1000).map(|at| [at, at + 1]).collect();
    let read: Vec<Pair> = protocol::decode(&encoded(&pairs)).unwrap();
    let as_pair = |[first, second]: [u32; 2]| Pair { first, second };
    assert!(read.into_iter().eq(pairs.into_iter().map(as_pair)));

    // And the other way round: what was written one by one is read.
    let queue: VecDeque<u32> = many.iter().copied().collect();
    assert_ne!(encoded(&queue), bytes);
    assert_eq!(protocol::decode(&encoded(&queue)), Ok(many));
}

/// A type that looks at what it reads.
#[derive(Debug, PartialEq)]
struct Doubled(Vec<f64>);

impl<'d> Deserialize<'d> for Doubled {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        struct Doubling;

        impl<'d> Visitor<'d> for Doubling {
            type Value = Vec<f64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers")
            }

            fn visit_seq<A: SeqAccess<'d>>(self, mut seq: A) -> Result<Vec<f64>, A::Error> {
                let mut doubled = Vec::new();
                while let Some(number) = seq.next_element::<f64>()? {
                    doubled.push(2.0 * number);
                }
                Ok(doubled)
            }
        }
        deserializer.deserialize_seq(Doubling).map(Doubled)
    }
}

#[test]
fn a_type_of_its_own_is_asked() {
    let many = vec![1.5; 1000];
    let doubled = protocol::decode(&encoded(&many));
    assert_eq!(doubled, Ok(Doubled(vec![3.0; 1000])));
}

#[test]
fn bytes_that_are_no_bools_are_refused() {
    let mut bytes = encoded(&vec![true; 1000]);
    assert!(protocol::decode::<Vec<bool>>(&bytes).is_ok());
    bytes[700] = 2;
    assert!(protocol::decode::<Vec<bool>>(&bytes).is_err());
    let apart = Apart::new(bytes[..2].to_vec(), 2, bytes[2..].to_vec()).unwrap();
    assert!(apart.decode::<Vec<bool>>().is_err());
}

#[test]
fn a_piece_becomes_the_vector_that_it_is_the_memory_of() {
    let bytes = vec![3_u8; 100_000];
    let at = bytes.as_ptr();
    let head = encoded(&bytes)[..3].to_vec();
    let apart = Apart::new(head, 3, bytes).unwrap();
    let read: Vec<u8> = apart.decode().unwrap();
    assert_eq!((read.as_ptr(), read.len()), (at, 100_000));
}
