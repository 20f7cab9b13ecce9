//! Records an operator's calls, ends it at one of them, or lets them meet trouble.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::disturbance::Disturbance;
use super::points::{CrashPoint, EventPoint, Side};
use super::silence::Silence;
use super::stand::Stand;
use super::trouble::{Faults, Trouble};

/// A call that left.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When.
    pub at: Instant,
    /// What.
    pub call: Call,
    /// How often this call had been made, this one included and refused ones not.
    pub occurrence: usize,
    /// The peer refused it, so it changed nothing.
    pub is_refused: bool,
}

impl Recorded {
    /// The call with its occurrence, as in a [`CrashPoint`].
    pub fn name(&self) -> String {
        format!("{} #{}", self.call, self.occurrence)
    }

    fn is_write(&self) -> bool {
        self.call.verb.is_mutating() && !self.is_refused
    }

    fn is_of_lease(&self) -> bool {
        self.call.what.starts_with("leases")
    }
}

/// The calls of one operator. Clones share everything.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stand: Stand,
    silence: Silence,
    /// Cancelled when the operator is to end at once; from then on no call passes.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    crash: Option<CrashPoint>,
    /// It stands still there, and is not ended.
    is_pause: bool,
    crashed: Option<String>,
    counts: HashMap<Call, usize>,
    calls: Vec<Recorded>,
    faults: Option<Faults>,
    /// The calls that can meet the trouble and were attempted.
    attempted: HashSet<Call>,
    /// Watches whose place in history is gone.
    expired: HashSet<Call>,
    /// How many events have come to each watch.
    events: HashMap<Call, usize>,
    /// The event that is lost.
    lost: Option<EventPoint>,
    /// Calls that met trouble, watches that were cut, and events that were lost.
    troubled: usize,
}

/// A call that may go on.
#[derive(Debug)]
pub(super) struct Pass {
    ends_after: bool,
    name: String,
    call: Call,
    /// Of the call in the gate's record.
    index: usize,
    /// What the call meets.
    pub(super) trouble: Option<Trouble>,
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Crash(Side),
    Pause,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may have taken effect.
    Taken,
    /// It changed nothing: a conflict, an object that is gone or there already. How often that
    /// happens differs from run to run, so the repetition keeps the number.
    Refused,
}

