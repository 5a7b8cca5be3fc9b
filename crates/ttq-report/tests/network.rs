//! Tests of the statistics and the page of a network.

use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Constant, Graph, Operation, Unary, Value, Window};
use ttq_packed::{Codes, TernaryWeight};
use ttq_report::network::NetworkSummary;
use ttq_report::page::render_network;

const RELU: Operation = Operation::Unary(Unary::Relu);
const ADD: Operation = Operation::Binary(Binary::Add);

/// Returns a graph of two linear layers around a skip connection.
fn network() -> Graph {
    let mut graph = Graph::new([4]).unwrap();
    let codes = Codes::pack(&[1, 0, -1, 0, 1, 1, 0, 0, -1, 1, 0, 0, 0, 0, 0, 1]).unwrap();
    let weight = TernaryWeight::new(codes, [[0.5, 0.25]], [4, 4], 1).unwrap();
    let weight = graph.constant("first.weight", Constant::Ternary(weight)).unwrap();
    let bias = graph.constant("bias", Constant::float([4], [1.0; 4])).unwrap();
    let x = graph.input();
    let y = graph.apply("first", Operation::Linear, &[x, weight, bias]).unwrap();
    let y = graph.apply("first.relu", RELU, &[y]).unwrap();
    let y = graph.apply("sum", ADD, &[y, x]).unwrap();
    // The square root of a constant that is in use already.
    let root = graph.apply("root", Operation::Unary(Unary::Sqrt), &[bias]).unwrap();
    let y = graph.apply("shift", ADD, &[y, root]).unwrap();
    let weight = graph.constant("last.weight", Constant::float([4, 3], [0.5; 12])).unwrap();
    let y = graph.apply("<last>", Operation::Linear, &[y, weight]).unwrap();
    graph.set_output(y).unwrap();
    graph
}

#[test]
fn parameters_count_once_and_values_without_the_input_are_constants() {
    let network = NetworkSummary::new(&network());
    let numbers: Vec<_> = network
        .values
        .iter()
        .map(|value| (value.name.as_str(), value.parameters, value.ternary, value.zeros, value.multiply_adds))
        .collect();
    let expected = [
        ("input", 0, 0, 0, 0),
        ("first", 20, 16, 9, 16),
        ("first.relu", 0, 0, 0, 0),
        ("sum", 0, 0, 0, 0),
        ("shift", 0, 0, 0, 0),
        ("<last>", 12, 0, 0, 12),
    ];
    assert_eq!(numbers, expected);
    let total = network.total;
    assert_eq!((total.operations, total.parameters, total.ternary, total.zeros), (5, 32, 16, 9));
    assert_eq!((total.multiply_adds, total.bytes, total.calibrated), (28, 4 * (5 * 4 + 3), false));
    assert_eq!(network.values[3].operands, [network.values[2].index, 0]);
}

#[test]
fn operations_are_described_with_their_attributes() {
    let mut graph = Graph::new([4, 8, 8]).unwrap();
    let input = graph.input();
    let mut apply = |operation: Operation, x: Value| graph.apply("y", operation, &[x]).unwrap();
    let window = Window { size: [2, 3], stride: [2, 2], padding: [[0; 2]; 2] };
    let x = apply(Operation::MaxPool(window), input);
    let x = apply(Operation::Permute(vec![2, 0, 1]), x);
    apply(Operation::Slice { axis: 1, start: 1, end: 4, step: 2 }, x);
    let weight = graph.constant("weight", Constant::float([6, 2, 3, 1], [0.0; 36])).unwrap();
    let options = ConvolutionOptions { stride: [2, 1], dilation: [2, 2], groups: 2, ..ConvolutionOptions::default() };
    let y = graph.apply("y", Operation::Convolution(options), &[input, weight]).unwrap();
    graph.set_output(y).unwrap();
    let found: Vec<String> = NetworkSummary::new(&graph).values.into_iter().map(|value| value.operation).collect();
    let expected = [
        "input",
        "max pool 2×3, stride 2",
        "permute 2, 0, 1",
        "slice 1..4 in steps of 2, axis 1",
        "convolution 3×1, stride 2×1, dilation 2, 2 groups",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_page_shows_boxes_lines_and_values_and_has_no_external_resources() {
    let page = render_network("net & co", &NetworkSummary::new(&network()));
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("net &amp; co"));
    for forbidden in ["<script", "http://", "https://", "@import", "url(", "<last>", "NaN"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    // The input, the first layer with its activation, the sum with its shift, and the last layer.
    assert_eq!(page.matches("class=\"box\"").count(), 4);
    assert_eq!(page.matches("class=\"edge\"").count(), 3);
    assert_eq!(page.matches("class=\"edge skip\"").count(), 1);
    for text in ["then relu", "then add", "output of the network", "&lt;last&gt;", "Whole network", "56.2 %"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_picture_of_a_large_graph_is_limited() {
    let mut graph = Graph::new([2]).unwrap();
    let mut values = vec![graph.input()];
    for i in 0..1500 {
        let pair = [values[i], values[i / 2]];
        values.push(graph.apply(format!("{i}"), ADD, &pair).unwrap());
    }
    graph.set_output(values[1500]).unwrap();
    let page = render_network("large", &NetworkSummary::new(&graph));
    assert!(page.contains("The picture shows the first 1000 of 1501 boxes."));
    assert_eq!(page.matches("class=\"box\"").count(), 1000);
}

#[test]
fn a_graph_without_operations_has_a_page() {
    let page = render_network("empty", &NetworkSummary::new(&Graph::new([2]).unwrap()));
    assert!(page.contains("class=\"box\"") && !page.contains("NaN"));
}

#[test]
fn a_value_that_two_operations_read_ends_its_box() {
    let mut graph = Graph::new([2]).unwrap();
    let x = graph.input();
    let y = graph.apply("relu", RELU, &[x]).unwrap();
    let y = graph.apply("sum", ADD, &[y, x]).unwrap();
    graph.set_output(y).unwrap();
    let page = render_network("net", &NetworkSummary::new(&graph));
    assert_eq!(page.matches("class=\"box\"").count(), 3);
    assert_eq!(page.matches("class=\"edge skip\"").count(), 1);
}
