//! The routing table: which store a primitive lives in. Pure; the same table and primitive always
//! give the same answer.
//!
//! A route matches a primitive when it has a service of that kind (or `*`), when one of its name
//! patterns matches (or it has none), and when the primitive has all of its tags. Of the routes that
//! match,
//! 1. one that names the primitive beats one that does not; an exact name beats `prefix*`, and a
//!    longer prefix a shorter one;
//! 2. then the one with more tags wins;
//! 3. then the one that stands first, which is the oldest Session's.

use std::cmp::Reverse;

use atomix_driver::StoreId;
use atomix_proto::runtime::v1 as proto;
use bytes::Bytes;
use thiserror::Error;

const EVERY_KIND: &str = "*";

/// The table as it was programmed.
#[derive(Debug, Clone, Default)]
pub struct RoutingTable {
    routes: Vec<Route>,
}

#[derive(Debug, Clone)]
struct Route {
    store: StoreId,
    tags: Vec<String>,
    services: Vec<Service>,
    names: Vec<NamePattern>,
}

#[derive(Debug, Clone)]
struct Service {
    kind: String,
    config: Bytes,
}

#[derive(Debug, Clone)]
enum NamePattern {
    Exact(String),
    Prefix(String),
}

/// How precisely a route names a primitive; a greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NameMatch {
    AnyName,
    Prefix(usize),
    Exact,
}

/// Where a primitive lives, and how it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The store.
    pub store: StoreId,
    /// The configuration of the kind, as JSON; may be empty.
    pub config: Bytes,
}

/// Why a primitive has no store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// No route matches.
    #[error(
        "no route for {kind} {name:?}{tags}: a Session that selects this pod must cover its kind, \
         name and tags"
    )]
    NoRoute {
        /// The kind.
        kind: String,
        /// The primitive's name.
        name: String,
        /// ` with tags [..]`, or empty.
        tags: String,
    },
    /// Without its tags, more than one store is possible.
    #[error(
        "{kind} {name:?} is not open and several stores match ({stores}): call Create with its tags"
    )]
    Ambiguous {
        /// The kind.
        kind: String,
        /// The primitive's name.
        name: String,
        /// The stores, separated by commas.
        stores: String,
    },
}

/// A routing table that is refused; names the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct InvalidRoutes {
    field: String,
    problem: &'static str,
}

impl RoutingTable {
    /// Checks and takes over a table; oldest Session first.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn new(routes: &[proto::Route]) -> Result<Self, InvalidRoutes> {
        let routes = routes
            .iter()
            .enumerate()
            .map(|(index, route)| Route::new(&format!("routes[{index}]"), route))
            .collect::<Result<_, _>>()?;
        Ok(Self { routes })
    }

    /// The destination of a primitive with these tags.
    ///
    /// # Errors
    /// When no route matches.
    pub fn resolve(
        &self,
        kind: &str,
        name: &str,
        tags: &[String],
    ) -> Result<Destination, RouteError> {
        self.matches(kind, name)
            .filter(|(route, ..)| route.tags.iter().all(|tag| tags.contains(tag)))
            // `max_by_key` returns the last of equals; reversed, that is the first of the table.
            .rev()
            .max_by_key(|(route, _, named)| (*named, route.tags.len()))
            .map(|(route, service, _)| route.destination(service))
            .ok_or_else(|| no_route(kind, name, tags))
    }

    /// The destination of a primitive whose tags are not known, when it is the same whatever they
    /// are: then it may be opened without Create.
    ///
    /// # Errors
    /// When no route matches, or routes to several stores do.
    pub fn resolve_untagged(&self, kind: &str, name: &str) -> Result<Destination, RouteError> {
        let mut possible: Vec<_> = self.matches(kind, name).collect();
        possible.sort_by_key(|(route, _, named)| Reverse((*named, route.tags.len())));
        // A route that asks for no tags always matches: what ranks below it by name never wins.
        if let Some(certain) = possible
            .iter()
            .find(|(route, ..)| route.tags.is_empty())
            .map(|(_, _, named)| *named)
        {
            possible.retain(|(_, _, named)| *named >= certain);
        }
        let (route, service, _) = possible.first().ok_or_else(|| no_route(kind, name, &[]))?;
        let mut stores: Vec<&StoreId> = possible.iter().map(|(route, ..)| &route.store).collect();
        stores.sort_unstable();
        stores.dedup();
        if stores.len() > 1 {
            let stores: Vec<String> = stores.iter().map(ToString::to_string).collect();
            return Err(RouteError::Ambiguous {
                kind: kind.to_owned(),
                name: name.to_owned(),
                stores: stores.join(", "),
            });
        }
        Ok(route.destination(service))
    }

    /// The routes whose kind and name match, whatever their tags.
    fn matches(
        &self,
        kind: &str,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = (&Route, &Service, NameMatch)> {
        self.routes.iter().filter_map(move |route| {
            let service = route.service(kind)?;
            let named = route.name_match(name)?;
            Some((route, service, named))
        })
    }
}

