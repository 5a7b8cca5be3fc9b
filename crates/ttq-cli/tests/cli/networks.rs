//! Tests of the commands for network files, on small graphs that are built here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Constant, Graph, Operation, RangeRule, Unary, Value};
use ttq_packed::{Codes, Coding, TernaryWeight};

use crate::commands::{assert_documented, fields};
use crate::{error, files, json, text, ttq};

/// Shape of an item of the residual network.
const INPUT: [usize; 3] = [3, 6, 6];
const CLASSES: usize = 4;

/// Returns numbers from -1 to 1.
fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / 2.0_f32.powi(31) - 1.0).collect()
}

fn convolution(graph: &mut Graph, name: &str, x: Value, [inputs, outputs]: [usize; 2]) -> Value {
    let codes: Vec<i8> = (0..outputs * inputs * 9).map(|i| [1, 0, -1, 0, 1, -1, -1][i % 7]).collect();
    let weight = TernaryWeight::new(Codes::pack(&codes).unwrap(), [[0.2, 0.3]], [outputs, inputs, 3, 3], 0).unwrap();
    let weight = graph.constant(format!("{name}.weight"), Constant::Ternary(weight)).unwrap();
    let options = ConvolutionOptions { padding: [[1; 2]; 2], ..ConvolutionOptions::default() };
    let y = graph.apply(name, Operation::Convolution(options), &[x, weight]).unwrap();
    // Batch normalization: a variance, of which a square root is computed, and a mean.
    let [variance, mean] = [("variance", 1.0), ("mean", -0.2)].map(|(part, first)| {
        let values: Vec<f32> = (0..outputs).map(|i| first + i as f32 / 16.0).collect();
        graph.constant(format!("{name}.{part}"), Constant::float([outputs, 1, 1], values)).unwrap()
    });
    let std = graph.apply(format!("{name}.std"), Operation::Unary(Unary::Sqrt), &[variance]).unwrap();
    let y = graph.apply(format!("{name}.centered"), Operation::Binary(Binary::Subtract), &[y, mean]).unwrap();
    graph.apply(format!("{name}.norm"), Operation::Binary(Binary::Divide), &[y, std]).unwrap()
}

fn relu(graph: &mut Graph, name: &str, x: Value) -> Value {
    graph.apply(name, Operation::Unary(Unary::Relu), &[x]).unwrap()
}

/// Returns a network of a convolution, a residual block and a linear layer.
fn residual_network() -> Graph {
    let mut graph = Graph::new(INPUT).unwrap();
    let input = graph.input();
    let x = convolution(&mut graph, "stem", input, [3, 8]);
    let x = relu(&mut graph, "stem.relu", x);
    let y = convolution(&mut graph, "block.0", x, [8, 8]);
    let y = relu(&mut graph, "block.0.relu", y);
    let y = convolution(&mut graph, "block.1", y, [8, 8]);
    let y = graph.apply("block.sum", Operation::Binary(Binary::Add), &[y, x]).unwrap();
    let y = relu(&mut graph, "block.relu", y);
    let y = graph.apply("pool", Operation::AdaptiveAveragePool([1, 1]), &[y]).unwrap();
    let y = graph.apply("flatten", Operation::Reshape(vec![8]), &[y]).unwrap();
    let weight = graph.constant("classes.weight", Constant::float([8, CLASSES], numbers(8 * CLASSES))).unwrap();
    let bias = graph.constant("classes.bias", Constant::float([CLASSES], numbers(CLASSES))).unwrap();
    let y = graph.apply("classes", Operation::Linear, &[y, weight, bias]).unwrap();
    graph.set_output(y).unwrap();
    graph
}

/// Creates a directory with the network in `net.safetensors`, and with ranges in `int8.safetensors`.
fn directory() -> (TempDir, Graph) {
    let directory = tempfile::tempdir().unwrap();
    let mut graph = residual_network();
    let outputs = expected(&graph, &numbers(2 * 108));
    assert!((outputs[0] - outputs[CLASSES]).abs() > 1e-2, "the outputs do not depend on the item: {outputs:?}");
    graph.save(directory.path().join("net.safetensors"), Coding::Plain, None).unwrap();
    graph.calibrate(&numbers(8 * 108), RangeRule::MinMax).unwrap();
    graph.save(directory.path().join("int8.safetensors"), Coding::Plain, None).unwrap();
    (directory, graph)
}

