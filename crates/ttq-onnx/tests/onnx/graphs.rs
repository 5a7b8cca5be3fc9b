//! Graphs of every operation, alone and in small networks.

use fastrand::Rng;
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Graph, Operation, Reduction, Unary, Value, Window};

use crate::resnet::{Builder, floats, resnet};

/// A graph with a name for messages.
pub(crate) type Named = (String, Graph);

/// Builds a graph on an input.
pub(crate) fn build(dims: &[usize], build: impl FnOnce(&mut Builder, Value) -> Value) -> Graph {
    let mut rng = Rng::with_seed(dims.iter().sum::<usize>() as u64);
    let mut b = Builder { graph: Graph::new(dims).unwrap(), rng: &mut rng, zeros: 0.3 };
    let input = b.graph.input();
    let output = build(&mut b, input);
    b.graph.set_output(output).unwrap();
    b.graph
}

/// Applies an operation to a value and constants, whose elements are random and not near 0.
pub(crate) fn apply(b: &mut Builder, operation: Operation, x: Value, constants: &[&[usize]]) -> Value {
    let mut operands = vec![x];
    for dims in constants {
        let values = floats(b.rng, dims.iter().product()).iter().map(|x| x + 1.5 * x.signum()).collect();
        operands.push(b.constant("constant".into(), dims, values));
    }
    b.apply(operation.name().into(), operation, &operands)
}

/// Returns the graph of one operation.
fn single(dims: &[usize], operation: Operation, constants: &[&[usize]]) -> Named {
    let name = format!("{operation:?} of {dims:?} and {constants:?}");
    (name, build(dims, |b, x| apply(b, operation, x, constants)))
}

/// Returns graphs in which every operation occurs.
pub(crate) fn all() -> Vec<Named> {
    let mut graphs = functions();
    graphs.extend(movements());
    graphs.extend(sums());
    graphs.extend(windows());
    graphs.extend(products());
    graphs.extend(convolutions());
    graphs.extend(transposed_convolutions());
    graphs.push(("the input".into(), Graph::new([2, 3]).unwrap()));
    graphs.push(("a residual network".into(), resnet(&mut Rng::with_seed(3), 1, 16, 0.4)));
    graphs.push(("an encoder layer".into(), encoder_layer(7, 24, 3)));
    graphs
}

fn functions() -> Vec<Named> {
    let mut graphs = Vec::new();
    let functions = [
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
    for function in functions {
        for dims in [&[3, 4, 5][..], &[7], &[]] {
            graphs.push(single(dims, Operation::Unary(function), &[]));
        }
    }
    for function in [Unary::Log, Unary::Sqrt, Unary::Reciprocal] {
        let graph = build(&[3, 4], |b, x| {
            let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
            apply(b, Operation::Unary(function), x, &[])
        });
        graphs.push((format!("{function:?}"), graph));
    }
    let functions = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Maximum, Binary::Minimum];
    for function in functions {
        for constant in [&[3, 4, 5][..], &[3, 1, 1], &[4, 5], &[5], &[1], &[], &[4, 1], &[2, 1, 4, 5]] {
            graphs.push(single(&[3, 4, 5], Operation::Binary(function), &[constant]));
        }
        graphs.push(single(&[1, 5], Operation::Binary(function), &[&[6, 4, 5]]));
        graphs.push(single(&[], Operation::Binary(function), &[&[2, 3]]));
        let graph = build(&[3, 4, 5], |b, x| {
            let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
            let c = b.constant("c".into(), &[3, 1, 1], vec![1.0, 2.0, -3.0]);
            let y = b.apply("first".into(), Operation::Binary(function), &[c, x]);
            let row = b.apply("row".into(), Operation::Slice { axis: 0, start: 1, end: 2, step: 1 }, &[x]);
            let row = b.apply("row".into(), Operation::Reshape(vec![4, 5]), &[row]);
            b.apply("second".into(), Operation::Binary(function), &[y, row])
        });
        graphs.push((format!("{function:?} of values"), graph));
    }
    let graph = build(&[4, 6], |b, x| {
        let x = apply(b, Operation::Unary(Unary::Exp), x, &[]);
        apply(b, Operation::Binary(Binary::Power), x, &[&[6]])
    });
    graphs.push(("power".into(), graph));
    for function in [Binary::Equal, Binary::Less, Binary::LessOrEqual] {
        for other in [&[3, 4, 5][..], &[3, 1, 1], &[5], &[]] {
            graphs.push((format!("{function:?} with {other:?}"), choice(function, other)));
        }
    }
    graphs
}

