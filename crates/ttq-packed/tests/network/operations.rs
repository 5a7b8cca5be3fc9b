//! Every operation, alone and in small networks, against its definition.

use fastrand::Rng;
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{
    Binary, CompileOptions, Constant, Graph, Network, NetworkError, Operation, Reduction, Unary, Value, Window,
};

use crate::equals_reference::check;
use crate::resnet::{Builder, floats};

/// Builds a network on an input, and compares it with its definition.
fn network(dims: &[usize], build: impl Fn(&mut Builder, Value) -> Value) {
    let mut rng = Rng::with_seed(dims.iter().sum::<usize>() as u64);
    let graph = Graph::new(dims).unwrap();
    let mut b = Builder { graph, rng: &mut rng, zeros: 0.3 };
    let input = b.graph.input();
    let output = build(&mut b, input);
    b.graph.set_output(output).unwrap();
    let graph = b.graph;
    check(&graph, &mut rng, 3, 1e-5);
}

/// Applies an operation to a value and constants with random elements.
fn apply(b: &mut Builder, operation: Operation, x: Value, constants: &[&[usize]]) -> Value {
    let mut operands = vec![x];
    for dims in constants {
        let values = floats(b.rng, dims.iter().product()).iter().map(|x| x + 1.5 * x.signum()).collect();
        // A name of its own, so that the graph can be written.
        operands.push(b.constant(format!("constant{}", b.graph.len()), dims, values));
    }
    b.apply(operation.name().into(), operation, &operands)
}

#[test]
fn functions_of_one_and_two_numbers() {
    let unary = [
        Unary::Relu,
        Unary::LeakyRelu(0.1),
        Unary::Clamp([-0.25, 0.5]),
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Gelu,
        Unary::Erf,
        Unary::Exp,
        Unary::Abs,
        Unary::Negate,
    ];
    for dims in [&[3, 4, 5][..], &[20, 2, 2], &[7, 19], &[33], &[], &[2, 3, 4, 5]] {
        for function in unary {
            network(dims, |b, x| apply(b, Operation::Unary(function), x, &[]));
        }
        for function in [Unary::Log, Unary::Sqrt, Unary::Reciprocal] {
            network(dims, |b, x| {
                let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
                apply(b, Operation::Unary(function), x, &[])
            });
        }
    }
    let binary = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Maximum, Binary::Minimum];
    for function in binary {
        for other in [&[3, 4, 5][..], &[3, 1, 1], &[4, 5], &[5], &[1], &[], &[4, 1]] {
            network(&[3, 4, 5], |b, x| apply(b, Operation::Binary(function), x, &[other]));
        }
        // A constant as the first operand, two values, and a value that grows.
        network(&[3, 4, 5], |b, x| {
            let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
            let c = b.constant("c".into(), &[3, 1, 1], vec![1.0, 2.0, -3.0]);
            let y = b.apply("first".into(), Operation::Binary(function), &[c, x]);
            b.apply("second".into(), Operation::Binary(function), &[y, x])
        });
        network(&[1, 5], |b, x| apply(b, Operation::Binary(function), x, &[&[6, 4, 5]]));
    }
    network(&[4, 6], |b, x| {
        let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
        apply(b, Operation::Binary(Binary::Power), x, &[&[6]])
    });
}

#[test]
fn comparisons_and_choices() {
    for function in [Binary::Equal, Binary::Less, Binary::LessOrEqual] {
        for (dims, other) in [
            (&[3, 4, 5][..], &[3, 4, 5][..]),
            (&[20, 4, 5], &[20, 1, 1]),
            (&[6, 5], &[5]),
            (&[4], &[]),
            (&[5], &[3, 5]),
        ] {
            network(dims, |b, x| {
                let limit = b.constant("limit".into(), other, vec![0.25; other.iter().product()]);
                let x = b.apply("limited".into(), Operation::Binary(Binary::Maximum), &[x, limit]);
                let condition = b.apply("condition".into(), Operation::Binary(function), &[x, limit]);
                let value = b.constant("value".into(), &[1], vec![f32::MAX]);
                let first = b.apply("exp".into(), Operation::Unary(Unary::Exp), &[x]);
                let y = b.apply("first".into(), Operation::Where, &[condition, first, limit]);
                let y = b.apply("second".into(), Operation::Where, &[x, y, value]);
                b.apply("sum".into(), Operation::Binary(Binary::Add), &[y, condition])
            });
        }
    }
}

