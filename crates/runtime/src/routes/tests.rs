#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn route(store: &str, kinds: &[&str], names: &[&str], tags: &[&str]) -> proto::Route {
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    proto::Route {
        store_id: Some(proto::StoreId {
            namespace: "team".into(),
            name: store.into(),
        }),
        tags: strings(tags),
        services: kinds
            .iter()
            .map(|kind| proto::Service {
                name: (*kind).to_owned(),
                config: Bytes::new(),
            })
            .collect(),
        primitives: strings(names),
    }
}

fn resolve(routes: &[proto::Route], kind: &str, name: &str, tags: &[&str]) -> String {
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    match RoutingTable::new(routes)
        .unwrap()
        .resolve(kind, name, &tags)
    {
        Ok(destination) => destination.store.name,
        Err(RouteError::NoRoute { .. }) => "none".to_owned(),
        Err(RouteError::Ambiguous { .. }) => "ambiguous".to_owned(),
    }
}

fn resolve_untagged(routes: &[proto::Route], kind: &str, name: &str) -> String {
    match RoutingTable::new(routes)
        .unwrap()
        .resolve_untagged(kind, name)
    {
        Ok(destination) => destination.store.name,
        Err(RouteError::NoRoute { .. }) => "none".to_owned(),
        Err(RouteError::Ambiguous { .. }) => "ambiguous".to_owned(),
    }
}

#[test]
fn a_name_beats_tags_and_tags_beat_the_kind() {
    let routes = [
        route("by-kind", &["counter"], &[], &[]),
        route("by-one-tag", &["counter"], &[], &["a"]),
        route("by-two-tags", &["counter"], &[], &["a", "b"]),
        route("by-prefix", &["counter"], &["job*"], &[]),
        route("by-longer-prefix", &["counter"], &["job-1*"], &[]),
        route("by-name", &["counter"], &["job-12"], &[]),
        route("every-kind", &["*"], &[], &[]),
        route("tagged-name", &["counter"], &["job-12"], &["z"]),
    ];
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("counter", "x", &[], "by-kind"),
        ("counter", "x", &["c"], "by-kind"),
        ("counter", "x", &["a"], "by-one-tag"),
        ("counter", "x", &["b", "a", "c"], "by-two-tags"),
        ("counter", "job-2", &["a", "b"], "by-prefix"),
        ("counter", "job-13", &["a"], "by-longer-prefix"),
        ("counter", "job-12", &["a", "b"], "by-name"),
        ("counter", "job-12", &["z"], "tagged-name"),
        ("map", "job-12", &["a"], "every-kind"),
    ];
    for (kind, name, tags, expected) in cases {
        assert_eq!(
            resolve(&routes, kind, name, tags),
            *expected,
            "{kind} {name} {tags:?}"
        );
    }
}

#[test]
fn among_equals_the_first_route_wins_and_without_a_match_there_is_none() {
    let first = route("first", &["counter"], &[], &["a"]);
    let second = route("second", &["counter"], &[], &["b"]);
    let both = ["a", "b"];
    let routes = [first.clone(), second.clone()];
    assert_eq!(resolve(&routes, "counter", "x", &both), "first");
    assert_eq!(resolve(&[second, first], "counter", "x", &both), "second");
    assert_eq!(resolve(&routes, "counter", "x", &[]), "none");
    assert_eq!(resolve(&routes, "map", "x", &both), "none");
    assert_eq!(resolve(&[], "map", "x", &[]), "none");
}

#[test]
fn without_create_a_primitive_opens_only_where_its_tags_cannot_matter() {
    let by_kind = route("by-kind", &["counter"], &[], &[]);
    let tagged = route("tagged", &["counter"], &[], &["a"]);
    let named = route("named", &["counter"], &["job"], &[]);
    let same_store = route("by-kind", &["*"], &["job*"], &["a"]);
    let cases: &[(&[proto::Route], &str)] = &[
        (&[], "none"),
        (std::slice::from_ref(&by_kind), "by-kind"),
        (std::slice::from_ref(&tagged), "tagged"),
        (&[by_kind.clone(), tagged.clone()], "ambiguous"),
        (
            &[by_kind.clone(), route("other", &["counter"], &[], &[])],
            "ambiguous",
        ),
        (&[by_kind.clone(), tagged.clone(), named.clone()], "named"),
        (&[by_kind.clone(), same_store], "by-kind"),
        (
            &[named, route("n2", &["counter"], &["job"], &["b"])],
            "ambiguous",
        ),
    ];
    for (routes, expected) in cases {
        assert_eq!(
            resolve_untagged(routes, "counter", "job"),
            *expected,
            "{routes:?}"
        );
    }
}

