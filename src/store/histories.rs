//! Plays random histories of the planners' models: how many, and which. `ATOMIX_HISTORIES` says how
//! many, and `ATOMIX_SEED` plays one alone.

#![allow(clippy::unwrap_used, reason = "tests")]

const SEED_VARIABLE: &str = "ATOMIX_SEED";
const HISTORIES_VARIABLE: &str = "ATOMIX_HISTORIES";

/// Says how to repeat what failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat this history with {SEED_VARIABLE}={}", self.0);
        }
    }
}

/// Plays so many histories, unless the environment wants others; each has `steps` steps.
pub(crate) fn play_all(name: &str, default: u64, steps: usize, play: fn(u64)) {
    let number = |variable: &str| {
        std::env::var(variable)
            .ok()
            .map(|text| text.parse().unwrap())
    };
    let play = |seed| {
        let _seed = Seed(seed);
        play(seed);
    };
    if let Some(seed) = number(SEED_VARIABLE) {
        play(seed);
        return;
    }
    let histories = number(HISTORIES_VARIABLE).unwrap_or(default);
    let first: u64 = rand::random::<u32>().into();
    println!(
        "{name}: {histories} histories of {steps} steps, seeds {first} to {}",
        first + histories - 1
    );
    (first..first + histories).for_each(play);
}