#[test]
fn operations_that_move_elements() {
    for dims in [&[20, 4, 6][..], &[3, 4, 6], &[12, 6]] {
        let rank = dims.len();
        let reversed: Vec<usize> = (0..rank).rev().collect();
        network(dims, |b, x| apply(b, Operation::Permute(reversed.clone()), x, &[]));
        network(dims, |b, x| apply(b, Operation::Reshape(vec![2, dims.iter().product::<usize>() / 2]), x, &[]));
        network(dims, |b, x| apply(b, Operation::Reshape(vec![dims.iter().product::<usize>() / 12, 3, 4]), x, &[]));
        for axis in 0..rank {
            let part = Operation::Slice { axis, start: 1, end: dims[axis], step: 2 };
            network(dims, |b, x| apply(b, part.clone(), x, &[]));
            network(dims, |b, x| b.apply("join".into(), Operation::Concatenate(axis), &[x, x]));
            network(dims, |b, x| apply(b, Operation::Concatenate(axis), x, &[dims]));
        }
        let padding: Vec<[usize; 2]> = (0..rank).map(|i| [i, 2]).collect();
        network(dims, |b, x| apply(b, Operation::Pad { padding: padding.clone(), value: 0.5 }, x, &[]));
    }
    network(&[2, 5], |b, x| {
        let scale = b.constant("scale".into(), &[], vec![6.0]);
        let indices = b.apply("scaled".into(), Operation::Binary(Binary::Multiply), &[x, scale]);
        let values = floats(b.rng, 7 * 3 * 4);
        let table = b.constant("table".into(), &[7, 3, 4], values);
        b.apply("embedding".into(), Operation::Gather, &[table, indices])
    });
}

#[test]
fn sums_over_axes() {
    let functions = [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min];
    for dims in [&[20, 4, 6][..], &[3, 7, 5], &[12, 6], &[5, 70], &[9]] {
        for axis in 0..dims.len() {
            network(dims, |b, x| apply(b, Operation::Softmax(axis), x, &[]));
            for function in functions {
                network(dims, |b, x| apply(b, Operation::Reduce { function, axes: vec![axis] }, x, &[]));
            }
        }
        let axes: Vec<usize> = (0..dims.len()).collect();
        network(dims, |b, x| apply(b, Operation::Reduce { function: Reduction::Mean, axes: axes.clone() }, x, &[]));
    }
}

#[test]
fn windows() {
    for channels in [1, 5, 16, 20] {
        for (size, stride, padding) in
            [([2, 2], [2, 2], [[0; 2]; 2]), ([3, 2], [1, 2], [[1, 2], [0, 1]]), ([5, 4], [3, 1], [[4, 0], [3, 3]])]
        {
            let window = Window { size, stride, padding };
            network(&[channels, 9, 7], |b, x| apply(b, Operation::MaxPool(window), x, &[]));
            for count_padding in [false, true] {
                network(&[channels, 9, 7], |b, x| apply(b, Operation::AveragePool { window, count_padding }, x, &[]));
            }
        }
        for size in [[1, 1], [3, 2], [9, 7], [10, 12]] {
            network(&[channels, 9, 7], |b, x| apply(b, Operation::AdaptiveAveragePool(size), x, &[]));
        }
    }
}

