//! The map against a plain list of (index, key).

use atomix_proto::runtime::indexedmap::v1::*;
use proptest::prelude::*;
use proptest::sample::select;

use super::{fixture, remove, try_append};

proptest! {
    #[test]
    fn any_sequence_of_writes_does_what_the_model_does(
        writes in proptest::collection::vec(
            (any::<bool>(), select(vec!["", "a", "b", "c"]), 0_u64..12),
            1..60,
        ),
    ) {
        let mut map = fixture();
        let mut model: Vec<(u64, &str)> = Vec::new();
        let mut last_index = 0;
        for (appends, key, index) in writes {
            if appends && !key.is_empty() {
                let is_new = model.iter().all(|(_, present)| *present != key);
                let answer = try_append(&mut map, key);
                prop_assert_eq!(answer.is_ok(), is_new);
                if is_new {
                    last_index += 1;
                    model.push((last_index, key));
                }
            } else if !key.is_empty() || index != 0 {
                let is_meant = |(at, name): &(u64, &str)| {
                    (index == 0 || index == *at) && (key.is_empty() || key == *name)
                };
                let there = model.iter().any(is_meant);
                model.retain(|entry| !is_meant(entry));
                prop_assert_eq!(remove(&mut map, key, index, 0).is_ok(), there);
            }
            let entries = map.all::<Entry>("Page");
            let entries: Vec<_> = entries.iter().map(|entry| (entry.index, &*entry.key)).collect();
            prop_assert_eq!(&entries, &model);
        }
    }
}
