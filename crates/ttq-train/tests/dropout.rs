//! Random numbers that a model draws itself repeat when its training resumes. A file of its own: all threads of a test program
//! draw from one generator.

use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::nn::{Dropout, DropoutConfig};
use burn::optim::SgdConfig;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::ExecutionStrategy;
use burn::train::metric::{AccuracyMetric, LossMetric};
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_testing::points::{self, PointBatcher, point};
use ttq_testing::{classifier, elements};
use ttq_train::*;

/// A network with dropout before its layers.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    dropout: Dropout,
    net: points::Net<B>,
}

impl<B: Backend> Net<B> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.net.forward(self.dropout.forward(x))
    }
}

classifier!(Net, 2);

fn train<A: AutodiffBackend>(directory: &Path, epochs: usize) -> Vec<f32> {
    let net = Net { dropout: DropoutConfig::new(0.3).init(), net: points::Net::<A>::new(true) };
    let step = TernaryStep::new(Ternary::new(net, &TernaryConfig::default()).unwrap());
    let config =
        PhaseConfig::new(Phase::Ternary, epochs, 0.1, MetricGoal::minimize("Loss")).with_kept_epoch(KeptEpoch::Last);
    let train = ReproducibleLoader::new(
        40,
        Arc::new(|key: ItemKey| point(key.index, key.epoch)),
        Arc::new(PointBatcher),
        8,
        Default::default(),
    );
    let valid = ReproducibleLoader::new(
        24,
        Arc::new(|key: ItemKey| point(key.index, 0)),
        Arc::new(PointBatcher),
        8,
        Default::default(),
    );
    let optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
    let outcome = PhaseTraining::new(directory, config, ExecutionStrategy::<A>::SingleDevice(Default::default()))
        .run(step, optimizer, PhaseData::new(train.shuffle(3), valid), |training| {
            training.metrics((AccuracyMetric::new(), LossMetric::new()))
        })
        .unwrap();
    let PhaseOutcome::Completed { model, .. } = outcome else { panic!("{outcome:?}") };
    elements(&model.valid())
}

fn assert_resume<A: AutodiffBackend>() {
    let directory = || tempfile::tempdir().unwrap();
    let expected = train::<A>(directory().path(), 4);
    let resumed = directory();
    for epochs in [1, 3] {
        assert_ne!(train::<A>(resumed.path(), epochs), expected);
    }
    A::seed(&Default::default(), 99);
    assert_eq!(train::<A>(resumed.path(), 4), expected);
}

#[test]
fn a_network_with_dropout_resumes_bit_for_bit() {
    assert_resume::<Autodiff<Flex>>();
    assert_resume::<Autodiff<Cpu>>();
}
