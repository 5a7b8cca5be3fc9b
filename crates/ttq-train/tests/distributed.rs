//! Burn's distributed strategy with ternary weights, on workers that are threads of the CPU.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use burn::backend::Autodiff;
use burn::data::dataloader::batcher::Batcher;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::backend::distributed::{DistributedBackend, DistributedConfig, ReduceOperation};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Learner, ModuleSharder, SupervisedTraining, TrainingStrategy};
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::elements;
use ttq_testing::points::{Batch, Net, Point, PointBatcher, point};
use ttq_train::{
    EarlyStoppingConfig, History, ItemKey, MetricGoal, Phase, PhaseConfig, PhaseData, PhaseError, PhaseTraining,
    ReproducibleLoader, ScheduleConfig, TernaryOptimizer, TernaryStep, TrainingLength, steps_per_epoch,
};

type A = Autodiff<Cpu>;
type Step = TernaryStep<A, Net<A>>;

/// One session at a time: the workers of a process are counted together.
static SESSION: Mutex<()> = Mutex::new(());

fn wrapped() -> Step {
    TernaryStep::new(Ternary::new(Net::new(false), &TernaryConfig::default()).unwrap())
}

fn optimizer() -> TernaryOptimizer<impl Rule, impl Rule, impl Rule> {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    TernaryOptimizer::uniform(SgdConfig::new().with_momentum(Some(momentum)).init::<A, Step>()).with_weight_decay(1e-2)
}

trait Rule: burn::optim::Optimizer<Step, A> + 'static {}
impl<O: burn::optim::Optimizer<Step, A> + 'static> Rule for O {}

/// Steps on a share of every batch of 24, as a worker of Burn's does them.
fn train(step: Step, [worker, workers]: [usize; 2]) -> Vec<f32> {
    let device = Default::default();
    let mut learner = Learner::new(
        step.with_gradient_factor(1.0 / workers as f64),
        optimizer(),
        burn::optim::lr_scheduler::constant::ConstantLr::new(0.05),
    );
    if workers > 1 {
        learner.fork(&device);
        learner.grad_sharded();
    }
    for batch in 0..12 {
        let items = (24 * batch..24 * (batch + 1)).filter(|i| i % workers == worker).map(|i| point(i, 0)).collect();
        learner.lr_step();
        let output = learner.train_step(Batcher::<A, _, Batch<A>>::batch(&PointBatcher, items, &device));
        learner.optimizer_step(output.grads);
    }
    elements(learner.model().ternary())
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[test]
fn leaves_and_clamped_scales_carry_the_marks_of_their_parameters() {
    struct Marks(Vec<bool>);
    impl<B: AutodiffBackend> ModuleVisitor<B> for Marks {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0.push(param.val().is_distributed());
        }
    }
    let marks = |module: &dyn Fn(&mut Marks)| {
        let mut marks = Marks(Vec::new());
        module(&mut marks);
        marks.0
    };
    for marked in [false, true] {
        let mut step = wrapped();
        if marked {
            step = step.map(&mut ModuleSharder);
        }
        let ternary = step.into_ternary();
        let view = marks(&|visitor| ternary.leaf_view().visit(visitor));
        assert_eq!(view, [marked; 6]);
        let clamped = marks(&|visitor| ternary.clone().after_step().visit(visitor));
        assert_eq!(clamped, [marked; 8], "six parameters of the network and the scales of two layers");
    }
}

#[test]
fn workers_stay_equal_to_the_bit_and_train_as_one_does_on_the_whole_batch() {
    let _session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let step = wrapped();
    let start = elements(step.ternary());
    let one = train(step.clone(), [0, 1]);
    for workers in [2, 3] {
        let config = DistributedConfig { all_reduce_op: ReduceOperation::Sum };
        A::start_communication_server(&vec![Default::default(); workers], config);
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let step = step.clone();
                thread::spawn(move || train(step, [worker, workers]))
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        A::close_communication_server(&Default::default());
        for result in &results[1..] {
            assert!(result.iter().map(|x| x.to_bits()).eq(results[0].iter().map(|x| x.to_bits())));
        }
        assert_close(&results[0], &one);
    }
    assert!(one.iter().zip(&start).any(|(after, before)| (after - before).abs() > 0.05), "it trained");
}

fn loader<B: Backend>(len: usize, batch_size: usize) -> ReproducibleLoader<B, Point, Batch<B>> {
    ReproducibleLoader::new(
        len,
        Arc::new(|key: ItemKey| point(key.index, key.epoch)),
        Arc::new(PointBatcher),
        batch_size,
        Default::default(),
    )
}