/// Returns the bytes of a .npy file of float32, written independently of the program.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}\n", join(shape));
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    let head = [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    head.into_iter().chain(data).collect()
}

fn join(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads a .npy file that has a shape.
fn read_npy(path: &Path, shape: &[usize]) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    assert!(header.contains(&format!("'shape': ({}), }}", join(shape))), "{header}");
    bytes[128..].chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn expected(graph: &Graph, x: &[f32]) -> Vec<f64> {
    x.chunks(INPUT.iter().product()).flat_map(|x| graph.evaluate(x).unwrap()).collect()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, y| most.max(y.abs()));
    let error = found
        .iter()
        .zip(expected)
        .map(|(y, e)| (f64::from(*y) - e).abs())
        .max_by(|a, b| a.total_cmp(b))
        .unwrap_or_default();
    assert!(error <= tolerance * largest, "{error} of {largest}");
}

#[test]
fn run_writes_the_outputs_of_a_batch_whatever_its_division() {
    let (directory, graph) = directory();
    let x = numbers(5 * 108);
    fs::write(directory.path().join("x.npy"), npy(&[5, 3, 6, 6], &x)).unwrap();
    let run = |options: &[&str]| {
        let arguments = ["run", "net.safetensors", "-i", "x.npy", "-o", "y.npy", "--force"];
        let output = json(directory.path(), &[&arguments[..], options].concat());
        assert_eq!(
            output,
            json!({
                "file": "net.safetensors", "items": 5, "input_shape": INPUT, "output_shape": [CLASSES], "output": "y.npy",
            })
        );
        read_npy(&directory.path().join("y.npy"), &[5, CLASSES])
    };
    let y = run(&[]);
    assert_close(&y, &expected(&graph, &x), 1e-5);
    for options in [&["--batch", "2"][..], &["--threads", "1"], &["--threads", "3", "--batch", "1"]] {
        assert_eq!(run(options), y, "{options:?}");
    }
}

#[test]
fn an_array_of_one_item_needs_no_dimension_for_the_items() {
    let (directory, graph) = directory();
    let x = numbers(108);
    fs::write(directory.path().join("x.npy"), npy(&INPUT, &x)).unwrap();
    text(directory.path(), &["run", "net.safetensors", "--input", "x.npy", "--output", "y.npy"]);
    assert_close(&read_npy(&directory.path().join("y.npy"), &[1, CLASSES]), &expected(&graph, &x), 1e-5);
}

#[test]
fn run_in_int8_is_close_to_the_definition_and_needs_ranges() {
    let (directory, graph) = directory();
    let x = numbers(4 * 108);
    fs::write(directory.path().join("x.npy"), npy(&[4, 3, 6, 6], &x)).unwrap();
    for option in ["--int8", "--int8=inner", "--int8=all"] {
        let arguments = ["run", "int8.safetensors", "-i", "x.npy", "-o", "y.npy", "--force", option];
        text(directory.path(), &arguments);
        let y = read_npy(&directory.path().join("y.npy"), &[4, CLASSES]);
        assert_close(&y, &expected(&graph, &x), 0.05);
        text(directory.path(), &["run", "net.safetensors", "-i", "x.npy", "-o", "float.npy", "--force"]);
        assert_ne!(y, read_npy(&directory.path().join("float.npy"), &[4, CLASSES]));
    }
    let message = error(directory.path(), &["run", "net.safetensors", "-i", "x.npy", "--int8"]);
    assert!(message.starts_with("net.safetensors: the graph has no ranges of values"), "{message}");
}

