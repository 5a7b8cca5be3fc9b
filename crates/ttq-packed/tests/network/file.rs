//! Graphs in files: round trips, and errors of invalid graphs.

use fastrand::Rng;
use ttq_packed::network::{Arena, CompileOptions, Constant, Graph, Network, NetworkError, Operation, RangeRule, Unary};
use ttq_packed::{Coding, FileError, PackedModel};

use crate::forge::{assemble, open};
use crate::hostile::repair;
use crate::resnet::{floats, resnet};

/// Replaces a text in the header and repairs the checksums.
fn edit(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (header, data) = open(file).unwrap();
    assert!(header.contains(from), "`{from}` is not in {header}");
    repair(assemble(&header.replacen(from, to, 1), &data))
}

#[test]
fn a_graph_survives_writing_and_reading() {
    let mut rng = Rng::with_seed(21);
    let mut graph = resnet(&mut rng, 1, 12, 0.5);
    let x = floats(&mut rng, 2 * 3 * 12 * 12);
    graph.calibrate(&x, RangeRule::MinMax).unwrap();
    for coding in [Coding::Plain, Coding::Archive] {
        let bytes = graph.write(coding, Some("{}")).unwrap();
        let read = Graph::read(&bytes).unwrap();
        assert_eq!(read, graph);
        assert_eq!(read.write(coding, Some("{}")).unwrap(), bytes);
        // Readers of weights ignore the graph.
        let model = PackedModel::read(&bytes).unwrap();
        assert_eq!((model.weights.len(), model.config.as_deref()), (9, Some("{}")));
        let outputs =
            [Network::read(&bytes, &CompileOptions::default()), Network::compile(&graph, &CompileOptions::default())]
                .map(|network| {
                    let mut y = [0.0; 20];
                    network.unwrap().run(&mut Arena::new(), &x, &mut y).unwrap();
                    y
                });
        assert_eq!(outputs[0], outputs[1]);
    }
}

