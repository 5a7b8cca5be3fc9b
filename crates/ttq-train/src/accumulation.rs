//! Accumulation of gradients over several batches.

use burn::module::{AutodiffModule, ModuleDisplay};
use burn::optim::{GradientsAccumulator, GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;

use crate::optimizer::sum;
use crate::step::multiply;
use crate::{Ranks, TernaryStep};

/// An optimizer that updates once for several batches, with the sum of their gradients. The batches left over at the
/// end of an epoch make an update of their own.
///
/// burn-train's `grads_accumulation` discards the gradients of those batches instead. With the factor `1 / batches`
/// ([`TernaryStep::with_gradient_factor`]) every update has the mean of its batches, the last one of an epoch too.
///
/// The model's own [`TrainStep::optimize`](burn::train::TrainStep::optimize) is called for every batch.
pub struct Accumulated<O> {
    optimizer: O,
    batches: usize,
    steps_per_epoch: usize,
    /// Steps of the current epoch.
    step: usize,
    pending: usize,
    grads: GradientsParams,
    ranks: Ranks,
}

impl<O> Accumulated<O> {
    /// Creates the optimizer from the number of batches of an update and the number of steps of an epoch.
    ///
    /// # Panics
    /// Panics if one of the two is 0.
    pub fn new(optimizer: O, batches: usize, steps_per_epoch: usize) -> Self {
        assert!(
            batches > 0 && steps_per_epoch > 0,
            "Accumulated: {batches} batches of {steps_per_epoch} steps cannot be accumulated: both must be above 0"
        );
        Self {
            optimizer,
            batches,
            steps_per_epoch,
            step: 0,
            pending: 0,
            grads: GradientsParams::new(),
            ranks: Ranks::default(),
        }
    }

    /// Sums the gradients of every update over processes. The model's own
    /// [`TrainStep::optimize`](burn::train::TrainStep::optimize) is called with those of its process.
    #[must_use]
    pub fn with_ranks(mut self, ranks: Ranks) -> Self {
        self.ranks = ranks;
        self
    }
}

impl<O: Clone> Clone for Accumulated<O> {
    /// The clone starts at the beginning of an epoch, without gradients.
    fn clone(&self) -> Self {
        Self::new(self.optimizer.clone(), self.batches, self.steps_per_epoch).with_ranks(self.ranks.clone())
    }
}

impl<B, M, O> Optimizer<TernaryStep<B, M>, B> for Accumulated<O>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + ModuleDisplay,
    M::InnerModule: ModuleDisplay,
    O: Optimizer<TernaryStep<B, M>, B>,
{
    type Record = O::Record;

    fn step(&mut self, lr: LearningRate, module: TernaryStep<B, M>, grads: GradientsParams) -> TernaryStep<B, M> {
        if self.batches == 1 {
            let grads = self.ranks.sum_gradients(&module, grads);
            return self.optimizer.step(lr, module, grads);
        }
        let mut accumulator = GradientsAccumulator::new();
        accumulator.accumulate(&module, std::mem::take(&mut self.grads));
        accumulator.accumulate(&module, grads);
        self.grads = accumulator.grads();
        self.pending += 1;
        self.step = (self.step + 1) % self.steps_per_epoch;
        if self.pending < self.batches && self.step != 0 {
            return module.with_updated(false);
        }
        let factor = self.batches as f64 / self.pending as f64;
        let grads = multiply::<B, _>(&module, std::mem::take(&mut self.grads), factor);
        self.pending = 0;
        let grads = self.ranks.sum_gradients(&module, grads);
        self.optimizer.step(lr, module, grads)
    }

    fn step_multi(
        &mut self,
        lr: LearningRate,
        module: TernaryStep<B, M>,
        grads: MultiGradientsParams,
    ) -> TernaryStep<B, M> {
        if self.batches == 1 && !self.ranks.are_several() {
            return self.optimizer.step_multi(lr, module, grads);
        }
        let grads = sum(&module, grads);
        self.step(lr, module, grads)
    }

    fn to_record(&self) -> Self::Record {
        self.optimizer.to_record()
    }

    fn load_record(self, record: Self::Record) -> Self {
        Self { optimizer: self.optimizer.load_record(record), ..self }
    }
}