/// Returns the numbers after four epochs of burn-train.
fn launch(strategy: ExecutionStrategy<A>, devices: usize, step: Step) -> Vec<f32> {
    let directory = tempfile::tempdir().unwrap();
    let history = History::new(directory.path());
    let train = loader(64, 16).shuffle(5);
    let length = TrainingLength { epochs: 4, steps_per_epoch: steps_per_epoch(train.batches_per_epoch(), &strategy) };
    let training = SupervisedTraining::new(directory.path(), Arc::new(train), Arc::new(loader(9, 9)))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_metric_logger(history.clone())
        .early_stopping(EarlyStoppingConfig::new(1.0).init(history.clone(), MetricGoal::maximize("Accuracy")))
        .with_training_strategy(TrainingStrategy::Default(strategy))
        .num_epochs(4);
    let milestones = ScheduleConfig::MultiStep { milestones: vec![2, 3], gamma: 0.1 };
    let schedule = milestones.init(0.05, length).unwrap();
    let step = step.with_gradient_factor(1.0 / devices as f64);
    elements(training.launch(Learner::new(step, optimizer(), schedule)).model.ternary())
}

#[test]
fn two_devices_of_the_distributed_strategy_give_the_result_of_one() {
    let _session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let step = wrapped();
    let one = launch(ExecutionStrategy::single(Default::default()), 1, step.clone());
    let config = DistributedConfig { all_reduce_op: ReduceOperation::Sum };
    let two = launch(ExecutionStrategy::ddp(vec![Default::default(); 2], config), 2, step);
    assert_close(&two, &one);
}

/// The error of a phase of three epochs on two workers, with batches of 4 of `len` items.
fn error_of_a_phase(len: usize, item: fn(ItemKey) -> Point) -> PhaseError {
    let _session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let config = PhaseConfig::new(Phase::Ternary, 3, 0.05, MetricGoal::minimize("Loss"));
    let execution =
        ExecutionStrategy::ddp(vec![Default::default(); 2], DistributedConfig { all_reduce_op: ReduceOperation::Sum });
    let train = ReproducibleLoader::new(len, Arc::new(item), Arc::new(PointBatcher), 4, Default::default());
    PhaseTraining::new(directory.path(), config, execution)
        .run(wrapped(), optimizer(), PhaseData::new(train, loader(9, 9)), |training| {
            training.metrics((AccuracyMetric::new(), LossMetric::new()))
        })
        .unwrap_err()
}

#[test]
fn a_batch_without_an_item_for_a_worker_is_an_error() {
    let error = error_of_a_phase(17, |key| point(key.index, key.epoch));
    assert!(matches!(error, PhaseError::BatchOverDevices { items: 1, devices: 2 }), "{error}");
}

#[test]
fn workers_whose_training_diverges_stop_together() {
    let broken = |key: ItemKey| {
        let (mut values, class) = point(key.index, key.epoch);
        // The third batch of the second epoch.
        values[0] = if key.epoch == 2 && key.index == 9 { f32::NAN } else { values[0] };
        (values, class)
    };
    let error = error_of_a_phase(32, broken);
    // A worker can be one batch ahead when it hands over its output.
    assert!(matches!(error, PhaseError::Diverged { epoch: 2, batch: 3 | 4, .. }), "{error}");
}

#[test]
fn a_worker_that_panics_does_not_leave_the_others_waiting() {
    let _session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    for failing in [0, 1] {
        let config = DistributedConfig { all_reduce_op: ReduceOperation::Sum };
        A::start_communication_server(&vec![Default::default(); 3], config);
        let worker = |worker: usize| {
            move || {
                for round in 0..5 {
                    assert!(round < 3 || worker != failing, "the data of worker {worker} are damaged");
                    Cpu::submit_sync_collective(&Default::default());
                }
            }
        };
        let workers: Vec<_> = (0..3).map(|index| thread::spawn(worker(index))).collect();
        for (worker, thread) in workers.into_iter().enumerate() {
            let panic = thread.join().unwrap_err();
            let panic =
                panic.downcast_ref::<String>().map_or_else(|| *panic.downcast_ref::<&str>().unwrap(), |text| &**text);
            let expected = if worker == failing { "are damaged" } else { "another worker" };
            assert!(panic.contains(expected), "{worker}: {panic}");
        }
        A::close_communication_server(&Default::default());
    }
}
