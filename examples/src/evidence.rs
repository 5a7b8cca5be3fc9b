//! The data of a run's report: predictions, layers, mistakes.

use burn::module::Module;
use burn::prelude::*;
use ttq_core::Ternary;
use ttq_report::record::{DenseLayer, Evidence, Layer, Mistake, Picture};

use crate::data::{ImageSet, Images};
use crate::model::{Classifier, Network};

/// Number of mistakes that are kept with their images.
const MISTAKES: usize = 24;

/// Creates the evidence with the machine and the names of the classes.
pub(crate) fn begin(images: &Images) -> Evidence {
    let classes = images.class_names.clone();
    Evidence { environment: crate::environment(), classes, ..Evidence::default() }
}

/// Adds the layers of a trained network, for images of this shape.
pub(crate) fn add_layers<B: Backend, N: Network<B>>(
    evidence: &mut Evidence,
    ternary: &Ternary<B, Classifier<B, N>>,
    [_, height, width]: [usize; 3],
) where
    Classifier<B, N>: Module<B>,
{
    let known = ternary.latent().network().positions([height, width]);
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
    let kept = ternary.selection().choices().iter().filter(|choice| choice.kept.is_some());
    evidence.dense = kept
        .map(|choice| DenseLayer {
            path: choice.path.clone(),
            shape: choice.shape.clone(),
            positions: positions(&choice.path),
        })
        .collect();
}

/// Adds the mistakes with the highest confidence.
pub(crate) fn add_mistakes(evidence: &mut Evidence, images: &ImageSet) {
    let Some((_, predictions)) = evidence.predictions() else { return };
    let indices = predictions.most_confident_mistakes(MISTAKES);
    let mistakes = indices.into_iter().filter_map(|index| {
        let prediction = predictions.iter().nth(index)?;
        Some(Mistake {
            index,
            label: prediction.label,
            predicted: prediction.predicted,
            confidence: prediction.confidence,
            label_probability: prediction.label_probability,
            picture: Picture { shape: images.shape(), pixels: images.image(index).to_vec() },
        })
    });
    evidence.mistakes = mistakes.collect();
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::model::{MnistNet, ResNet};
    use ttq_core::TernaryConfig;
    use ttq_report::operations::of_network;

    fn layers_of<N: Network<Cpu> + burn::module::ModuleDisplay>(network: N, image: [usize; 3]) -> Evidence {
        let ternary = Ternary::new(Classifier::new(network), &TernaryConfig::default()).unwrap();
        let mut evidence = Evidence::default();
        add_layers(&mut evidence, &ternary, image);
        evidence
    }

    #[test]
    fn a_resnet_20_has_its_published_number_of_products() {
        let evidence = layers_of(ResNet::<Cpu>::new(20, 10, &Default::default()), [3, 32, 32]);
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
        let evidence = layers_of(MnistNet::<Cpu>::new(10, &Default::default()), [1, 28, 28]);
        let positions: Vec<_> = evidence.layers.iter().map(|layer| layer.positions).collect();
        assert_eq!(positions, [Some(8 * 8), Some(1)]);
        let positions: Vec<_> = evidence.dense.iter().map(|layer| layer.positions).collect();
        assert_eq!(positions, [Some(24 * 24), Some(1)]);
    }

    #[test]
    fn the_most_confident_mistakes_come_with_their_images() {
        let images = ImageSet::new([1, 1, 1], vec![7, 8, 9], vec![0, 1, 1]);
        let mut predictions = ttq_report::record::Predictions::new(2);
        for (label, probabilities) in [(0, [0.25, 0.75]), (1, [0.5, 0.5]), (1, [0.125, 0.875])] {
            predictions.push(&ttq_report::record::Prediction::new(label, &probabilities));
        }
        let mut evidence = Evidence { ternary: Some(predictions), ..Evidence::default() };
        add_mistakes(&mut evidence, &images);
        let found: Vec<_> = evidence.mistakes.iter().map(|m| (m.index, m.predicted, m.picture.pixels[0])).collect();
        assert_eq!(found, [(0, 1, 7), (1, 0, 8)]);
    }
}