#[test]
fn without_an_output_the_classes_of_each_item_are_printed() {
    let (directory, graph) = directory();
    let x = numbers(2 * 108);
    fs::write(directory.path().join("x.npy"), npy(&[2, 3, 6, 6], &x)).unwrap();
    let output = json(directory.path(), &["run", "net.safetensors", "-i", "x.npy", "--top", "2"]);
    let logits = expected(&graph, &x);
    for (item, logits) in logits.chunks(CLASSES).enumerate() {
        let mut order: Vec<usize> = (0..CLASSES).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let sum: f64 = logits.iter().map(|y| y.exp()).sum();
        let found = &output["classes"][item];
        assert_eq!(found["item"], item.to_string());
        assert_eq!(found["largest"].as_array().unwrap().len(), 2);
        for (place, class) in order.iter().take(2).enumerate() {
            let found = &found["largest"][place];
            assert_eq!(found["class"], *class);
            assert!((found["probability"].as_f64().unwrap() - logits[*class].exp() / sum).abs() < 1e-4);
        }
    }
    let lines = text(directory.path(), &["run", "net.safetensors", "-i", "x.npy"]);
    let first = &output["classes"][0]["largest"][0]["class"];
    assert!(lines.starts_with(&format!("0: class {first} ")) && lines.lines().count() == 2, "{lines}");
}

/// Writes a picture of 6×6 pixels whose values are `255 (x + 1) / 2`, rounded, and returns these values as a network
/// reads them, without normalization.
fn write_picture(path: &Path, x: &[f32]) -> Vec<f32> {
    let pixels: Vec<u8> = x.iter().map(|x| (127.5 * (x + 1.0)).round() as u8).collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 6, 6);
    encoder.set_color(png::ColorType::Rgb);
    let planes: Vec<u8> = (0..108).map(|i| pixels[i % 3 * 36 + i / 3]).collect();
    encoder.write_header().unwrap().write_image_data(&planes).unwrap();
    pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect()
}

#[test]
fn pictures_are_normalized_and_a_directory_is_read_in_the_order_of_names() {
    let (directory, graph) = directory();
    fs::create_dir(directory.path().join("images")).unwrap();
    let x = numbers(3 * 108);
    let pictures: Vec<Vec<f32>> = ["b.png", "a.PNG", "c.png"]
        .iter()
        .zip(x.chunks(108))
        .map(|(name, x)| write_picture(&directory.path().join("images").join(name), x))
        .collect();
    fs::write(directory.path().join("images/notes.txt"), "no picture").unwrap();
    let normalized = |picture: &[f32]| -> Vec<f32> {
        picture.iter().enumerate().map(|(i, x)| (x - [0.5, 0.4, 0.3][i / 36]) / 0.25).collect()
    };
    let x = [1, 0, 2].map(|picture: usize| normalized(&pictures[picture])).concat();
    let arguments = ["run", "net.safetensors", "--input", "images", "--mean", "0.5,0.4,0.3", "--std", "0.25"];
    text(directory.path(), &[&arguments[..], &["-o", "y.npy", "--batch", "2"]].concat());
    assert_close(&read_npy(&directory.path().join("y.npy"), &[3, CLASSES]), &expected(&graph, &x), 1e-5);
    let listed = json(directory.path(), &["run", "net.safetensors", "-i", "images/c.png", "images"]);
    let names: Vec<&str> =
        listed["classes"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap()).collect();
    assert_eq!(names, ["images/c.png", "images/a.PNG", "images/b.png", "images/c.png"]);
}

#[cfg(unix)]
#[test]
fn an_array_or_a_picture_is_read_from_a_pipe() {
    let (directory, _) = directory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("x.npy"), npy(&INPUT, &numbers(108))).unwrap();
    write_picture(&at("a.png"), &numbers(108));
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    for name in ["x.npy", "a.png"] {
        let (pipe, bytes) = (at("pipe"), fs::read(at(name)).unwrap());
        let writer = std::thread::spawn(move || fs::write(pipe, bytes));
        text(directory.path(), &["run", "net.safetensors", "--input", "pipe", "-o", "piped.npy", "--force"]);
        writer.join().unwrap().unwrap();
        text(directory.path(), &["run", "net.safetensors", "--input", name, "-o", "y.npy", "--force"]);
        assert_eq!(fs::read(at("piped.npy")).unwrap(), fs::read(at("y.npy")).unwrap(), "{name}");
    }
}