#[test]
fn products() {
    network(&[13], |b, x| apply(b, Operation::Linear, x, &[&[13, 21], &[21]]));
    network(&[6, 13], |b, x| apply(b, Operation::Linear, x, &[&[13, 40]]));
    network(&[3, 4, 18], |b, x| apply(b, Operation::Linear, x, &[&[18, 17], &[17]]));
    network(&[4, 3, 5], |b, x| {
        let x = apply(b, Operation::Reshape(vec![60]), x, &[]);
        apply(b, Operation::Linear, x, &[&[60, 17], &[17]])
    });
    network(&[3, 4, 5], |b, x| apply(b, Operation::MatrixProduct, x, &[&[5, 6]]));
    network(&[4, 5], |b, x| apply(b, Operation::MatrixProduct, x, &[&[2, 3, 5, 6]]));
    network(&[2, 4, 5], |b, x| {
        let transposed = b.apply("transposed".into(), Operation::Permute(vec![0, 2, 1]), &[x]);
        b.apply("product".into(), Operation::MatrixProduct, &[x, transposed])
    });
}

#[test]
fn convolutions_of_any_geometry() {
    let mut rng = Rng::with_seed(5);
    for case in 0..60 {
        let groups = [1, 1, 2, 3, 8][rng.usize(0..5)];
        let [inputs, outputs] = [0; 2].map(|_| groups * [1, 2, 5, 8, 16, 19][rng.usize(0..6)]);
        let kernel = [0; 2].map(|_| [1, 2, 3, 3, 3, 5][rng.usize(0..6)]);
        let options = ConvolutionOptions {
            stride: [0; 2].map(|_| [1, 1, 2, 3][rng.usize(0..4)]),
            padding: [[0; 2]; 2].map(|pair| pair.map(|_: usize| rng.usize(0..3))),
            dilation: [0; 2].map(|_| [1, 1, 2][rng.usize(0..3)]),
            groups,
        };
        let options =
            if case % 3 == 0 { ConvolutionOptions { stride: [1; 2], dilation: [1; 2], ..options } } else { options };
        let kernel = if case % 3 == 0 { [[3; 2], [5; 2]][case % 2] } else { kernel };
        let size = [0; 2].map(|_| rng.usize(9..13));
        network(&[inputs, size[0], size[1]], |b, x| {
            let fan_in = inputs / groups * kernel[0] * kernel[1];
            let weight = b.ternary("weight".into(), &[outputs, inputs / groups, kernel[0], kernel[1]], fan_in, 0);
            let values = floats(b.rng, outputs);
            let bias = b.constant("bias".into(), &[outputs], values);
            let y = b.apply("convolution".into(), Operation::Convolution(options), &[x, weight, bias]);
            let y = b.norm("norm", y, outputs);
            b.apply("clamp".into(), Operation::Unary(Unary::Clamp([-0.5, 0.75])), &[y])
        });
    }
}

#[test]
fn transposed_convolutions_of_any_geometry() {
    let mut rng = Rng::with_seed(6);
    for _ in 0..16 {
        let groups = [1, 1, 2, 3][rng.usize(0..4)];
        let [inputs, outputs] = [0; 2].map(|_| groups * [1, 2, 5, 16, 19][rng.usize(0..5)]);
        let kernel = [0; 2].map(|_| [1, 2, 3, 3, 4, 5][rng.usize(0..6)]);
        let options = ConvolutionOptions {
            stride: [0; 2].map(|_| [1, 2, 2, 3, 7][rng.usize(0..5)]),
            padding: [[0; 2]; 2].map(|pair| pair.map(|_: usize| rng.usize(0..3))),
            dilation: [0; 2].map(|_| [1, 1, 2, 3][rng.usize(0..4)]),
            groups,
        };
        let output_padding = [0; 2].map(|_| [0, 1, 4][rng.usize(0..3)]);
        let size = [0; 2].map(|_| rng.usize(5..9));
        network(&[inputs, size[0], size[1]], |b, x| {
            let fan_in = inputs / groups * kernel[0] * kernel[1];
            let weight = b.ternary("weight".into(), &[inputs, outputs / groups, kernel[0], kernel[1]], fan_in, 1);
            let values = floats(b.rng, outputs);
            let bias = b.constant("bias".into(), &[outputs], values);
            let operation = Operation::TransposedConvolution { options, output_padding };
            let y = b.apply("transposed".into(), operation, &[x, weight, bias]);
            let z = b.apply("tanh".into(), Operation::Unary(Unary::Tanh), &[y]);
            let y = b.norm("norm", y, outputs);
            let y = b.apply("sum".into(), Operation::Binary(Binary::Add), &[y, z]);
            b.apply("clamp".into(), Operation::Unary(Unary::Clamp([-0.5, 0.75])), &[y])
        });
    }
}