impl Route {
    fn new(field: &str, route: &proto::Route) -> Result<Self, InvalidRoutes> {
        let invalid = |part: String, problem| InvalidRoutes {
            field: format!("{field}.{part}"),
            problem,
        };
        let store = route.store_id.clone().unwrap_or_default();
        if store.name.is_empty() {
            return Err(invalid("store_id.name".into(), "is empty"));
        }
        if let Some(index) = route.tags.iter().position(String::is_empty) {
            return Err(invalid(format!("tags[{index}]"), "is empty"));
        }
        if route.services.is_empty() {
            return Err(invalid("services".into(), "is empty: name a kind or *"));
        }
        let mut services = Vec::with_capacity(route.services.len());
        for (index, service) in route.services.iter().enumerate() {
            if service.name.is_empty() {
                return Err(invalid(format!("services[{index}].name"), "is empty"));
            }
            if !is_config(&service.config) {
                let part = format!("services[{index}].config");
                return Err(invalid(part, "is not a JSON object"));
            }
            services.push(Service {
                kind: service.name.clone(),
                config: service.config.clone(),
            });
        }
        let mut names = Vec::with_capacity(route.primitives.len());
        for (index, pattern) in route.primitives.iter().enumerate() {
            let part = || format!("primitives[{index}]");
            let (stem, is_prefix) = match pattern.strip_suffix('*') {
                Some(stem) => (stem, true),
                None => (pattern.as_str(), false),
            };
            if pattern.is_empty() {
                return Err(invalid(part(), "is empty"));
            }
            if stem.contains('*') {
                return Err(invalid(part(), "has a * that is not at its end"));
            }
            names.push(if is_prefix {
                NamePattern::Prefix(stem.to_owned())
            } else {
                NamePattern::Exact(stem.to_owned())
            });
        }
        let mut tags = route.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        Ok(Self {
            store: StoreId {
                namespace: store.namespace,
                name: store.name,
            },
            tags,
            services,
            names,
        })
    }

    /// The service of that kind; one that names it beats `*`.
    fn service(&self, kind: &str) -> Option<&Service> {
        let of_kind = |wanted: &str| self.services.iter().find(|service| service.kind == wanted);
        of_kind(kind).or_else(|| of_kind(EVERY_KIND))
    }

    fn name_match(&self, name: &str) -> Option<NameMatch> {
        if self.names.is_empty() {
            return Some(NameMatch::AnyName);
        }
        self.names
            .iter()
            .filter_map(|pattern| match pattern {
                NamePattern::Exact(exact) => (exact == name).then_some(NameMatch::Exact),
                // `*` alone names nothing.
                NamePattern::Prefix(prefix) if prefix.is_empty() => Some(NameMatch::AnyName),
                NamePattern::Prefix(prefix) => name
                    .starts_with(prefix)
                    .then_some(NameMatch::Prefix(prefix.len())),
            })
            .max()
    }

    fn destination(&self, service: &Service) -> Destination {
        Destination {
            store: self.store.clone(),
            config: service.config.clone(),
        }
    }
}

fn is_config(config: &[u8]) -> bool {
    config.is_empty()
        || serde_json::from_slice::<serde_json::Value>(config).is_ok_and(|value| value.is_object())
}

fn no_route(kind: &str, name: &str, tags: &[String]) -> RouteError {
    RouteError::NoRoute {
        kind: kind.to_owned(),
        name: name.to_owned(),
        tags: if tags.is_empty() {
            String::new()
        } else {
            format!(" with tags {tags:?}")
        },
    }
}

#[cfg(test)]
mod tests;
