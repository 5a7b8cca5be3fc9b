//! Training in several processes, which are threads here: shares, sums, decisions, resume, differences.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, Param};
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Interrupter};
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::elements;
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::*;

type A = Autodiff<Cpu>;
type Step = TernaryStep<A, Net<A>>;

/// Threads that exchange bytes by a table.
struct Threads {
    table: Mutex<Vec<Vec<u8>>>,
    barrier: Barrier,
}

struct Thread(usize, Arc<Threads>);

impl Communicator for Thread {
    fn rank(&self) -> usize {
        self.0
    }

    fn size(&self) -> usize {
        self.1.table.lock().unwrap().len()
    }

    fn sum(&self, values: &mut [f32]) {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        values.fill(0.0);
        for bytes in self.gather(&own) {
            assert_eq!(bytes.len(), own.len(), "every process sums the same number of values");
            let terms = bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            values.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        *bytes = self.gather(bytes).swap_remove(0);
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.1.table.lock().unwrap()[self.0] = bytes.to_vec();
        self.1.barrier.wait();
        let all = self.1.table.lock().unwrap().clone();
        self.1.barrier.wait();
        all
    }
}

/// Runs a function as several processes; returns their results in order.
fn processes<T: Send + 'static>(count: usize, run: impl Fn(Ranks) -> T + Send + Sync + 'static) -> Vec<T> {
    let threads = Arc::new(Threads { table: Mutex::new(vec![Vec::new(); count]), barrier: Barrier::new(count) });
    let run = Arc::new(run);
    let started: Vec<_> = (0..count)
        .map(|rank| {
            let (threads, run) = (threads.clone(), run.clone());
            thread::spawn(move || run(Ranks::new(Thread(rank, threads))))
        })
        .collect();
    started.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Numbers of a training.
#[derive(Clone)]
struct Setup {
    norm: bool,
    epochs: usize,
    accumulate: usize,
    /// Averages parameters and changes the rate by the validation metric.
    more: bool,
    items: usize,
    valid: usize,
}

const SETUP: Setup = Setup { norm: false, epochs: 2, accumulate: 1, more: false, items: 100, valid: 31 };

fn loader<B: Backend>(
    len: usize,
    item: impl Fn(ItemKey) -> Point + Send + Sync + 'static,
) -> ReproducibleLoader<B, Point, Batch<B>> {
    ReproducibleLoader::new(len, Arc::new(item), Arc::new(PointBatcher), 24, Default::default())
}

/// A network that differs between processes: training starts from that of process 0.
fn wrapped(norm: bool, ranks: &Ranks) -> Step {
    struct Scale(f64);
    impl<B: Backend> burn::module::ModuleMapper<B> for Scale {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            param.map(|tensor| Tensor::from_data((tensor * self.0).into_data(), &Default::default()).require_grad())
        }
    }
    let net = Net::new(norm);
    let net = if ranks.is_first() || norm { net } else { net.map(&mut Scale(1.0 + ranks.rank() as f64)) };
    TernaryStep::new(Ternary::new(net, &TernaryConfig::default()).unwrap())
}

/// Trains; `item` makes the training items, and `interrupter` stops it.
fn train_with(
    directory: &Path,
    setup: &Setup,
    ranks: Ranks,
    interrupter: Interrupter,
    item: impl Fn(ItemKey) -> Point + Send + Sync + 'static,
) -> Result<PhaseOutcome<Step>, PhaseError> {
    let schedule = match setup.more {
        true => ScheduleConfig::Plateau(PlateauConfig::new(50.0).with_patience(0)),
        false => ScheduleConfig::WarmupCosine { warmup_epochs: 1, min_factor: 0.1 },
    };
    let config = PhaseConfig::new(Phase::Ternary, setup.epochs, 0.1, MetricGoal::minimize("Loss"))
        .with_schedule(schedule)
        .with_kept_epoch(KeptEpoch::Last)
        .with_averaging(setup.more.then(|| Averaging::new(0.9)))
        .with_accumulated_batches(setup.accumulate);
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let sgd = SgdConfig::new().with_momentum(Some(momentum)).init::<A, Step>();
    let optimizer = TernaryOptimizer::uniform(sgd).with_weight_decay(1e-2);
    let data = PhaseData::new(loader(setup.items, item).shuffle(5), loader(setup.valid, |key| point(key.index, 0)));
    let step = wrapped(setup.norm, &ranks);
    PhaseTraining::new(directory, config, ExecutionStrategy::single(Default::default()))
        .with_ranks(ranks)
        .with_interrupter(interrupter)
        .run(step, optimizer, data, |training| training.metrics((AccuracyMetric::new(), LossMetric::new())))
}

