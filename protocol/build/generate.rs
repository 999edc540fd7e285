//! Writes the Rust source of all messages.

use std::fmt::Write;

use crate::schema::{Field, Message, Struct, Type, Versions};

/// The whole generated file.
pub(crate) fn messages(messages: &[Message]) -> String {
    let mut out = String::new();
    for message in messages {
        Generator { message, out: &mut out }.message();
    }
    api_keys(messages, &mut out);
    metadata_records(messages, &mut out);
    list(messages, &mut out);
    out
}

/// Appends a line to the generated source.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        writeln!($out, $($arg)*).expect("writing to a String never fails")
    };
}

/// Whether a field is tagged. Kafka encodes a null struct as -1 in an untagged field and as a varint of 0 in a tagged
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Untagged,
    Tagged,
}

struct Generator<'a> {
    message: &'a Message,
    out: &'a mut String,
}

impl Generator<'_> {
    fn message(&mut self) {
        line!(self.out, "#[doc = \"`{}`\"]", self.message.name());
        line!(self.out, "pub mod {} {{ use super::prelude::*;", snake(self.message.name()));
        for (index, structure) in self.message.structs.iter().enumerate() {
            self.definition(structure);
            self.default(structure);
            line!(self.out, "impl {} {{", structure.name);
            self.read(structure);
            self.write(structure);
            if index > 0 {
                self.min_size(structure);
            }
            line!(self.out, "}}");
        }
        self.message_impl();
        if self.message.name().ends_with("Response") {
            self.response_impl();
        }
        line!(self.out, "}}");
    }

    /// `ResponseMessage`, and the same for each struct in the response with an error code.
    fn response_impl(&mut self) {
        let message = self.message;
        for (index, structure) in message.structs.iter().enumerate() {
            if index > 0 && !holds_error_code(message, structure) {
                continue;
            }
            match index {
                0 => line!(self.out, "impl ResponseMessage for {} {{", structure.name),
                _ => line!(self.out, "impl {} {{", structure.name),
            }
            let is_used = holds_error_code(message, structure);
            let count = if is_used { "count" } else { "_" };
            line!(self.out, "fn for_each_error_code(&self, {count}: &mut dyn FnMut(i16)) {{");
            for field in &structure.fields {
                self.count_field(field);
            }
            line!(self.out, "}} }}");
        }
    }

    fn count_field(&mut self, field: &Field) {
        let name = field_name(field);
        if is_error_code(field) {
            line!(self.out, "count(self.{name});");
            return;
        }
        if element_struct(self.message, &field.ty)
            .is_none_or(|inner| !holds_error_code(self.message, inner))
        {
            return;
        }
        let of_one = match field.ty {
            Type::Array(_) => "for element in value { element.for_each_error_code(count); }",
            _ => "value.for_each_error_code(count);",
        };
        match nullable(field) {
            Some(_) => line!(self.out, "if let Some(value) = &self.{name} {{ {of_one} }}"),
            None => line!(self.out, "let value = &self.{name}; {of_one}"),
        }
    }

    fn message_impl(&mut self) {
        let Message { versions, flexible, key, .. } = self.message;
        let name = self.message.name();
        let first_flexible = match flexible {
            Some(flexible) => format!("Some({})", flexible.first),
            None => "None".to_owned(),
        };
        line!(
            self.out,
            "impl Message for {name} {{
                const NAME: &'static str = {name:?};
                const VERSIONS: RangeInclusive<i16> = {}..={};
                const FIRST_FLEXIBLE: Option<i16> = {first_flexible};
                fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {{
                    if !Self::VERSIONS.contains(&version) {{
                        return Err(DecodeError::UnsupportedVersion {{ name: Self::NAME, version }});
                    }}
                    Self::read(d, version)
                }}
                fn encode(&self, out: &mut BytesMut, version: i16) -> Result<(), EncodeError> {{
                    if !Self::VERSIONS.contains(&version) {{
                        return Err(EncodeError::UnsupportedVersion {{ message: Self::NAME, version }});
                    }}
                    self.write(out, version)
                }}
            }}",
            versions.first,
            versions.last
        );
        if let Some(key) = key {
            line!(self.out, "impl ApiMessage for {name} {{ const API_KEY: i16 = {key}; }}");
        }
    }

    fn definition(&mut self, structure: &Struct) {
        line!(self.out, "#[derive(Debug, Clone, PartialEq)]");
        line!(self.out, "pub struct {} {{", structure.name);
        for field in &structure.fields {
            line!(self.out, "pub {}: {},", field_name(field), rust_type(field));
        }
        line!(self.out, "}}");
    }

    fn default(&mut self, structure: &Struct) {
        line!(self.out, "impl Default for {} {{ fn default() -> Self {{ Self {{", structure.name);
        for field in &structure.fields {
            line!(self.out, "{}: {},", field_name(field), default_value(field));
        }
        line!(self.out, "}} }} }}");
    }

    /// `let flexible = ...;` for the versions of this message.
    fn flexible_binding(&mut self) {
        let value = match self.message.flexible {
            None => "false".to_owned(),
            Some(flexible) => self.condition(flexible, self.message.versions),
        };
        line!(self.out, "let flexible = {value};");
    }

    /// A test of `version` for `versions`, given that it is one of `possible`.
    fn condition(&self, versions: Versions, possible: Versions) -> String {
        if versions.contains(possible) {
            return "true".to_owned();
        }
        match versions.intersect(possible) {
            None => "false".to_owned(),
            Some(v) if v.last >= possible.last => format!("version >= {}", v.first),
            Some(v) if v.first <= possible.first => format!("version <= {}", v.last),
            Some(v) => format!("({}..={}).contains(&version)", v.first, v.last),
        }
    }

    /// The versions in which a field is untagged, and those in which it is tagged.
    fn places(&self, field: &Field) -> (Option<Versions>, Option<(u32, Versions)>) {
        let present = field.versions.intersect(self.message.versions);
        let tagged = field.tag.and_then(|(tag, versions)| {
            versions.intersect(self.message.versions).map(|versions| (tag, versions))
        });
        let untagged = match (present, tagged) {
            (Some(present), Some((_, tagged))) => {
                Versions { first: present.first, last: present.last.min(tagged.first - 1) }
                    .intersect(present)
            }
            (present, _) => present,
        };
        (untagged, tagged)
    }

    fn read(&mut self, structure: &Struct) {
        line!(self.out, "fn read(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {{");
        self.flexible_binding();
        line!(self.out, "let mut this = Self::default();");
        for field in &structure.fields {
            let (Some(untagged), _) = self.places(field) else { continue };
            let condition = self.condition(untagged, self.message.versions);
            let value = self.read_field(field, untagged, Place::Untagged);
            let name = field_name(field);
            if condition == "true" {
                line!(self.out, "this.{name} = {value};");
            } else {
                line!(self.out, "if {condition} {{ this.{name} = {value}; }}");
            }
        }
        line!(self.out, "if flexible {{ d.tagged_fields(|d, tag| {{ match tag {{");
        for field in &structure.fields {
            let (_, Some((tag, versions))) = self.places(field) else { continue };
            let value = self.read_field(field, versions, Place::Tagged);
            let condition = self.condition(versions, self.message.versions);
            let name = field_name(field);
            line!(self.out, "{tag} if {condition} => {{ this.{name} = {value}; Ok(true) }}");
        }
        line!(self.out, "_ => Ok(false) }} }})?; }}");
        line!(self.out, "Ok(this) }}");
    }

    /// The expression that reads a field, given that `version` is one of `possible`.
    fn read_field(&self, field: &Field, possible: Versions, place: Place) -> String {
        let flexible = if field.never_flexible { "false" } else { "flexible" };
        let Some(nullable) = nullable(field) else {
            return self.read_value(&field.ty, flexible, false);
        };
        let read_nullable = match (&field.ty, place) {
            (Type::Struct(name), Place::Tagged) => {
                format!("d.nullable_tagged_struct(|d| {name}::read(d, version))?")
            }
            _ => self.read_value(&field.ty, flexible, true),
        };
        let read_plain = self.read_value(&field.ty, flexible, false);
        match self.condition(nullable, possible).as_str() {
            "true" => read_nullable,
            "false" => format!("Some({read_plain})"),
            condition => {
                format!("if {condition} {{ {read_nullable} }} else {{ Some({read_plain}) }}")
            }
        }
    }

    fn read_value(&self, ty: &Type, flexible: &str, nullable: bool) -> String {
        let prefix = if nullable { "nullable_" } else { "" };
        match ty {
            Type::Bool => "d.bool()?".to_owned(),
            Type::Int8 => "d.i8()?".to_owned(),
            Type::Int16 => "d.i16()?".to_owned(),
            Type::Uint16 => "d.u16()?".to_owned(),
            Type::Int32 => "d.i32()?".to_owned(),
            Type::Uint32 => "d.u32()?".to_owned(),
            Type::Int64 => "d.i64()?".to_owned(),
            Type::Float64 => "d.f64()?".to_owned(),
            Type::Uuid => "d.uuid()?".to_owned(),
            Type::String => format!("d.{prefix}string({flexible})?"),
            Type::Bytes | Type::Records => format!("d.{prefix}bytes({flexible})?"),
            Type::Struct(name) if nullable => {
                format!("d.nullable_struct(|d| {name}::read(d, version))?")
            }
            Type::Struct(name) => format!("{name}::read(d, version)?"),
            Type::Array(element) => {
                let min_size = match &**element {
                    Type::Struct(name) => format!("{name}::min_size(version)"),
                    other => scalar_min_size(other, flexible),
                };
                let read = self.read_value(element, flexible, false);
                format!("d.{prefix}array({flexible}, {min_size}, |d| Ok({read}))?")
            }
        }
    }

    fn min_size(&mut self, structure: &Struct) {
        line!(self.out, "/// The fewest bytes that one of these takes.");
        line!(self.out, "fn min_size(version: i16) -> usize {{");
        self.flexible_binding();
        line!(self.out, "let mut size = usize::from(flexible);");
        for field in &structure.fields {
            let (Some(untagged), _) = self.places(field) else { continue };
            let condition = self.condition(untagged, self.message.versions);
            let size = match &field.ty {
                Type::Struct(_) if nullable(field).is_some() => "1".to_owned(),
                Type::Struct(name) => format!("{name}::min_size(version)"),
                Type::Array(_) => "if flexible { 1 } else { 4 }".to_owned(),
                other => scalar_min_size(other, "flexible"),
            };
            if condition == "true" {
                line!(self.out, "size += {size};");
            } else {
                line!(self.out, "if {condition} {{ size += {size}; }}");
            }
        }
        line!(self.out, "size }}");
    }

    fn write(&mut self, structure: &Struct) {
        line!(
            self.out,
            "fn write(&self, out: &mut BytesMut, version: i16) -> Result<(), EncodeError> {{"
        );
        self.flexible_binding();
        for field in &structure.fields {
            self.write_untagged(structure, field);
        }
        let mut tagged: Vec<_> = structure
            .fields
            .iter()
            .filter_map(|field| self.places(field).1.map(|place| (place, field)))
            .collect();
        tagged.sort_by_key(|((tag, _), _)| *tag);
        if tagged.is_empty() {
            line!(self.out, "if flexible {{ put_unsigned_varint(out, 0); }}");
        } else {
            line!(self.out, "if flexible {{ let mut tags = TaggedFields::default();");
            for ((tag, versions), field) in tagged {
                let condition = self.condition(versions, self.message.versions);
                let value = self.write_field(structure, field, versions, Place::Tagged);
                let differs = differs_from_default(field);
                let condition = if condition == "true" {
                    differs
                } else {
                    format!("{condition} && ({differs})")
                };
                line!(
                    self.out,
                    "if {condition} {{ tags.put({tag}, |out| {{ {value} Ok(()) }})?; }}"
                );
            }
            line!(self.out, "tags.finish(out); }}");
        }
        line!(self.out, "Ok(()) }}");
    }

    fn write_untagged(&mut self, structure: &Struct, field: &Field) {
        let (untagged, tagged) = self.places(field);
        let present = untagged
            .map_or("false".to_owned(), |versions| self.condition(versions, self.message.versions));
        if let Some(versions) = untagged {
            let value = self.write_field(structure, field, versions, Place::Untagged);
            if present == "true" {
                line!(self.out, "{value}");
                return;
            }
            line!(self.out, "if {present} {{ {value} }}");
        }
        if field.ignorable {
            return;
        }
        // A value that this version cannot carry must not be dropped silently.
        let carried = Versions {
            first: untagged.or(tagged.map(|(_, v)| v)).map_or(i16::MAX, |v| v.first),
            last: tagged.map(|(_, v)| v).or(untagged).map_or(i16::MIN, |v| v.last),
        };
        let condition = self.condition(carried, self.message.versions);
        if condition != "true" {
            line!(
                self.out,
                "if !({condition}) && ({}) {{ return Err(EncodeError::FieldNotInVersion {{
                    message: {:?}, field: {:?}, version }}); }}",
                differs_from_default(field),
                structure.name,
                field.name
            );
        }
    }

    /// The statements that write a field, given that `version` is one of `possible`.
    fn write_field(
        &self,
        structure: &Struct,
        field: &Field,
        possible: Versions,
        place: Place,
    ) -> String {
        let flexible = if field.never_flexible { "false" } else { "flexible" };
        let name = field_name(field);
        let Some(nullable) = nullable(field) else {
            return write_value(&field.ty, &format!("self.{name}"), flexible, false);
        };
        let null = match &field.ty {
            Type::String => format!("put_null_string(out, {flexible});"),
            Type::Struct(_) if place == Place::Tagged => "out.put_i8(0);".to_owned(),
            Type::Struct(_) => "out.put_i8(-1);".to_owned(),
            _ => format!("put_null_bytes(out, {flexible});"),
        };
        let refuse = format!(
            "return Err(EncodeError::NullNotAllowed {{
                message: {:?}, field: {:?}, version }});",
            structure.name, field.name
        );
        let condition = self.condition(nullable, possible);
        let on_null = match condition.as_str() {
            "true" => null,
            "false" => refuse,
            condition => format!("if {condition} {{ {null} }} else {{ {refuse} }}"),
        };
        let mut value = write_value(&field.ty, "value", flexible, true);
        if matches!(field.ty, Type::Struct(_)) && condition != "false" {
            value = match condition.as_str() {
                "true" => format!("out.put_i8(1); {value}"),
                condition => format!("if {condition} {{ out.put_i8(1); }} {value}"),
            };
        }
        format!("match &self.{name} {{ None => {{ {on_null} }} Some(value) => {{ {value} }} }}")
    }
}

