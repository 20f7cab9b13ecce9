#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::certificates::material::Lifetimes;
use crate::certificates::x509::check_trust;

const NAME: &str = "helper.garden.svc";
const LEAF: u64 = 3_000;

fn wish() -> Wish {
    Wish {
        names: [NAME.to_owned(), "127.0.0.9".to_owned()].into(),
        lifetimes: Lifetimes {
            authority: Duration::from_secs(10_000),
            certificate: Duration::from_secs(LEAF),
        },
    }
}

fn begin() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

/// The operator, the API server and two replicas, each with a view of its own.
struct World {
    now: SystemTime,
    secret: Option<Material>,
    configuration: String,
    /// Since when the operator that runs now has seen the configuration as it is.
    seen_since: SystemTime,
    /// What the API server trusts: the configuration, or the one before.
    api_server: String,
    /// What the replicas show: the Secret's certificate, or the one before.
    replicas: [Option<Material>; 2],
    steps: Vec<Step>,
}

impl World {
    fn new() -> Self {
        Self {
            now: begin(),
            secret: None,
            configuration: String::new(),
            seen_since: begin(),
            api_server: String::new(),
            replicas: [None, None],
            steps: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let bundle = self.secret.as_ref().map(Material::bundle);
        let is_trusted = bundle.as_ref() == Some(&self.configuration);
        let seen = Seen {
            now: self.now,
            material: self.secret.as_ref(),
            trusted_for: is_trusted.then(|| self.now.duration_since(self.seen_since).unwrap()),
        };
        plan(seen, &wish())
    }

    /// One step, if one is due.
    fn operate(&mut self) -> bool {
        let Plan::Do(step) = self.plan() else {
            return false;
        };
        self.steps.push(step);
        let wish = wish();
        let secret = self.secret.take();
        self.secret = Some(match (step, secret) {
            (Step::Begin, _) => Material::begin(self.now, &wish).unwrap(),
            (Step::ReplaceAuthority, Some(old)) => old.replace_authority(self.now, &wish).unwrap(),
            (Step::Renew, Some(old)) => old.renew(self.now, &wish).unwrap(),
            (Step::DropExpired, Some(old)) => old.without_expired(self.now),
            (Step::Trust, Some(same)) => {
                self.configuration = same.bundle();
                self.seen_since = self.now;
                same
            }
            (step, None) => panic!("{step:?} without a Secret"),
        });
        true
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while self.operate() {
            steps += 1;
            assert!(steps < 10, "it never comes to rest: {:?}", self.steps);
        }
    }

    fn see_everything(&mut self) {
        self.api_server.clone_from(&self.configuration);
        self.replicas = [self.secret.clone(), self.secret.clone()];
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            self.see_everything();
            let Plan::WaitUntil(next) = self.plan() else {
                panic!("nothing was due");
            };
            // Certificates know only whole seconds.
            self.now = end.min(next.max(self.now) + Duration::from_secs(1));
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for replica in self.replicas.iter().flatten() {
            let Some(serving) = &replica.serving else {
                continue;
            };
            let chain = [serving.certificate.der.clone()];
            let trust = check_trust(self.api_server.as_bytes(), &chain, NAME, self.now);
            prop_assert_eq!(trust, Ok(()), "after {:?}", self.steps);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The operator does one step and then may crash: the next begins from what is stored.
    Step,
    Restart,
    ApiServerSees,
    ReplicaSees(usize),
    /// Time passes, in which a running operator does what is due and everybody hears of it.
    Pass(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Step),
        1 => Just(Event::Restart),
        1 => Just(Event::ApiServerSees),
        2 => (0..2_usize).prop_map(Event::ReplicaSees),
        2 => (1..LEAF / 4).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However the steps, the crashes and the views interleave, the API server never meets a
    /// certificate that it does not trust.
    #[test]
    fn a_rotation_never_fails_a_request(events in prop::collection::vec(any_event(), 1..80)) {
        let mut world = World::new();
        world.settle();
        world.see_everything();
        for event in events {
            match event {
                Event::Step => { world.operate(); }
                Event::Restart => world.seen_since = world.now,
                Event::ApiServerSees => world.api_server.clone_from(&world.configuration),
                Event::ReplicaSees(which) => world.replicas[which] = world.secret.clone(),
                Event::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
            }
            world.check()?;
        }
    }
}

#[test]
fn a_life_of_years_renews_replaces_and_forgets_in_this_order() {
    let mut world = World::new();
    world.settle();
    assert_eq!(world.steps, [Step::Begin, Step::Trust]);
    world.see_everything();
    let mut bundles = 0;
    for _ in 0..200 {
        let Plan::WaitUntil(next) = world.plan() else {
            panic!("nothing was due");
        };
        assert!(next > world.now, "it waits for the past");
        // A little later: certificates know only whole seconds.
        world.now = next + Duration::from_secs(1);
        world.settle();
        world.see_everything();
        world.check().unwrap();
        let authorities = world.secret.as_ref().unwrap().former.len() + 1;
        assert!(authorities <= 3, "{authorities} authorities");
        bundles = bundles.max(authorities);
    }
    assert!(bundles > 1, "no authority was ever replaced");
    for step in [Step::ReplaceAuthority, Step::Renew, Step::DropExpired] {
        assert!(world.steps.contains(&step), "{step:?} never happened");
    }
    let begins = world.steps.iter().filter(|step| **step == Step::Begin);
    assert_eq!(begins.count(), 1);
}

#[test]
fn what_is_unusable_is_made_anew() {
    let mut world = World::new();
    world.settle();
    // An operator that slept until everything had expired.
    world.now += Duration::from_secs(20_000);
    world.settle();
    assert!(
        world.steps.ends_with(&[Step::Begin, Step::Trust]),
        "{:?}",
        world.steps
    );

    // Somebody emptied the certificate, or it is for other names.
    world.secret.as_mut().unwrap().serving = None;
    assert_eq!(world.plan(), Plan::Do(Step::Renew));
    let other = Wish {
        names: ["other.garden.svc".to_owned()].into(),
        ..wish()
    };
    let renewed = world
        .secret
        .as_ref()
        .unwrap()
        .renew(world.now, &other)
        .unwrap();
    world.secret = Some(renewed);
    assert_eq!(world.plan(), Plan::Do(Step::Renew));

    // Somebody else's authorities in the configuration.
    world.settle();
    world.configuration.push_str("more");
    assert_eq!(world.plan(), Plan::Do(Step::Trust));
}
