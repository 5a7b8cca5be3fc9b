//! Randomly damaged files with graphs: reading, compiling and running never panic, and memory is bounded.

use std::collections::BTreeMap;

use fastrand::Rng;
use ttq_packed::Coding;
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Graph, Int8, Operation, RangeRule, Reduction, Unary, Window};

use crate::damage::damage;
use crate::hostile::{check, repair};
use crate::resnet::{Builder, floats};

const MUTATIONS: usize = 100_000;
/// The fuzz target starts from this file.
const SEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/network/operations.safetensors");
/// Returns the file of a small network with most operations.
fn original() -> Vec<u8> {
    let mut rng = Rng::with_seed(1);
    let graph = Graph::new([2, 6, 6]).unwrap();
    let mut b = Builder { graph, rng: &mut rng, zeros: 0.3 };
    let x = b.graph.input();
    let x = b.convolution("stem", x, [2, 8], 3, 1);
    let x = b.norm("norm", x, 8);
    let x = b.relu("relu", x);
    let weight = b.ternary("weight".into(), &[8, 4, 2, 2], 16, 0);
    let options = ConvolutionOptions { groups: 2, padding: [[1, 0], [0, 1]], ..Default::default() };
    let y = b.apply("grouped".into(), Operation::Convolution(options), &[x, weight]);
    let x = b.apply("add".into(), Operation::Binary(Binary::Add), &[x, y]);
    let window = Window { size: [2, 2], stride: [2, 2], padding: [[1, 1], [0, 0]] };
    let x = b.apply("pool".into(), Operation::MaxPool(window), &[x]);
    let weight = b.ternary("transposed.weight".into(), &[8, 4, 2, 3], 32, 1);
    let options = ConvolutionOptions { stride: [1, 2], padding: [[0, 1], [1, 2]], groups: 2, ..Default::default() };
    let operation = Operation::TransposedConvolution { options, output_padding: [0, 1] };
    let x = b.apply("transposed".into(), operation, &[x, weight]);
    let x = b.apply("slice".into(), Operation::Slice { axis: 1, start: 1, end: 4, step: 2 }, &[x]);
    let x = b.apply("pad".into(), Operation::Pad { padding: vec![[0, 0], [1, 0], [0, 1]], value: 0.5 }, &[x]);
    let x = b.apply("join".into(), Operation::Concatenate(0), &[x, x]);
    let x = b.apply("mean".into(), Operation::AdaptiveAveragePool([2, 2]), &[x]);
    let x = b.apply("tokens".into(), Operation::Reshape(vec![4, 16]), &[x]);
    let y = b.apply("swap".into(), Operation::Permute(vec![1, 0]), &[x]);
    let x = b.apply("product".into(), Operation::MatrixProduct, &[x, y]);
    let x = b.apply("softmax".into(), Operation::Softmax(1), &[x]);
    let x = b.apply("sum".into(), Operation::Reduce { function: Reduction::Sum, axes: vec![0] }, &[x]);
    let x = b.apply("gelu".into(), Operation::Unary(Unary::Gelu), &[x]);
    let y = b.apply("less".into(), Operation::Binary(Binary::Less), &[x, x]);
    let x = b.apply("where".into(), Operation::Where, &[y, x, y]);
    let table = b.constant("table".into(), &[3, 2], vec![1.0; 6]);
    let x = b.apply("gather".into(), Operation::Gather, &[table, x]);
    let weight = b.ternary("linear.weight".into(), &[2, 5], 2, 1);
    let x = b.apply("linear".into(), Operation::Linear, &[x, weight]);
    b.graph.set_output(x).unwrap();
    let mut graph = b.graph;
    let samples = floats(&mut rng, 2 * 2 * 6 * 6);
    graph.calibrate(&samples, RangeRule::MinMax).unwrap();
    graph.write(Coding::Plain, None).unwrap()
}

#[test]
fn the_seed_of_the_fuzz_target_is_a_network_that_runs() {
    if std::env::var_os("TTQ_UPDATE").is_some() {
        std::fs::write(SEED, original()).unwrap();
    }
    let seed = std::fs::read(SEED).unwrap();
    assert!(
        [Int8::Off, Int8::Inner].into_iter().all(|int8| check(&seed, int8).is_ok()),
        "set TTQ_UPDATE to write it anew"
    );
}

#[test]
fn damaged_files_are_rejected_or_are_networks_that_run() {
    // One thread, since a call is too short to be shared.
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(mutate);
}

fn mutate() {
    let file = original();
    let mut rng = Rng::with_seed(2);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for mutation in 0..MUTATIONS {
        let mut mutant = file.clone();
        for _ in 0..rng.usize(1..3) {
            mutant = damage(&mut rng, mutant);
        }
        if mutation % 8 != 0 {
            mutant = repair(mutant);
        }
        let outcome = match check(&mutant, [Int8::Inner, Int8::Off][mutation % 2]) {
            Ok(()) => "runs".to_string(),
            Err(error) => {
                let text = format!("{error:?}");
                text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
            }
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    // The mutants must reach all checks. Few end as the last two.
    let mut expected =
        vec!["runs", "Checksum", "File", "Json", "Operation", "Value", "Constant", "TooLarge", "Empty", "Version"];
    if MUTATIONS < 100_000 {
        expected.truncate(8);
    }
    for outcome in expected {
        assert!(outcomes.contains_key(outcome), "no mutant ended as {outcome}: {outcomes:?}");
    }
}
