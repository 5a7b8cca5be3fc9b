//! Training by processes that `mpirun` starts. Each test starts this program again, as the worker below.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Interrupter};
use tempfile::TempDir;
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_mpi::Mpi;
use ttq_testing::elements;
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Cpu>;
type Step = TernaryStep<A, Net<A>>;

/// The directory of the training, for the worker.
const DIRECTORY: &str = "TTQ_MPI_TEST_DIRECTORY";
/// What the worker does beyond training to the end.
const MODE: &str = "TTQ_MPI_TEST_MODE";

/// The command that starts workers.
fn mpirun(processes: usize, directory: &Path, mode: &str) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-np", &processes.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--include-ignored", "--nocapture"])
        // Open MPI refuses more processes than cores and the superuser unless told otherwise; containers forbid its copies.
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        // The same for version 5.
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("RAYON_NUM_THREADS", "1")
        .env(DIRECTORY, directory)
        .env(MODE, mode)
        .stdin(Stdio::null());
    command
}

fn start(processes: usize, directory: &Path, mode: &str) -> Output {
    mpirun(processes, directory, mode).output().unwrap()
}

/// Trains as several processes, which end with the same numbers.
fn train(processes: usize, directory: &Path, mode: &str) -> Vec<f32> {
    let output = start(processes, directory, mode);
    assert!(output.status.success(), "{}", text(&output));
    let read = |rank: usize| fs::read(directory.join(format!("numbers-{rank}"))).unwrap();
    assert!((1..processes).all(|rank| read(rank) == read(0)), "equal to the bit");
    read(0).chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn two_and_three_processes_give_the_weights_of_one_and_a_resumed_run_those_of_the_uninterrupted_one() {
    let one = train(1, directory().path(), "");
    let two = train(2, directory().path(), "");
    assert_close(&two, &one);
    assert_close(&train(3, directory().path(), ""), &one);
    for (processes, expected) in [(2, &two), (3, &one)] {
        let resumed = directory();
        let output = start(2, resumed.path(), "stop in epoch 2");
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(latest_checkpoint(resumed.path()), Some(1), "{}", text(&output));
        let found = train(processes, resumed.path(), "");
        if processes == 2 {
            assert_eq!(&found, expected);
        } else {
            assert_close(&found, expected);
        }
    }
}

#[test]
fn a_process_that_is_killed_ends_the_others_and_the_run_resumes() {
    let expected = train(2, directory().path(), "");
    let killed = directory();
    let mut child =
        mpirun(2, killed.path(), "slow in epoch 2").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = |rank: usize| killed.path().join(format!("pid-{rank}"));
    wait_until(&mut child, || latest_checkpoint(killed.path()) == Some(1) && pid(0).is_file() && pid(1).is_file());
    let [first, second] = [0, 1].map(|rank| fs::read_to_string(pid(rank)).unwrap());
    assert!(Command::new("kill").args(["-9", &second]).status().unwrap().success());
    let start = Instant::now();
    let status = child.wait().unwrap();
    assert!(!status.success());
    while is_running(&first) {
        assert!(start.elapsed() < Duration::from_secs(10), "process 0 has not ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(train(2, killed.path(), ""), expected);
}

/// Returns whether a process computes: one that has ended can have an entry until its parent reads its exit code.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

fn wait_until(child: &mut Child, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(child.try_wait().unwrap().is_none(), "the processes have ended");
        assert!(start.elapsed() < Duration::from_secs(60), "the second epoch has not begun");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_that_panics_ends_the_others() {
    let start_time = Instant::now();
    let output = start(2, directory().path(), "panic in epoch 2");
    assert!(!output.status.success() && start_time.elapsed() < Duration::from_secs(20));
    assert!(text(&output).contains("process 1 panics"), "{}", text(&output));
}

#[test]
fn a_process_with_other_data_is_refused_at_the_start() {
    let directory = directory();
    let output = start(3, directory.path(), "other data");
    assert!(!output.status.success());
    let text = text(&output);
    assert!(text.contains("process 2 has other data than process 0"), "{text}");
    assert!(!directory.path().join("checkpoint").exists());
}

fn loader<B: Backend>(
    len: usize,
    item: impl Fn(ItemKey) -> Point + Send + Sync + 'static,
) -> ReproducibleLoader<B, Point, Batch<B>> {
    ReproducibleLoader::new(len, Arc::new(item), Arc::new(PointBatcher), 24, Default::default())
}

#[test]
#[ignore = "the other tests start it by mpirun"]
fn worker() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let mode = std::env::var(MODE).unwrap();
    let mpi = Mpi::start().unwrap();
    let ranks = mpi.ranks();
    let rank = ranks.rank();
    let is_last = rank + 1 == ranks.size();
    fs::write(directory.join(format!("pid-{rank}")), std::process::id().to_string()).unwrap();
    let data = if mode == "other data" && is_last { "b" } else { "a" };
    if let Err(error) = ranks.check_start(Ok(vec![("other data".into(), data.into())])) {
        if ranks.is_first() {
            println!("{error}");
        }
        mpi.finish();
        std::process::exit(1);
    }

    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    let item = move |key: ItemKey| {
        if key.epoch == 2 {
            match mode.as_str() {
                "stop in epoch 2" if is_last => handle.stop(Some("stopped")),
                "slow in epoch 2" => std::thread::sleep(Duration::from_millis(200)),
                "panic in epoch 2" if is_last => panic!("process {rank} panics"),
                _ => {}
            }
        }
        point(key.index, key.epoch)
    };
    let config =
        PhaseConfig::new(Phase::Ternary, 2, 0.1, MetricGoal::minimize("Loss")).with_kept_epoch(KeptEpoch::Last);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init::<A, Step>();
    let data = PhaseData::new(loader(100, item).shuffle(5), loader(31, |key| point(key.index, 0)));
    let step = TernaryStep::new(Ternary::new(Net::new(false), &TernaryConfig::default()).unwrap());
    let outcome = PhaseTraining::new(&directory, config, ExecutionStrategy::single(Default::default()))
        .with_ranks(ranks)
        .with_interrupter(interrupter)
        .run(step, TernaryOptimizer::uniform(sgd), data, |training| {
            training.metrics((AccuracyMetric::new(), LossMetric::new()))
        });
    if let PhaseOutcome::Completed { model, .. } = outcome.unwrap() {
        let bytes: Vec<u8> = elements(&model.valid()).into_iter().flat_map(f32::to_le_bytes).collect();
        fs::write(directory.join(format!("numbers-{rank}")), bytes).unwrap();
    }
    mpi.finish();
}