/// The statements that write one value; `by_reference` is whether `value` is a reference.
fn write_value(ty: &Type, value: &str, flexible: &str, by_reference: bool) -> String {
    let copied = if by_reference { format!("*{value}") } else { value.to_owned() };
    let referred = if by_reference { value.to_owned() } else { format!("&{value}") };
    match ty {
        Type::Bool => format!("out.put_u8(u8::from({copied}));"),
        Type::Int8 => format!("out.put_i8({copied});"),
        Type::Int16 => format!("out.put_i16({copied});"),
        Type::Uint16 => format!("out.put_u16({copied});"),
        Type::Int32 => format!("out.put_i32({copied});"),
        Type::Uint32 => format!("out.put_u32({copied});"),
        Type::Int64 => format!("out.put_i64({copied});"),
        Type::Float64 => format!("out.put_f64({copied});"),
        Type::Uuid => format!("out.put_slice({value}.as_bytes());"),
        Type::String => format!("put_string(out, {flexible}, {referred})?;"),
        Type::Bytes | Type::Records => format!("put_bytes(out, {flexible}, {referred})?;"),
        Type::Struct(_) => format!("{value}.write(out, version)?;"),
        Type::Array(element) => {
            let element = write_value(element, "element", flexible, true);
            format!(
                "put_array_len(out, {flexible}, {value}.len())?;
                for element in {referred} {{ {element} }}"
            )
        }
    }
}

