//! The wire does not change by accident.
//!
//! The compiled descriptor is written out as one readable line per field, enum value and call, and compared with
//! `golden/descriptor.txt`. A line that is gone or different breaks peers that are out there: the test names it. A
//! line that is new is compatible, and is accepted with `UPDATE_GOLDEN=1 cargo test -p metasrv-proto`. The public part
//! has a second witness, `golden/public.txt`, which was written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use metasrv_proto::meta::{HeartbeatRequest, RequestHeader};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Our own packages; what they import from elsewhere is not ours to hold still.
const PACKAGES: [&str; 2] = ["greptime.v1.meta", "metasrv.v1"];

const PUBLIC_PACKAGE: &str = "greptime.v1.meta.";

/// Extensions of the public messages begin here; public peers skip them.
const FIRST_EXTENSION: i32 = 100;

fn golden_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Goal: a change that breaks peers which are already out there cannot land unnoticed.
/// Method: every line of the golden file must still be in the compiled descriptor; new lines need a deliberate update.
#[test]
fn the_schema_changes_only_by_additions() {
    let path = golden_file("descriptor.txt");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let golden: BTreeSet<String> = lines(&golden).collect();
    let present: BTreeSet<String> = dump().into_iter().collect();

    let broken: Vec<_> = golden.difference(&present).cloned().collect();
    assert!(
        broken.is_empty(),
        "INCOMPATIBLE: these lines of {} are gone or different in the compiled schema. Peers that are already out \
         there rely on them; give the new meaning a new field number instead.\n  {}",
        path.display(),
        broken.join("\n  ")
    );

    let added: Vec<_> = present.difference(&golden).cloned().collect();
    if added.is_empty() {
        return;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, document()).expect("the golden file is writable");
        return;
    }
    panic!(
        "the schema grew, which is compatible. Accept it with: UPDATE_GOLDEN=1 cargo test -p metasrv-proto\n  {}",
        added.join("\n  ")
    );
}

/// Goal: a client generated from the public schema understands us and we understand it.
/// Method: each line of the hand-written public table must be in the compiled descriptor.
#[test]
fn the_public_protocol_is_there_in_full() {
    let present: BTreeSet<String> = dump().into_iter().collect();
    let missing: Vec<_> = public().into_iter().filter(|line| !present.contains(line)).collect();
    assert!(
        missing.is_empty(),
        "the public protocol has these, our compiled schema has not:\n  {}",
        missing.join("\n  ")
    );
}

/// Goal: the public protocol can grow without colliding with us.
/// Method: what stands in our public package and not in the public table must have a number from 100 on.
#[test]
fn our_extensions_of_public_messages_begin_at_100() {
    let public: BTreeSet<String> = public().into_iter().collect();
    let squatters: Vec<_> = dump()
        .into_iter()
        .filter(|line| line.starts_with(PUBLIC_PACKAGE) && !public.contains(line))
        .filter(|line| number(line).is_none_or(|number| number < FIRST_EXTENSION))
        .collect();
    assert!(
        squatters.is_empty(),
        "these are ours, in a message of the public protocol, under a number below {FIRST_EXTENSION} that the public \
         protocol may use for something else one day:\n  {}",
        squatters.join("\n  ")
    );
}

/// Goal: no two files of the golden directory contradict each other by a number that means two things.
/// Method: in the golden file, (message, number) is unique.
#[test]
fn a_field_number_has_one_meaning() {
    let golden = std::fs::read_to_string(golden_file("descriptor.txt")).expect("the golden file is there");
    let mut seen: BTreeMap<(String, i32), String> = BTreeMap::new();
    for line in lines(&golden) {
        let Some(number) = number(&line) else { continue };
        let message = line.split(' ').next().unwrap_or_default().to_owned();
        if let Some(other) = seen.insert((message, number), line.clone()) {
            panic!("one number, two meanings:\n  {other}\n  {line}");
        }
    }
}

