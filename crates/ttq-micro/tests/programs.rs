//! Programs against the definition of their graphs, and against networks that `ttq-packed` compiles.

#![cfg(feature = "build")]

use fastrand::Rng;
use ttq_micro::build::{BuildError, compile, source};
use ttq_micro::{Function, RunError};
use ttq_packed::kernels::{ConvolutionOptions, Level};
use ttq_packed::network::{
    Arena, Binary, CompileOptions, Constant, Graph, Int8, Network, Operation, RangeRule, Unary, Value, Window,
};
use ttq_packed::{Codes, Coding, TernaryWeight};

fn floats(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

/// Returns a ternary weight with a pair of scales per weight, or per channel.
fn ternary(rng: &mut Rng, dims: &[usize], axis: usize) -> Constant {
    let codes: Vec<i8> = (0..dims.iter().product()).map(|_| rng.i8(-1..=1)).collect();
    let groups = if rng.bool() { 1 } else { dims[axis] };
    let scales: Vec<[f32; 2]> = (0..groups).map(|_| [0.1 + rng.f32(), 0.1 + rng.f32()]).collect();
    Constant::Ternary(TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, dims, axis).unwrap())
}

struct Builder<'a> {
    graph: Graph,
    rng: &'a mut Rng,
    last: Value,
}

impl<'a> Builder<'a> {
    fn new(rng: &'a mut Rng, dims: [usize; 3]) -> Self {
        let graph = Graph::new(dims).unwrap();
        Self { last: graph.input(), graph, rng }
    }

    fn apply(&mut self, operation: Operation, constants: Vec<Constant>) {
        let name = format!("{}-{}", operation.name(), self.graph.len());
        let mut operands = vec![self.last];
        for (i, constant) in constants.into_iter().enumerate() {
            operands.push(self.graph.constant(format!("{name}.{i}"), constant).unwrap());
        }
        self.last = self.graph.apply(name, operation, &operands).unwrap();
    }

    fn convolution(&mut self, outputs: usize, kernel: [usize; 2], options: ConvolutionOptions, is_ternary: bool) {
        let dims = [outputs, self.graph.shape(self.last).dims[0], kernel[0], kernel[1]];
        let weight = match is_ternary {
            true => ternary(self.rng, &dims, 0),
            false => Constant::float(dims, floats(self.rng, dims.iter().product())),
        };
        let bias = Constant::float([outputs], floats(self.rng, outputs));
        self.apply(Operation::Convolution(options), vec![weight, bias]);
    }

    fn linear(&mut self, outputs: usize, is_ternary: bool) {
        let inputs = self.graph.shape(self.last).dims.iter().product();
        self.apply(Operation::Reshape(vec![inputs]), vec![]);
        let dims = [inputs, outputs];
        let weight = match is_ternary {
            true => ternary(self.rng, &dims, 1),
            false => Constant::float(dims, floats(self.rng, inputs * outputs)),
        };
        self.apply(Operation::Linear, vec![weight]);
    }

    /// Adds a map per channel with factors of both signs, as batch normalization is one.
    fn norm(&mut self) {
        let dims = match self.graph.shape(self.last).dims[..] {
            [channels, _, _] => vec![channels, 1, 1],
            ref dims => dims.to_vec(),
        };
        for function in [Binary::Multiply, Binary::Add] {
            let values = floats(self.rng, dims.iter().product());
            self.apply(Operation::Binary(function), vec![Constant::float(dims.clone(), values)]);
        }
    }

    fn finish(mut self) -> Graph {
        self.graph.set_output(self.last).unwrap();
        self.graph
    }
}

fn run(graph: &Graph, int8: Int8, x: &[f32]) -> Vec<f32> {
    let program = compile(graph, int8).unwrap();
    // Memory that is larger, and not clear.
    let mut arena = vec![f32::NAN; program.arena + 3];
    let mut y = vec![f32::NAN; x.len() / program.input * program.output];
    for (x, y) in x.chunks(program.input).zip(y.chunks_mut(program.output)) {
        program.run(&mut arena, x, y).unwrap();
    }
    y
}

/// Returns the largest difference relative to the largest expected number.
fn difference(y: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(y.len(), expected.len());
    let largest = expected.iter().fold(1e-30, |max: f64, y| max.max(y.abs()));
    y.iter()
        .zip(expected)
        .map(|(y, e)| (f64::from(*y) - e).abs() / largest)
        .max_by(|a, b| a.total_cmp(b))
        .unwrap_or_default()
}