fn scalar_min_size(ty: &Type, flexible: &str) -> String {
    match ty {
        Type::Bool | Type::Int8 => "1".to_owned(),
        Type::Int16 | Type::Uint16 => "2".to_owned(),
        Type::Int32 | Type::Uint32 => "4".to_owned(),
        Type::Int64 | Type::Float64 => "8".to_owned(),
        Type::Uuid => "16".to_owned(),
        Type::String => format!("if {flexible} {{ 1 }} else {{ 2 }}"),
        Type::Bytes | Type::Records => format!("if {flexible} {{ 1 }} else {{ 4 }}"),
        Type::Struct(_) | Type::Array(_) => unreachable!("not a scalar"),
    }
}

fn is_error_code(field: &Field) -> bool {
    field.name == "ErrorCode" && field.ty == Type::Int16
}

/// The struct of this message that is the type of a field or of its array elements.
fn element_struct<'a>(message: &'a Message, ty: &Type) -> Option<&'a Struct> {
    match ty {
        Type::Struct(name) => message.structs.iter().find(|structure| structure.name == *name),
        Type::Array(element) => element_struct(message, element),
        _ => None,
    }
}

fn holds_error_code(message: &Message, structure: &Struct) -> bool {
    structure.fields.iter().any(|field| {
        is_error_code(field)
            || element_struct(message, &field.ty)
                .is_some_and(|inner| holds_error_code(message, inner))
    })
}