/// Chooses between values by a comparison with a constant, some of whose elements are equal.
fn choice(function: Binary, other: &[usize]) -> Graph {
    build(&[3, 4, 5], |b, x| {
        let limit = b.constant("limit".into(), other, vec![0.25; other.iter().product()]);
        let x = b.apply("limited".into(), Operation::Binary(Binary::Maximum), &[x, limit]);
        let condition = b.apply("condition".into(), Operation::Binary(function), &[x, limit]);
        let row = b.apply("row".into(), Operation::Slice { axis: 0, start: 1, end: 2, step: 1 }, &[x]);
        let row = b.apply("row".into(), Operation::Reshape(vec![4, 5]), &[row]);
        let value = b.constant("value".into(), &[1], vec![-2.0]);
        let y = b.apply("first".into(), Operation::Where, &[condition, row, x]);
        b.apply("second".into(), Operation::Where, &[condition, value, y])
    })
}

fn movements() -> Vec<Named> {
    let mut graphs = Vec::new();
    for dims in [&[5, 4, 6][..], &[12, 6]] {
        graphs.push(single(dims, Operation::Permute((0..dims.len()).rev().collect()), &[]));
        graphs.push(single(dims, Operation::Reshape(vec![2, dims.iter().product::<usize>() / 2]), &[]));
        graphs.push(single(dims, Operation::Reshape(vec![dims.iter().product::<usize>() / 12, 3, 4]), &[]));
        let padding = (0..dims.len()).map(|i| [i, 2]).collect();
        graphs.push(single(dims, Operation::Pad { padding, value: 0.5 }, &[]));
        for axis in 0..dims.len() {
            graphs.push(single(dims, Operation::Slice { axis, start: 1, end: dims[axis], step: 2 }, &[]));
            graphs.push(single(dims, Operation::Concatenate(axis), &[dims, dims]));
            let twice = build(dims, |b, x| b.apply("join".into(), Operation::Concatenate(axis), &[x, x]));
            graphs.push((format!("{dims:?} twice"), twice));
        }
        let last = Operation::Slice { axis: 0, start: dims[0] - 1, end: dims[0], step: usize::MAX };
        graphs.push(single(dims, last, &[]));
        let after = build(dims, |b, x| {
            let c = b.constant("c".into(), dims, vec![0.5; dims.iter().product()]);
            b.apply("join".into(), Operation::Concatenate(0), &[c, x])
        });
        graphs.push(("a constant before the input".into(), after));
    }
    for (indices, row) in [(&[2, 5][..], &[3, 4][..]), (&[5], &[]), (&[], &[3])] {
        let dims = [&[7], row].concat();
        let graph = build(indices, |b, x| {
            let scale = b.constant("scale".into(), &[], vec![9.0]);
            let indices = b.apply("scaled".into(), Operation::Binary(Binary::Multiply), &[x, scale]);
            let values = floats(b.rng, dims.iter().product());
            let table = b.constant("table".into(), &dims, values);
            b.apply("embedding".into(), Operation::Gather, &[table, indices])
        });
        graphs.push((format!("rows {indices:?} of a table"), graph));
        let graph = build(&dims, |b, x| {
            let values = floats(b.rng, indices.iter().product()).iter().map(|x| 9.0 * x).collect();
            let indices = b.constant("indices".into(), indices, values);
            b.apply("rows".into(), Operation::Gather, &[x, indices])
        });
        graphs.push((format!("rows {indices:?} of values"), graph));
        if row.len() == 1 || indices.len() == 1 {
            let graph = build(&dims, |b, x| {
                let scale = b.constant("scale".into(), &[], vec![9.0]);
                let y = b.apply("scaled".into(), Operation::Binary(Binary::Multiply), &[x, scale]);
                b.apply("rows".into(), Operation::Gather, &[x, y])
            });
            graphs.push((format!("values of {dims:?} as indices of themselves"), graph));
        }
    }
    graphs
}

fn sums() -> Vec<Named> {
    let functions = [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min];
    let mut graphs = Vec::new();
    for dims in [&[5, 4, 6][..], &[9]] {
        for axis in 0..dims.len() {
            graphs.push(single(dims, Operation::Softmax(axis), &[]));
            for function in functions {
                graphs.push(single(dims, Operation::Reduce { function, axes: vec![axis] }, &[]));
            }
        }
        for function in functions {
            graphs.push(single(dims, Operation::Reduce { function, axes: (0..dims.len()).collect() }, &[]));
        }
    }
    graphs
}