#[test]
fn the_configuration_in_a_file_says_how_pictures_are_normalized() {
    let (directory, graph) = directory();
    let configuration = Some(r#"{"mean": [0.5, 0.4, 0.3], "std": [0.25]}"#);
    graph.save(directory.path().join("configured.safetensors"), Coding::Plain, configuration).unwrap();
    write_picture(&directory.path().join("a.png"), &numbers(108));
    let outputs = |file: &str, options: &[&str]| {
        let arguments = ["run", file, "--input", "a.png", "-o", "y.npy", "--force"];
        text(directory.path(), &[&arguments[..], options].concat());
        read_npy(&directory.path().join("y.npy"), &[1, CLASSES])
    };
    let expected = outputs("net.safetensors", &["--mean", "0.5,0.4,0.3", "--std", "0.25"]);
    assert_eq!(outputs("configured.safetensors", &[]), expected);
    assert_eq!(outputs("configured.safetensors", &["--mean", "0", "--std", "1"]), outputs("net.safetensors", &[]));
    assert_ne!(outputs("net.safetensors", &[]), expected);
}

#[test]
fn a_jpeg_file_of_one_colour_has_this_colour() {
    // 8×8 pixels of red 200, green 100, blue 50.
    let file = include_bytes!("orange.jpg");
    let directory = tempfile::tempdir().unwrap();
    let mut graph = Graph::new([3, 8, 8]).unwrap();
    let mean = graph.apply("mean", Operation::AdaptiveAveragePool([1, 1]), &[graph.input()]).unwrap();
    graph.set_output(mean).unwrap();
    graph.save(directory.path().join("mean.safetensors"), Coding::Plain, None).unwrap();
    fs::write(directory.path().join("orange.jpg"), file).unwrap();
    text(directory.path(), &["run", "mean.safetensors", "-i", "orange.jpg", "-o", "y.npy"]);
    let y = read_npy(&directory.path().join("y.npy"), &[1, 3, 1, 1]);
    for (found, expected) in y.iter().zip([200.0, 100.0, 50.0]) {
        assert!((255.0 * found - expected).abs() <= 3.0, "{y:?}");
    }
}

#[test]
fn numpy_reads_what_run_writes_and_run_reads_what_numpy_writes() {
    let (directory, graph) = directory();
    let python = std::env::var("TTQ_PYTHON").unwrap_or("python3".into());
    let run = |code: &str| Command::new(&python).current_dir(directory.path()).args(["-c", code]).output();
    if !run("import numpy").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `{python}` cannot import numpy; set TTQ_PYTHON to a Python that has it");
        return;
    }
    let write = "import numpy as np\n\
        x = np.random.default_rng(1).uniform(-1, 1, [4, 3, 6, 6])\n\
        x.astype(np.float32).tofile('x.bin')\n\
        np.save('f8.npy', x.astype(np.float32).astype(np.float64)); np.save('f4.npy', x.astype(np.float32))\n\
        np.save('order.npy', np.asfortranarray(x.astype(np.float32)))\n\
        np.save('halves.npy', (x > 0).astype(np.float16)); np.save('bits.npy', x > 0); np.save('ints.npy', (x > 0) * 1)";
    let written = run(write).unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let x = fs::read(directory.path().join("x.bin")).unwrap();
    let x: Vec<f32> = x.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
    let positive: Vec<f32> = x.iter().map(|x| f32::from(*x > 0.0)).collect();
    for (name, x) in
        [("f8", &x), ("f4", &x), ("order", &x), ("halves", &positive), ("bits", &positive), ("ints", &positive)]
    {
        let input = format!("{name}.npy");
        text(directory.path(), &["run", "net.safetensors", "-i", &input, "-o", "y.npy", "--force"]);
        let read = "import numpy as np\n\
            y = np.load('y.npy')\n\
            assert y.dtype == np.float32 and y.shape == (4, 4), (y.dtype, y.shape)\n\
            print(*y.ravel())";
        let output = run(read).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let y = String::from_utf8(output.stdout).unwrap();
        let y: Vec<f32> = y.split_whitespace().map(|y| y.parse().unwrap()).collect();
        assert_close(&y, &expected(&graph, x), 1e-5);
    }
}

