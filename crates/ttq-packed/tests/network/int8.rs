//! Networks with products of bytes.

use fastrand::Rng;
use ttq_packed::kernels::{ConvolutionOptions, Level};
use ttq_packed::network::{
    Arena, Binary, CompileOptions, Graph, Int8, Network, NetworkError, Operation, RangeRule, Unary,
};

use crate::cases;
use crate::resnet::{Builder, floats, resnet};

fn in_int8(int8: Int8) -> CompileOptions {
    CompileOptions::default().with_int8(int8)
}

/// Returns the largest error relative to the largest output.
fn error(graph: &Graph, options: &CompileOptions, level: Level, x: &[f32]) -> f64 {
    let network = Network::compile(graph, options).unwrap().with_level(level).unwrap();
    let len: usize = network.input_dims().iter().product();
    let expected: Vec<f64> = x.chunks(len).flat_map(|x| graph.evaluate(x).unwrap()).collect();
    let mut y = vec![f32::NAN; expected.len()];
    network.run(&mut Arena::new(), x, &mut y).unwrap();
    let largest = expected.iter().fold(1e-30, |max: f64, y| max.max(y.abs()));
    y.iter()
        .zip(&expected)
        .map(|(y, e)| (f64::from(*y) - e).abs() / largest)
        .max_by(|a, b| a.total_cmp(b))
        .unwrap_or_default()
}

#[test]
fn products_of_numbers_that_bytes_represent_are_exact() {
    let mut rng = Rng::with_seed(11);
    for (case, lowest) in [0, -128, -7, 0, -100, -255].into_iter().enumerate() {
        let [inputs, outputs] = [[3, 20], [16, 16], [7, 5], [33, 40], [4, 64], [1, 3]][case];
        let [height, width] = [[9, 7], [6, 20], [9, 7], [5, 35], [9, 7], [4, 18]][case];
        let graph = Graph::new([inputs, height, width]).unwrap();
        let mut b = Builder { graph, rng: &mut rng, zeros: 0.3 };
        let kernel = [3, 3, 1, 5, 3, 7][case];
        let input = b.graph.input();
        let values = (0..outputs * inputs * kernel * kernel).map(|_| b.rng.i8(-1..=1).into()).collect();
        let weight = b.constant("weight".into(), &[outputs, inputs, kernel, kernel], values);
        let pad = kernel / 2;
        let options =
            ConvolutionOptions { padding: [[pad, pad], [pad, 0]], stride: [1, 1 + case / 2 % 2], ..Default::default() };
        let y = b.apply("convolution".into(), Operation::Convolution(options), &[input, weight]);
        let y = b.norm("norm", y, outputs);
        b.graph.set_output(y).unwrap();
        let mut graph = b.graph;
        let mut x: Vec<f32> = (0..3 * inputs * height * width).map(|_| rng.i32(lowest..=lowest + 255) as f32).collect();
        (x[0], x[1]) = (lowest as f32, (lowest + 255) as f32);
        graph.calibrate(&x, RangeRule::MinMax).unwrap();
        let item = &x[..inputs * height * width];
        let expected = graph.evaluate(item).unwrap();
        let largest = expected.iter().fold(1e-30, |max: f64, y| max.max(y.abs()));
        cases::write(&graph, item, &expected, 1e-5 * largest, Int8::All);
        for level in Level::available() {
            let error = error(&graph, &in_int8(Int8::All), level, &x);
            assert!(error < 1e-5, "{level:?}, {inputs} to {outputs} channels: {error:.1e}");
        }
    }
}

#[test]
fn a_residual_network_of_bytes_is_close_to_its_definition() {
    let mut rng = Rng::with_seed(12);
    let mut graph = resnet(&mut rng, 1, 16, 0.4);
    let x = floats(&mut rng, 6 * 3 * 16 * 16);
    for rule in [RangeRule::MinMax, RangeRule::Percentile(1e-3)] {
        graph.calibrate(&x, rule).unwrap();
        for level in Level::available() {
            for (int8, expected) in [(Int8::Inner, 8), (Int8::All, 10)] {
                let network = Network::compile(&graph, &in_int8(int8)).unwrap();
                let quantized = network.layers().filter(|layer| layer.algorithm == "int8").count();
                assert_eq!(quantized, expected);
                let error = error(&graph, &in_int8(int8), level, &x);
                assert!(error < 0.05, "{rule:?} {level:?}: {error:.3}");
            }
        }
    }
}