#[test]
fn invalid_graphs_are_refused() {
    let mut rng = Rng::with_seed(22);
    let graph = resnet(&mut rng, 1, 12, 0.5);
    let bytes = graph.write(Coding::Plain, None).unwrap();
    let error = |from: &str, to: &str| Graph::read(&edit(&bytes, from, to)).unwrap_err();

    let unknown = error(r#"{\"unary\":\"relu\"}"#, r#"{\"unary\":\"relo\"}"#);
    assert!(matches!(&unknown, NetworkError::Json { .. }) && unknown.to_string().contains("relo"), "{unknown}");
    let unknown = error(r#"\"operation\":\"linear\""#, r#"\"operation\":\"linger\""#);
    assert!(unknown.to_string().contains("linger"), "{unknown}");
    // An operand that is the value itself, or one that does not exist.
    for operand in ["3", "4294967296"] {
        let cycle = error(r#"\"operands\":[0,1]"#, &format!(r#"\"operands\":[0,{operand}]"#));
        assert!(matches!(cycle, NetworkError::Value { .. } | NetworkError::Operation { .. }), "{cycle}");
    }
    let shape = error(r#"\"input\":[3,12,12]"#, r#"\"input\":[4,12,12]"#);
    assert!(matches!(shape, NetworkError::Operation { .. }), "{shape}");
    let huge = error(r#"\"input\":[3,12,12]"#, r#"\"input\":[3,4294967296,4294967296]"#);
    assert!(matches!(huge, NetworkError::TooLarge { .. }), "{huge}");
    let large = Graph::read(&edit(&bytes, r#"\"input\":[3,12,12]"#, r#"\"input\":[3,6000,6000]"#)).unwrap();
    let large = Network::compile(&large, &CompileOptions::default()).unwrap_err();
    assert!(matches!(large, NetworkError::TooLarge { .. }), "{large}");
    let missing = error(r#"{\"constant\":\"stem.weight\"}"#, r#"{\"constant\":\"stem.wait\"}"#);
    assert!(matches!(missing, NetworkError::Constant { .. }), "{missing}");
    let version = error(r#"{\"version\":1,\"crc32\":"#, r#"{\"version\":2,\"crc32\":"#);
    assert!(matches!(version, NetworkError::Version { found: 2 }), "{version}");
    let field = error(r#"\"output\":"#, r#"\"out\":1,\"output\":"#);
    assert!(matches!(field, NetworkError::Json { .. }), "{field}");

    let (header, data) = open(&bytes).unwrap();
    let damaged = assemble(&header.replacen(r#"\"relu\""#, r#"\"tanh\""#, 1), &data);
    assert!(matches!(Graph::read(&damaged), Err(NetworkError::Checksum { .. })));
    let weights = PackedModel::read(&bytes).unwrap().write(Coding::Plain).unwrap();
    assert!(matches!(Graph::read(&weights), Err(NetworkError::NoGraph)));
    assert!(matches!(Graph::read(b"no file"), Err(NetworkError::File(FileError::Truncated { .. }))));
}

#[test]
fn a_graph_on_disk_is_the_one_that_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("network.safetensors");
    let graph = resnet(&mut Rng::with_seed(23), 1, 12, 0.5);
    graph.save(&path, Coding::Archive, Some("{}")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), graph.write(Coding::Archive, Some("{}")).unwrap());
    assert_eq!(Graph::load(&path).unwrap(), graph);
    assert_eq!(Network::load(&path, &CompileOptions::default()).unwrap().output_dims(), [10]);
    let absent = directory.path().join("absent/network.safetensors");
    let errors = [
        graph.save(&absent, Coding::Plain, None).unwrap_err(),
        Graph::load(&absent).unwrap_err(),
        Network::load(&absent, &CompileOptions::default()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, NetworkError::File(FileError::Io { .. })), "{error}");
        assert!(error.to_string().contains(&*absent.to_string_lossy()), "{error}");
    }
}

#[test]
fn numbers_that_are_not_finite_survive_writing_and_reading() {
    let mut graph = Graph::new([2]).unwrap();
    let operations = [
        Operation::Unary(Unary::Clamp([f32::NEG_INFINITY, f32::INFINITY])),
        Operation::Unary(Unary::LeakyRelu(f32::INFINITY)),
        Operation::Pad { padding: vec![[1, 0]], value: f32::NEG_INFINITY },
        Operation::Pad { padding: vec![[0, 1]], value: f32::NAN },
    ];
    let input = graph.input();
    let output = operations.into_iter().fold(input, |x, operation| graph.apply("x", operation, &[x]).unwrap());
    graph.set_output(output).unwrap();
    let read = Graph::read(&graph.write(Coding::Plain, None).unwrap()).unwrap();
    // Numbers that are no numbers are not equal.
    assert_eq!(format!("{read:?}"), format!("{graph:?}"));
}

#[test]
fn limits_that_do_not_ascend_and_too_many_dimensions_are_refused() {
    let mut graph = Graph::new([2]).unwrap();
    let input = graph.input();
    for limits in [[2.0, 1.0], [f32::NAN, 1.0], [0.0, f32::NAN]] {
        let error = graph.apply("x", Operation::Unary(Unary::Clamp(limits)), &[input]).unwrap_err();
        assert!(error.to_string().contains("must ascend"), "{error}");
    }
    assert!(Graph::new(vec![1; 32]).is_ok());
    let error = Graph::new(vec![1; 33]).unwrap_err();
    assert!(matches!(error, NetworkError::TooManyDimensions { dims: 33, limit: 32, .. }), "{error}");
}

#[test]
fn constants_of_the_same_name_are_not_written() {
    let mut graph = Graph::new([2]).unwrap();
    let mut y = graph.input();
    for _ in 0..2 {
        let weight = graph.constant("weight", Constant::float([2, 2], [1.0; 4])).unwrap();
        y = graph.apply("linear", Operation::Linear, &[y, weight]).unwrap();
    }
    graph.set_output(y).unwrap();
    let error = graph.write(Coding::Plain, None).unwrap_err();
    assert!(matches!(error, NetworkError::File(FileError::Duplicate { name }) if name == "weight"));
}
