//! The queue under paused time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use atomix_process::logging::{self, LogFormat};
use serde_json::Value;

use super::*;
use crate::error::Category;

#[derive(Debug, ThisError)]
#[error("failed on purpose")]
struct Failure(Category);

impl ReconcileError for Failure {
    fn category(&self) -> Category {
        self.0
    }
}

type Log = Arc<Mutex<Vec<(String, Instant)>>>;

fn start(
    queue: &Queue<String>,
    outcome: impl Fn(usize) -> Result<Next, Failure> + Send + Sync + 'static,
) -> (
    Log,
    CancellationToken,
    tokio::task::JoinHandle<Result<(), RunError>>,
) {
    let log: Log = Arc::default();
    let shutdown = CancellationToken::new();
    let outcome = Arc::new(outcome);
    let calls = Arc::new(AtomicUsize::new(0));
    let reconcile = {
        let log = Arc::clone(&log);
        move |key: String| {
            let number = calls.fetch_add(1, Ordering::SeqCst);
            log.lock().push((key, Instant::now()));
            let outcome = Arc::clone(&outcome);
            async move {
                tokio::task::yield_now().await;
                outcome(number)
            }
        }
    };
    let metrics = Metrics::default();
    let task = tokio::spawn(run(
        "test",
        2,
        queue.clone(),
        metrics,
        shutdown.clone(),
        reconcile,
    ));
    (log, shutdown, task)
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_comes_back_with_growing_delay_until_it_succeeds() {
    let queue = Queue::default();
    let (log, shutdown, task) = start(&queue, |call| match call {
        0..5 => Err(Failure(Category::Unavailable)),
        _ => Ok(Next::OnChange),
    });
    queue.add("meadow/tulip".to_owned());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let times: Vec<Instant> = log.lock().iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 6);
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_invalid_object_waits_for_its_change() {
    let queue = Queue::default();
    let (log, shutdown, task) = start(&queue, |_| Err(Failure(Category::InvalidObject)));
    queue.add("meadow/tulip".to_owned());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(log.lock().len(), 1);
    queue.add("meadow/tulip".to_owned());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.lock().len(), 2);
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_earliest_request_for_a_key_wins_and_is_reconciled_once() {
    let queue = Queue::default();
    let begin = Instant::now();
    queue.add_after("a".to_owned(), Duration::from_secs(9));
    queue.add_after("a".to_owned(), Duration::from_secs(5));
    queue.add_after("a".to_owned(), Duration::from_secs(7));
    let (log, shutdown, task) = start(&queue, |_| Ok(Next::OnChange));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = log.lock().clone();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].1 - begin, Duration::from_secs(5));
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_key_added_while_it_runs_runs_again_and_never_twice_at_a_time() {
    let queue: Queue<String> = Queue::default();
    let (running, most, total) =
        <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let shutdown = CancellationToken::new();
    let reconcile = {
        let (queue, running, most, total) =
            (queue.clone(), running.clone(), most.clone(), total.clone());
        move |key: String| {
            let (queue, running, most, total) =
                (queue.clone(), running.clone(), most.clone(), total.clone());
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                if total.fetch_add(1, Ordering::SeqCst) < 100 {
                    queue.add(key);
                }
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Failure>(Next::OnChange)
            }
        }
    };
    let metrics = Metrics::default();
    let task = tokio::spawn(run(
        "test",
        8,
        queue.clone(),
        metrics,
        shutdown.clone(),
        reconcile,
    ));
    queue.add("a".to_owned());
    let deadline = Instant::now() + Duration::from_secs(10);
    while total.load(Ordering::SeqCst) < 101 {
        assert!(Instant::now() < deadline, "the key did not come back");
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(total.load(Ordering::SeqCst), 101);
}

#[tokio::test]
async fn a_panic_ends_the_controller_and_names_the_object() {
    let queue = Queue::default();
    let (_log, _shutdown, task) = start(&queue, |_| panic!("out of cheese"));
    queue.add("meadow/tulip".to_owned());
    let error = task.await.unwrap().unwrap_err();
    assert!(error.to_string().ends_with("meadow/tulip"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_reconcile_that_hangs() {
    let queue = Queue::default();
    let shutdown = CancellationToken::new();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let reconcile = {
        let ended = Arc::clone(&ended);
        move |key: String| {
            let ended = Arc::clone(&ended);
            async move {
                let takes = if key == "slow" { 3600 } else { 0 };
                tokio::time::sleep(Duration::from_millis(500 + takes * 1000)).await;
                ended.lock().push(key);
                Ok::<_, Failure>(Next::OnChange)
            }
        }
    };
    let metrics = Metrics::default();
    let task = run(
        "test",
        2,
        queue.clone(),
        metrics,
        shutdown.clone(),
        reconcile,
    );
    let task = tokio::spawn(task);
    queue.add("slow".to_owned());
    queue.add("quick".to_owned());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_millis(), LAST_SECOND.as_millis());
    assert_eq!(*ended.lock(), ["quick"]);
}

/// Lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_line_of_json_names_the_object_that_is_reconciled() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = logging::to(move || writer.clone(), LogFormat::Json);
    let logs = tracing::subscriber::set_default(subscriber);
    let queue = Queue::default();
    let (_log, shutdown, task) = start(&queue, |call| {
        tracing::info!("looks\nat it");
        match call {
            0 => Err(Failure(Category::Unavailable)),
            1 => Err(Failure(Category::InvalidObject)),
            _ => Ok(Next::OnChange),
        }
    });
    queue.add("meadow/tulip".to_owned());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    shutdown.cancel();
    task.await.unwrap().unwrap();
    drop(logs);

    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().unwrap();
    let of = |message: &str| {
        let found = lines.iter().filter(|line| line["message"] == message);
        found.collect::<Vec<_>>()
    };
    let within = of("looks\nat it");
    assert_eq!(within.len(), 2, "{text}");
    for line in within {
        assert_eq!(line["span"]["object"], "meadow/tulip", "{line}");
    }
    for message in ["reconcile failed", "waits for a change of the object"] {
        let told = of(message);
        assert_eq!(told.len(), 1, "{text}");
        assert_eq!(told[0]["level"], "WARN", "{text}");
        assert_eq!(told[0]["object"], "meadow/tulip", "{text}");
        assert_eq!(told[0]["error"], "failed on purpose", "{text}");
    }
}