impl Gate {
    /// A gate that disturbs the operator so, and else lets every call pass.
    pub fn new(disturbance: Option<Disturbance>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(disturbance)),
                stand: Stand::default(),
                silence: Silence::default(),
                ended: CancellationToken::new(),
            }),
        }
    }

    /// Forgets the calls so far; from now on numbers begin at 1 and `disturbance` is in force.
    pub fn arm(&self, disturbance: Option<Disturbance>) {
        *self.shared.state.lock() = State::new(disturbance);
    }

    /// How often a call met trouble, a watch was cut or an event was lost.
    pub fn troubled(&self) -> usize {
        self.shared.state.lock().troubled
    }

    /// After how many events this watch is to end; its next start is refused if its place in
    /// history is to be gone then.
    pub(super) fn watch_is_cut(&self, watch: &Call) -> Option<usize> {
        let mut state = self.shared.state.lock();
        let trouble = state.faults.as_ref().map(|faults| &faults.trouble);
        let Some(&Trouble::CutWatches { after, is_expired }) = trouble else {
            return None;
        };
        state.troubled += 1;
        if is_expired {
            state.expired.insert(watch.clone());
        }
        Some(after)
    }

    /// Counts an event that comes to a watch; whether it is not to be lost.
    pub(super) fn event_passes(&self, watch: &Call) -> bool {
        let mut state = self.shared.state.lock();
        let count = state.events.entry(watch.clone()).or_default();
        *count += 1;
        let number = *count;
        let mut lost = state.lost.iter();
        let is_lost = lost.any(|lost| lost.number == number && lost.watch == watch.to_string());
        state.troubled += usize::from(is_lost);
        !is_lost
    }

    /// How many events have come to each watch, by the watch as text.
    pub fn events(&self) -> BTreeMap<String, usize> {
        let state = self.shared.state.lock();
        let events = state.events.iter();
        events
            .map(|(watch, count)| (watch.to_string(), *count))
            .collect()
    }

    /// The view that LISTs show, and for how long watches are held back.
    pub(super) fn past(&self) -> Option<(String, Duration)> {
        match &self.shared.state.lock().faults.as_ref()?.trouble {
            Trouble::Past { version, hold } => Some((version.clone(), *hold)),
            _ => None,
        }
    }

    /// Ends the operator now: no call passes any more.
    pub fn end(&self) {
        self.shared.ended.cancel();
        self.wake();
    }

    /// Whether the operator stands still.
    pub fn is_paused(&self) -> bool {
        self.shared.stand.is_still()
    }

    /// Lets an operator that stands still go on where it was.
    pub fn wake(&self) {
        self.shared.stand.wake();
    }

    /// Cancelled when the operator is to be ended.
    pub fn ended(&self) -> &CancellationToken {
        &self.shared.ended
    }

    /// The call at which the operator was ended.
    pub fn crashed_at(&self) -> Option<String> {
        self.shared.state.lock().crashed.clone()
    }

    /// When the operator took its lease, if that was since the gate was armed.
    pub fn leads_since(&self) -> Option<Instant> {
        let state = self.shared.state.lock();
        let mut writes = state.calls.iter().filter(|call| call.is_write());
        writes
            .find(|write| write.is_of_lease())
            .map(|write| write.at)
    }

    /// When the operator wrote something other than its lease.
    pub fn last_write(&self) -> Option<Instant> {
        let state = self.shared.state.lock();
        let mut writes = state.calls.iter().rev().filter(|call| call.is_write());
        writes
            .find(|write| !write.is_of_lease())
            .map(|write| write.at)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Recorded> {
        self.shared.state.lock().calls.clone()
    }

    /// Waits for ever when the operator has been ended, or is ended by this call.
    pub(super) async fn before(&self, call: Call) -> Pass {
        if self.shared.ended.is_cancelled() {
            std::future::pending::<()>().await;
        }
        let (pass, reached) = self.record(call);
        match reached {
            Some(Reached::Pause) => {
                let note = || {
                    let at = format!("pause before {}", pass.name);
                    self.shared.state.lock().crashed = Some(at);
                };
                self.shared.stand.stand_still(note);
                if self.shared.ended.is_cancelled() {
                    std::future::pending::<()>().await;
                }
            }
            Some(Reached::Crash(Side::Before)) => {
                self.crash(format!("before {}", pass.name));
                std::future::pending::<()>().await;
            }
            Some(Reached::Crash(Side::After)) | None => {}
        }
        pass
    }

    /// Waits for ever when the operator has been ended, or is ended by this call.
    pub(super) async fn after(&self, pass: Pass, answer: Answer) {
        match answer {
            Answer::Taken if pass.ends_after => self.crash(format!("after {}", pass.name)),
            Answer::Taken => {}
            Answer::Refused => self.take_back(&pass),
        }
        if self.shared.ended.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for ever; the call changed nothing, and its repetition keeps its number.
    pub(super) async fn never_answers(&self, pass: &Pass) {
        self.take_back(pass);
        self.shared.silence.wait().await;
    }

    /// Until when the operator waited for answers that never came: what it would have done with them
    /// comes after that.
    pub fn waited_until(&self) -> Option<Instant> {
        self.shared.silence.waited_until()
    }

    fn record(&self, call: Call) -> (Pass, Option<Reached>) {
        let mut state = self.shared.state.lock();
        let count = state.counts.entry(call.clone()).or_default();
        *count += 1;
        let recorded = Recorded {
            at: Instant::now(),
            occurrence: *count,
            call: call.clone(),
            is_refused: false,
        };
        let name = recorded.name();
        let is_mutating = recorded.call.verb.is_mutating();
        let shown = recorded.call.to_string();
        let side = state
            .crash
            .as_ref()
            .filter(|crash| is_mutating && crash.call == shown)
            .filter(|crash| crash.occurrence == recorded.occurrence)
            .map(|crash| crash.side);
        let reached = match side {
            Some(_) if state.is_pause => Some(Reached::Pause),
            Some(side) => Some(Reached::Crash(side)),
            None => None,
        };
        let pass = Pass {
            ends_after: reached == Some(Reached::Crash(Side::After)),
            name,
            trouble: state.next_trouble(&call),
            call,
            index: state.calls.len(),
        };
        state.calls.push(recorded);
        (pass, reached)
    }

    fn take_back(&self, pass: &Pass) {
        let mut state = self.shared.state.lock();
        // Another one when the gate was armed meanwhile.
        let recorded = state.calls.get_mut(pass.index);
        if let Some(recorded) = recorded.filter(|recorded| recorded.call == pass.call) {
            recorded.is_refused = true;
            if let Some(count) = state.counts.get_mut(&pass.call) {
                *count -= 1;
            }
        }
    }

    fn crash(&self, at: String) {
        self.shared.state.lock().crashed.get_or_insert(at);
        self.shared.ended.cancel();
    }
}

impl State {
    fn new(disturbance: Option<Disturbance>) -> Self {
        let mut state = Self::default();
        match disturbance {
            Some(Disturbance::Crash(point)) => state.crash = Some(point),
            Some(Disturbance::Pause(point)) => {
                state.crash = Some(point);
                state.is_pause = true;
            }
            Some(Disturbance::Loss(point)) => state.lost = Some(point),
            Some(Disturbance::Trouble(faults)) => state.faults = Some(faults),
            None => {}
        }
        state
    }

    fn next_trouble(&mut self, call: &Call) -> Option<Trouble> {
        if self.expired.remove(call) {
            return Some(Trouble::Refusal(410));
        }
        let faults = self.faults.clone()?;
        let number = self.attempted.len();
        let trouble = &faults.trouble;
        let meets = trouble.concerns(call)
            && (self.attempted.insert(call.clone()) || trouble.is_of_lease());
        if !meets || number % faults.of != faults.share {
            return None;
        }
        self.troubled += 1;
        Some(faults.trouble)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::fault::Verb;

    fn call(name: &str) -> Call {
        Call {
            verb: Verb::Patch,
            what: "stores/status".to_owned(),
            name: name.to_owned(),
        }
    }

    #[tokio::test]
    async fn no_call_passes_after_the_crash_point() {
        let point: CrashPoint = "after patch stores/status tulip #2".parse().unwrap();
        let gate = Gate::new(Some(Disturbance::Crash(point)));
        for _ in 0..2 {
            let pass = gate.before(call("rose")).await;
            gate.after(pass, Answer::Taken).await;
        }
        let pass = gate.before(call("tulip")).await;
        gate.after(pass, Answer::Taken).await;
        let pass = gate.before(call("tulip")).await;
        assert!(gate.after(pass, Answer::Taken).now_or_never().is_none());
        assert!(gate.before(call("rose")).now_or_never().is_none());
        assert_eq!(
            gate.crashed_at().unwrap(),
            "after patch stores/status tulip #2"
        );
        assert_eq!(
            gate.calls().len(),
            4,
            "a call that never left is not counted"
        );
    }

    #[tokio::test]
    async fn a_share_of_the_calls_fails_once_and_the_lease_never() {
        let faults = Faults {
            trouble: Trouble::Reset,
            share: 0,
            of: 2,
        };
        let gate = Gate::new(Some(faults.into()));
        let lease = Call {
            what: "leases".to_owned(),
            ..call("lease")
        };
        let mut met = Vec::new();
        for call in [
            call("tulip"),
            lease,
            call("tulip"),
            call("rose"),
            call("daisy"),
        ] {
            let pass = gate.before(call).await;
            met.push(pass.trouble.is_some());
            gate.after(pass, Answer::Refused).await;
        }
        assert_eq!(met, [true, false, false, false, true]);
        assert_eq!(gate.troubled(), 2);
    }

    #[test]
    fn a_paused_operator_makes_its_call_when_it_is_woken() {
        let point = "before patch stores/status tulip #1".parse().unwrap();
        let gate = Gate::new(Some(Disturbance::Pause(point)));
        let operator = std::thread::spawn({
            let gate = gate.clone();
            move || {
                let pass = gate.before(call("tulip")).now_or_never().unwrap();
                gate.after(pass, Answer::Taken).now_or_never().unwrap();
            }
        });
        while !gate.is_paused() {
            std::thread::yield_now();
        }
        assert_eq!(
            gate.crashed_at().unwrap(),
            "pause before patch stores/status tulip #1"
        );
        gate.wake();
        operator.join().unwrap();
        // Once only.
        let pass = gate.before(call("tulip")).now_or_never().unwrap();
        gate.after(pass, Answer::Taken).now_or_never().unwrap();
    }

    #[test]
    fn one_event_of_one_watch_is_lost_and_all_are_counted_since_the_gate_was_armed() {
        let watch = |what: &str| Call {
            verb: Verb::Watch,
            what: what.to_owned(),
            name: String::new(),
        };
        let gate = Gate::new(None);
        assert!(gate.event_passes(&watch("pods")));
        let point: EventPoint = "watch pods #2".parse().unwrap();
        gate.arm(Some(Disturbance::Loss(point)));
        let events = ["pods", "stores", "stores", "pods", "pods"];
        let passes = events.map(|what| gate.event_passes(&watch(what)));
        assert_eq!(passes, [true, true, true, false, true]);
        let expected = [("watch pods", 3), ("watch stores", 2)];
        let expected = expected.map(|(watch, count)| (watch.to_owned(), count));
        assert_eq!(gate.events(), BTreeMap::from(expected));
        assert_eq!(gate.troubled(), 1);
    }

    #[tokio::test]
    async fn a_refused_call_keeps_its_number_for_its_repetition() {
        let point: CrashPoint = "after patch stores/status tulip #1".parse().unwrap();
        let gate = Gate::new(Some(Disturbance::Crash(point)));
        let pass = gate.before(call("tulip")).await;
        gate.after(pass, Answer::Refused).await;
        assert_eq!(gate.crashed_at(), None);
        let pass = gate.before(call("tulip")).await;
        assert!(gate.after(pass, Answer::Taken).now_or_never().is_none());
        let refused: Vec<bool> = gate.calls().iter().map(|call| call.is_refused).collect();
        assert_eq!(refused, [true, false]);
    }
}
