//! The structure of exported models, without Python.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use ttq_onnx::proto::{DataType, GraphProto, Message, ModelProto, NodeProto, ValueInfoProto};
use ttq_onnx::{ExportOptions, OnnxError, export};
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Graph, Int8, NetworkError, Operation, RangeRule, Unary};

use crate::graphs::{all, apply, build};
use crate::resnet::{floats, resnet};

fn graph(graph: &Graph, options: &ExportOptions) -> GraphProto {
    let model = ModelProto::decode(&*export(graph, options).unwrap()).unwrap();
    assert_eq!((model.ir_version, &*model.producer_name), (8, "ttq"));
    assert_eq!((&*model.opset_import[0].domain, model.opset_import[0].version), ("", 17));
    model.graph.unwrap()
}

fn in_int8(int8: Int8) -> ExportOptions {
    ExportOptions::default().with_int8(int8)
}

/// Returns the dimensions of a value, with -1 for the batch.
fn dims(value: &ValueInfoProto) -> Vec<i64> {
    let tensor = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    assert_eq!(tensor.elem_type(), DataType::Float);
    let dims = tensor.shape.as_ref().unwrap().dim.iter();
    dims.map(|dim| match dim.dim_param.as_deref() {
        Some(name) => {
            assert_eq!((name, dim.dim_value), ("batch", None));
            -1
        }
        None => dim.dim_value.unwrap(),
    })
    .collect()
}

/// Checks what every graph must fulfil: each name is defined once, before its use, and constants have their elements.
#[track_caller]
fn check(graph: &GraphProto) {
    let mut defined = BTreeSet::new();
    let mut names = BTreeSet::new();
    for tensor in &graph.initializer {
        let size = match tensor.data_type() {
            DataType::Uint8 | DataType::Int8 => 1,
            DataType::Float | DataType::Int32 => 4,
            DataType::Int64 => 8,
            DataType::Bool | DataType::Undefined => panic!("{} has no numbers", tensor.name),
        };
        let elements: i64 = tensor.dims.iter().product();
        assert_eq!(tensor.raw_data.as_ref().unwrap().len(), size * elements as usize, "{}", tensor.name);
        assert!(defined.insert(&tensor.name), "{}", tensor.name);
    }
    assert!(defined.insert(&graph.input[0].name));
    let mut used = BTreeSet::new();
    for node in &graph.node {
        for input in &node.input {
            assert!(defined.contains(input), "{input} is not defined before {}", node.name);
            used.insert(input);
        }
        assert!(defined.insert(&node.output[0]) && names.insert(&node.name), "{}", node.name);
    }
    assert!(graph.initializer.iter().all(|tensor| used.contains(&tensor.name)), "a constant is not used");
    assert!(defined.contains(&graph.output[0].name));
}

