#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use proptest::prelude::*;

use super::super::authority::{Origin, Plan, Step, plan};
use super::super::company;
use super::*;

const LIFETIMES: Lifetimes = Lifetimes {
    authority: Duration::from_secs(9_000),
    certificate: Duration::from_secs(900),
    settle: Duration::from_secs(60),
};

fn begin(now: SystemTime) -> Authority {
    Authority::after(Step::Begin, None, Origin::Own, now, &LIFETIMES).unwrap()
}

fn take_over(pair: &Pair, old: Option<Authority>, now: SystemTime) -> Authority {
    let origin = Origin::Source(Some(pair));
    let step = match plan(now, old.as_ref(), origin, None, &LIFETIMES) {
        Plan::Do(step) => step,
        other => panic!("{other:?}"),
    };
    Authority::after(step, old, origin, now, &LIFETIMES).unwrap()
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
    let own = Origin::Own;
    let next = Authority::after(Step::AddNext, Some(authority), own, now, &LIFETIMES).unwrap();
    assert_eq!(Authority::of(&next.data()).unwrap(), next);
    for broken in ["ca.crt", "ca.key"] {
        let mut data = next.data();
        data.insert(broken.to_owned(), ByteString(b"rubbish".to_vec()));
        assert!(Authority::of(&data).is_err(), "{broken}");
    }
    let begin = Plan::Do(Step::Begin);
    assert_eq!(plan(now, None, own, None, &LIFETIMES), begin);
    let source = Origin::Source(None);
    let wait = Plan::WaitForSource;
    assert_eq!(plan(now, None, source, None, &LIFETIMES), wait);
}

/// A Secret of an earlier version does not say until when former authorities are trusted.
#[test]
fn former_authorities_are_trusted_until_nothing_that_they_signed_is_in_use() {
    let now = start();
    let own = Origin::Own;
    let first = begin(now);
    let expires = first.expires();
    let next = Authority::after(Step::AddNext, Some(first), own, now, &LIFETIMES).unwrap();
    let promoted = Authority::after(Step::Promote, Some(next), own, now, &LIFETIMES).unwrap();
    assert_eq!(Authority::of(&promoted.data()).unwrap(), promoted);
    let look = |authority: &Authority, at| plan(at, Some(authority), own, None, &LIFETIMES);
    let until = now + LIFETIMES.certificate * 2;
    assert_eq!(look(&promoted, now), Plan::WaitUntil(until));
    assert_eq!(look(&promoted, until), Plan::Do(Step::DropExpired));

    for told in [None, Some("soon")] {
        let mut data = promoted.data();
        data.remove("former.until");
        let told = told.map(|text| ("former.until".to_owned(), ByteString(text.into())));
        data.extend(told);
        let earlier = Authority::of(&data).unwrap();
        let renewal = now + LIFETIMES.authority * 2 / 3;
        assert_eq!(look(&earlier, until), Plan::WaitUntil(renewal.min(expires)));
    }
}

#[test]
fn an_authority_of_somebody_elses_is_the_next_one_until_it_is_settled() {
    let now = start();
    let own = begin(now);
    let first = company::authority(now, LIFETIMES.authority);
    let taken = take_over(&first, Some(own.clone()), now);
    assert_eq!(taken.signing, own.signing, "the new one does not sign yet");
    assert!(taken.bundle().contains(&first.certificate.pem));

    // A later one takes the place of one that has not signed.
    let second = company::authority(now, LIFETIMES.authority);
    let taken = take_over(&second, Some(taken), now);
    assert!(!taken.bundle().contains(&first.certificate.pem));
    let origin = Origin::Source(Some(&second));
    let look = |origin, trusted_for| plan(now, Some(&taken), origin, trusted_for, &LIFETIMES);
    let almost = LIFETIMES.settle - Duration::from_secs(1);
    let soon = Plan::WaitUntil(now + Duration::from_secs(1));
    assert_eq!(look(origin, Some(almost)), soon);
    let promote = Plan::Do(Step::Promote);
    assert_eq!(look(origin, Some(LIFETIMES.settle)), promote);
    // What is of no use changes nothing about what was taken over.
    let none = Origin::Source(None);
    assert_eq!(look(none, Some(almost)), soon);
    assert_eq!(look(none, Some(LIFETIMES.settle)), promote);

    // Back to our own at once, whatever is left of the other's life.
    let step = Step::Promote;
    let promoted = Authority::after(step, Some(taken), origin, now, &LIFETIMES).unwrap();
    assert_eq!(promoted.signing, second);
    let back = plan(now, Some(&promoted), Origin::Own, None, &LIFETIMES);
    assert_eq!(back, Plan::Do(Step::AddNext));
    // And one that signs already is not taken over again.
    let again = plan(now, Some(&promoted), origin, None, &LIFETIMES);
    assert!(matches!(again, Plan::WaitUntil(_)), "{again:?}");
}

