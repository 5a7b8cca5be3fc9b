//! Gradients, parameters and running statistics over processes.

use std::hash::Hasher;

use burn::module::{AutodiffModule, Module, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder};
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use ttq_core::ModulePath;

use crate::batch_norm::{running_values, set_running_values};
use crate::{RankError, Ranks, TernaryStep};

impl Ranks {
    /// Returns the gradients of the parameters of `module`, summed over processes in one contiguous buffer: equal to the bit
    /// in all of them. A parameter has a gradient if it has one in any process; a process without it adds zero.
    ///
    /// The gradients of latent weights and scales are linear in those of the ternary weights, so the sum is the same
    /// before and after [`LeafView::pull_back`](ttq_core::LeafView::pull_back).
    pub fn sum_gradients<B: AutodiffBackend, M: Module<B>>(
        &self,
        module: &M,
        grads: GradientsParams,
    ) -> GradientsParams {
        if !self.are_several() {
            return grads;
        }
        let mut take = Take::<B> { grads, parts: Vec::new(), found: Vec::new() };
        module.visit(&mut take);
        let Take { parts, found, .. } = take;
        let Some(device) = parts.first().map(Tensor::device) else { return GradientsParams::new() };
        let mut values = floats(Tensor::cat(parts, 0));
        let len = values.len();
        // The number of processes that have the gradient, by parameter.
        values.extend(found);
        self.sum(&mut values);
        let found = values.split_off(len);
        let sums = Tensor::from_data(TensorData::new(values, [len]), &device);
        let mut give = Give::<B> { sums, at: 0, found: found.into_iter(), grads: GradientsParams::new() };
        module.visit(&mut give);
        give.grads
    }

    /// Returns `module` with the parameters of process 0.
    ///
    /// # Panics
    /// If the modules of two processes have different structures.
    pub fn broadcast<B: Backend, M: Module<B>>(&self, module: M, device: &B::Device) -> M {
        if !self.are_several() {
            return module;
        }
        let bytes = if self.is_first() { to_bytes::<B, _>(module.clone().into_record()) } else { Vec::new() };
        let bytes = self.broadcast_bytes(bytes);
        if self.is_first() { module } else { module.load_record(from_bytes::<B, _>(bytes, device)) }
    }

    /// Checks by a checksum of each parameter that the modules of all processes are equal to the bit. `when` completes the
    /// error. All processes return the same result.
    ///
    /// # Errors
    /// [`RankError::Parameters`] names the first process and its first parameter that differ from process 0.
    pub fn check_equal<B: Backend, M: Module<B>>(&self, module: &M, when: &str) -> Result<(), RankError> {
        if !self.are_several() {
            return Ok(());
        }
        let mut visitor = Checksums::default();
        module.visit(&mut visitor);
        let all = self.gather(&visitor.sums);
        for (rank, sums) in all.iter().enumerate() {
            if let Some(at) = (0..visitor.paths.len()).find(|at| sums.get(*at) != all[0].get(*at)) {
                return Err(RankError::Parameters { rank, parameter: visitor.paths[at].clone(), when: when.into() });
            }
        }
        Ok(())
    }

    /// Replaces the running statistics of batch normalization, those of the average too, by their means over processes.
    pub(crate) fn average_running_statistics<B, M>(&self, step: &TernaryStep<B, M>)
    where
        B: AutodiffBackend,
        M: AutodiffModule<B> + ModuleDisplay,
        M::InnerModule: ModuleDisplay,
    {
        if self.are_several() {
            self.average_statistics_of(step.ternary());
            step.average().into_iter().for_each(|average| self.average_statistics_of(average));
        }
    }

    fn average_statistics_of<B: AutodiffBackend, M: AutodiffModule<B>>(&self, module: &M) {
        let before = running_values(module);
        let Some(device) = before.first().map(Tensor::device) else { return };
        let lengths: Vec<usize> = before.iter().map(|values| values.dims()[0]).collect();
        let mut values = floats(Tensor::cat(before, 0));
        self.sum(&mut values);
        let mut rest = values.iter().map(|sum| sum / self.size() as f32);
        let means = lengths.into_iter().map(|len| {
            let means: Vec<f32> = rest.by_ref().take(len).collect();
            Tensor::from_data(TensorData::new(means, [len]), &device)
        });
        set_running_values(module, means.collect());
    }
}

/// Writes a record in the format of checkpoints.
fn to_bytes<B: Backend, R: Record<B>>(record: R) -> Vec<u8> {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    Recorder::<B>::record(&recorder, record, ()).unwrap_or_else(|error| panic!("Ranks: {error}"))
}

/// Reads a record in the format of checkpoints.
pub(crate) fn from_bytes<B: Backend, R: Record<B>>(bytes: Vec<u8>, device: &B::Device) -> R {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    Recorder::<B>::load(&recorder, bytes, device).unwrap_or_else(|error| panic!("Ranks: {error}"))
}

fn floats<B: Backend>(tensor: Tensor<B, 1>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec().unwrap_or_else(|error| panic!("Ranks: {error:?}"))
}

/// Takes gradients out, in the order of the parameters that train.
struct Take<B: AutodiffBackend> {
    grads: GradientsParams,
    parts: Vec<Tensor<B::InnerBackend, 1>>,
    found: Vec<f32>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Take<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !param.is_require_grad() {
            return;
        }
        let grad = self.grads.remove::<B::InnerBackend, D>(param.id);
        self.found.push(f32::from(u8::from(grad.is_some())));
        let grad = grad.unwrap_or_else(|| param.val().inner().zeros_like());
        let len = grad.shape().num_elements();
        self.parts.push(grad.reshape([len]).cast(DType::F32));
    }
}

/// Registers the parts of a buffer as gradients, in the order of [`Take`].
struct Give<B: AutodiffBackend> {
    sums: Tensor<B::InnerBackend, 1>,
    at: usize,
    found: std::vec::IntoIter<f32>,
    grads: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Give<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !param.is_require_grad() {
            return;
        }
        let (shape, dtype) = (param.val().shape(), param.val().dtype());
        let end = self.at + shape.num_elements();
        if self.found.next().is_some_and(|count| count > 0.0) {
            let sum: Tensor<_, D> = self.sums.clone().slice(self.at..end).reshape(shape);
            self.grads.register(param.id, sum.cast(dtype));
        }
        self.at = end;
    }
}

/// Paths and checksums of all float parameters, running statistics among them.
#[derive(Default)]
struct Checksums {
    path: ModulePath,
    paths: Vec<String>,
    sums: Vec<u64>,
}

impl<B: Backend> ModuleVisitor<B> for Checksums {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&param.val().into_data().bytes);
        self.paths.push(self.path.joined());
        self.sums.push(hasher.finish());
    }
}