#[test]
fn bench_measures_every_combination_and_every_layer() {
    let (directory, _) = directory();
    let arguments = ["--batch", "1,3", "--threads", "1,2", "--seconds", "0"];
    let output = json(directory.path(), &[&["bench", "int8.safetensors"][..], &arguments].concat());
    let calls = output["calls"].as_array().unwrap();
    let kinds: Vec<Json> =
        calls.iter().map(|call| json!([call["precision"], call["threads"], call["batch"]])).collect();
    for kind in [json!(["float32", 1, 1]), json!(["float32", 2, 3]), json!(["int8", 2, 1]), json!(["int8", 1, 3])] {
        assert!(kinds.contains(&kind) && kinds.len() == 8, "{kind} is not in {kinds:?}");
    }
    for call in calls {
        let number = |field: &str| call[field].as_f64().unwrap();
        assert!(number("calls") >= 3.0 && number("minimum_seconds") > 0.0);
        assert!(number("median_seconds") >= number("minimum_seconds"));
        assert!((number("items_per_second") * number("median_seconds") / number("batch") - 1.0).abs() < 1e-6);
    }
    // Three convolutions with padding, and the linear layer.
    let multiply_adds = 36 * 8 * (27 + 72 + 72) + 8 * CLASSES;
    assert_eq!(output["multiply_adds"], multiply_adds);
    for network in output["networks"].as_array().unwrap() {
        let layers = network["layers"].as_array().unwrap();
        let sum: f64 = layers.iter().map(|layer| layer["share"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let products: u64 = layers.iter().map(|layer| layer["multiply_adds"].as_u64().unwrap()).sum();
        assert_eq!(products, multiply_adds as u64);
        let int8 = layers.iter().any(|layer| layer["algorithm"] == "int8");
        assert_eq!(int8, network["precision"] == "int8");
    }
    assert_eq!(output["notes"], json!([]));
}

#[test]
fn bench_says_that_a_graph_without_ranges_has_no_int8() {
    let (directory, _) = directory();
    let table =
        text(directory.path(), &["bench", "net.safetensors", "--batch", "2", "--threads", "1", "--seconds", "0"]);
    let note = "note: int8 is not measured: net.safetensors: the graph has no ranges of values";
    for part in ["float32", "median", "items/s", "block.1", "Gop/s", note] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    assert!(!table.contains("\nint8"), "{table}");
}

#[test]
fn a_network_whose_only_product_is_the_first_needs_int8_all() {
    let directory = tempfile::tempdir().unwrap();
    let mut graph = Graph::new([8]).unwrap();
    let weight = graph.constant("weight", Constant::float([8, 16], numbers(128))).unwrap();
    let y = graph.apply("linear", Operation::Linear, &[graph.input(), weight]).unwrap();
    graph.set_output(y).unwrap();
    graph.calibrate(&numbers(80), RangeRule::MinMax).unwrap();
    graph.save(directory.path().join("net"), Coding::Plain, None).unwrap();
    fs::write(directory.path().join("x.npy"), npy(&[10, 8], &numbers(80))).unwrap();
    let message = error(directory.path(), &["run", "net", "-i", "x.npy", "--int8"]);
    assert_eq!(message, "net: no product can be computed in int8 besides the first and the last one: use --int8=all");
    text(directory.path(), &["run", "net", "-i", "x.npy", "--int8=all"]);
    let bench =
        |int8| json(directory.path(), &["bench", "net", &format!("--int8={int8}"), "--seconds", "0", "--threads", "1"]);
    let notes = bench("inner")["notes"].clone();
    assert!(notes[0].as_str().is_some_and(|note| note.starts_with("int8 is not measured: net: no product")), "{notes}");
    assert_eq!((&bench("all")["notes"], bench("all")["networks"].as_array().unwrap().len()), (&json!([]), 2));
}

#[test]
fn inspect_shows_the_values_of_the_graph() {
    let (directory, graph) = directory();
    let network = &json(directory.path(), &["inspect", "int8.safetensors"])["network"];
    assert_eq!(network["output"], graph.output().index());
    let ternary = 8 * 9 * (3 + 8 + 8);
    let zeros = ["stem", "block.0", "block.1"].map(|name| {
        let weight = graph.values().find(|value| graph.name(*value) == format!("{name}.weight")).unwrap();
        match graph.source(weight) {
            ttq_packed::network::Source::Constant(Constant::Ternary(weight)) => weight.codes().counts()[1],
            _ => panic!("{name} has no ternary weight"),
        }
    });
    let total = json!({
        "operations": 16, "parameters": ternary + 3 * 16 + 8 * CLASSES + CLASSES, "ternary": ternary,
        "zeros": zeros.iter().sum::<usize>(), "multiply_adds": 36 * 8 * (27 + 72 + 72) + 8 * CLASSES,
        "bytes": 4 * (108 + 13 * 288 + 8 + 8 + CLASSES), "calibrated": true,
    });
    assert_eq!(network["total"], total);
    let values = network["values"].as_array().unwrap();
    let value = |name: &str| values.iter().find(|value| value["name"] == name).unwrap();
    let stem = value("stem");
    assert_eq!((&stem["operation"], &stem["operands"]), (&json!("convolution 3×3"), &json!([0])));
    assert_eq!((&stem["parameters"], &stem["zeros"]), (&json!(216), &json!(zeros[0])));
    assert_eq!(stem["multiply_adds"], 36 * 8 * 27);
    // The parameters of the square root are those of the division by it.
    assert_eq!((&value("stem.norm")["parameters"], &value("stem.norm")["ternary"]), (&json!(8), &json!(0)));
    assert_eq!(value("block.sum")["operands"], json!([value("block.1.norm")["index"], value("stem.relu")["index"]]));
    let table = text(directory.path(), &["inspect", "net.safetensors"]);
    for part in
        ["block.sum", "convolution 3×3", "adaptive average pool 1×1", "8×6×6", "16 operations", "no ranges of values"]
    {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn every_field_of_the_json_output_is_documented() {
    let (directory, _) = directory();
    fs::write(directory.path().join("x.npy"), npy(&INPUT, &numbers(108))).unwrap();
    let mut names = BTreeSet::new();
    for command in [
        &["inspect", "int8.safetensors"][..],
        &["verify", "net.safetensors"],
        &["run", "net.safetensors", "-i", "x.npy"],
        &["run", "net.safetensors", "-i", "x.npy", "-o", "y.npy"],
        &["bench", "int8.safetensors", "--seconds", "0", "--batch", "1", "--threads", "1"],
    ] {
        fields(&json(directory.path(), command), &mut names);
    }
    assert!(names.len() > 60, "{names:?}");
    assert_documented(&names);
}

#[test]
fn inspect_draws_the_graph() {
    let (directory, _) = directory();
    for _ in 0..2 {
        let output = text(directory.path(), &["inspect", "net.safetensors", "--html", "net.html"]);
        assert!(output.contains("note: the picture of the graph is in net.html"), "{output}");
    }
    let page = fs::read_to_string(directory.path().join("net.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && page.contains("block.sum"));
    files::write_safetensors(&directory.path().join("plain"), &files::network(), None);
    let message = error(directory.path(), &["inspect", "plain", "--html", "plain.html"]);
    assert!(message.starts_with("plain: has no graph of a network to draw"), "{message}");
    let message = error(directory.path(), &["inspect", "net.safetensors", "--html", "absent/net.html"]);
    assert!(message.contains("absent/net.html"), "{message}");
}

#[test]
fn verify_checks_the_graph_and_unpack_says_that_it_is_left_out() {
    let (directory, graph) = directory();
    let verified = json(directory.path(), &["verify", "net.safetensors"]);
    assert_eq!((&verified["graph_values"], &verified["weights"]), (&json!(graph.len()), &json!(3)));
    let line = text(directory.path(), &["verify", "net.safetensors"]);
    assert!(line.contains(&format!("a graph of {} values", graph.len())), "{line}");
    for (integers, count) in [(&[][..], 11), (&["--integers"][..], 14)] {
        let unpacked = json(directory.path(), &[&["unpack", "net.safetensors"][..], integers].concat());
        assert_eq!(unpacked["tensors"], count);
        let note = unpacked["notes"][0].as_str().unwrap();
        assert!(note.starts_with("the graph of the network is not part of the output"), "{note}");
    }
    text(directory.path(), &["pack", "net.float.safetensors", "-o", "weights.safetensors"]);
    assert_eq!(json(directory.path(), &["verify", "weights.safetensors"]).get("graph_values"), None);
    let message = error(directory.path(), &["pack", "net.safetensors"]);
    assert!(message.starts_with("net.safetensors: is already packed"), "{message}");
}

#[test]
fn a_damaged_graph_is_refused() {
    let (directory, _) = directory();
    let mut bytes = fs::read(directory.path().join("net.safetensors")).unwrap();
    let at = bytes.windows(4).position(|window| window == b"relu").unwrap();
    bytes[at..at + 4].copy_from_slice(b"tanh");
    fs::write(directory.path().join("damaged"), bytes).unwrap();
    for command in
        [&["verify", "damaged"][..], &["inspect", "damaged"], &["bench", "damaged"], &["run", "damaged", "-i", "x"]]
    {
        let message = error(directory.path(), command);
        assert!(message.starts_with("damaged: the graph cannot be read: the checksum of the graph"), "{message}");
    }
}

#[test]
fn files_without_a_graph_are_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    files::write_safetensors(&directory.path().join("net.safetensors"), &files::network(), None);
    files::write_pytorch(&directory.path().join("net.pt"), &files::floats(), None);
    text(directory.path(), &["pack", "net.safetensors", "-o", "packed"]);
    for (file, kind) in
        [("packed", "packed file"), ("net.safetensors", "safetensors checkpoint"), ("net.pt", "PyTorch checkpoint")]
    {
        for arguments in [&["run", file, "--input", "x.npy"][..], &["bench", file]] {
            let message = error(directory.path(), arguments);
            let expected = format!("{file}: is a {kind} without a graph");
            assert!(message.starts_with(&expected) && message.contains("Graph::save"), "{message}");
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_their_shape() {
    let (directory, _) = directory();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("wide.npy", &npy(&[2, 3, 6, 7], &numbers(252)));
    write("cut.npy", &npy(&INPUT, &numbers(107)));
    write("text", b"no array");
    write("x.npy", &npy(&INPUT, &numbers(108)));
    write_picture(&directory.path().join("a.png"), &numbers(108));
    fs::create_dir(directory.path().join("empty")).unwrap();
    let refuse = |inputs: &[&str], reason: &str| {
        let message = error(directory.path(), &[&["run", "net.safetensors", "--input"][..], inputs].concat());
        assert!(message.contains(reason), "{message}");
    };
    refuse(&["wide.npy"], "wide.npy: has the shape [2, 3, 6, 7], but the network's input is [items, 3, 6, 6]");
    refuse(&["cut.npy"], "cut.npy: has 428 bytes of elements, which are not those of the shape [3, 6, 6]");
    refuse(&["text"], "text: is not a .npy file");
    refuse(&["absent.npy"], "absent.npy: cannot be read");
    refuse(&["empty"], "empty: contains no file with the extension png, jpg, jpeg");
    refuse(&["a.png", "x.npy"], "x.npy: is not a PNG or JPEG file: pass pictures, or one .npy file alone");
    refuse(&["x.npy", "--std", "2"], "--mean and --std apply to pictures");
    refuse(&["a.png", "--mean", "1,2"], "a.png: --mean has 2 numbers instead of 1 or 3");
    refuse(&["x.npy", "-o", "absent/y.npy"], "absent/y.npy: cannot be written");
    refuse(&["x.npy", "-o", "text"], "text: already exists");
    let mut small = Graph::new([3, 5, 6]).unwrap();
    let input = small.input();
    let y = relu(&mut small, "relu", input);
    small.set_output(y).unwrap();
    write("small.safetensors", &small.write(Coding::Plain, None).unwrap());
    let message = error(directory.path(), &["run", "small.safetensors", "-i", "a.png", "-o", "y.npy"]);
    assert!(
        message.starts_with("a.png: has 6×6 pixels (height × width) instead of 5×6: resize the picture"),
        "{message}"
    );
    let message = error(directory.path(), &["run", "small.safetensors", "-i", "a.png"]);
    assert!(
        message.starts_with("small.safetensors: the output has the shape [3, 5, 6]: write it with --output"),
        "{message}"
    );
    for arguments in [&["run", "net.safetensors"][..], &["bench", "net.safetensors", "--batch", "0"]] {
        assert_eq!(ttq(directory.path(), arguments).status.code(), Some(2));
    }
}
