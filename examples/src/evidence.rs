//! The layers of a network, for the report of a run.

use burn::module::Module;
use burn::prelude::*;
use ttq_core::{LayerKind, Ternary};
use ttq_report::record::{DenseLayer, Evidence, Layer};

use crate::Task;
use crate::model::{Classifier, Network};

/// Adds the layers of a trained network, for inputs of this size.
pub(crate) fn add_layers<B: Backend, N: Network<B>>(
    evidence: &mut Evidence,
    ternary: &Ternary<B, Classifier<B, N>>,
    size: <N::Task as Task>::Size,
) where
    Classifier<B, N>: Module<B>,
{
    let known = ternary.latent().network().positions(size);
    let positions = |path: &str| {
        let path = path.strip_prefix("network.").unwrap_or(path);
        known.iter().find(|(known, _)| known == path).map(|(_, positions)| *positions)
    };
    evidence.layers = ternary
        .layer_values()
        .iter()
        .map(|values| {
            let (path, shape) = (&values.choice.path, &values.choice.shape);
            let axis = values.choice.channel_axis.unwrap_or_default();
            let layer = Layer::new(path, shape, axis, &values.latent, &values.thresholds, &values.codes);
            Layer { positions: positions(path), ..layer }
        })
        .collect();
    // An embedding is a table, without products.
    let computes = |kind: LayerKind| !matches!(kind, LayerKind::Embedding | LayerKind::Parameter);
    let kept = ternary.selection().choices().iter().filter(|choice| choice.kept.is_some() && computes(choice.kind));
    evidence.dense = kept
        .map(|choice| DenseLayer {
            path: choice.path.clone(),
            shape: choice.shape.clone(),
            positions: positions(&choice.path),
        })
        .collect();
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::model::{Gpt, GptConfig, MnistNet, ResNet};
    use ttq_core::TernaryConfig;
    use ttq_report::operations::of_network;

    fn layers_of<N: Network<Cpu> + burn::module::ModuleDisplay>(network: N, size: <N::Task as Task>::Size) -> Evidence {
        let ternary = Ternary::new(Classifier::new(network), &TernaryConfig::default()).unwrap();
        let mut evidence = Evidence::default();
        add_layers(&mut evidence, &ternary, size);
        evidence
    }

    #[test]
    fn a_resnet_20_has_its_published_number_of_products() {
        let evidence = layers_of(ResNet::<Cpu>::new(20, 10, &Default::default()), [32, 32]);
        let (dense, ternary) = of_network(&evidence.layers, &evidence.dense).unwrap();
        // 40.55 million with shortcuts that cost nothing (He et al.); ours are two 1×1 convolutions.
        assert_eq!(dense.multiplications, 40_551_040 + 16 * 32 * 256 + 32 * 64 * 64);
        // Every term is added or skipped; each output costs two products and one difference more.
        let kept: usize = evidence.dense.iter().map(|layer| layer.weights() * layer.positions.unwrap()).sum();
        let outputs = (ternary.multiplications - kept as u64) / 2;
        assert!(ternary.skipped > 0);
        assert_eq!(ternary.additions + ternary.skipped, dense.additions + outputs);
    }

    #[test]
    fn every_layer_of_the_mnist_network_has_its_positions() {
        let evidence = layers_of(MnistNet::<Cpu>::new(10, &Default::default()), [28, 28]);
        let positions: Vec<_> = evidence.layers.iter().map(|layer| layer.positions).collect();
        assert_eq!(positions, [Some(8 * 8), Some(1)]);
        let positions: Vec<_> = evidence.dense.iter().map(|layer| layer.positions).collect();
        assert_eq!(positions, [Some(24 * 24), Some(1)]);
    }

    #[test]
    fn every_layer_of_a_language_model_has_one_position_for_a_byte() {
        let config = GptConfig { layers: 2, width: 8, heads: 2, context: 4 };
        let evidence = layers_of(Gpt::<Cpu>::new(&config, &Default::default()), 4);
        assert_eq!((evidence.layers.len(), evidence.dense.len()), (12, 1));
        let (dense, _) = of_network(&evidence.layers, &evidence.dense).unwrap();
        assert_eq!(dense.multiplications, 2 * 12 * 8 * 8 + 8 * 256);
    }
}