fn windows() -> Vec<Named> {
    let mut graphs = Vec::new();
    let dims = &[5, 9, 7];
    for (size, stride, padding) in
        [([2, 2], [2, 2], [[0; 2]; 2]), ([3, 2], [1, 2], [[1, 2], [0, 1]]), ([5, 4], [3, 1], [[4, 0], [3, 3]])]
    {
        let window = Window { size, stride, padding };
        graphs.push(single(dims, Operation::MaxPool(window), &[]));
        for count_padding in [false, true] {
            graphs.push(single(dims, Operation::AveragePool { window, count_padding }, &[]));
        }
    }
    graphs.extend(
        [[1, 1], [3, 1], [3, 2], [9, 7], [10, 12]].map(|n| single(dims, Operation::AdaptiveAveragePool(n), &[])),
    );
    graphs
}

fn products() -> Vec<Named> {
    let mut graphs = vec![
        single(&[13], Operation::Linear, &[&[13, 21], &[21]]),
        single(&[13], Operation::Linear, &[&[13, 21]]),
        single(&[6, 13], Operation::Linear, &[&[13, 40]]),
        single(&[3, 4, 18], Operation::Linear, &[&[18, 17], &[17]]),
        single(&[3, 4, 5], Operation::MatrixProduct, &[&[5, 6]]),
        single(&[4, 5], Operation::MatrixProduct, &[&[2, 3, 5, 6]]),
    ];
    let graph = build(&[2, 4, 5], |b, x| {
        let transposed = b.apply("transposed".into(), Operation::Permute(vec![0, 2, 1]), &[x]);
        b.apply("product".into(), Operation::MatrixProduct, &[x, transposed])
    });
    graphs.push(("a product of values".into(), graph));
    // A constant on the left, and a weight that is computed from another constant.
    let graph = build(&[5, 4], |b, x| {
        let values = floats(b.rng, 2 * 3 * 5);
        let left = b.constant("left".into(), &[2, 3, 5], values);
        let x = b.apply("product".into(), Operation::MatrixProduct, &[left, x]);
        let weight = b.ternary("weight".into(), &[9, 4], 4, 0);
        let weight = b.apply("transposed".into(), Operation::Permute(vec![1, 0]), &[weight]);
        b.apply("linear".into(), Operation::Linear, &[x, weight])
    });
    graphs.push(("products with computed constants".into(), graph));
    graphs
}

fn convolutions() -> Vec<Named> {
    let mut rng = Rng::with_seed(5);
    let convolution = |case: usize| {
        let groups = [1, 1, 2, 3, 8][rng.usize(0..5)];
        let [inputs, outputs] = [0; 2].map(|_| groups * [1, 2, 5][rng.usize(0..3)]);
        let kernel = [0; 2].map(|_| [1, 2, 3, 3, 5][rng.usize(0..5)]);
        let options = ConvolutionOptions {
            stride: [0; 2].map(|_| [1, 1, 2, 3][rng.usize(0..4)]),
            padding: [[0; 2]; 2].map(|pair| pair.map(|_: usize| rng.usize(0..3))),
            dilation: [0; 2].map(|_| [1, 1, 2][rng.usize(0..3)]),
            groups,
        };
        let size = [0; 2].map(|_| rng.usize(9..13));
        let graph = build(&[inputs, size[0], size[1]], |b, x| {
            let fan_in = inputs / groups * kernel[0] * kernel[1];
            let weight = b.ternary("weight".into(), &[outputs, inputs / groups, kernel[0], kernel[1]], fan_in, 0);
            let values = floats(b.rng, outputs);
            let bias = b.constant("bias".into(), &[outputs], values);
            let operands = [x, weight, bias];
            let y = b.apply("convolution".into(), Operation::Convolution(options), &operands[..2 + case % 2]);
            if case.is_multiple_of(3) { b.norm("norm", y, outputs) } else { y }
        });
        (format!("convolution {case}: {options:?}, {kernel:?}"), graph)
    };
    (0..20).map(convolution).collect()
}