fn nullable(field: &Field) -> Option<Versions> {
    // Kafka's code accepts null record sets in every version, although the schema does not have it.
    match field.ty {
        Type::Records => Some(Versions { first: 0, last: i16::MAX }),
        _ => field.nullable,
    }
}

fn rust_type(field: &Field) -> String {
    let plain = plain_type(&field.ty);
    if nullable(field).is_some() { format!("Option<{plain}>") } else { plain }
}

fn plain_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int8 => "i8".to_owned(),
        Type::Int16 => "i16".to_owned(),
        Type::Uint16 => "u16".to_owned(),
        Type::Int32 => "i32".to_owned(),
        Type::Uint32 => "u32".to_owned(),
        Type::Int64 => "i64".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::String => "ByteString".to_owned(),
        Type::Bytes | Type::Records => "Bytes".to_owned(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", plain_type(element)),
    }
}

fn default_value(field: &Field) -> String {
    let wrap = |value: String| match nullable(field) {
        Some(_) => format!("Some({value})"),
        None => value,
    };
    match (&field.ty, field.default.as_deref()) {
        (Type::Records, _) | (_, Some("null")) => "None".to_owned(),
        (Type::Bool, default) => wrap(default.unwrap_or("false").to_owned()),
        (Type::Float64, default) => wrap(default.unwrap_or("0.0").to_owned()),
        (Type::String, default) => wrap(match default {
            Some(text) => format!("ByteString::from_static({text:?})"),
            None => "ByteString::new()".to_owned(),
        }),
        (Type::Uuid, None) => wrap("Uuid::ZERO".to_owned()),
        (Type::Uuid, Some(_)) => panic!("{}: defaults of ids are not supported", field.name),
        (Type::Bytes, _) => wrap("Bytes::new()".to_owned()),
        (Type::Array(_), _) => wrap("Vec::new()".to_owned()),
        (Type::Struct(name), _) => wrap(format!("{name}::default()")),
        (_, default) => wrap(default.unwrap_or("0").to_owned()),
    }
}