#[test]
fn an_authority_that_comes_back_while_another_settles_signs_on() {
    let now = start();
    let [first, second] = [0; 2].map(|_| company::authority(now, LIFETIMES.authority));
    let taken = take_over(&first, None, now);
    let both = take_over(&second, Some(taken.clone()), now);
    assert_eq!(take_over(&first, Some(both), now), taken);
}

#[test]
fn no_certificate_outlives_its_authority_or_is_renewed_in_vain() {
    let now = start();
    // Shorter than a certificate's.
    let short = company::authority(now, LIFETIMES.certificate / 2);
    let authority = take_over(&short, None, now);
    let first = renew(&Data::new(), &one(), &authority, now, &LIFETIMES).unwrap();
    let data = first.data.unwrap();
    let leaf = Certificate::all_of("", field(&data, "tls.crt")).unwrap();
    let expires = short.certificate.expires;
    assert_eq!((leaf[0].expires, first.until), (expires, expires));
    let later = expires - Duration::from_secs(1);
    let again = renew(&data, &one(), &authority, later, &LIFETIMES).unwrap();
    assert_eq!(again.data, None, "a new one would end at the same time");

    // A new one of the same name and another key signs anew, one of the same key need not.
    let other = company::authority(now, LIFETIMES.authority);
    let other = take_over(&other, None, now);
    let renewed = renew(&data, &one(), &other, now, &LIFETIMES).unwrap();
    assert_ne!(renewed.data.unwrap()["tls.crt"], data["tls.crt"]);
    let same = company::renewed(&short, now, LIFETIMES.authority);
    let same = take_over(&same, None, now);
    let kept = renew(&data, &one(), &same, now, &LIFETIMES).unwrap();
    assert_eq!(kept.data.unwrap()["tls.crt"], data["tls.crt"]);
}

#[test]
fn an_authority_that_nobody_renews_signs_to_its_end_and_any_other_follows_it_at_once() {
    let now = start();
    let old = company::authority(now, LIFETIMES.authority);
    let authority = take_over(&old, None, now);
    let expires = old.certificate.expires;
    let overdue = expires - LIFETIMES.certificate;
    let look = |authority: &Authority, at, found| {
        plan(at, Some(authority), Origin::Source(found), None, &LIFETIMES)
    };
    assert_eq!(authority.overdue_at(&LIFETIMES), Some(overdue));
    assert_eq!(look(&authority, now, None), Plan::WaitUntil(overdue));
    assert_eq!(look(&authority, overdue, None), Plan::WaitUntil(expires));
    assert!(authority.can_sign(overdue) && !authority.can_sign(expires));
    assert_eq!(look(&authority, expires, None), Plan::WaitForSource);
    let late = company::authority(expires, LIFETIMES.authority);
    let begin = Plan::Do(Step::Begin);
    assert_eq!(look(&authority, expires, Some(&late)), begin);

    // One that was about to follow it waits no longer.
    let both = take_over(&late, Some(authority), overdue);
    assert_eq!(both.overdue_at(&LIFETIMES), None);
    assert_eq!(look(&both, expires, None), Plan::Do(Step::Promote));
    // And is trusted no more when it has expired itself.
    let brief = company::authority(now, LIFETIMES.settle * 4);
    let both = take_over(&brief, Some(take_over(&old, None, now)), now);
    let over = brief.certificate.expires;
    assert_eq!(look(&both, over, None), Plan::Do(Step::DropExpired));
    let left = Authority::after(
        Step::DropExpired,
        Some(both),
        Origin::Source(None),
        over,
        &LIFETIMES,
    );
    assert_eq!(left.unwrap().bundle(), old.certificate.pem);
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
    origin: Makes,
    /// All that a company has made.
    made: Vec<Pair>,
}

