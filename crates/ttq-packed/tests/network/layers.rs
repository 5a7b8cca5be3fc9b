//! Layers of compiled networks: their multiply-adds and times.

use fastrand::Rng;
use ttq_packed::network::{Arena, Binary, CompileOptions, Graph, Int8, Network, Operation, RangeRule};

use crate::resnet::{Builder, floats, resnet};

#[test]
fn multiply_adds_of_resnet_20_are_those_of_its_definition_under_every_algorithm() {
    let mut rng = Rng::with_seed(31);
    let mut graph = resnet(&mut rng, 3, 32, 0.3);
    // Outputs times products: the first convolution, three stages, two convolutions of shortcuts, the linear layer.
    let stage = |first: usize, other: usize| first + 5 * other;
    let expected: usize = 1024 * 16 * 27
        + 6 * 1024 * 16 * 144
        + stage(256 * 32 * 144, 256 * 32 * 288)
        + stage(64 * 64 * 288, 64 * 64 * 576)
        + (256 * 32 * 16 + 64 * 64 * 32)
        + 64 * 10;
    assert_eq!(graph.values().map(|value| graph.multiply_adds(value)).sum::<usize>(), expected);
    let samples = floats(&mut rng, 3 * 32 * 32);
    graph.calibrate(&samples, RangeRule::MinMax).unwrap();
    for (fuse, winograd, int8) in [(true, true, Int8::Off), (false, false, Int8::Off), (true, true, Int8::Inner)] {
        let mut options = CompileOptions::default();
        (options.fuse, options.winograd, options.int8) = (fuse, winograd, int8);
        let network = Network::compile(&graph, &options).unwrap();
        assert_eq!(network.layers().map(|layer| layer.multiply_adds).sum::<usize>(), expected);
    }
}

#[test]
fn a_product_of_two_values_counts_its_terms_and_other_operations_count_none() {
    let mut rng = Rng::with_seed(32);
    let mut b = Builder { graph: Graph::new([2, 4, 5]).unwrap(), rng: &mut rng, zeros: 0.3 };
    let x = b.graph.input();
    let transposed = b.apply("transposed".into(), Operation::Permute(vec![0, 2, 1]), &[x]);
    let product = b.apply("product".into(), Operation::MatrixProduct, &[x, transposed]);
    b.graph.set_output(product).unwrap();
    assert_eq!([x, transposed, product].map(|value| b.graph.multiply_adds(value)), [0, 0, 2 * 4 * 4 * 5]);
    let network = Network::compile(&b.graph, &CompileOptions::default()).unwrap();
    let layer = network.layers().find(|layer| layer.name == "product").unwrap();
    assert_eq!(layer.multiply_adds, 2 * 4 * 4 * 5);
}

#[test]
fn a_timed_run_has_the_results_of_a_run_and_a_time_for_every_layer() {
    let mut rng = Rng::with_seed(33);
    let graph = resnet(&mut rng, 1, 16, 0.3);
    let mut options = CompileOptions::default();
    options.items = Some(2);
    let network = Network::compile(&graph, &options).unwrap();
    let x = floats(&mut rng, 5 * 3 * 16 * 16);
    let [mut expected, mut found] = [[f32::NAN; 50]; 2];
    network.run(&mut Arena::new(), &x, &mut expected).unwrap();
    let seconds = network.run_timed(&mut Arena::new(), &x, &mut found).unwrap();
    assert_eq!(found, expected);
    assert_eq!(seconds.len(), network.layers().len());
    assert!(seconds.iter().all(|seconds| *seconds > 0.0), "{seconds:?}");
    assert!(network.run_timed(&mut Arena::new(), &x[1..], &mut found).is_err());
    assert!(network.run_timed(&mut Arena::new(), &x, &mut found[1..]).is_err());
}

#[test]
fn a_flattened_image_is_copied_only_if_more_than_a_linear_layer_reads_it() {
    for read_again in [false, true] {
        let mut rng = Rng::with_seed(34);
        let mut b = Builder { graph: Graph::new([3, 4, 5]).unwrap(), rng: &mut rng, zeros: 0.3 };
        let x = b.graph.input();
        let y = b.convolution("conv", x, [3, 2], 3, 1);
        let flat = b.apply("flatten".into(), Operation::Reshape(vec![40]), &[y]);
        let weight = b.ternary("linear.weight".into(), &[40, 40], 40, 1);
        let mut y = b.apply("linear".into(), Operation::Linear, &[flat, weight]);
        if read_again {
            y = b.apply("add".into(), Operation::Binary(Binary::Add), &[y, flat]);
        }
        b.graph.set_output(y).unwrap();
        let network = Network::compile(&b.graph, &CompileOptions::default()).unwrap();
        assert_eq!(network.layers().any(|layer| layer.name == "flatten"), read_again);
        let x = floats(b.rng, 60);
        let mut found = [f32::NAN; 40];
        network.run(&mut Arena::new(), &x, &mut found).unwrap();
        let expected = b.graph.evaluate(&x).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4), "{found:?} {expected:?}");
    }
}
