//! Modules whose parameters are the same in every run.

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;

use crate::{tensor, uniform};

/// Draws new weights and biases for a module, the same in every run: uniform between `-k` and `k` with
/// `k` = 1 / √(fan in).
///
/// The parameters of normalization layers stay unchanged: gain, offset, running mean and variance.
pub fn reproducible<B: Backend, M: Module<B>>(module: M, seed: u64) -> M {
    module.map(&mut Redraw { path: Vec::new(), seed })
}

struct Redraw {
    path: Vec<String>,
    seed: u64,
}

impl<B: Backend> ModuleMapper<B> for Redraw {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if !matches!(self.path.last().map(String::as_str), Some("weight" | "bias")) {
            return param;
        }
        self.seed += 1;
        param.map(|old| {
            let dims = old.dims();
            // A linear weight is `[in, out]`, a convolution weight `[out, in, height, width]`. A bias uses its length.
            let fan_in = if D > 2 { dims[1..].iter().product() } else { dims[0] };
            let new: Tensor<B, D> = tensor(&uniform(&dims, self.seed));
            (new / (fan_in as f32).sqrt()).to_device(&old.device()).detach().set_require_grad(old.is_require_grad())
        })
    }
}
