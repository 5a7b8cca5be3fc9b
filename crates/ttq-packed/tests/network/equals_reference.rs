//! Networks on every instruction set, with every pass on and off.

use fastrand::Rng;
use ttq_packed::kernels::Level;
use ttq_packed::network::{Arena, Binary, CompileOptions, Constant, Graph, Int8, Network, Operation, Source, Unary};
use ttq_packed::{Codes, Coding, TernaryWeight};

use crate::allocations::allocated;
use crate::cases;
use crate::operations::encoder_layer;
use crate::resnet::{Builder, floats, resnet};

/// Combinations of the passes: all of them, or all passes and none.
fn options(all: bool) -> impl Iterator<Item = CompileOptions> {
    let combinations: &[usize] = if all { &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] } else { &[0, 15] };
    combinations.iter().map(|bits| {
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
    check_options(graph, rng, batch, tolerance, options(false));
}

fn check_options(
    graph: &Graph,
    rng: &mut Rng,
    batch: usize,
    tolerance: f64,
    options: impl Iterator<Item = CompileOptions>,
) {
    let options: Vec<CompileOptions> = options.collect();
    let len: usize = graph.shape(graph.input()).dims.iter().product();
    let x = floats(rng, batch * len);
    let expected: Vec<f64> = x.chunks(len).flat_map(|x| graph.evaluate(x).unwrap()).collect();
    let largest = expected.iter().fold(1e-30, |max: f64, y| max.max(y.abs()));
    let outputs = expected.len() / batch;
    cases::write(graph, &x[..len], &expected[..outputs], tolerance * largest, Int8::Off);
    let simplified = graph.simplify(1 << 20).unwrap();
    if graph.write(Coding::Plain, None).is_ok() {
        let read = Graph::read(&simplified.write(Coding::Plain, None).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{simplified:?}"));
    }
    let y = x.chunks(len).flat_map(|x| simplified.evaluate(x).unwrap());
    let error = y.zip(&expected).map(|(y, e)| (y - e).abs()).max_by(|a, b| a.total_cmp(b)).unwrap_or_default();
    assert!(error <= tolerance * largest, "simplified: {:.2e}", error / largest);
    for level in Level::available() {
        for options in &options {
            let network = Network::compile(graph, options).unwrap().with_level(level).unwrap();
            let mut y = vec![f32::NAN; expected.len()];
            let mut arena = Arena::new();
            for _ in 0..2 {
                network.run(&mut arena, &x, &mut y).unwrap();
                let error = y
                    .iter()
                    .zip(&expected)
                    .map(|(y, e)| (f64::from(*y) - e).abs())
                    .max_by(|a, b| a.total_cmp(b))
                    .unwrap_or_default();
                println!("{level:?}: {:.1e} of the largest output", error / largest);
                assert!(error <= tolerance * largest, "{level:?} {options:?}: {:.2e}", error / largest);
            }
        }
    }
}

#[test]
fn resnet_20_equals_its_definition() {
    let mut rng = Rng::with_seed(9);
    let graph = resnet(&mut rng, 3, 32, 0.1);
    check(&graph, &mut rng, 1, 1e-5);
}

#[test]
fn a_ternary_weight_stays_ternary_when_a_map_per_channel_is_multiplied_into_it() {
    let mut rng = Rng::with_seed(10);
    let codes: Vec<i8> = (0..12).map(|_| rng.i8(-1..=1)).collect();
    let pairs = [[0.5, 0.25], [1.0, 2.0], [0.75, 1.5]];
    // One pair for all channels, or one per channel; a negative factor exchanges the signs of a channel.
    for scales in [&pairs[..1], &pairs] {
        let mut graph = Graph::new([4]).unwrap();
        let weight = TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, [4, 3], 1).unwrap();
        let weight = graph.constant("weight", Constant::Ternary(weight)).unwrap();
        let y = graph.apply("linear", Operation::Linear, &[graph.input(), weight]).unwrap();
        let factor = graph.constant("factor", Constant::float([3], [2.0, -0.5, 3.0])).unwrap();
        let y = graph.apply("scaled", Operation::Binary(Binary::Multiply), &[y, factor]).unwrap();
        graph.set_output(y).unwrap();
        let simplified = graph.simplify(1 << 20).unwrap();
        let is_ternary = |value| matches!(simplified.source(value), Source::Constant(Constant::Ternary(_)));
        assert_eq!((simplified.len(), simplified.values().filter(|value| is_ternary(*value)).count()), (3, 1));
        let x = floats(&mut rng, 4);
        assert_eq!(simplified.evaluate(&x).unwrap(), graph.evaluate(&x).unwrap());
    }
}

/// A layer that is used twice, as in a recurrent network, with different maps after it.
#[test]
fn a_simplified_graph_with_nodes_of_equal_names_can_be_written() {
    let mut graph = Graph::new([4]).unwrap();
    let weight = graph.constant("weight", Constant::float([4, 4], [0.25; 16])).unwrap();
    let mut y = graph.input();
    for (step, bias) in [1.0, 2.0, 1.0].into_iter().enumerate() {
        let bias = graph.constant(format!("bias{step}"), Constant::float([4], [bias; 4])).unwrap();
        y = graph.apply("cell", Operation::Linear, &[y, weight]).unwrap();
        y = graph.apply("cell", Operation::Binary(Binary::Add), &[y, bias]).unwrap();
        y = graph.apply("cell", Operation::Unary(Unary::Tanh), &[y]).unwrap();
    }
    graph.set_output(y).unwrap();
    let simplified = graph.simplify(1 << 20).unwrap();
    let names: Vec<_> = simplified
        .values()
        .filter(|value| matches!(simplified.source(*value), Source::Constant(_)))
        .map(|value| simplified.name(value).to_owned())
        .collect();
    assert_eq!(names, ["weight", "cell.bias", "cell.bias#2"]);
    let read = Graph::read(&simplified.write(Coding::Plain, None).unwrap()).unwrap();
    let x = [0.5, -0.25, 1.0, 0.125];
    assert_eq!(read.evaluate(&x).unwrap(), graph.evaluate(&x).unwrap());
}

#[test]
fn the_number_of_threads_does_not_change_results() {
    let mut rng = Rng::with_seed(8);
    let graph = resnet(&mut rng, 1, 16, 0.4);
    let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
    let x = floats(&mut rng, 9 * 3 * 16 * 16);
    for batch in [1, 2, 9] {
        compare_threads(&network, &x[..batch * 3 * 16 * 16], batch * 10);
    }
    let network = Network::compile(&encoder(&mut rng), &CompileOptions::default()).unwrap();
    for batch in [1, 5] {
        compare_threads(&network, &floats(&mut rng, batch * 66 * 160), batch * 66 * 160);
    }
}

/// Two encoder layers whose operations are large enough for several threads.
fn encoder(rng: &mut Rng) -> Graph {
    let mut b = Builder { graph: Graph::new([66, 160]).unwrap(), rng, zeros: 0.3 };
    let mut x = b.graph.input();
    for _ in 0..2 {
        x = encoder_layer(&mut b, x, [66, 160, 5, 320]);
    }
    b.graph.set_output(x).unwrap();
    b.graph
}

/// Compares the outputs with those of one thread, bit by bit.
fn compare_threads(network: &Network, x: &[f32], len: usize) {
    let outputs = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut y = vec![0.0; len];
        pool.install(|| network.run(&mut Arena::new(), x, &mut y)).unwrap();
        y
    });
    assert!(outputs[0] == outputs[1] && outputs[0] == outputs[2]);
}

#[test]
fn only_the_first_call_allocates_memory() {
    let mut rng = Rng::with_seed(6);
    for graph in [resnet(&mut rng, 1, 12, 0.4), encoder(&mut rng)] {
        let network = Network::compile(&graph, &CompileOptions::default()).unwrap();
        let [input, output]: [usize; 2] =
            [network.input_dims(), network.output_dims()].map(|dims| dims.iter().product());
        let (x, mut y, mut arena) = (floats(&mut rng, 3 * input), vec![0.0; 3 * output], Arena::new());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            network.run(&mut arena, &x, &mut y).unwrap();
            let (result, bytes) = allocated(|| network.run(&mut arena, &x, &mut y));
            result.unwrap();
            assert_eq!(bytes, 0);
        });
    }
}

#[test]
fn a_residual_network_equals_its_definition() {
    let mut rng = Rng::with_seed(7);
    for (n, size, batch) in [(1, 16, 3), (1, 13, 2)] {
        let graph = resnet(&mut rng, n, size, 0.4);
        check_options(&graph, &mut rng, batch, 1e-5, options(true));
    }
}
