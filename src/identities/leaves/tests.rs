#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use proptest::prelude::*;

use super::super::authority::{Plan, Step, plan};
use super::*;

const LIFETIMES: Lifetimes = Lifetimes {
    authority: Duration::from_secs(9_000),
    certificate: Duration::from_secs(900),
    settle: Duration::from_secs(60),
};

fn begin(now: SystemTime) -> Authority {
    Authority::after(Step::Begin, None, now, &LIFETIMES).unwrap()
}

fn wanted(names: &[(&str, &str)]) -> Wanted {
    let identity = |text: &str| format!("spiffe://atomix.io/{text}").parse().unwrap();
    names
        .iter()
        .map(|(name, text)| ((*name).to_owned(), identity(text)))
        .collect()
}

/// Whole seconds, as certificates know them.
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn only_what_is_wrong_is_made_anew() {
    let now = start();
    let authority = begin(now);
    let both = wanted(&[("tulip", "node/meadow/tulip"), ("rose", "node/meadow/rose")]);
    let first = renew(&Data::new(), &both, &authority, now, &LIFETIMES).unwrap();
    let data = first.data.unwrap();
    let names: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["ca.crt", "rose.crt", "rose.key", "tulip.crt", "tulip.key"]
    );
    assert_eq!(first.until, now + LIFETIMES.certificate * 2 / 3);
    let again = renew(&data, &both, &authority, now, &LIFETIMES).unwrap();
    assert_eq!(again.data, None, "nothing is to be written");

    let mut broken = data.clone();
    broken.insert("rose.key".to_owned(), data["tulip.key"].clone());
    broken.insert("stranger".to_owned(), ByteString(b"x".to_vec()));
    let healed = renew(&broken, &both, &authority, now, &LIFETIMES).unwrap();
    let healed = healed.data.unwrap();
    assert_eq!(healed["tulip.crt"], data["tulip.crt"]);
    assert_ne!(healed["rose.crt"], data["rose.crt"]);
    assert!(!healed.contains_key("stranger"));

    let renamed = wanted(&[("tulip", "node/field/tulip")]);
    let renamed = renew(&data, &renamed, &authority, now, &LIFETIMES).unwrap();
    let renamed = renamed.data.unwrap();
    assert_ne!(renamed["tulip.crt"], data["tulip.crt"]);
    assert!(!renamed.contains_key("rose.crt"));

    let later = now + LIFETIMES.certificate * 2 / 3;
    let due = renew(&data, &both, &authority, later, &LIFETIMES).unwrap();
    assert_ne!(due.data.unwrap()["tulip.crt"], data["tulip.crt"]);
}

#[test]
fn a_secret_that_cannot_be_read_is_no_authority() {
    let now = start();
    let authority = begin(now);
    assert_eq!(Authority::of(&authority.data()).unwrap(), authority);
    let next = Authority::after(Step::AddNext, Some(authority), now, &LIFETIMES).unwrap();
    assert_eq!(Authority::of(&next.data()).unwrap(), next);
    for broken in ["ca.crt", "ca.key"] {
        let mut data = next.data();
        data.insert(broken.to_owned(), ByteString(b"rubbish".to_vec()));
        assert!(Authority::of(&data).is_err(), "{broken}");
    }
    assert_eq!(plan(now, None, None, &LIFETIMES), Plan::Do(Step::Begin));
}

/// Programs that hold certificates, some of them behind.
struct World {
    now: SystemTime,
    authority: Authority,
    secret: Data,
    /// Since when the operator has seen that the Secret names all authorities.
    trusted_since: Option<SystemTime>,
    /// What two programs hold, as their kubelets last brought it, and when.
    held: [(Data, SystemTime); 2],
}

impl World {
    fn new() -> Self {
        let now = start();
        let authority = begin(now);
        let secret = renew(&Data::new(), &one(), &authority, now, &LIFETIMES).unwrap();
        let secret = secret.data.unwrap();
        let held = [(secret.clone(), now), (secret.clone(), now)];
        Self {
            now,
            authority,
            secret,
            trusted_since: None,
            held,
        }
    }

    /// The operator does at most one step and writes the Secret, or is away.
    fn operate(&mut self) {
        if field(&self.secret, "ca.crt") == self.authority.bundle().as_bytes() {
            self.trusted_since.get_or_insert(self.now);
        } else {
            self.trusted_since = None;
        }
        let since = self.trusted_since;
        let trusted_for = since.map(|since| self.now.duration_since(since).unwrap());
        if let Plan::Do(step) = plan(self.now, Some(&self.authority), trusted_for, &LIFETIMES) {
            let old = Some(self.authority.clone());
            self.authority = Authority::after(step, old, self.now, &LIFETIMES).unwrap();
            // As a restart would read it.
            self.authority = Authority::of(&self.authority.data()).unwrap();
            self.trusted_since = None;
        }
    }

    fn write(&mut self) {
        let renewed = renew(&self.secret, &one(), &self.authority, self.now, &LIFETIMES).unwrap();
        if let Some(data) = renewed.data {
            self.secret = data;
        }
    }

    /// Both programs take each other's certificate.
    fn check(&self) {
        for (one, other) in [(0, 1), (1, 0)] {
            let (shows, trusts) = (&self.held[one].0, &self.held[other].0);
            let shown = Certificate::all_of("", field(shows, "tls.crt")).unwrap();
            let trusted = Certificate::all_of("", field(trusts, "ca.crt")).unwrap();
            let signer = trusted
                .iter()
                .find(|trusted| shown[0].is_signed_by(trusted));
            let signer = signer.expect("the signer is trusted");
            assert!(self.now < shown[0].expires && self.now < signer.expires);
        }
    }
}

fn one() -> Wanted {
    wanted(&[("tls", "runtime/meadow")])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    /// Time goes on; the operator works, or dies between its two writes; kubelets bring what is
    /// there, each late but within the time to settle.
    #[test]
    fn programs_trust_each_other_through_every_rotation(
        steps in prop::collection::vec((0_u8..5, 0_u8..4), 500)
    ) {
        let mut world = World::new();
        let mut idle = 0;
        let first = world.authority.signing.certificate.pem.clone();
        for (operator, kubelet) in steps {
            world.now += Duration::from_secs(20);
            idle += 1;
            match operator {
                // Away, but never so long that certificates expire.
                0 if idle < 5 => {}
                1 if idle < 5 => world.operate(),
                2 if idle < 5 => world.write(),
                3 if idle < 5 => world.trusted_since = None,
                _ => {
                    idle = 0;
                    world.operate();
                    world.write();
                }
            }
            for (index, (held, at)) in world.held.iter_mut().enumerate() {
                let late = world.now.duration_since(*at).unwrap() >= Duration::from_secs(40);
                if usize::from(kubelet) == index || late {
                    held.clone_from(&world.secret);
                    *at = world.now;
                }
            }
            world.check();
        }
        prop_assert_ne!(&world.authority.signing.certificate.pem, &first);
        let trusted = Certificate::all_of("", world.authority.bundle().as_bytes()).unwrap();
        prop_assert!(trusted.len() <= 3, "expired authorities are dropped: {}", trusted.len());
    }
}
