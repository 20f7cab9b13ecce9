//! Compiles `proto/` with protox, so that no `protoc` binary is needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost_types::{FileDescriptorSet, ServiceDescriptorProto};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Read when it runs: the compiled script may be shared by several work trees.
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    fs::write(out.join("kinds.rs"), kinds(&descriptors)?)?;
    tonic_prost_build::configure()
        // The clients would get a `connect` of their own, which Runtime.Connect needs as its name.
        .build_transport(false)
        .bytes(".")
        .include_file("include.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

/// What the packages `atomix.runtime.KIND.v1` say of their kinds, as entries of `KINDS`.
fn kinds(descriptors: &FileDescriptorSet) -> Result<String, Box<dyn std::error::Error>> {
    let mut packages: BTreeMap<&str, Package<'_>> = BTreeMap::new();
    for file in &descriptors.file {
        let kind = file.package().strip_prefix("atomix.runtime.");
        let Some(kind) = kind.and_then(|rest| rest.strip_suffix(".v1")) else {
            continue;
        };
        let package = packages.entry(kind).or_default();
        package.services.extend(&file.service);
        let mut messages = file.message_type.iter();
        let cache = messages.find(|message| message.name() == "CacheConfig");
        package.cache = package.cache.or(cache.map(|cache| cache.field.len()));
    }
    let mut entries = String::from("&[\n");
    for (name, package) in &packages {
        let manager = package.services.iter().find(|service| manages(service));
        let operator = package.services.iter().find(|service| !manages(service));
        let (Some(plural), Some(singular)) = (manager, operator) else {
            return Err(format!(
                "atomix.runtime.{name}.v1 needs a service with Create and Close alone, and one that \
                 has more methods"
            )
            .into());
        };
        let cache = match package.cache {
            None => "None",
            Some(1) => "Switch",
            Some(_) => "Sized",
        };
        let once = methods(singular, false);
        let streams = methods(singular, true);
        writeln!(
            entries,
            "Kind {{ name: {name:?}, singular: {:?}, plural: {:?}, methods: &{once:?}, \
             streams: &{streams:?}, cache: Cache::{cache} }},",
            singular.name(),
            plural.name(),
        )?;
    }
    entries.push(']');
    Ok(entries)
}

/// One kind's package.
#[derive(Default)]
struct Package<'a> {
    services: Vec<&'a ServiceDescriptorProto>,
    /// How many settings its `CacheConfig` has.
    cache: Option<usize>,
}

/// What creates and closes primitives, and nothing else.
const MANAGEMENT: [&str; 2] = ["Create", "Close"];

fn manages(service: &ServiceDescriptorProto) -> bool {
    let mut methods = service.method.iter();
    methods.all(|method| MANAGEMENT.contains(&method.name()))
}

fn methods(service: &ServiceDescriptorProto, streams: bool) -> Vec<&str> {
    let methods = service.method.iter();
    methods
        .filter(|method| method.server_streaming() == streams)
        .map(|method| method.name())
        .filter(|name| !MANAGEMENT.contains(name))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}
