//! Values whose types need a self-describing encoding.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// A value that travels in a self-describing encoding.
///
/// Inputs and outputs travel in [postcard], which is fast because it sends no names and no types. Some types can't be
/// decoded from that: `serde_json::Value`, enums with `#[serde(untagged)]` or `#[serde(tag = "…")]`, and structs with
/// `#[serde(flatten)]` or `#[serde(skip_serializing_if = "…")]`. Within `Described` such a value travels in
/// [MessagePack], with the names of its fields.
///
/// This costs more bytes and more time, so use it only for types that need it. For a field of a larger type there is
/// `#[serde(with = "worker::described")]`. In a format that is self-describing already, such as the JSON of the command
/// line, `Described` changes nothing.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use worker::{Described, task};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(tag = "shape")]
/// enum Shape {
///     Circle { radius: f64 },
///     Square { side: f64 },
/// }
///
/// #[task]
/// fn area(shape: Described<Shape>) -> f64 {
///     match *shape {
///         Shape::Circle { radius } => std::f64::consts::PI * radius * radius,
///         Shape::Square { side } => side * side,
///     }
/// }
///
/// # fn main() {
/// // pool.map(area, shapes.into_iter().map(Described))
/// assert_eq!(area(Described(Shape::Square { side: 3.0 })), 9.0);
/// # }
/// ```
///
/// [postcard]: https://postcard.jamesmunns.com
/// [MessagePack]: https://msgpack.org
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Described<T>(pub T);

impl<T> Described<T> {
    /// The value.
    ///
    /// ```
    /// assert_eq!(worker::Described(7).into_inner(), 7);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Described<T> {
    fn from(value: T) -> Self {
        Described(value)
    }
}

impl<T> Deref for Described<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Described<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: fmt::Display> fmt::Display for Described<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize> Serialize for Described<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Described<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Described)
    }
}

/// Encodes a field as [`Described`] encodes its value. Write `#[serde(with = "worker::described")]` to use it.
///
/// # Errors
///
/// The errors of the value's own `Serialize`, and of the serializer.
pub fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return value.serialize(serializer);
    }
    let mut bytes = Vec::new();
    // With names, because fields may be left out and come in any order. And in the human-readable form: serde decodes
    // values that it has buffered (as for untagged enums) as human-readable.
    let mut within = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_human_readable();
    value.serialize(&mut within).map_err(ser::Error::custom)?;
    serializer.serialize_bytes(&bytes)
}

/// Decodes a field as [`Described`] decodes its value.
///
/// # Errors
///
/// The errors of the value's own `Deserialize`, and of the deserializer.
pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    if deserializer.is_human_readable() {
        return T::deserialize(deserializer);
    }
    deserializer.deserialize_bytes(Bytes(PhantomData))
}

/// How deep values may be nested. Without this limit a sender could overflow this process's stack.
const DEPTH: usize = 128;

/// Decodes a value from the bytes it travels in.
struct Bytes<T>(PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for Bytes<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value in MessagePack")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        let mut within = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
        within.set_max_depth(DEPTH);
        T::deserialize(&mut within).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::IpAddr;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        let mut bytes = Vec::new();
        let value = Described(value);
        protocol::encode(&value, &mut bytes).unwrap();
        assert_eq!(protocol::decode::<Described<T>>(&bytes), Ok(value));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(i64),
        Large(u64),
        Part(f64),
        Address { address: IpAddr },
        Text(String),
        Many(Vec<Untagged>),
        Nothing,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Empty,
        Named { id: u32, address: IpAddr },
        Wrapped(Flat),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        first: Option<u8>,
        #[serde(flatten)]
        others: HashMap<String, Untagged>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        before: u8,
        #[serde(with = "crate::described")]
        inner: Tagged,
        behind: u8,
    }

    #[test]
    fn what_asks_for_its_type_comes_back() {
        let address: IpAddr = "::1".parse().unwrap();
        comes_back(vec![
            Untagged::Number(-3),
            Untagged::Large(u64::MAX),
            Untagged::Part(0.5),
            Untagged::Address { address },
            Untagged::Text("text".into()),
            Untagged::Many(vec![Untagged::Nothing]),
        ]);
        let flat = |first| Flat {
            first,
            others: [("a".to_owned(), Untagged::Number(1))].into(),
        };
        comes_back([flat(None), flat(Some(1))]);
        comes_back((
            Tagged::Empty,
            Tagged::Named { id: 1, address },
            Tagged::Wrapped(flat(None)),
        ));
        comes_back(BTreeMap::from([((1, 2), 'x')]));
        let outer = Outer {
            before: 1,
            inner: Tagged::Wrapped(flat(Some(3))),
            behind: 2,
        };
        let mut bytes = Vec::new();
        protocol::encode(&outer, &mut bytes).unwrap();
        assert_eq!(protocol::decode(&bytes), Ok(outer));
    }

    #[test]
    fn json_shows_nothing_of_it() {
        let described: Described<Value> = serde_json::from_str(r#"{"a":[1]}"#).unwrap();
        assert_eq!(*described, json!({"a": [1]}));
        assert_eq!(serde_json::to_string(&described).unwrap(), r#"{"a":[1]}"#);
    }

    #[test]
    fn rubbish_is_an_error() {
        for bytes in [
            &b"\x00"[..],
            b"\x01\xc1",
            b"\x05\xdd\xff\xff\xff\xff",
            b"\x02\x91\x91",
        ] {
            assert!(
                protocol::decode::<Described<Value>>(bytes).is_err(),
                "{bytes:?}"
            );
        }
        let deep = [&[0xe8, 0x07][..], &[0x91; 1000]].concat();
        assert!(protocol::decode::<Described<Value>>(&deep).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_comes_back(value in json()) {
            comes_back(value);
        }
    }
}