fn differs_from_default(field: &Field) -> String {
    let name = field_name(field);
    let default = default_value(field);
    match (&field.ty, default.as_str()) {
        (_, "None") => format!("self.{name}.is_some()"),
        (_, "Some(Vec::new())" | "Some(Bytes::new())" | "Some(ByteString::new())") => {
            format!("self.{name}.as_ref().is_none_or(|value| !value.is_empty())")
        }
        (Type::String | Type::Bytes | Type::Array(_), _) if field.default.is_none() => {
            format!("!self.{name}.is_empty()")
        }
        (Type::Bool, "true") => format!("!self.{name}"),
        (Type::Bool, "false") => format!("self.{name}"),
        _ => format!("self.{name} != {default}"),
    }
}

/// The table of requests: key, name, versions, first flexible version, listeners.
fn api_keys(messages: &[Message], out: &mut String) {
    let mut requests: Vec<_> = messages.iter().filter(|m| m.kind == "request").collect();
    requests.sort_by_key(|m| m.key);
    line!(out, "/// Every API of the schemas, in the order of their keys.");
    line!(out, "pub const APIS: &[Api] = &[");
    for request in requests {
        let response = messages
            .iter()
            .find(|m| m.kind == "response" && m.key == request.key)
            .expect("every request has a response");
        let first_flexible = |message: &Message| match message.flexible {
            Some(flexible) => flexible.first,
            None => i16::MAX,
        };
        line!(
            out,
            "Api {{ key: {}, name: {:?}, versions: ({}, {}), latest_unstable: {},
                request_flexible_from: {}, response_flexible_from: {},
                on_broker: {}, on_controller: {} }},",
            request.key.expect("a request has a key"),
            request.name().strip_suffix("Request").expect("requests are named so"),
            request.versions.first,
            request.versions.last,
            request.unstable,
            first_flexible(request),
            first_flexible(response),
            request.listeners.iter().any(|l| l == "broker"),
            request.listeners.iter().any(|l| l == "controller")
        );
    }
    line!(out, "];");
}