#[test]
fn every_operation_has_operators() {
    let mut operators = BTreeSet::new();
    for (name, network) in all() {
        println!("{name}");
        let onnx = graph(&network, &ExportOptions::default());
        check(&onnx);
        for (value, info) in [(network.input(), &onnx.input[0]), (network.output(), &onnx.output[0])] {
            let expected: Vec<i64> =
                [-1].into_iter().chain(network.shape(value).dims.iter().map(|dim| *dim as i64)).collect();
            assert_eq!(dims(info), expected);
        }
        operators.extend(onnx.node.into_iter().map(|node| node.op_type));
    }
    let expected = "Abs Add AveragePool Cast Clip Concat Conv ConvTranspose Div Equal Erf Exp Expand Gather GatherND Gemm GlobalAveragePool \
                    Identity LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Min Mul Neg Pad Pow Reciprocal ReduceMax ReduceMean \
                    ReduceMin ReduceSum Relu Reshape Round Shape Sigmoid Slice Softmax Sqrt Sub Tanh Transpose Unsqueeze Where";
    assert_eq!(operators.iter().map(String::as_str).collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn normalization_is_part_of_convolutions_and_names_stay() {
    let network = resnet(&mut Rng::with_seed(3), 1, 16, 0.4);
    let onnx = graph(&network, &ExportOptions::default());
    let count = |operator: &str| onnx.node.iter().filter(|node| node.op_type == operator).count();
    assert_eq!(["Conv", "Relu", "Add", "GlobalAveragePool", "Reshape", "Gemm"].map(count), [9, 7, 3, 1, 1, 1]);
    assert_eq!(onnx.node.len(), 22);
    let weights: Vec<&str> = onnx.initializer.iter().map(|tensor| &*tensor.name).collect();
    assert!(["stem.weight", "blocks.2.conv2.weight", "classes.weight"].iter().all(|name| weights.contains(name)));
    let names: Vec<&str> = onnx.node.iter().map(|node| &*node.name).collect();
    assert!(["stem", "blocks.1.shortcut", "blocks.0.add", "pool"].iter().all(|name| names.contains(name)), "{names:?}");
}

#[test]
fn repeated_and_reserved_names_become_unique() {
    let network = build(&[4], |b, x| {
        let names = ["output", "input", "", "output", "output_1", "", "a", "a", "a_1"];
        names.iter().fold(x, |x, name| b.apply((*name).into(), Operation::Unary(Unary::Exp), &[x]))
    });
    let onnx = graph(&network, &ExportOptions::default());
    check(&onnx);
    let outputs: Vec<&str> = onnx.node.iter().map(|node| &*node.output[0]).collect();
    assert_eq!(outputs, ["output_1", "input_1", "value", "output_2", "output_1_1", "value_1", "a", "a_1", "output"]);
}

#[test]
fn ten_thousand_equal_names_are_quick() {
    let network =
        build(&[1], |b, x| (0..10_000).fold(x, |x, _| b.apply("x".into(), Operation::Unary(Unary::Abs), &[x])));
    check(&graph(&network, &ExportOptions::default()));
}

#[test]
fn products_of_bytes_are_between_pairs() {
    let mut rng = Rng::with_seed(12);
    let mut network = resnet(&mut rng, 1, 16, 0.4);
    network.calibrate(&floats(&mut rng, 4 * 3 * 16 * 16), RangeRule::MinMax).unwrap();
    for (int8, expected) in [(Int8::Inner, 8), (Int8::All, 10)] {
        let onnx = graph(&network, &in_int8(int8));
        check(&onnx);
        let producers: BTreeMap<&str, &NodeProto> =
            onnx.node.iter().map(|node| (node.output[0].as_str(), node)).collect();
        let types: BTreeMap<&str, DataType> =
            onnx.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.data_type())).collect();
        // The type of the integers that an operand was computed from.
        let integers = |operand: &str| {
            let node = producers.get(operand).filter(|node| node.op_type == "DequantizeLinear")?;
            types.get(node.input[2].as_str()).copied()
        };
        let products = onnx.node.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op_type.as_str()));
        let of_bytes = |node: &&NodeProto| {
            let found: Vec<_> = node.input.iter().map(|operand| integers(operand)).collect();
            let expected = [DataType::Uint8, DataType::Int8, DataType::Int32].map(Some);
            let of_bytes = found == expected[..found.len()];
            assert!(of_bytes || found[1..].iter().all(Option::is_none), "{}: {found:?}", node.name);
            of_bytes
        };
        assert_eq!(products.filter(of_bytes).count(), expected);
        // Sums are between pairs too.
        let sums = onnx.node.iter().filter(|node| node.op_type == "Add");
        for node in sums {
            assert!(node.input.iter().all(|operand| integers(operand) == Some(DataType::Uint8)), "{}", node.name);
        }
    }
}