#[test]
fn programs_of_floats_compute_what_their_graphs_define() {
    let mut rng = Rng::with_seed(5);
    for case in 0..60 {
        let dims = [rng.usize(1..6), rng.usize(7..15), rng.usize(7..25)];
        let mut b = Builder::new(&mut rng, dims);
        for _ in 0..2 {
            let kernel = [b.rng.usize(1..5), b.rng.usize(1..5)];
            let stride = [b.rng.usize(1..3), b.rng.usize(1..3)];
            let padding = kernel.map(|k| [b.rng.usize(0..k), b.rng.usize(0..k)]);
            let options = ConvolutionOptions { stride, padding, ..ConvolutionOptions::default() };
            let (outputs, is_ternary) = (b.rng.usize(1..8), b.rng.bool());
            if b.graph.shape(b.last).dims[1..].iter().zip(kernel).all(|(size, kernel)| *size >= kernel) {
                b.convolution(outputs, kernel, options, is_ternary);
                if b.rng.bool() {
                    b.norm();
                }
                b.apply(Operation::Unary([Unary::Relu, Unary::Clamp([-0.5, 2.0])][case % 2]), vec![]);
            }
        }
        if b.graph.shape(b.last).dims[1..].iter().all(|size| *size >= 2) {
            let padding = if case % 3 == 0 { [[1, 0], [0, 1]] } else { [[0; 2]; 2] };
            let window = Window { size: [2, 2], stride: [b.rng.usize(1..3), 2], padding };
            b.apply(
                match case % 3 {
                    2 => Operation::AveragePool { window, count_padding: true },
                    _ => Operation::MaxPool(window),
                },
                vec![],
            );
        }
        if case % 4 == 0 {
            b.apply(Operation::AdaptiveAveragePool([1, 1]), vec![]);
        }
        for outputs in [b.rng.usize(1..10), 3] {
            let is_ternary = b.rng.bool();
            b.linear(outputs, is_ternary);
            b.norm();
        }
        let graph = b.finish();
        let x = floats(&mut rng, dims.iter().product());
        let difference = difference(&run(&graph, Int8::Off, &x), &graph.evaluate(&x).unwrap());
        assert!(difference < 2e-6, "case {case}: {difference:.1e}");
    }
}

/// Returns a network whose ternary layers compute on bytes: the first and the last layer have weights of floats. The first one is exact
/// in float32, so that bytes do not depend on the order of its sums.
fn quantized(rng: &mut Rng, dims: [usize; 3]) -> (Graph, Vec<f32>) {
    let mut b = Builder::new(rng, dims);
    let padded = |pad: usize| ConvolutionOptions { padding: [[pad; 2]; 2], ..ConvolutionOptions::default() };
    let weights = (0..6 * dims[0] * 9).map(|_| f32::from(b.rng.i8(-3..=3))).collect::<Vec<_>>();
    b.apply(Operation::Convolution(padded(1)), vec![Constant::float([6, dims[0], 3, 3], weights)]);
    b.apply(Operation::MaxPool(Window { size: [2, 2], stride: [2, 2], padding: [[0; 2]; 2] }), vec![]);
    b.convolution(9, [3, 3], padded(1), true);
    b.apply(Operation::Unary(Unary::Relu), vec![]);
    b.convolution(7, [5, 3], ConvolutionOptions { stride: [2, 1], ..padded(2) }, true);
    b.apply(Operation::Unary(Unary::Relu), vec![]);
    b.linear(10, true);
    b.norm();
    b.apply(Operation::Unary(Unary::Relu), vec![]);
    b.linear(4, false);
    let mut graph = b.finish();
    let x: Vec<f32> = (0..4 * dims.iter().product::<usize>()).map(|_| f32::from(rng.i8(-20..=20))).collect();
    graph.calibrate(&x, RangeRule::MinMax).unwrap();
    (graph, x)
}

#[test]
fn programs_of_bytes_compute_what_a_compiled_network_computes() {
    let mut rng = Rng::with_seed(6);
    for (case, dims) in [[1, 8, 8], [2, 12, 40], [3, 9, 21], [1, 20, 34]].into_iter().enumerate() {
        let (graph, x) = quantized(&mut rng, dims);
        let options = CompileOptions::default().with_int8(Int8::Inner);
        let network = Network::compile(&graph, &options).unwrap().with_level(Level::Portable).unwrap();
        let bytes = network.layers().filter(|layer| layer.algorithm == "int8").count();
        assert_eq!(bytes, 3, "the test is about bytes");
        let mut expected = vec![0.0; 4 * x.len() / dims.iter().product::<usize>()];
        network.run(&mut Arena::new(), &x, &mut expected).unwrap();
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let difference = difference(&run(&graph, Int8::Inner, &x), &expected);
        assert!(difference < 1e-5, "case {case}: {difference:.1e}");
    }
}