fn transposed_convolutions() -> Vec<Named> {
    let mut rng = Rng::with_seed(6);
    let convolution = |case: usize| {
        let groups = [1, 2, 3][rng.usize(0..3)];
        let [inputs, outputs] = [0; 2].map(|_| groups * [1, 2, 5][rng.usize(0..3)]);
        let kernel = [0; 2].map(|_| [1, 2, 3, 4][rng.usize(0..4)]);
        let options = ConvolutionOptions {
            stride: [0; 2].map(|_| [1, 2, 3][rng.usize(0..3)]),
            padding: [[0; 2]; 2].map(|pair| pair.map(|_: usize| rng.usize(0..3))),
            dilation: [0; 2].map(|_| [1, 1, 2][rng.usize(0..3)]),
            groups,
        };
        let output_padding = [0, 1].map(|i| rng.usize(0..options.stride[i] + options.padding[i][1]));
        let graph = build(&[inputs, 5, 6], |b, x| {
            let fan_in = inputs / groups * kernel[0] * kernel[1];
            let weight = b.ternary("weight".into(), &[inputs, outputs / groups, kernel[0], kernel[1]], fan_in, 1);
            let values = floats(b.rng, outputs);
            let bias = b.constant("bias".into(), &[outputs], values);
            let operation = Operation::TransposedConvolution { options, output_padding };
            let y = b.apply("transposed".into(), operation, &[x, weight, bias][..2 + case % 2]);
            if case.is_multiple_of(3) { b.norm("norm", y, outputs) } else { y }
        });
        (format!("transposed convolution {case}: {options:?}, {output_padding:?}, {kernel:?}"), graph)
    };
    (0..20).map(convolution).collect()
}

/// Returns a layer of a transformer: attention and two linear layers, with layer normalization.
pub(crate) fn encoder_layer(tokens: usize, width: usize, heads: usize) -> Graph {
    build(&[tokens, width], |b, x| {
        let norm = |b: &mut Builder, x: Value| {
            let mean = Operation::Reduce { function: Reduction::Mean, axes: vec![1] };
            let average = b.apply("mean".into(), mean.clone(), &[x]);
            let centered = b.apply("centered".into(), Operation::Binary(Binary::Subtract), &[x, average]);
            let squares = b.apply("squares".into(), Operation::Binary(Binary::Multiply), &[centered, centered]);
            let variance = b.apply("variance".into(), mean, &[squares]);
            let epsilon = b.constant("epsilon".into(), &[1], vec![1e-5]);
            let variance = b.apply("variance".into(), Operation::Binary(Binary::Add), &[variance, epsilon]);
            let std = b.apply("std".into(), Operation::Unary(Unary::Sqrt), &[variance]);
            let y = b.apply("norm".into(), Operation::Binary(Binary::Divide), &[centered, std]);
            let y = apply(b, Operation::Binary(Binary::Multiply), y, &[&[width]]);
            apply(b, Operation::Binary(Binary::Add), y, &[&[width]])
        };
        let linear = |b: &mut Builder, x: Value, inputs: usize, outputs: usize| {
            let weight = b.ternary("linear.weight".into(), &[inputs, outputs], inputs, 1);
            let values = floats(b.rng, outputs);
            let bias = b.constant("linear.bias".into(), &[outputs], values);
            b.apply("linear".into(), Operation::Linear, &[x, weight, bias])
        };
        let y = norm(b, x);
        let part = |b: &mut Builder, axes: &[usize]| {
            let y = linear(b, y, width, width);
            let y = b.apply("heads".into(), Operation::Reshape(vec![tokens, heads, width / heads]), &[y]);
            b.apply("by head".into(), Operation::Permute(axes.into()), &[y])
        };
        let (q, k, v) = (part(b, &[1, 0, 2]), part(b, &[1, 2, 0]), part(b, &[1, 0, 2]));
        let scores = b.apply("scores".into(), Operation::MatrixProduct, &[q, k]);
        let scale = b.constant("scale".into(), &[1], vec![0.3]);
        let scores = b.apply("scaled".into(), Operation::Binary(Binary::Multiply), &[scores, scale]);
        let shares = b.apply("softmax".into(), Operation::Softmax(2), &[scores]);
        let y = b.apply("context".into(), Operation::MatrixProduct, &[shares, v]);
        let y = b.apply("by token".into(), Operation::Permute(vec![1, 0, 2]), &[y]);
        let y = b.apply("joined".into(), Operation::Reshape(vec![tokens, width]), &[y]);
        let y = linear(b, y, width, width);
        let x = b.apply("residual".into(), Operation::Binary(Binary::Add), &[x, y]);
        let y = norm(b, x);
        let y = linear(b, y, width, 2 * width);
        let y = b.apply("gelu".into(), Operation::Unary(Unary::Gelu), &[y]);
        let y = linear(b, y, 2 * width, width);
        b.apply("residual".into(), Operation::Binary(Binary::Add), &[x, y])
    })
}