/// Who makes authorities.
#[derive(Clone, Debug)]
enum Makes {
    Operator,
    /// What is in the Secret of those who do; `None` = nothing of use.
    Company(Option<Box<Pair>>),
}

impl Makes {
    fn origin(&self) -> Origin<'_> {
        match self {
            Self::Operator => Origin::Own,
            Self::Company(found) => Origin::Source(found.as_deref()),
        }
    }
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
            origin: Makes::Operator,
            made: Vec::new(),
        }
    }

    /// Somebody changes who makes authorities, or what they have made.
    fn change_origin(&mut self, change: u8) {
        let life = LIFETIMES.authority / 2;
        let (now, last) = (self.now, self.made.last());
        let usable = |pair: &&Pair| pair.certificate.expires > now + life / 2;
        let found = match (change, last.filter(usable)) {
            (0, _) => {
                self.origin = Makes::Operator;
                return;
            }
            (1, _) => None,
            // One from before, which may have signed.
            (2, Some(_)) => self.made.iter().find(usable).cloned(),
            (3, Some(last)) => Some(company::renewed(last, now, life)),
            (4, _) => Some(company::authority(now, life)),
            _ => return,
        };
        self.made.extend(found.clone());
        self.origin = Makes::Company(found.map(Box::new));
    }

    /// A company renews in time, and leaves it to settle.
    fn renew_in_time(&mut self) -> bool {
        let left = self.authority.expires().duration_since(self.now).unwrap();
        let is_late = left < LIFETIMES.authority / 4;
        let has_later = match &self.origin {
            Makes::Operator => true,
            Makes::Company(None) => false,
            Makes::Company(Some(found)) => found.certificate.expires > self.authority.expires(),
        };
        if is_late && !has_later {
            self.change_origin(4);
        }
        is_late
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
        let origin = self.origin.origin();
        let next = plan(
            self.now,
            Some(&self.authority),
            origin,
            trusted_for,
            &LIFETIMES,
        );
        if let Plan::Do(step) = next {
            assert_ne!(step, Step::Begin, "everybody would be cut off");
            let old = Some(self.authority.clone());
            self.authority = Authority::after(step, old, origin, self.now, &LIFETIMES).unwrap();
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
                .find(|trusted| shown[0].is_trusted_by(trusted, self.now).is_ok());
            let signer = signer.expect("the signer is trusted");
            assert!(self.now < shown[0].expires && shown[0].expires <= signer.expires);
        }
    }

    /// Kubelets bring what is there, one of them now, and each before it is late.
    fn bring(&mut self, kubelet: u8) {
        for (index, (held, at)) in self.held.iter_mut().enumerate() {
            let late = self.now.duration_since(*at).unwrap() >= Duration::from_secs(40);
            if usize::from(kubelet) == index || late {
                held.clone_from(&self.secret);
                *at = self.now;
            }
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
            world.bring(kubelet);
            world.check();
        }
        prop_assert_ne!(&world.authority.signing.certificate.pem, &first);
        let trusted = Certificate::all_of("", world.authority.bundle().as_bytes()).unwrap();
        prop_assert!(trusted.len() <= 3, "expired authorities are dropped: {}", trusted.len());
    }

    /// The same, while somebody else makes authorities, or the operator again: theirs are replaced at
    /// any time, also before they are settled, come back, vanish, and keep their name.
    #[test]
    fn programs_trust_each_other_whoever_makes_the_authority(
        steps in prop::collection::vec((0_u8..5, 0_u8..4, 0_u8..60), 700)
    ) {
        let mut world = World::new();
        world.change_origin(4);
        let mut idle = 0;
        let mut signers = Vec::new();
        for (operator, kubelet, change) in steps {
            world.now += Duration::from_secs(20);
            idle += 1;
            let must_settle = world.renew_in_time();
            if !must_settle {
                world.change_origin(change);
            }
            match operator {
                0 if idle < 5 => {}
                1 if idle < 5 => world.operate(),
                2 if idle < 5 => world.write(),
                3 if idle < 5 && !must_settle => world.trusted_since = None,
                _ => {
                    idle = 0;
                    world.operate();
                    world.write();
                }
            }
            world.bring(kubelet);
            world.check();
            let signer = &world.authority.signing.certificate.pem;
            if signers.last() != Some(signer) {
                signers.push(signer.clone());
            }
        }
        prop_assert!(signers.len() > 2, "{} have signed", signers.len());
    }
}
