//! burn-train's loop over epochs and batches for training in several processes.

use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::Progress;
use burn::module::{AutodiffModule, ModuleDisplay};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, DeviceOps};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, ItemLazy, Learner, LearnerEvent, LearningComponentsMarker,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents,
    TrainingItem, ValidLoader,
};

use crate::step::multiply;
use crate::{Accumulated, History, RankError, Ranks, Schedule, TernaryStep};

/// Burn's loop on one device, which in every process takes the same number of steps and ends at the same one.
///
/// Every process is given its share of the data. What only one of them knows, such as that the user stops the training, is
/// exchanged after every batch.
pub(crate) struct RankStrategy<B: AutodiffBackend> {
    pub(crate) ranks: Ranks,
    pub(crate) device: B::Device,
    /// The numbers of items of an epoch's batches, over all processes.
    pub(crate) batch_sizes: Vec<usize>,
    pub(crate) history: History,
    /// Why the training ended early.
    pub(crate) failure: Arc<Mutex<Option<RankError>>>,
}

/// The components of a [`PhaseTraining`](crate::PhaseTraining).
type Components<B, M, O> = LearningComponentsMarker<B, Schedule, TernaryStep<B, M>, Accumulated<O>>;

type Processor<B, M, O> = SupervisedTrainingEventProcessor<Components<B, M, O>>;

impl<B: AutodiffBackend> RankStrategy<B> {
    /// Trains an epoch. Returns whether the training is stopped.
    fn train_epoch<M, O>(
        &self,
        learner: &mut Learner<Components<B, M, O>>,
        loader: &TrainLoader<Components<B, M, O>>,
        progress: &Progress,
        processor: &mut Processor<B, M, O>,
        interrupter: &Interrupter,
    ) -> bool
    where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::Output: ItemLazy + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let mut batches = loader.iter();
        let (mut processed, mut stopped) = (0, false);
        for (index, size) in self.batch_sizes.iter().enumerate() {
            learner.lr_step();
            // The last batch of an epoch can have fewer items than there are processes: some then have no share of it.
            let output = batches.next().map(|batch| learner.train_step(batch));
            let own = batches.progress();
            let (grads, output) = match output {
                Some(output) => (output.grads, Some(output.item)),
                None => (GradientsParams::new(), None),
            };
            let share = (own.items_processed - processed) as f64 / *size as f64;
            processed = own.items_processed;
            learner.optimizer_step(multiply::<B, _>(&learner.model(), grads, share));
            if let Some(output) = output {
                let rate = Some(learner.lr_current());
                let item = TrainingItem::new(output, own, progress.clone(), Some(index + 1), rate);
                processor.process_train(LearnerEvent::ProcessedItem(item));
            }
            stopped = self.ranks.any(interrupter.should_stop());
            if stopped {
                break;
            }
        }
        processor.process_train(LearnerEvent::EndEpoch(progress.items_processed));
        stopped
    }

    /// Validates on the share of this process, and waits for the metrics of all.
    fn validate<M, O>(
        &self,
        learner: &Learner<Components<B, M, O>>,
        loader: &ValidLoader<Components<B, M, O>>,
        progress: &Progress,
        processor: &mut Processor<B, M, O>,
    ) where
        M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
        M::Output: ItemLazy + 'static,
        M::InnerModule: InferenceStep + ModuleDisplay,
        O: Optimizer<TernaryStep<B, M>, B> + 'static,
    {
        let model = learner.model().valid();
        let mut batches = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = batches.next() {
            iteration += 1;
            let output = InferenceStep::step(&model, batch);
            let item = TrainingItem::new(output, batches.progress(), progress.clone(), Some(iteration), None);
            processor.process_valid(LearnerEvent::ProcessedItem(item));
        }
        processor.process_valid(LearnerEvent::EndEpoch(progress.items_processed));
        self.history.wait_valid(progress.items_processed, "");
    }

    /// Checks that all processes have the same parameters. Returns whether they have.
    fn are_equal<M>(&self, step: &TernaryStep<B, M>, when: &str) -> bool
    where
        M: AutodiffModule<B> + ModuleDisplay,
        M::InnerModule: ModuleDisplay,
    {
        let average = || step.average().map_or(Ok(()), |average| self.ranks.check_equal(average, when));
        match self.ranks.check_equal(step, when).and_then(|()| average()) {
            Ok(()) => true,
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
        }
    }
}

impl<B, M, O> SupervisedLearningStrategy<Components<B, M, O>> for RankStrategy<B>
where
    B: AutodiffBackend,
    M: TrainStep + AutodiffModule<B> + ModuleDisplay + 'static,
    M::Output: ItemLazy + 'static,
    M::InnerModule: InferenceStep + ModuleDisplay,
    O: Optimizer<TernaryStep<B, M>, B> + 'static,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B, M, O>>,
        mut learner: Learner<Components<B, M, O>>,
        train: TrainLoader<Components<B, M, O>>,
        valid: ValidLoader<Components<B, M, O>>,
        first_epoch: usize,
    ) -> (TernaryStep<B, M>, Processor<B, M, O>) {
        let TrainingComponents { num_epochs, interrupter, event_store, .. } = components;
        let (mut checkpointer, mut early_stopping) = (components.checkpointer, components.early_stopping);
        let mut processor = components.event_processor;
        let (train, valid) = (train.to_device(&self.device), valid.to_device(self.device.inner()));
        learner.fork(&self.device);
        if !self.are_equal(&learner.model(), "before the first step") {
            return (learner.model(), processor);
        }
        for epoch in first_epoch..=num_epochs {
            let progress = Progress::new(epoch, num_epochs);
            if self.train_epoch(&mut learner, &train, &progress, &mut processor, &interrupter) {
                break;
            }
            self.ranks.average_running_statistics(&learner.model());
            self.validate(&learner, &valid, &progress, &mut processor);
            if !self.are_equal(&learner.model(), &format!("after epoch {epoch}")) {
                break;
            }
            // The metrics of the epoch's last batches may have stopped the training in another process.
            if self.ranks.any(interrupter.should_stop()) {
                break;
            }
            // Process 0 alone has a checkpointer.
            if let Some(checkpointer) = &mut checkpointer {
                checkpointer.checkpoint(&learner, epoch, &event_store);
            }
            let is_over = early_stopping.as_mut().is_some_and(|strategy| strategy.should_stop(epoch, &event_store));
            if self.ranks.any(is_over || interrupter.should_stop()) {
                break;
            }
        }
        (learner.model(), processor)
    }
}