#[test]
fn products_of_values_and_functions_are_stored_as_bytes() {
    let mut rng = Rng::with_seed(14);
    let mut b = Builder { graph: Graph::new([18, 64]).unwrap(), rng: &mut rng, zeros: 0.3 };
    let x = b.graph.input();
    let other = floats(b.rng, 64 * 20);
    let other = b.constant("other".into(), &[64, 20], other);
    let y = b.apply("product".into(), Operation::MatrixProduct, &[x, other]);
    let weight = b.ternary("first".into(), &[20, 40], 20, 1);
    let y = b.apply("first".into(), Operation::Linear, &[y, weight]);
    let y = b.apply("tanh".into(), Operation::Unary(Unary::Tanh), &[y]);
    let weight = b.ternary("second".into(), &[40, 20], 40, 1);
    let y = b.apply("second".into(), Operation::Linear, &[y, weight]);
    b.graph.set_output(y).unwrap();
    let mut graph = b.graph;
    let x = floats(&mut rng, 6 * 18 * 64);
    graph.calibrate(&x, RangeRule::MinMax).unwrap();
    for level in Level::available() {
        let network = Network::compile(&graph, &in_int8(Int8::All)).unwrap();
        let layers: Vec<&str> = network.layers().map(|layer| layer.algorithm).collect();
        assert_eq!(layers, ["import", "matrix product", "int8", "tanh", "int8", "export"]);
        let error = error(&graph, &in_int8(Int8::All), level, &x);
        assert!(error < 0.05, "{level:?}: {error:.3}");
    }
}

#[test]
fn a_value_that_is_also_read_as_floats_is_converted() {
    let mut rng = Rng::with_seed(13);
    let graph = Graph::new([8, 6, 6]).unwrap();
    let mut b = Builder { graph, rng: &mut rng, zeros: 0.3 };
    let x = b.graph.input();
    let x = b.convolution("first", x, [8, 16], 3, 1);
    let y = b.convolution("second", x, [16, 16], 3, 1);
    let z = b.convolution("third", y, [16, 16], 3, 1);
    // The last product is kept in float32, and reads what a product of bytes also reads.
    let last = b.convolution("last", y, [16, 16], 1, 1);
    let sum = b.apply("sum".into(), Operation::Binary(Binary::Add), &[z, last]);
    b.graph.set_output(sum).unwrap();
    let mut graph = b.graph;
    let x = floats(&mut rng, 4 * 8 * 6 * 6);
    graph.calibrate(&x, RangeRule::MinMax).unwrap();
    for int8 in [Int8::Inner, Int8::All] {
        let error = error(&graph, &in_int8(int8), Level::best(), &x);
        assert!(error < 0.05, "{error:.3}");
    }
}

#[test]
fn a_graph_without_ranges_is_refused_in_int8_and_compiles_in_float32() {
    let mut rng = Rng::with_seed(15);
    let mut graph = resnet(&mut rng, 1, 12, 0.4);
    for int8 in [Int8::Inner, Int8::All] {
        let error = Network::compile(&graph, &in_int8(int8)).unwrap_err();
        assert!(matches!(error, NetworkError::NoRanges) && error.to_string().contains("Graph::calibrate"), "{error}");
    }
    assert!(Network::compile(&graph, &in_int8(Int8::Off)).is_ok());
    graph.calibrate(&floats(&mut rng, 3 * 12 * 12), RangeRule::MinMax).unwrap();
    // A value without a range is no error if others have one.
    let y = graph.apply("tanh", Operation::Unary(Unary::Tanh), &[graph.output()]).unwrap();
    graph.set_output(y).unwrap();
    let network = Network::compile(&graph, &in_int8(Int8::Inner)).unwrap();
    assert!(network.layers().any(|layer| layer.algorithm == "int8"));
}

#[test]
fn int8_as_a_number_is_off_inner_or_all() {
    let found = [0, 1, 2, 3, u32::MAX].map(Int8::from_number);
    assert_eq!(found, [Some(Int8::Off), Some(Int8::Inner), Some(Int8::All), None, None]);
}

#[test]
fn a_weight_or_bias_that_is_not_finite_has_no_bytes() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (of_bias, name) in [(false, "weight"), (true, "bias")] {
            let mut rng = Rng::with_seed(41);
            let mut b = Builder { graph: Graph::new([3]).unwrap(), rng: &mut rng, zeros: 0.3 };
            let x = b.graph.input();
            let value = |is_broken: bool| if is_broken { broken } else { 0.5 };
            let weight = b.constant("weight".into(), &[3, 2], vec![1.0, 0.5, -0.5, value(!of_bias), 0.25, 1.0]);
            let bias = b.constant("bias".into(), &[2], vec![1.0, value(of_bias)]);
            let y = b.apply("linear".into(), Operation::Linear, &[x, weight, bias]);
            b.graph.set_output(y).unwrap();
            let mut graph = b.graph;
            graph.calibrate(&[0.5, -0.5, 1.0], RangeRule::MinMax).unwrap();
            let error = Network::compile(&graph, &in_int8(Int8::All)).unwrap_err();
            assert!(matches!(&error, NetworkError::Constant { name: found, .. } if found == name), "{error}");
            assert!(Network::compile(&graph, &CompileOptions::default()).is_ok());
        }
    }
}
