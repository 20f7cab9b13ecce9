//! Panics on purpose, for tests of what becomes of a process when one of its tasks panics.

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The environment variable with a module: a program's task that logs something there panics.
pub const PANICS_AT: &str = "ATOMIX_TEST_PANICS_AT";

/// As long as the answer is kept, whatever of this thread logs something in the module `target`
/// panics there. Nothing else is logged.
#[must_use]
pub fn panics_at(target: &'static str) -> DefaultGuard {
    tracing::subscriber::set_default(PanicsAt { target })
}

struct PanicsAt {
    target: &'static str,
}

impl Subscriber for PanicsAt {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == self.target
    }

    #[allow(clippy::panic, reason = "it is what this is for")]
    fn event(&self, event: &Event<'_>) {
        panic!("the test let {} panic", event.metadata().target());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What a program adds to its logs where [`PANICS_AT`] is set.
pub(crate) fn of_environment() -> Option<TasksPanic> {
    let target = std::env::var(PANICS_AT).ok()?;
    Some(TasksPanic { target })
}

pub(crate) struct TasksPanic {
    target: String,
}

impl<S: Subscriber> Layer<S> for TasksPanic {
    #[allow(clippy::panic, reason = "it is what this is for")]
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Tasks run on threads of the runtime.
        let is_in_task = std::thread::current().name() != Some("main");
        if is_in_task && event.metadata().target() == self.target {
            panic!("the test let {} panic", self.target);
        }
    }
}