/// Goal: a peer of a later version, or of another vendor, is understood as far as we know its fields.
/// Method: a heartbeat with unknown fields of every wire type appended decodes to the same heartbeat.
#[test]
fn unknown_fields_are_skipped() {
    let header = RequestHeader { protocol_version: 1, member_id: 7, ..Default::default() };
    let request = HeartbeatRequest { header: Some(header), node_epoch: 42, ..Default::default() };
    let mut bytes = request.encode_to_vec();
    for (wire_type, payload) in [
        (0u64, vec![0x96, 0x01]),          // a variable-length number
        (1, vec![1, 2, 3, 4, 5, 6, 7, 8]), // 64 bits
        (2, vec![3, b'a', b'b', b'c']),    // bytes with their length
        (5, vec![1, 2, 3, 4]),             // 32 bits
    ] {
        prost::encoding::encode_varint((54_321 << 3) | wire_type, &mut bytes);
        bytes.extend(payload);
    }
    assert_eq!(HeartbeatRequest::decode(bytes.as_slice()).expect("unknown fields are no error"), request);
}

fn public() -> Vec<String> {
    lines(&std::fs::read_to_string(golden_file("public.txt")).expect("golden/public.txt is there")).collect()
}

/// The lines that count: no comments, no blank ones.
fn lines(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// The number in `Message NUMBER name type` and `Enum NUMBER name`; none for calls.
fn number(line: &str) -> Option<i32> {
    line.split(' ').nth(1)?.parse().ok()
}

/// The golden file as it should be now.
fn document() -> String {
    let mut text = String::from(
        "# The compiled schema, one line per field, enum value and call. Written by the test golden.rs with\n\
         # UPDATE_GOLDEN=1, which only ever adds. A line that is removed or changed by hand breaks peers out there.\n",
    );
    let mut previous = String::new();
    for line in dump() {
        let owner = line.split(' ').next().unwrap_or_default().to_owned();
        if owner != previous {
            text.push('\n');
            previous = owner;
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Every field, enum value and call of our packages, in the order of the files.
fn dump() -> Vec<String> {
    let set = FileDescriptorSet::decode(metasrv_proto::DESCRIPTOR).expect("the compiled descriptor decodes");
    let mut out = Vec::new();
    for file in set.file.iter().filter(|file| PACKAGES.contains(&file.package())) {
        for service in &file.service {
            for method in &service.method {
                let streamed = |streams: bool| if streams { "stream " } else { "" };
                out.push(format!(
                    "{}.{} rpc {} {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    streamed(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    streamed(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
        for message in &file.message_type {
            dump_message(file.package(), message, &mut out);
        }
        for enumeration in &file.enum_type {
            dump_enum(file.package(), enumeration, &mut out);
        }
    }
    assert!(out.len() > 100, "the descriptor is suspiciously small: {} lines", out.len());
    out
}

fn dump_message(scope: &str, message: &DescriptorProto, out: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        out.push(format!("{name} {} {} {}", field.number(), field.name(), kind(message, field)));
    }
    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        dump_message(&name, nested, out);
    }
    for enumeration in &message.enum_type {
        dump_enum(&name, enumeration, out);
    }
}

fn dump_enum(scope: &str, enumeration: &EnumDescriptorProto, out: &mut Vec<String>) {
    for value in &enumeration.value {
        out.push(format!("{scope}.{} {} {}", enumeration.name(), value.number(), value.name()));
    }
}

/// The type of a field with everything that matters on the wire: map, repeated, optional, member of a oneof.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let own = format!(".{}", message.name());
    let entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested) && field.type_name().ends_with(&format!("{own}.{}", nested.name()))
    });
    if let Some(entry) = entry {
        let sides: Vec<_> = entry.field.iter().map(scalar).collect();
        return format!("map<{}>", sides.join(", "));
    }
    if field.label() == Label::Repeated {
        return format!("repeated {}", scalar(field));
    }
    if field.proto3_optional() {
        return format!("optional {}", scalar(field));
    }
    match field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?)) {
        Some(oneof) => format!("oneof {} {}", oneof.name(), scalar(field)),
        None => scalar(field),
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
