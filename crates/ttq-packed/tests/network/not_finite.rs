//! NaN and infinite numbers are not hidden: where the definition has NaN, a compiled network has it, and nowhere else.

use fastrand::Rng;
use ttq_packed::kernels::Level;
use ttq_packed::network::{Arena, Binary, CompileOptions, Graph, Network, Operation, Reduction, Unary, Value, Window};

use crate::resnet::{Builder, floats};

const DIMS: [usize; 3] = [18, 4, 5];

/// Compares the network with its definition for an input with one such number, at each of some places.
fn compare(name: &str, build: impl Fn(&mut Builder, Value) -> Value) {
    let mut rng = Rng::with_seed(3);
    let mut b = Builder { graph: Graph::new(DIMS).unwrap(), rng: &mut rng, zeros: 0.0 };
    let input = b.graph.input();
    let output = build(&mut b, input);
    b.graph.set_output(output).unwrap();
    let graph = b.graph;
    let mut plain = CompileOptions::default();
    plain.fuse = false;
    let x = floats(&mut rng, DIMS.iter().product());
    for level in Level::available() {
        for options in [CompileOptions::default(), plain.clone()] {
            let network = Network::compile(&graph, &options).unwrap().with_level(level).unwrap();
            for at in (0..x.len()).step_by(7) {
                for spoiled in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = x.clone();
                    x[at] = spoiled;
                    let expected = graph.evaluate(&x).unwrap();
                    let mut y = vec![0.0; expected.len()];
                    network.run(&mut Arena::new(), &x, &mut y).unwrap();
                    let classes = |y: f64| (y.is_nan(), y.is_infinite());
                    let found = y.iter().map(|y| classes(f64::from(*y)));
                    let what = format!("{name}, {level:?}, {spoiled} at {at}, fused: {}", options.fuse);
                    assert!(found.eq(expected.into_iter().map(classes)), "{what}");
                }
            }
        }
    }
}

#[test]
fn functions_of_one_number_keep_what_is_not_finite() {
    for function in [Unary::Relu, Unary::LeakyRelu(0.1), Unary::Clamp([-0.25, 0.5]), Unary::Abs, Unary::Negate] {
        compare("alone", |b, x| b.apply("y".into(), Operation::Unary(function), &[x]));
        // In the epilogue of a convolution.
        compare("behind a convolution", |b, x| {
            let y = b.convolution("convolution", x, [DIMS[0], 20], 1, 1);
            b.apply("y".into(), Operation::Unary(function), &[y])
        });
    }
}

#[test]
fn maximum_and_minimum_keep_what_is_not_finite() {
    for function in [Binary::Maximum, Binary::Minimum] {
        compare("value and constant", |b, x| {
            let c = b.constant("c".into(), &[DIMS[0], 1, 1], vec![0.1; DIMS[0]]);
            let y = b.apply("first".into(), Operation::Binary(function), &[c, x]);
            b.apply("second".into(), Operation::Binary(function), &[y, c])
        });
    }
    for (size, stride) in [(3, 1), (2, 2)] {
        let window = Window { size: [size; 2], stride: [stride; 2], padding: [[size - 2, 1]; 2] };
        compare("pooling", |b, x| b.apply("y".into(), Operation::MaxPool(window), &[x]));
    }
    for function in [Reduction::Max, Reduction::Min] {
        for axes in [vec![0], vec![2], vec![1, 2], vec![0, 1, 2]] {
            compare("reduction", |b, x| b.apply("y".into(), Operation::Reduce { function, axes: axes.clone() }, &[x]));
        }
    }
}