fn train(directory: &Path, setup: &Setup, ranks: Ranks) -> Vec<f32> {
    let item = |key: ItemKey| point(key.index, key.epoch);
    match train_with(directory, setup, ranks, Interrupter::new(), item).unwrap() {
        PhaseOutcome::Completed { model, .. } => elements(&model.valid()),
        other => panic!("{other:?}"),
    }
}

/// Trains as several processes. All end with the same numbers.
fn train_as(count: usize, directory: &Path, setup: &Setup) -> Vec<f32> {
    let (directory, setup) = (directory.to_path_buf(), setup.clone());
    let results = processes(count, move |ranks| train(&directory, &setup, ranks));
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(results.iter().all(|result| bits(result) == bits(&results[0])), "equal to the bit");
    results.into_iter().next().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

fn history(directory: &Path, epoch: usize) -> Vec<EpochMetrics> {
    History::resume(directory, epoch).unwrap().epochs()
}

#[test]
fn any_number_of_processes_gives_the_weights_and_metrics_of_one() {
    // The last batch has 4 items: with 6 processes, two of them have none of it.
    for setup in [SETUP, Setup { accumulate: 3, ..SETUP }, Setup { more: true, epochs: 3, ..SETUP }] {
        let one = tempfile::tempdir().unwrap();
        let expected = train_as(1, one.path(), &setup);
        let start = elements(&wrapped(false, &Ranks::default()).valid());
        assert!(expected.iter().zip(&start).any(|(after, before)| (after - before).abs() > 0.02), "it trained");
        for count in [2, 3, 6] {
            let several = tempfile::tempdir().unwrap();
            assert_close(&train_as(count, several.path(), &setup), &expected);
            for (found, expected) in history(several.path(), 2).iter().zip(history(one.path(), 2)) {
                for (found, expected) in [(&found.train, &expected.train), (&found.valid, &expected.valid)] {
                    assert!(found.keys().eq(expected.keys()));
                    // Burn's accuracy counts items, its loss batches: shares of a batch alike, whatever their sizes.
                    for (name, tolerance) in [("Accuracy", 1e-3), ("Loss", 0.02)] {
                        let (found, expected) = (found[name], expected[name]);
                        assert!((found - expected).abs() < tolerance, "{name} {found} instead of {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_item_of_an_epoch_belongs_to_one_process() {
    for count in [1, 2, 3, 6] {
        let used = Arc::new((0..SETUP.items).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let directory = tempfile::tempdir().unwrap();
        let (path, counted) = (directory.path().to_path_buf(), used.clone());
        processes(count, move |ranks| {
            let counted = counted.clone();
            let item = move |key: ItemKey| {
                counted[key.index].fetch_add(1, Ordering::Relaxed);
                point(key.index, key.epoch)
            };
            train_with(&path, &SETUP, ranks, Interrupter::new(), item).unwrap();
        });
        assert!(used.iter().all(|uses| uses.load(Ordering::Relaxed) == SETUP.epochs), "{count} processes: {used:?}");
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_with_as_many_processes_and_close_to_it_with_others() {
    for setup in [SETUP, Setup { more: true, ..SETUP }] {
        // A cosine has the length of the whole training.
        let setup = Setup { epochs: 4, more: setup.more, ..SETUP };
        let whole = tempfile::tempdir().unwrap();
        let expected = train_as(2, whole.path(), &setup);
        for count in [1, 2, 3] {
            let parts = tempfile::tempdir().unwrap();
            stop_in(3, 2, parts.path(), &setup);
            assert_eq!(latest_checkpoint(parts.path()), Some(2));
            let found = train_as(count, parts.path(), &setup);
            if count == 2 {
                assert_eq!(found, expected);
                assert_eq!(history(parts.path(), 4)[3].valid, history(whole.path(), 4)[3].valid);
            } else {
                assert_close(&found, &expected);
            }
        }
    }
}

/// Trains as `count` processes, of which the last one is told to stop in `epoch`.
fn stop_in(epoch: usize, count: usize, directory: &Path, setup: &Setup) {
    let (directory, setup) = (directory.to_path_buf(), setup.clone());
    let outcomes = processes(count, move |ranks| {
        let interrupter = Interrupter::new();
        let (handle, stops) = (interrupter.clone(), ranks.rank() + 1 == ranks.size());
        let item = move |key: ItemKey| {
            if stops && key.epoch == epoch {
                handle.stop(Some("the lunch break"));
            }
            point(key.index, key.epoch)
        };
        train_with(&directory, &setup, ranks, interrupter, item).unwrap()
    });
    for outcome in outcomes {
        let PhaseOutcome::Stopped { saved_epochs, reason } = outcome else { panic!("{outcome:?}") };
        assert_eq!((saved_epochs, reason.as_str()), (epoch - 1, "the lunch break"));
    }
}

#[test]
fn batch_statistics_are_averaged_before_validation() {
    let setup = Setup { norm: true, ..SETUP };
    let directory = tempfile::tempdir().unwrap();
    let found = train_as(3, directory.path(), &setup);
    assert!(found.iter().all(|value| value.is_finite()));
    let losses: Vec<f64> = history(directory.path(), 2).iter().map(|epoch| epoch.valid["Loss"]).collect();
    assert!(losses[1] < losses[0], "{losses:?}");
}

#[test]
fn the_sum_of_the_shares_is_the_gradient_of_the_whole_batch() {
    // Process 1 has no gradient of the first parameter, and no process one of the second.
    let sums = processes(3, |ranks| {
        let net = ranks.broadcast(Net::<A>::new(false), &Default::default());
        let mut grads = burn::optim::GradientsParams::new();
        let rows = net.first.weight.dims();
        if ranks.rank() != 1 {
            let value = Tensor::<Cpu, 2>::full(rows, 1.5 + ranks.rank() as f32, &Default::default());
            grads.register(net.first.weight.id, value);
        }
        let sum = ranks.sum_gradients(&net, grads);
        assert!(sum.get::<Cpu, 1>(net.first.bias.as_ref().unwrap().id).is_none());
        sum.get::<Cpu, 2>(net.first.weight.id).unwrap().into_data().to_vec::<f32>().unwrap()
    });
    assert!(sums.iter().flatten().all(|value| *value == 5.0));
}

#[test]
fn processes_with_other_weights_are_named() {
    let errors = processes(3, |ranks| {
        let mut net = ranks.broadcast(Net::<A>::new(false), &Default::default());
        assert_eq!(ranks.check_equal(&net, "now"), Ok(()));
        if ranks.rank() == 2 {
            net.second.weight = net.second.weight.map(|weight| weight + 1e-7);
        }
        ranks.check_equal(&net, "after epoch 3").unwrap_err().to_string()
    });
    for error in errors {
        assert!(
            error.starts_with("process 2 has other values of second.weight than process 0 after epoch 3"),
            "{error}"
        );
    }
}

#[test]
fn a_process_that_was_started_differently_is_refused_by_all() {
    let start =
        |data: &str| Ok(vec![("another configuration".to_owned(), "x".to_owned()), ("other data".into(), data.into())]);
    let check =
        |data: fn(usize) -> &'static str| processes(3, move |ranks| ranks.check_start(start(data(ranks.rank()))));
    assert!(check(|_| "a").iter().all(Result::is_ok));
    for result in check(|rank| if rank == 1 { "b" } else { "a" }) {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("process 1 has other data than process 0"), "{error}");
    }
    let failed =
        processes(2, |ranks| ranks.check_start(if ranks.is_first() { Ok(vec![]) } else { Err("no data".into()) }));
    assert!(failed.iter().all(|result| result.clone().unwrap_err().to_string() == "process 1: no data"));
}

#[test]
fn an_error_of_one_process_ends_all() {
    // The items of one process are not finite in the second epoch: in all batches, and in the last one.
    let directories = [0, 48].map(|finite| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        let errors = processes(2, move |ranks| {
            let is_bad = ranks.rank() == 1;
            let items = AtomicUsize::new(0);
            let item = move |key: ItemKey| {
                let (mut values, class) = point(key.index, key.epoch);
                if is_bad && key.epoch == 2 && items.fetch_add(1, Ordering::Relaxed) >= finite {
                    values[0] = f32::NAN;
                }
                (values, class)
            };
            train_with(&path, &SETUP, ranks, Interrupter::new(), item).unwrap_err().to_string()
        });
        for error in errors {
            assert!(error.contains("diverged in epoch 2"), "{error}");
        }
        assert_eq!(latest_checkpoint(directory.path()), Some(1));
        directory
    });
    let directory = &directories[0];
    // A checkpoint that process 0 cannot read.
    let folder = directory.path().join("checkpoint");
    std::fs::write(folder.join("optim-1.mpk"), "damaged").unwrap();
    let path = directory.path().to_path_buf();
    let item = |key: ItemKey| point(key.index, key.epoch);
    for error in processes(2, move |ranks| train_with(&path, &SETUP, ranks, Interrupter::new(), item).unwrap_err()) {
        assert!(error.to_string().contains("optim-1"), "{error}");
    }
}

#[test]
fn a_batch_that_is_too_small_for_the_processes_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let item = |key: ItemKey| point(key.index, key.epoch);
    for result in processes(13, move |ranks| train_with(&path, &SETUP, ranks, Interrupter::new(), item)) {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("13 processes need batches of at least twice as many items, not 24"), "{error}");
    }
}
