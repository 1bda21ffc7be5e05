//! Bodies of messages along the guard's own tables, every field filled.

use corelog::wire::guard::schema::{Field, Kind, Request, Struct};
use fastrand::Rng;

/// How arrays, nullable and tagged fields turn out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    /// Nothing null or empty, all tagged fields there, unknown ones too.
    Full,
    /// Arrays, strings and bytes are empty, tagged sections too.
    Empty,
    /// All that may be null is.
    Null,
    /// Each of these at random.
    Mixed,
}

pub const STYLES: [Style; 4] = [Style::Full, Style::Empty, Style::Null, Style::Mixed];

/// A body and where its lengths stand.
pub struct Body {
    pub bytes: Vec<u8>,
    pub lengths: Vec<Length>,
}

/// A string, bytes or array that is not null.
#[derive(Clone, Copy)]
pub struct Length {
    pub position: usize,
    /// Bytes of the length itself.
    pub width: usize,
    /// Where the value ends.
    pub end: usize,
    pub is_array: bool,
    /// Null is allowed here, in this version.
    pub nullable: bool,
    /// Null is allowed here in some version.
    pub nullable_ever: bool,
}

pub fn body(request: &'static Request, version: i16, style: Style, rng: &mut Rng) -> Body {
    let flexible = request.is_flexible(version);
    let body = Body { bytes: Vec::new(), lengths: Vec::new() };
    let mut generator = Generator { version, flexible, style, body, rng };
    generator.structure(&request.body);
    generator.body
}

/// Null as it is encoded in place of a value with this length field.
pub fn null(flexible: bool, width: usize) -> Vec<u8> {
    if flexible { vec![0] } else { vec![0xff; width] }
}

pub fn uvarint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

struct Generator<'a> {
    version: i16,
    flexible: bool,
    style: Style,
    body: Body,
    rng: &'a mut Rng,
}

impl Generator<'_> {
    fn structure(&mut self, structure: &'static Struct) {
        for field in structure.fields {
            if field.exists_in(self.version) {
                self.field(field);
            }
        }
        if self.flexible {
            self.tagged_fields(structure.tagged);
        }
    }

    fn field(&mut self, field: &'static Field) {
        let nullable = self.version >= field.nullable_from;
        let is_array = matches!(field.kind, Kind::FixedArray(_) | Kind::StringArray | Kind::StructArray(_));
        match field.kind {
            Kind::Fixed(bytes) => self.random_bytes(bytes),
            Kind::Bool => {
                let flag = self.rng.u8(..2);
                self.body.bytes.push(flag);
            }
            Kind::Struct(structure) => self.structure(structure),
            _ if nullable && self.chance(Style::Null) => {
                let null = null(self.flexible, self.width(&field.kind));
                self.body.bytes.extend(null);
            }
            Kind::String => self.string(Some(field)),
            Kind::Bytes | Kind::FixedArray(_) | Kind::StringArray | Kind::StructArray(_) => {
                let count = match self.chance(Style::Empty) {
                    true => 0,
                    false => self.rng.usize(1..4),
                };
                let at = self.begin(count, 4);
                self.values(&field.kind, count);
                self.finish(at, is_array, Some(field));
            }
        }
    }

    fn values(&mut self, kind: &Kind, count: usize) {
        for _ in 0..count {
            match *kind {
                Kind::Bytes => self.random_bytes(1),
                Kind::FixedArray(bytes) => self.random_bytes(bytes),
                Kind::StringArray => self.string(None),
                Kind::StructArray(structure) => self.structure(structure),
                _ => unreachable!("not a sequence"),
            }
        }
    }

    /// An element of an array if it has no field of its own.
    fn string(&mut self, field: Option<&'static Field>) {
        let text: &[u8] = match self.chance(Style::Empty) {
            true => b"",
            false => self.rng.choice([&b"t"[..], b"topic", "\u{e4}\u{1f980}".as_bytes(), &[b'x'; 200]]).expect("one"),
        };
        let at = self.begin(text.len(), 2);
        self.body.bytes.extend_from_slice(text);
        self.finish(at, false, field);
    }

    /// Known ones in their order, then one that nobody knows.
    fn tagged_fields(&mut self, known: &'static [(u32, Field)]) {
        let (start, version) = (self.body.bytes.len(), self.version);
        let mut section = Vec::new();
        let mut count = 0;
        let mut add = |tag: u32, value: Vec<u8>| {
            section.extend([uvarint(tag), uvarint(value.len() as u32), value].concat());
            count += 1;
        };
        for (tag, field) in known.iter().filter(|(_, field)| field.exists_in(version)) {
            self.field(field);
            let value = self.body.bytes.split_off(start);
            self.body.lengths.retain(|length| length.position < start);
            // A default is left out, as the codec does when it encodes.
            let is_default = match field.kind {
                _ if self.version >= field.nullable_from => value == null(true, 1),
                Kind::Bool => value == [0],
                Kind::StructArray(_) => value == uvarint(1),
                _ => false,
            };
            if !is_default && !self.chance(Style::Empty) {
                add(*tag, value);
            }
        }
        if !self.chance(Style::Empty) {
            let size = self.rng.usize(..5);
            self.random_bytes(size);
            add(self.rng.u32(100..1 << 31), self.body.bytes.split_off(start));
        }
        self.body.bytes.extend(uvarint(count));
        self.body.bytes.extend(section);
    }

    fn begin(&mut self, length: usize, width: usize) -> Length {
        let position = self.body.bytes.len();
        let encoded = match (self.flexible, width) {
            (true, _) => uvarint(length as u32 + 1),
            (false, 2) => (length as i16).to_be_bytes().to_vec(),
            (false, _) => (length as i32).to_be_bytes().to_vec(),
        };
        self.body.bytes.extend_from_slice(&encoded);
        Length { position, width: encoded.len(), end: position, is_array: false, nullable: false, nullable_ever: false }
    }

    fn finish(&mut self, at: Length, is_array: bool, field: Option<&'static Field>) {
        self.body.lengths.push(Length {
            end: self.body.bytes.len(),
            is_array,
            nullable: field.is_some_and(|field| self.version >= field.nullable_from),
            nullable_ever: field.is_some_and(|field| field.nullable_from < i16::MAX),
            ..at
        });
    }

    fn width(&self, kind: &Kind) -> usize {
        if matches!(kind, Kind::String) { 2 } else { 4 }
    }

    fn chance(&mut self, style: Style) -> bool {
        self.style == style || self.style == Style::Mixed && self.rng.u8(..4) == 0
    }

    fn random_bytes(&mut self, count: usize) {
        for _ in 0..count {
            let byte = self.rng.u8(..);
            self.body.bytes.push(byte);
        }
    }
}
