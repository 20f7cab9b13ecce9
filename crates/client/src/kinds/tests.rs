//! That the tables of RPCs are those of the protocol.

use std::collections::BTreeSet;

use atomix_proto::kinds::KINDS;

use super::{
    counter, counter_map, election, indexed_map, list, lock, map, multi_map, set, topic, value,
};
use crate::primitive::Kind;

#[test]
fn every_method_of_every_kind_can_be_called() {
    let called: BTreeSet<&str> = [
        &counter::PATHS[..],
        &counter_map::PATHS,
        &election::PATHS,
        &indexed_map::PATHS,
        &list::PATHS,
        &lock::PATHS,
        &map::PATHS,
        &multi_map::PATHS,
        &set::PATHS,
        &topic::PATHS,
        &value::PATHS,
    ]
    .concat()
    .into_iter()
    .collect();
    let mut served = BTreeSet::new();
    for kind in KINDS {
        for method in kind.methods.iter().chain(kind.streams) {
            let service = format!("atomix.runtime.{}.v1.{}", kind.name, kind.singular);
            served.insert(format!("/{service}/{method}"));
        }
    }
    let served: BTreeSet<&str> = served.iter().map(String::as_str).collect();
    assert_eq!(called, served);
}

#[test]
fn every_kind_can_be_created_and_closed() {
    let methods = Kind::ALL.map(|kind| [kind.create().path, kind.close().path]);
    let called: BTreeSet<&str> = methods.as_flattened().iter().copied().collect();
    let served: Vec<String> = KINDS
        .iter()
        .flat_map(|kind| {
            let service = format!("atomix.runtime.{}.v1.{}", kind.name, kind.plural);
            [format!("/{service}/Create"), format!("/{service}/Close")]
        })
        .collect();
    assert_eq!(called, served.iter().map(String::as_str).collect());
}
