//! The interface from C: the header, and C programs under the address sanitizer.

#[path = "../../ttq-packed/tests/file/damage.rs"]
mod damage;
#[path = "../../ttq-packed/tests/file/forge.rs"]
#[allow(dead_code, reason = "the tests of the file format use the rest")]
mod forge;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;
use ttq_packed::network::{Constant, Graph, Operation, RangeRule, Unary, Window, format};
use ttq_packed::{Codes, Coding, TernaryWeight};

use damage::damage;
use forge::{assemble, open, repair_checksum};

const FILES: usize = 4000;

fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_header_is_what_cbindgen_makes() {
    let mut header = Vec::new();
    cbindgen::generate(env!("CARGO_MANIFEST_DIR")).unwrap().write(&mut header);
    let current = fs::read_to_string(package("include/ttq.h")).unwrap_or_default();
    if String::from_utf8(header.clone()).unwrap() != current {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ttq.h");
        fs::write(&new, header).unwrap();
        panic!("include/ttq.h is not current: copy {} there", new.display());
    }
}

/// Compiles a C program with the static library under the sanitizers, or returns `None` if that is not possible here.
fn compile(source: &str, directory: &Path) -> Option<PathBuf> {
    let program = directory.join("program");
    // This test is in the folder `deps` of the folder with the library.
    let test = std::env::current_exe().unwrap();
    let library = test.ancestors().skip(1).take(2).map(|folder| folder.join("libttq_c.a")).find(|path| path.exists());
    let library = library.expect("cargo builds the library before its tests");
    let output = Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-I",
        ])
        .args([package("include"), package(source), library])
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output();
    match output {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("asan") || text.contains("ubsan"), "{text}");
            println!("skipped: cc has no address sanitizer");
            None
        }
        Err(error) => {
            println!("skipped: cc does not start: {error}");
            None
        }
    }
}

fn run(program: &Path, arguments: &[&Path]) -> String {
    // Worker threads live until the process ends; their memory is reachable.
    let output = Command::new(program).args(arguments).env("RAYON_NUM_THREADS", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_example_classifies_digits() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile("examples/classify.c", directory.path()) else { return };
    let network = package("../../models/mnist/network.safetensors");
    let digits = package("../../examples/mcu/digits.bin");
    let text = run(&program, &[&network, &digits]);
    assert_eq!(text.split_whitespace().collect::<String>(), "0123456789");
}

/// Returns the file of a small network.
fn original(rng: &mut Rng) -> Vec<u8> {
    let mut graph = Graph::new([2, 6, 6]).unwrap();
    let mut weight = |name: &str, graph: &mut Graph, shape: &[usize], axis: usize| {
        let codes: Vec<i8> = (0..shape.iter().product()).map(|_| rng.i8(-1..=1)).collect();
        let weight = TernaryWeight::new(Codes::pack(&codes).unwrap(), [[0.5, 0.25]], shape, axis).unwrap();
        graph.constant(name, Constant::Ternary(weight)).unwrap()
    };
    let input = graph.input();
    let kernel = weight("conv", &mut graph, &[8, 2, 3, 3], 0);
    let bias = graph.constant("bias", Constant::float([8], [0.5; 8])).unwrap();
    let y = graph.apply("conv", Operation::Convolution(Default::default()), &[input, kernel, bias]).unwrap();
    let y = graph.apply("relu", Operation::Unary(Unary::Relu), &[y]).unwrap();
    let window = Window { size: [2, 2], stride: [2, 2], padding: [[0; 2]; 2] };
    let y = graph.apply("pool", Operation::MaxPool(window), &[y]).unwrap();
    let y = graph.apply("flatten", Operation::Reshape(vec![32]), &[y]).unwrap();
    let hidden = weight("hidden", &mut graph, &[32, 5], 1);
    let y = graph.apply("hidden", Operation::Linear, &[y, hidden]).unwrap();
    let y = graph.apply("softmax", Operation::Softmax(0), &[y]).unwrap();
    graph.set_output(y).unwrap();
    graph.calibrate(&[1.0; 72], RangeRule::MinMax).unwrap();
    graph.write(Coding::Plain, None).unwrap()
}

/// Repairs both checksums, so that damage is found by the checks after them.
fn repair(file: Vec<u8>) -> Vec<u8> {
    let file = repair_checksum(file);
    let (Ok(checksum), Some((header, data))) = (format::checksum(&file), open(&file)) else { return file };
    let Some(at) = header.find(format::NETWORK_KEY) else { return file };
    let field = r#"\"crc32\":\""#;
    let Some(start) = header[at..].find(field).map(|start| at + start + field.len()) else { return file };
    match header.get(start..start + 8) {
        Some(old) => assemble(&header.replacen(old, &checksum, 1), &data),
        None => file,
    }
}

#[test]
fn damaged_files_are_refused_or_run_without_a_finding_of_the_sanitizers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile("tests/hostile.c", directory.path()) else { return };
    let mut rng = Rng::with_seed(4);
    let file = original(&mut rng);
    let mut files = Vec::new();
    for number in 0..FILES {
        let mut mutant = file.clone();
        for _ in 0..if number == 0 { 0 } else { rng.usize(1..3) } {
            mutant = damage(&mut rng, mutant);
        }
        if number % 8 != 0 {
            mutant = repair(mutant);
        }
        files.extend((mutant.len() as u64).to_le_bytes());
        files.extend(mutant);
    }
    let path = directory.path().join("files");
    fs::write(&path, files).unwrap();
    let text = run(&program, &[&path]);
    let counts: Vec<usize> = text.split_whitespace().map(|count| count.parse().unwrap()).collect();
    // Of the files, some are networks that run, and others are refused by all that refuses files.
    assert!(counts[0] > FILES / 50 && counts[2] > FILES / 4 && counts[3] > 0, "{text}");
}
