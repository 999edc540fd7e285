//! Parses the field tables that `schema/extract.py` writes.

/// Versions `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

impl Versions {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return None;
        }
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("bad versions '{text}'"));
        Some(if let Some(first) = text.strip_suffix('+') {
            Self { first: number(first), last: i16::MAX }
        } else if let Some((first, last)) = text.split_once('-') {
            Self { first: number(first), last: number(last) }
        } else {
            Self { first: number(text), last: number(text) }
        })
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.first <= other.first && self.last >= other.last
    }

    pub(crate) fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Self>),
}

impl Type {
    fn parse(text: &str) -> Self {
        match text {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "uint16" => Self::Uint16,
            "int32" => Self::Int32,
            "uint32" => Self::Uint32,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            _ => match text.strip_prefix("[]") {
                Some(element) => Self::Array(Box::new(Self::parse(element))),
                None => Self::Struct(text.to_owned()),
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<(u32, Versions)>,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
    /// Not in compact encoding in any version (the client id of the request header).
    pub(crate) never_flexible: bool,
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: String,
    pub(crate) key: Option<i16>,
    pub(crate) versions: Versions,
    pub(crate) flexible: Option<Versions>,
    pub(crate) listeners: Vec<String>,
    pub(crate) unstable: bool,
    /// The message itself, then the structs inside it.
    pub(crate) structs: Vec<Struct>,
}

impl Message {
    pub(crate) fn name(&self) -> &str {
        &self.structs[0].name
    }
}

/// Parses one table. The build fails at the first invalid line.
pub(crate) fn parse(path: &str, text: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    // The struct that lines of each depth belong to, as indexes into the message's structs.
    let mut open: Vec<usize> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let depth = (line.len() - line.trim_start().len()) / 2;
        let words: Vec<&str> = line.split_whitespace().collect();
        if depth == 0 {
            messages.push(parse_message(&words));
            open = vec![0];
            continue;
        }
        let message = messages.last_mut().unwrap_or_else(|| panic!("{path}:{number}: no message"));
        open.truncate(depth);
        if words[0] == "struct" {
            open.push(message.structs.len());
            message.structs.push(Struct { name: words[1].to_owned(), fields: Vec::new() });
            continue;
        }
        let field = parse_field(&words);
        let parent = open[depth - 1];
        // A struct is opened for every field that may have lines below it; one without lines that
        // is defined elsewhere (a common struct) is dropped below.
        let inner = match &field.ty {
            Type::Struct(name) => Some(name.clone()),
            Type::Array(element) => match &**element {
                Type::Struct(name) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        message.structs[parent].fields.push(field);
        if let Some(name) = inner {
            open.push(message.structs.len());
            message.structs.push(Struct { name, fields: Vec::new() });
        }
    }
    for message in &mut messages {
        drop_references(message);
    }
    messages
}

/// Drops the empty entries for uses of a common struct.
fn drop_references(message: &mut Message) {
    let defined: Vec<String> =
        message.structs.iter().filter(|s| !s.fields.is_empty()).map(|s| s.name.clone()).collect();
    let mut first = true;
    message.structs.retain(|s| {
        let root = std::mem::take(&mut first);
        root || !s.fields.is_empty() || !defined.contains(&s.name)
    });
}

fn parse_message(words: &[&str]) -> Message {
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    Message {
        kind: words[1].to_owned(),
        key: value("key=").map(|key| key.parse().expect("an API key is a number")),
        versions: value("versions=").and_then(Versions::parse).expect("a message has versions"),
        flexible: value("flexible=").and_then(Versions::parse),
        listeners: value("listeners=")
            .map(|names| names.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        unstable: words.contains(&"unstable"),
        structs: vec![Struct { name: words[0].to_owned(), fields: Vec::new() }],
    }
}

fn parse_field(words: &[&str]) -> Field {
    let value = |key: &str| words[3..].iter().find_map(|word| word.strip_prefix(key));
    let tag = value("tag=").map(|tag| {
        let (number, versions) = tag.split_once('@').expect("a tag is written N@VERSIONS");
        let number = number.parse().expect("a tag is a number");
        (number, Versions::parse(versions).expect("a tag has versions"))
    });
    Field {
        name: words[0].to_owned(),
        ty: Type::parse(words[1]),
        versions: Versions::parse(words[2]).expect("a field has versions"),
        nullable: value("nullable=").and_then(Versions::parse),
        tag,
        default: value("default=").map(str::to_owned),
        ignorable: words.contains(&"ignorable"),
        never_flexible: value("flexible=") == Some("none"),
    }
}
