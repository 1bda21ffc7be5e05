//! How the bodies of messages are laid out, as data: which fields, in which versions, nullable or not, tagged or not.
//!
//! A table is written as Kafka's own message definition reads, one field a line, so that the two can be compared by
//! eye. Strings, bytes and arrays are compact from the request's first flexible version on (KIP-482).

/// One API's request in all versions that are understood.
pub struct Request {
    pub name: &'static str,
    pub key: i16,
    pub version_min: i16,
    pub version_max: i16,
    /// The first version with compact lengths and tagged fields; above `version_max` if there is none.
    pub flexible_from: i16,
    pub body: Struct,
}

/// Answers are laid out as requests are, under the same key.
pub type Response = Request;

/// Fields in the order in which they stand on the wire.
pub struct Struct {
    pub fields: &'static [Field],
    /// Fields of the section at the end, each with its tag; all other tags are skipped.
    pub tagged: &'static [(u32, Field)],
    /// No version encodes this structure in fewer bytes. At least 1.
    pub bytes_min: usize,
}

/// One field, in the versions `from..=to`.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub from: i16,
    pub to: i16,
    /// Null is allowed from this version on.
    pub nullable_from: i16,
}

pub enum Kind {
    /// A number or a UUID of so many bytes.
    Fixed(usize),
    Bool,
    String,
    /// Bytes or records.
    Bytes,
    Struct(&'static Struct),
    /// Numbers or UUIDs of so many bytes each.
    FixedArray(usize),
    StringArray,
    StructArray(&'static Struct),
}

const NEVER: i16 = i16::MAX;

impl Request {
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

impl Struct {
    pub const fn new(fields: &'static [Field]) -> Struct {
        Struct::with_tagged(fields, &[])
    }

    pub const fn with_tagged(fields: &'static [Field], tagged: &'static [(u32, Field)]) -> Struct {
        let mut bytes_min = 0;
        let mut i = 0;
        while i < fields.len() {
            let field = &fields[i];
            if field.from == 0 && field.to == NEVER {
                bytes_min += field.kind.bytes_min();
            }
            i += 1;
        }
        Struct { fields, tagged, bytes_min: if bytes_min == 0 { 1 } else { bytes_min } }
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Field {
        Field { name, kind, from: 0, to: NEVER, nullable_from: NEVER }
    }

    /// Only in this version and later ones.
    pub const fn from(self, version: i16) -> Field {
        Field { from: version, ..self }
    }

    /// Only in this version and earlier ones.
    pub const fn to(self, version: i16) -> Field {
        Field { to: version, ..self }
    }

    /// May be null, from this version on.
    pub const fn nullable(self, from: i16) -> Field {
        Field { nullable_from: from, ..self }
    }

    #[inline]
    pub const fn exists_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

impl Kind {
    const fn bytes_min(&self) -> usize {
        match self {
            Kind::Fixed(bytes) => *bytes,
            Kind::Struct(structure) => structure.bytes_min,
            // One byte of flag, or of compact length.
            Kind::Bool | Kind::String | Kind::Bytes => 1,
            Kind::FixedArray(_) | Kind::StringArray | Kind::StructArray(_) => 1,
        }
    }
}

pub const fn bool(name: &'static str) -> Field {
    Field::new(name, Kind::Bool)
}

pub const fn int8(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(1))
}

pub const fn int16(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(2))
}

pub const fn int32(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(4))
}

pub const fn int64(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(8))
}

pub const fn uuid(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(16))
}

pub const fn string(name: &'static str) -> Field {
    Field::new(name, Kind::String)
}

pub const fn bytes(name: &'static str) -> Field {
    Field::new(name, Kind::Bytes)
}

pub const fn structure(name: &'static str, of: &'static Struct) -> Field {
    Field::new(name, Kind::Struct(of))
}

pub const fn int32s(name: &'static str) -> Field {
    Field::new(name, Kind::FixedArray(4))
}

pub const fn strings(name: &'static str) -> Field {
    Field::new(name, Kind::StringArray)
}

pub const fn structs(name: &'static str, of: &'static Struct) -> Field {
    Field::new(name, Kind::StructArray(of))
}
