//! Packed files of PyTorch checkpoints, in the names and layouts of Burn.

use std::collections::HashMap;

use anyhow::{Context, Result};
use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use regex::Regex;
use ttq_packed::{DenseTensor, Dtype, PackedModel};

use crate::model::Network;

/// A packed file as `network` names its parameters: where the file has PyTorch's names, these are changed, linear weights `[out, in]`
/// are turned to `[in, out]`, and counters of batches are left out. Other files stay as they are.
pub(crate) fn in_names_of<B: Backend, N: Network<B>>(network: &N, packed: PackedModel) -> Result<PackedModel> {
    let rules = N::pytorch_names();
    let rules = rules.iter().map(|(port, here)| Ok((Regex::new(port)?, here.as_str()))).collect::<Result<Vec<_>>>()?;
    let renamed =
        |name: &str| rules.iter().fold(name.to_owned(), |name, (port, here)| port.replace(&name, *here).into_owned());
    if packed.weights.keys().chain(packed.tensors.keys()).all(|name| renamed(name) == *name) {
        return Ok(packed);
    }
    let mut parameters = Parameters::default();
    network.visit(&mut parameters);
    let containers = parameters.containers;
    // Burn calls the weight and the bias of a normalization gamma and beta.
    let settled = |name: &str| {
        let name = renamed(name);
        let other = [(".weight", ".gamma"), (".bias", ".beta")].into_iter().find_map(|(port, here)| {
            let other = format!("{}{here}", name.strip_suffix(port)?);
            containers.contains_key(&other).then_some(other)
        });
        other.unwrap_or(name)
    };
    let weights = packed.weights.into_iter().map(|(name, weight)| (settled(&name), weight)).collect();
    let mut tensors = std::collections::BTreeMap::new();
    for (name, tensor) in packed.tensors {
        let name = settled(&name);
        if name.ends_with(".num_batches_tracked") {
            continue;
        }
        let is_linear = containers.get(&name).is_some_and(|container| container == "Struct:Linear");
        let tensor = if is_linear { turned(&tensor).with_context(|| name.clone())? } else { tensor };
        tensors.insert(name, tensor);
    }
    Ok(PackedModel { weights, tensors, config: packed.config })
}

/// A matrix with its axes exchanged; a tensor of another rank as it is.
fn turned(tensor: &DenseTensor) -> Result<DenseTensor> {
    let &[rows, columns] = tensor.shape() else { return Ok(tensor.clone()) };
    let values = tensor.to_f32()?;
    let turned: Vec<u8> =
        (0..rows * columns).flat_map(|index| values[index % rows * columns + index / rows].to_le_bytes()).collect();
    Ok(DenseTensor::new(Dtype::F32, [columns, rows], turned)?)
}

/// The types of the modules that hold a network's parameters, by path.
#[derive(Default)]
struct Parameters {
    names: Vec<String>,
    kinds: Vec<String>,
    containers: HashMap<String, String>,
}

impl<B: Backend> ModuleVisitor<B> for Parameters {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.kinds.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
        self.kinds.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
        let container = self.kinds.last().cloned().unwrap_or_default();
        self.containers.insert(self.names.join("."), container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_matrix_has_its_axes_exchanged() {
        let tensor = DenseTensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let turned = turned(&tensor).unwrap();
        assert_eq!((turned.shape(), turned.to_f32().unwrap()), (&[3, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let vector = DenseTensor::from_f32([2], &[1.0, 2.0]).unwrap();
        assert_eq!(super::turned(&vector).unwrap(), vector);
    }
}