#[test]
fn a_transposed_convolution_is_the_gradient_of_a_convolution() {
    // Both are linear: `⟨convolution(x), y⟩ = ⟨x, transposed(y)⟩`.
    let mut rng = Rng::with_seed(7);
    let options = ConvolutionOptions { stride: [2, 1], padding: [[1, 2], [0, 1]], dilation: [1, 2], groups: 2 };
    let weight = Constant::float([6, 2, 3, 2], floats(&mut rng, 72));
    let graph = |dims: &[usize], operation: Operation| {
        let mut graph = Graph::new(dims).unwrap();
        let weight = graph.constant("weight", weight.clone()).unwrap();
        let y = graph.apply("y", operation, &[graph.input(), weight]).unwrap();
        graph.set_output(y).unwrap();
        graph
    };
    let convolution = graph(&[4, 8, 7], Operation::Convolution(options));
    let dims = &convolution.shape(convolution.output()).dims;
    let transposed = graph(dims, Operation::TransposedConvolution { options, output_padding: [0, 0] });
    assert_eq!(transposed.shape(transposed.output()).dims, [4, 8, 7]);
    let (x, y) = (floats(&mut rng, 4 * 8 * 7), floats(&mut rng, dims.iter().product()));
    let dot = |a: Vec<f64>, b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
    let (left, right) = (dot(convolution.evaluate(&x).unwrap(), &y), dot(transposed.evaluate(&y).unwrap(), &x));
    assert!((left - right).abs() < 1e-9 && left.abs() > 0.1, "{left} and {right}");
}

#[test]
fn a_transposed_convolution_whose_stride_exceeds_its_kernel_by_far_is_refused_before_it_takes_memory() {
    let mut graph = Graph::new([1, 1, 1]).unwrap();
    let weight = graph.constant("weight", Constant::float([1, 1, 1, 1], vec![1.0])).unwrap();
    let options = ConvolutionOptions { stride: [1024, 1024], ..Default::default() };
    let operation = Operation::TransposedConvolution { options, output_padding: [1023, 1022] };
    let y = graph.apply("wide", operation, &[graph.input(), weight]).unwrap();
    graph.set_output(y).unwrap();
    let limit = |max_elements| {
        let mut options = CompileOptions::default();
        options.max_elements = max_elements;
        Network::compile(&graph, &options).map(drop)
    };
    // The value has 2^20 elements.
    let error = limit(1 << 21).unwrap_err();
    assert!(matches!(&error, NetworkError::TooLarge { node, .. } if node == "wide"), "{error}");
}

#[test]
fn a_convolution_that_is_added_to_its_own_operand() {
    for (kernel, channels) in [(3, 16), (3, 5), (1, 16), (5, 16)] {
        network(&[channels, 9, 7], |b, x| {
            let x = b.relu("relu", x);
            let y = b.convolution("convolution", x, [channels, channels], kernel, 1);
            let y = b.apply("sum".into(), Operation::Binary(Binary::Add), &[y, x]);
            b.relu("relu", y)
        });
    }
}

