//! The Rust types of the modules inside a module.
//!
//! Burn's visitors name the type of a module by its last segment, so that a user's `Linear` cannot be told from Burn's.
//! The record of a module has a struct for each module inside, whose type name has the crate and the module path. A
//! serializer, which keeps no values, collects these names.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;

use burn::prelude::*;
use burn::record::{FullPrecisionSettings, Record};
use serde::ser::{self, Serialize};

/// Returns the type of each module inside `module` by its path, e.g. `burn_nn::modules::linear::Linear`. The path of the
/// module itself is empty.
///
/// Modules with a handwritten record are missing.
pub(crate) fn module_types<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, String> {
    let mut walk = TypeWalk::default();
    let item = module.clone().into_record().into_item::<FullPrecisionSettings>();
    walk.add(&item);
    walk.types
}

/// Returns the name of the module whose record item has this type name.
fn module_name(item: &str) -> Option<&str> {
    item.split('<').next()?.strip_suffix("RecordItem")
}

/// Collects the types of nested structs by path.
#[derive(Default)]
struct TypeWalk {
    path: Vec<String>,
    types: BTreeMap<String, String>,
}

impl TypeWalk {
    /// Notes the type of the value at the current path and walks through its fields.
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Elements of a vector come as references.
        let name = type_name::<T>().trim_start_matches('&');
        if let Some(module) = module_name(name) {
            self.types.insert(self.path.join("."), module.into());
        }
        // The elements of a tensor take time and tell nothing.
        if !name.starts_with("burn_core::record::primitive::ParamSerde")
            && !name.starts_with("burn_core::record::tensor")
        {
            // The only error is that of a handwritten `Serialize`: what it holds has no known type.
            let _ = value.serialize(&mut *self);
        }
    }

    fn add_at<T: Serialize + ?Sized>(&mut self, name: impl Into<String>, value: &T) {
        self.path.push(name.into());
        self.add(value);
        self.path.pop();
    }
}

/// The error of a handwritten `Serialize`.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value refused to be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// The elements of a sequence, or the fields of a struct.
struct Elements<'a> {
    walk: &'a mut TypeWalk,
    index: usize,
}

impl Elements<'_> {
    fn next<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.walk.add_at(self.index.to_string(), value);
        self.index += 1;
        Ok(())
    }
}

macro_rules! ignore {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _value: $type) -> Result<(), Refused> {
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut TypeWalk {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = ser::Impossible<(), Refused>;
    type SerializeMap = ser::Impossible<(), Refused>;
    type SerializeStruct = Elements<'a>;
    type SerializeStructVariant = ser::Impossible<(), Refused>;

    ignore!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_unit_struct: &'static str
    );

    fn serialize_none(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.add(value);
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        self.add(value);
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.add_at(variant, value);
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, Refused> {
        Ok(Elements { walk: self, index: 0 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { walk: self, index: 0 })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { walk: self, index: 0 })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Refused> {
        Err(Refused)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Refused> {
        Err(Refused)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { walk: self, index: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Refused> {
        Err(Refused)
    }
}

impl ser::SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.next(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

impl ser::SerializeTuple for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.next(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.next(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

impl ser::SerializeStruct for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
        self.walk.add_at(key, value);
        Ok(())
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}
