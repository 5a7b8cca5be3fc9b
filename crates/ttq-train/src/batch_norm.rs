//! Running statistics of batch normalization, estimated anew.

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use ttq_core::ModulePath;

/// Replaces the running means and variances of every [`BatchNorm`](burn::nn::BatchNorm) in a module by the means of the
/// batch statistics over `batches`, with all weights fixed.
///
/// During training, running statistics are exponential averages over the last steps, in which the weights changed: ternary
/// weights by whole codes. The means belong to the final weights, and every batch counts alike (Wu and Johnson, "Rethinking
/// 'Batch' in BatchNorm", 2021, section 3; Sun et al., "Hybrid 8-bit Floating Point Training", 2019, for quantized
/// networks). Ten to a hundred batches of training data are enough.
///
/// ```ignore
/// reestimate_batch_norm(&ternary.materialize(), loader.iter().take(100), |model, batch| {
///     model.forward(batch.images.clone());
/// });
/// ```
///
/// `forward` computes the output of the module for a batch; it is called on the autodiff backend, where batch normalization
/// uses the statistics of the batch, with a copy of the module whose weights require no gradient: Burn keeps what a forward
/// pass records until the next backward pass, and here none follows. Burn's clones and views share running statistics: those of a
/// [`Ternary`](ttq_core::Ternary) change with those of its view. Nothing else changes. Statistics that the forward pass
/// does not update stay as they are. Without batch normalization or without batches, nothing is called.
///
/// The result does not depend on the momentum of the layers, which Burn's modules do not tell: a layer of momentum m turns
/// the running value r and the value b of a batch into (1 - m) r + m b. The first batch is computed twice, with r = 0 and
/// with r = 1024, which gives m; every other one once, with r = 0, which gives b.
pub fn reestimate_batch_norm<B, M, I>(module: &M, batches: impl IntoIterator<Item = I>, mut forward: impl FnMut(&M, &I))
where
    B: AutodiffBackend,
    M: AutodiffModule<B>,
{
    let before = running_values(module);
    if before.is_empty() {
        return;
    }
    let fixed = module.clone().map(&mut Detach);
    let mut updated_from = |value: f64, batch: &I| {
        set_running_values(module, before.iter().map(|before| before.zeros_like().add_scalar(value)).collect());
        forward(&fixed, batch);
        running_values(module)
    };
    let mut momenta = Vec::new();
    let mut sums: Vec<Tensor<B::InnerBackend, 1>> = Vec::new();
    let mut count = 0;
    for batch in batches {
        let values = updated_from(0.0, &batch);
        if count == 0 {
            let probes = updated_from(PROBE, &batch);
            momenta = probes.into_iter().zip(&values).map(|(probe, value)| momentum(probe, value.clone())).collect();
            sums = values;
        } else {
            sums = sums.into_iter().zip(values).map(|(sum, value)| sum + value).collect();
        }
        count += 1;
    }
    if count > 0 {
        let means = sums.into_iter().zip(momenta).zip(&before);
        let means = means.map(|((sum, momentum), before)| match momentum {
            // The forward pass does not use the layer.
            momentum if momentum < 1e-4 => before.clone(),
            momentum => sum.div_scalar(momentum * f64::from(count)),
        });
        set_running_values(module, means.collect());
    }
}

/// A running value by which momenta are found: large beside statistics, and small enough for float16.
const PROBE: f64 = 1024.0;

/// Computes the momentum from the running values after the same batch, one from [`PROBE`] and one from 0.
fn momentum<B: Backend>(from_probe: Tensor<B, 1>, from_zero: Tensor<B, 1>) -> f64 {
    let kept = (from_probe - from_zero).div_scalar(PROBE).mean().into_scalar().elem::<f64>();
    1.0 - kept
}

/// Returns the running statistics of a module, `[channels]` each.
pub(crate) fn running_values<B: AutodiffBackend, M: AutodiffModule<B>>(module: &M) -> Vec<Tensor<B::InnerBackend, 1>> {
    let mut visitor = Collect { path: ModulePath::default(), values: Vec::new() };
    // Burn brings running statistics up to date when it makes a module for inference.
    module.valid().visit(&mut visitor);
    visitor.values
}

/// Sets the running statistics of a module and of all modules that share them.
pub(crate) fn set_running_values<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    values: Vec<Tensor<B::InnerBackend, 1>>,
) {
    let _ = module.clone().map(&mut Replace { path: ModulePath::default(), values: values.into_iter() });
}

/// Returns whether the current parameter is a running statistic of batch normalization.
pub(crate) fn is_running_statistic(path: &ModulePath) -> bool {
    path.container() == Some("Struct:BatchNorm") && matches!(path.name(), Some("running_mean" | "running_var"))
}

/// Makes parameters constants of the backward pass.
struct Detach;

impl<B: AutodiffBackend> ModuleMapper<B> for Detach {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, Tensor::from_inner(tensor.inner()), mapper)
    }
}

struct Collect<B: Backend> {
    path: ModulePath,
    values: Vec<Tensor<B, 1>>,
}

impl<B: Backend> ModuleVisitor<B> for Collect<B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if is_running_statistic(&self.path) {
            self.values.push(param.val().flatten(0, D - 1));
        }
    }
}

struct Replace<B: AutodiffBackend> {
    path: ModulePath,
    values: std::vec::IntoIter<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Replace<B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if !is_running_statistic(&self.path) {
            return param;
        }
        match self.values.next() {
            Some(value) => param.map(|old| Tensor::from_inner(value.reshape(old.shape()))),
            None => param,
        }
    }
}
