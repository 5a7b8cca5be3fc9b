//! Tensors that belong to a training, not to the module that trains.

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

/// A module that is part of records, but that no visitor and no mapper sees: optimizers pass it by, and copies on other
/// devices ([`Module::fork`]) keep it where it is. `None` if the training has no such state.
///
/// A record without it (of a training that had no such state) loads as `None`.
#[derive(Debug, Clone)]
pub struct TrainingState<M>(pub(crate) Option<M>);

impl<B: Backend, M: Module<B>> Module<B> for TrainingState<M> {
    type Record = Option<M::Record>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        devices
    }

    fn fork(self, _device: &B::Device) -> Self {
        self
    }

    fn to_device(self, device: &B::Device) -> Self {
        Self(self.0.map(|module| module.to_device(device)))
    }

    fn visit<V: ModuleVisitor<B>>(&self, _visitor: &mut V) {}

    fn map<F: ModuleMapper<B>>(self, _mapper: &mut F) -> Self {
        self
    }

    fn into_record(self) -> Self::Record {
        self.0.map(Module::into_record)
    }

    fn load_record(self, record: Self::Record) -> Self {
        Self(self.0.zip(record).map(|(module, record)| module.load_record(record)))
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> AutodiffModule<B> for TrainingState<M> {
    type InnerModule = TrainingState<M::InnerModule>;

    fn valid(&self) -> Self::InnerModule {
        TrainingState(self.0.as_ref().map(AutodiffModule::valid))
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        Self(module.0.map(M::from_inner))
    }
}

impl<B: AutodiffBackend, M: HasAutodiffModule<B>> HasAutodiffModule<B> for TrainingState<M>
where
    TrainingState<M::TrainModule>: AutodiffModule<B, InnerModule = Self>,
{
    type TrainModule = TrainingState<M::TrainModule>;
}

impl<M> ModuleDisplayDefault for TrainingState<M> {
    fn content(&self, content: Content) -> Option<Content> {
        content.set_top_level_type("TrainingState").optional()
    }

    fn num_params(&self) -> usize {
        0
    }
}

impl<M> ModuleDisplay for TrainingState<M> {}