#[test]
fn a_wrong_table_is_refused_by_the_name_of_its_field() {
    let good = route("a", &["counter"], &["x*"], &["t"]);
    let mut no_store = good.clone();
    no_store.store_id = None;
    let mut bad_config = good.clone();
    bad_config.services.first_mut().unwrap().config = Bytes::from_static(b"[1]");
    let cases = [
        (no_store, "routes[1].store_id.name is empty"),
        (
            route("a", &[], &[], &[]),
            "routes[1].services is empty: name a kind or *",
        ),
        (
            route("a", &["map", ""], &[], &[]),
            "routes[1].services[1].name is empty",
        ),
        (
            bad_config,
            "routes[1].services[0].config is not a JSON object",
        ),
        (
            route("a", &["map"], &[""], &[]),
            "routes[1].primitives[0] is empty",
        ),
        (
            route("a", &["map"], &["a*b"], &[]),
            "routes[1].primitives[0] has a * that is not at its end",
        ),
        (
            route("a", &["map"], &[], &["x", ""]),
            "routes[1].tags[1] is empty",
        ),
    ];
    for (bad, expected) in cases {
        let error = RoutingTable::new(&[good.clone(), bad]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(RoutingTable::new(&[good]).is_ok());
}

fn any_route() -> impl Strategy<Value = proto::Route> {
    let store = prop::sample::select(vec!["s1", "s2", "s3"]);
    let kinds = prop::sample::subsequence(vec!["counter", "map", "*"], 1..=2);
    let names = prop::sample::subsequence(vec!["a", "ab", "a*", "ab*", "*"], 0..=2);
    let tags = prop::sample::subsequence(vec!["t1", "t2", "t3"], 0..=3);
    (store, kinds, names, tags)
        .prop_map(|(store, kinds, names, tags)| route(store, &kinds, &names, &tags))
}

/// The rule as a naive program: score every route, keep the first with the highest score.
fn model(routes: &[proto::Route], kind: &str, name: &str, tags: &[&str]) -> String {
    let mut best: Option<(usize, usize, &proto::Route)> = None;
    for route in routes {
        let kind_fits = route
            .services
            .iter()
            .any(|service| service.name == kind || service.name == "*");
        let tags_fit = route.tags.iter().all(|tag| tags.contains(&tag.as_str()));
        let mut named = route.primitives.is_empty().then_some(0);
        for pattern in &route.primitives {
            let score = match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix).then_some(prefix.len()),
                None => (pattern == name).then_some(1_000),
            };
            named = named.max(score);
        }
        let Some(named) = named.filter(|_| kind_fits && tags_fit) else {
            continue;
        };
        let score = (named, route.tags.len());
        if best.is_none_or(|(best_named, best_tags, _)| score > (best_named, best_tags)) {
            best = Some((score.0, score.1, route));
        }
    }
    best.map_or("none".to_owned(), |(_, _, route)| {
        route.store_id.clone().unwrap_or_default().name
    })
}

proptest! {
    #[test]
    fn resolving_is_what_the_rule_says(
        routes in prop::collection::vec(any_route(), 0..8),
        name in prop::sample::select(vec!["a", "ab", "abc", "b"]),
        tags in prop::sample::subsequence(vec!["t1", "t2", "t3", "t4"], 0..=4),
    ) {
        let expected = model(&routes, "counter", name, &tags);
        prop_assert_eq!(&resolve(&routes, "counter", name, &tags), &expected);
        // The order of the tags is of no account.
        let mut reversed = tags.clone();
        reversed.reverse();
        prop_assert_eq!(resolve(&routes, "counter", name, &reversed), expected);
    }

    #[test]
    fn an_implicit_open_leads_where_create_leads_whatever_the_tags(
        routes in prop::collection::vec(any_route(), 0..6),
        name in prop::sample::select(vec!["a", "ab", "abc", "b"]),
        tags in prop::sample::subsequence(vec!["t1", "t2", "t3"], 0..=3),
    ) {
        let implicit = resolve_untagged(&routes, "counter", name);
        let created = resolve(&routes, "counter", name, &tags);
        if implicit == "none" {
            prop_assert_eq!(created, "none");
        } else if implicit != "ambiguous" {
            prop_assert!(created == implicit || created == "none", "{} {}", implicit, created);
        }
    }
}