/// A layer of a transformer encoder: attention and two linear layers, each after a normalization.
pub fn encoder_layer(b: &mut Builder, x: Value, [tokens, width, heads, inner]: [usize; 4]) -> Value {
    let norm = |b: &mut Builder, x: Value| {
        let mean = |b: &mut Builder, x| {
            b.apply("mean".into(), Operation::Reduce { function: Reduction::Mean, axes: vec![1] }, &[x])
        };
        let average = mean(b, x);
        let centered = b.apply("centered".into(), Operation::Binary(Binary::Subtract), &[x, average]);
        let squares = b.apply("squares".into(), Operation::Binary(Binary::Multiply), &[centered, centered]);
        let variance = mean(b, squares);
        let epsilon = b.constant(format!("epsilon{}", b.graph.len()), &[1], vec![1e-5]);
        let variance = b.apply("variance".into(), Operation::Binary(Binary::Add), &[variance, epsilon]);
        let std = b.apply("std".into(), Operation::Unary(Unary::Sqrt), &[variance]);
        let y = b.apply("norm".into(), Operation::Binary(Binary::Divide), &[centered, std]);
        let y = apply(b, Operation::Binary(Binary::Multiply), y, &[&[width]]);
        apply(b, Operation::Binary(Binary::Add), y, &[&[width]])
    };
    let y = norm(b, x);
    let part = |b: &mut Builder, axes: &[usize]| {
        let y = apply(b, Operation::Linear, y, &[&[width, width], &[width]]);
        let y = b.apply("heads".into(), Operation::Reshape(vec![tokens, heads, width / heads]), &[y]);
        b.apply("by head".into(), Operation::Permute(axes.into()), &[y])
    };
    let (q, k, v) = (part(b, &[1, 0, 2]), part(b, &[1, 2, 0]), part(b, &[1, 0, 2]));
    let scores = b.apply("scores".into(), Operation::MatrixProduct, &[q, k]);
    let scale = b.constant("scale".into(), &[1], vec![0.05]);
    let scores = b.apply("scaled".into(), Operation::Binary(Binary::Multiply), &[scores, scale]);
    let shares = b.apply("softmax".into(), Operation::Softmax(2), &[scores]);
    let y = b.apply("context".into(), Operation::MatrixProduct, &[shares, v]);
    let y = b.apply("by token".into(), Operation::Permute(vec![1, 0, 2]), &[y]);
    let y = b.apply("joined".into(), Operation::Reshape(vec![tokens, width]), &[y]);
    let y = apply(b, Operation::Linear, y, &[&[width, width], &[width]]);
    let x = b.apply("residual".into(), Operation::Binary(Binary::Add), &[x, y]);
    let y = norm(b, x);
    let y = apply(b, Operation::Linear, y, &[&[width, inner], &[inner]]);
    let y = b.apply("gelu".into(), Operation::Unary(Unary::Gelu), &[y]);
    let y = apply(b, Operation::Linear, y, &[&[inner, width], &[width]]);
    b.apply("residual".into(), Operation::Binary(Binary::Add), &[x, y])
}

#[test]
fn a_transformer_encoder_layer() {
    for sizes in [[7, 24, 3, 40], [18, 64, 2, 48]] {
        network(&sizes[..2], |b, x| encoder_layer(b, x, sizes));
    }
}