#[test]
fn ternary_weights_become_three_integers_per_channel() {
    let mut rng = Rng::with_seed(14);
    let mut network = resnet(&mut rng, 1, 12, 0.4);
    network.calibrate(&floats(&mut rng, 2 * 3 * 12 * 12), RangeRule::MinMax).unwrap();
    let onnx = graph(&network, &in_int8(Int8::All));
    let weights: Vec<_> = onnx.initializer.iter().filter(|tensor| tensor.name.ends_with("conv1.weight")).collect();
    assert_eq!(weights.len(), 3);
    for weight in weights {
        assert_eq!(weight.data_type(), DataType::Int8);
        let per_channel = weight.dims[1..].iter().product::<i64>() as usize;
        for channel in weight.raw_data.as_ref().unwrap().chunks(per_channel) {
            let integers: BTreeSet<i8> = channel.iter().map(|byte| byte.cast_signed()).collect();
            assert!(integers.len() <= 3, "{integers:?}");
        }
    }
}

#[test]
fn what_cannot_be_exported_is_refused_in_one_sentence() {
    let options = ConvolutionOptions { stride: [2, 3], padding: [[0, 0], [0, 2]], ..Default::default() };
    for (padding, exported) in [([1, 4], true), ([2, 4], false), ([1, 5], false)] {
        let operation = Operation::TransposedConvolution { options, output_padding: padding };
        let network = build(&[1, 3, 3], |b, x| apply(b, operation, x, &[&[1, 2, 2, 2]]));
        match export(&network, &ExportOptions::default()) {
            Err(OnnxError::Unsupported { reason, .. }) => assert!(!exported && reason.contains("stride"), "{reason}"),
            other => assert!(exported && other.is_ok(), "{padding:?}"),
        }
    }
    let mut network = resnet(&mut Rng::with_seed(3), 1, 12, 0.4);
    assert!(matches!(export(&network, &in_int8(Int8::All)), Err(OnnxError::Network(NetworkError::NoRanges))));
    network.calibrate(&[0.5; 3 * 12 * 12], RangeRule::MinMax).unwrap();
    assert!(export(&network, &in_int8(Int8::Inner)).is_ok());
    let mut network = build(&[4], |b, x| apply(b, Operation::Linear, x, &[&[4, 3]]));
    network.calibrate(&[0.5; 4], RangeRule::MinMax).unwrap();
    assert!(matches!(export(&network, &in_int8(Int8::Inner)), Err(OnnxError::NoProducts)));
    assert!(export(&network, &in_int8(Int8::All)).is_ok());
    let mut network = build(&[4], |b, x| {
        let weight = b.constant("broken".into(), &[4, 3], [&[1.0; 11][..], &[f32::NAN]].concat());
        b.apply("linear".into(), Operation::Linear, &[x, weight])
    });
    network.calibrate(&[0.5; 4], RangeRule::MinMax).unwrap();
    let error = export(&network, &in_int8(Int8::All)).unwrap_err().to_string();
    assert!(error.contains("`broken`") && error.contains("not finite"), "{error}");
    assert!(export(&network, &ExportOptions::default()).is_ok());
    // A file of a few bytes whose matrices would have terabytes; windows that do not overlap need none.
    for (height, exported) in [((1 << 20) - 1, false), (1 << 19, true)] {
        let operation = Operation::AdaptiveAveragePool([height, 1]);
        let network = build(&[1, 1 << 20, 1], |b, x| apply(b, operation, x, &[]));
        match export(&network, &ExportOptions::default()) {
            Err(OnnxError::Unsupported { reason, .. }) => assert!(!exported && reason.contains("elements"), "{reason}"),
            other => assert!(exported && other.is_ok(), "{height}"),
        }
    }
    let network = build(&[1], |b, x| {
        let table = b.constant("table".into(), &[1 << 14, 1], vec![1.0; 1 << 14]);
        let row = b.constant("row".into(), &[1, 1 << 14], vec![1.0; 1 << 14]);
        let large = b.apply("large".into(), Operation::Binary(Binary::Add), &[table, row]);
        let sum = b.apply("largest".into(), Operation::Binary(Binary::Maximum), &[x, large]);
        b.apply("sum".into(), Operation::Reshape(vec![1 << 28]), &[sum])
    });
    assert!(matches!(export(&network, &ExportOptions::default()), Err(OnnxError::Network(_))));
}