#[test]
fn the_last_product_is_of_bytes_only_with_all() {
    let mut rng = Rng::with_seed(10);
    let mut b = Builder::new(&mut rng, [1, 6, 6]);
    b.convolution(4, [3, 3], ConvolutionOptions::default(), false);
    b.linear(3, true);
    let mut graph = b.finish();
    graph.calibrate(&floats(&mut rng, 36), RangeRule::MinMax).unwrap();
    assert!(matches!(compile(&graph, Int8::Inner), Err(BuildError::NoProducts)));
    assert!(compile(&graph, Int8::All).unwrap().layers.iter().any(|layer| layer.bytes[0]));
}

#[test]
fn bytes_take_a_fourth_of_the_arena() {
    let (graph, _) = quantized(&mut Rng::with_seed(7), [1, 16, 16]);
    let [floats, bytes] = [Int8::Off, Int8::Inner].map(|int8| compile(&graph, int8).unwrap());
    assert_eq!(floats.arena, 6 * 16 * 16 + 6 * 8 * 8);
    assert_eq!(bytes.arena, floats.arena / 4);
}

#[test]
fn rust_code_refers_to_the_codes_in_the_file() {
    let (graph, _) = quantized(&mut Rng::with_seed(8), [1, 8, 8]);
    let program = compile(&graph, Int8::Inner).unwrap();
    let file = graph.write(Coding::Plain, None).unwrap();
    let text = source("NETWORK", &program, "FILE", &file);
    // Those of the linear layer change, because the map after it has negative factors.
    let unchanged = program.layers.iter().filter_map(|layer| match layer.function {
        Function::Convolution { weights: ttq_micro::Weights::TernaryBytes { codes, .. }, .. } => Some(codes),
        _ => None,
    });
    let part = |codes: &[u8]| file.windows(codes.len()).position(|part| part == codes).map(|at| (at, codes.len()));
    let parts: Vec<(usize, usize)> = unchanged.filter_map(part).collect();
    assert_eq!(parts.len(), 2);
    for (start, len) in parts {
        assert!(text.contains(&format!("codes: ttq_micro::part(FILE, {start}, {len})")), "{text}");
    }
    assert_eq!(text.matches("codes: &[").count(), 1);
    assert!(text.starts_with("/// A compiled network.\npub static NETWORK: ttq_micro::Program<'static>"));
}

#[test]
fn wrong_lengths_and_graphs_without_a_program_are_refused_in_one_sentence() {
    let mut rng = Rng::with_seed(9);
    let (graph, x) = quantized(&mut rng, [1, 8, 8]);
    let program = compile(&graph, Int8::Off).unwrap();
    let mut arena = vec![0.0; program.arena];
    let error = program.run(&mut arena, &x[..63], &mut [0.0; 4]).unwrap_err();
    assert_eq!(error, RunError::Length { what: "input", expected: 64, found: 63 });
    assert_eq!(error.to_string(), "the input has 63 floats: the network needs 64");
    let error = program.run(&mut arena[1..], &x[..64], &mut [0.0; 4]).unwrap_err();
    assert!(matches!(error, RunError::Length { what: "arena", .. }));
    assert!(program.run(&mut arena, &x[..64], &mut [0.0; 5]).is_err());

    let mut b = Builder::new(&mut rng, [2, 4, 4]);
    b.convolution(4, [3, 3], ConvolutionOptions::default(), true);
    let error = compile(&b.finish(), Int8::All).unwrap_err().to_string();
    assert!(error.contains("Graph::calibrate"), "{error}");

    let refused = |operation: Operation, constants: Vec<Constant>, reason: &str| {
        let mut rng = Rng::with_seed(1);
        let mut b = Builder::new(&mut rng, [2, 4, 4]);
        b.apply(operation, constants);
        let error = compile(&b.finish(), Int8::Off).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(Operation::Softmax(0), vec![], "no layer of a program computes it");
    refused(Operation::Unary(Unary::Relu), vec![], "must follow");
    let groups = ConvolutionOptions { groups: 2, ..ConvolutionOptions::default() };
    refused(Operation::Convolution(groups), vec![Constant::float([2, 1, 1, 1], [1.0, 2.0])], "one group");
    let mut graph = Graph::new([2, 4, 4]).unwrap();
    let input = graph.input();
    let y = graph.apply("sum", Operation::Binary(Binary::Add), &[input, input]).unwrap();
    graph.set_output(y).unwrap();
    assert!(compile(&graph, Int8::Off).unwrap_err().to_string().contains("chain"));
}

#[test]
fn a_graph_without_a_layer_is_refused() {
    let graph = Graph::new([3]).unwrap();
    assert!(matches!(compile(&graph, Int8::Off), Err(BuildError::NoLayers)));
}