#[test]
fn products_of_values_with_remainders_in_every_dimension() {
    for [m, k, n] in [[1, 1, 1], [2, 3, 5], [9, 17, 16], [16, 16, 33], [13, 40, 7], [8, 33, 50]] {
        // Both operands as they are stored, transposed, and as columns of a larger matrix.
        network(&[3, m, k], |b, x| {
            let values = floats(b.rng, 3 * k * n);
            let other = b.constant("other".into(), &[3, k, n], values);
            b.apply("product".into(), Operation::MatrixProduct, &[x, other])
        });
        network(&[2, k, m + n], |b, x| {
            let part = |b: &mut Builder, start: usize, end: usize| {
                b.apply("part".into(), Operation::Slice { axis: 2, start, end, step: 1 }, &[x])
            };
            let (a, c) = (part(b, 0, m), part(b, m, m + n));
            let a = b.apply("rows".into(), Operation::Permute(vec![0, 2, 1]), &[a]);
            b.apply("product".into(), Operation::MatrixProduct, &[a, c])
        });
        network(&[m, 2, k], |b, x| {
            let a = b.apply("heads".into(), Operation::Permute(vec![1, 0, 2]), &[x]);
            let values = floats(b.rng, n * k);
            let other = b.constant("other".into(), &[n, k], values);
            let y = b.apply("y".into(), Operation::Permute(vec![1, 0]), &[other]);
            let y = b.apply("product".into(), Operation::MatrixProduct, &[a, y]);
            let y = apply(b, Operation::Binary(Binary::Multiply), y, &[&[n]]);
            let y = apply(b, Operation::Binary(Binary::Add), y, &[&[n]]);
            b.relu("relu", y)
        });
    }
    // A vector times a matrix that all rows share, and a sum with an operand of the product.
    network(&[6, 1, 20], |b, x| apply(b, Operation::MatrixProduct, x, &[&[20, 19]]));
    network(&[18, 18], |b, x| {
        let x = b.relu("relu", x);
        let y = b.apply("square".into(), Operation::MatrixProduct, &[x, x]);
        b.apply("sum".into(), Operation::Binary(Binary::Add), &[y, x])
    });
}

#[test]
fn views_of_values_that_several_operations_read() {
    network(&[6, 20], |b, x| {
        let x = b.relu("relu", x);
        let y = b.apply("split".into(), Operation::Reshape(vec![3, 2, 1, 4, 5]), &[x]);
        let y = b.apply("permuted".into(), Operation::Permute(vec![4, 2, 0, 3, 1]), &[y]);
        let y = b.apply("split again".into(), Operation::Reshape(vec![5, 3, 2, 2, 2]), &[y]);
        let functions = [Unary::Tanh, Unary::Exp].map(|f| b.apply("f".into(), Operation::Unary(f), &[y]));
        let sum = b.apply("sum".into(), Operation::Binary(Binary::Add), &functions);
        let sum = b.apply("difference".into(), Operation::Binary(Binary::Subtract), &[sum, y]);
        let sum = b.apply("total".into(), Operation::Binary(Binary::Add), &[sum, y]);
        let z = apply(b, Operation::Linear, y, &[&[2, 3]]);
        let z = b.apply("joined".into(), Operation::Reshape(vec![10, 18]), &[z]);
        let mean = |axes: &[usize]| Operation::Reduce { function: Reduction::Mean, axes: axes.into() };
        let sum = b.apply("mean".into(), mean(&[0, 2]), &[sum]);
        let sum = b.apply("mean".into(), mean(&[1, 3, 4]), &[sum]);
        let sum = b.apply("number".into(), Operation::Reshape(vec![1]), &[sum]);
        let y = b.apply("result".into(), Operation::Binary(Binary::Multiply), &[z, sum]);
        b.apply("transposed".into(), Operation::Permute(vec![1, 0]), &[y])
    });
}

#[test]
fn operands_that_do_not_fit_are_refused_with_the_name_of_the_operation() {
    let mut graph = Graph::new([3, 8, 8]).unwrap();
    let weight = graph.constant("weight", Constant::float([4, 2, 3, 3], vec![0.0; 72])).unwrap();
    let convolution = Operation::Convolution(ConvolutionOptions::default());
    let error = graph.apply("features.0", convolution, &[graph.input(), weight]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`features.0` (convolution)") && message.contains("[3, 8, 8]"), "{message}");
    assert!(matches!(graph.apply("x", Operation::Linear, &[]), Err(NetworkError::Operation { .. })));
    assert!(matches!(graph.set_output(weight), Err(NetworkError::ConstantOutput)));
    assert!(matches!(Graph::new([3, 0]), Err(NetworkError::Empty { .. })));
    assert!(matches!(Graph::new([1 << 20, 1 << 20]), Err(NetworkError::TooLarge { .. })));
    let constant = graph.constant("c", Constant::float([3], [1.0, 2.0]));
    assert!(matches!(constant, Err(NetworkError::Constant { .. })));
}