/// The enum of all records of the metadata log.
fn metadata_records(messages: &[Message], out: &mut String) {
    let mut records: Vec<_> = messages.iter().filter(|m| m.kind == "metadata").collect();
    records.sort_by_key(|m| m.key);
    let variants: Vec<_> = records
        .iter()
        .map(|m| {
            let name = m.name();
            let variant = name.strip_suffix("Record").expect("records are named so");
            (variant, name, format!("{}::{name}", snake(name)), m.key.expect("a record has a type"))
        })
        .collect();
    line!(out, "/// A record of the metadata log, by its type.");
    line!(out, "#[derive(Debug, Clone, PartialEq)]");
    line!(out, "pub enum MetadataRecord {{");
    for (variant, _, path, _) in &variants {
        line!(out, "{variant}({path}),");
    }
    line!(out, "}}");
    line!(out, "impl MetadataRecord {{");
    line!(out, "/// The record's type.");
    line!(out, "pub const fn api_key(&self) -> i16 {{ match self {{");
    for (variant, _, _, key) in &variants {
        line!(out, "Self::{variant}(_) => {key},");
    }
    line!(out, "}} }}");
    line!(out, "/// The schema's name.");
    line!(out, "pub const fn name(&self) -> &'static str {{ match self {{");
    for (variant, name, _, _) in &variants {
        line!(out, "Self::{variant}(_) => {name:?},");
    }
    line!(out, "}} }}");
    line!(out, "/// The newest version of the record's schema.");
    line!(out, "pub const fn latest_version(&self) -> i16 {{ match self {{");
    for (variant, _, path, _) in &variants {
        line!(out, "Self::{variant}(_) => *{path}::VERSIONS.end(),");
    }
    line!(out, "}} }}");
    line!(
        out,
        "pub(crate) fn decode_body(key: u32, d: &mut Decoder, version: i16)
            -> Result<Self, DecodeError> {{ match key {{"
    );
    for (variant, _, path, key) in &variants {
        line!(out, "{key} => Ok(Self::{variant}({path}::decode(d, version)?)),");
    }
    line!(out, "_ => Err(DecodeError::UnknownRecordType(key)) }} }}");
    line!(
        out,
        "pub(crate) fn encode_body(&self, out: &mut BytesMut, version: i16)
            -> Result<(), EncodeError> {{ match self {{"
    );
    for (variant, ..) in &variants {
        line!(out, "Self::{variant}(record) => record.encode(out, version),");
    }
    line!(out, "}} }} }}");
    for (variant, _, path, _) in &variants {
        line!(
            out,
            "impl From<{path}> for MetadataRecord {{
                fn from(record: {path}) -> Self {{ Self::{variant}(record) }} }}"
        );
    }
}

/// A macro that lists every message, for tests of all of them.
fn list(messages: &[Message], out: &mut String) {
    line!(out, "/// Calls `$callback!(kind, module, Type)` for every message, `kind` being an");
    line!(out, "/// identifier: request, response, header, data, metadata, coordinator_key, ...");
    line!(out, "#[macro_export]");
    line!(out, "macro_rules! for_each_message {{ ($callback:ident) => {{");
    for message in messages {
        let name = message.name();
        line!(out, "$callback!({}, {}, {name});", message.kind.replace('-', "_"), snake(name));
    }
    line!(out, "}} }}");
}

fn field_name(field: &Field) -> String {
    let name = snake(&field.name);
    match name.as_str() {
        "type" | "match" | "ref" | "use" => name + "_",
        _ => name,
    }
}

/// `FetchRequest` as `fetch_request`; a run of capitals is one word.
fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let after_lower = i > 0 && !chars[i - 1].is_uppercase();
        let before_lower = i > 0 && chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && i > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
