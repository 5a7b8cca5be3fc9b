//! Networks on every instruction set, with every pass on and off.

use fastrand::Rng;
use ttq_packed::kernels::Level;
use ttq_packed::network::{Arena, CompileOptions, Graph, Network};

use crate::resnet::{floats, resnet};

/// All combinations of the passes.
fn options() -> impl Iterator<Item = CompileOptions> {
    (0..16).map(|bits: usize| {
        let mut options = CompileOptions::default();
        options.fuse = bits & 1 == 0;
        options.winograd = bits & 2 == 0;
        options.reuse_memory = bits & 4 == 0;
        options.items = (bits & 8 != 0).then_some(2);
        options
    })
}

/// Compares the outputs of a batch with the definition. The tolerance is relative to the largest output.
pub fn check(graph: &Graph, rng: &mut Rng, batch: usize, tolerance: f64) {
    let len: usize = graph.shape(graph.input()).dims.iter().product();
    let x = floats(rng, batch * len);
    let expected: Vec<f64> = x.chunks(len).flat_map(|x| graph.evaluate(x).unwrap()).collect();
    let largest = expected.iter().fold(1e-30, |max: f64, y| max.max(y.abs()));
    for level in Level::available() {
        for options in options() {
            let network = Network::compile(graph, &options).unwrap().with_level(level).unwrap();
            let mut y = vec![f32::NAN; expected.len()];
            let mut arena = Arena::new();
            for _ in 0..2 {
                network.run(&mut arena, &x, &mut y).unwrap();
                let error = y.iter().zip(&expected).map(|(y, e)| (f64::from(*y) - e).abs()).fold(0.0, f64::max);
                assert!(error <= tolerance * largest, "{level:?} {options:?}: {:.2e}", error / largest);
            }
        }
    }
}

#[test]
fn a_residual_network_equals_its_definition() {
    let mut rng = Rng::with_seed(7);
    for (n, size, batch) in [(1, 16, 3), (1, 13, 2)] {
        let graph = resnet(&mut rng, n, size, 0.4);
        check(&graph, &mut rng, batch, 1e-5);
    }
}
