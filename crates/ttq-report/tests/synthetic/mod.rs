//! Directory of a synthetic run with every file, computed from closed-form numbers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use ttq_report::classification::softmax;
use ttq_report::record::{DenseLayer, Environment, Evidence, Layer, Mistake, Picture, Prediction, Predictions};

/// Epochs of each phase.
pub(crate) const EPOCHS: usize = 12;
/// Names of the classes. Two of them contain HTML special characters.
pub(crate) const CLASSES: [&str; 4] = ["cat", "dog", "<bird>", "fish & chips"];

const LAYERS: [(&str, [usize; 4]); 3] = [
    ("network.blocks.0.conv1.weight", [16, 8, 3, 3]),
    ("network.blocks.0.conv2.weight", [16, 16, 3, 3]),
    ("network.blocks.1.conv1.weight", [24, 16, 3, 3]),
];

/// Returns a pseudo-random number between 0 and 1.
fn noise(number: usize) -> f64 {
    let value = (number as f64 * 12.9898).sin() * 43758.5453;
    value - value.floor()
}

/// Writes all files of a run with the seed `seed` into `directory`.
pub(crate) fn write_run(directory: &Path, seed: usize) {
    let put = |name: &str, value: &Value| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
    };
    put("config.json", &config(seed));
    put("full-precision/history.json", &history(false, seed));
    put("ternary/history.json", &history(true, seed));
    let evidence = evidence(seed);
    put("summary.json", &summary(&evidence));
    evidence.write(directory).unwrap();
}

fn config(seed: usize) -> Value {
    json!({
        "example": "synthetic", "depth": 20, "method": "ttq", "seed": seed, "batch_size": 128,
        "ternary": {"quantizer": {"threshold": {"max_fraction": 0.05}}}, "init": null
    })
}

fn history(ternary: bool, seed: usize) -> Value {
    let epoch = |epoch: usize| {
        let left = (-(epoch as f64) / 4.0).exp();
        let loss = if ternary { 0.2 + 0.3 * left } else { 0.3 + 1.5 * left } + 0.02 * noise(epoch + seed);
        let mut train = json!({
            "Loss": loss, "Accuracy": 100.0 - 25.0 * loss, "Top-K Accuracy @ TopK(5)": 100.0 - 3.0 * loss,
            "Learning Rate": 0.1 * (1.0 - (epoch as f64 - 0.5) / EPOCHS as f64),
        });
        let valid = json!({
            "Loss": if epoch == 3 && ternary { Value::Null } else { json!(1.2 * loss) },
            "Accuracy": 100.0 - 30.0 * loss, "Top-K Accuracy @ TopK(5)": 100.0 - 4.0 * loss,
        });
        let mut layers = json!([]);
        if ternary {
            train["Sparsity"] = json!(40.0 - 20.0 * left);
            train["Flip ratio"] = json!(2.0 * left * left + 0.001);
            train["W_p"] = json!(0.1);
            train["W_n"] = json!(0.1);
            layers = LAYERS
                .iter()
                .enumerate()
                .map(|(i, (path, _))| {
                    let start = 0.1 / (i + 1) as f64;
                    json!({"path": path, "sparsity": (0.2 + 0.1 * i as f64) * (1.5 - left),
                       "w_pos": start * (1.2 - 0.3 * left), "w_neg": start * (0.8 + 0.2 * left)})
                })
                .collect();
        }
        json!({"epoch": epoch, "train": train, "valid": valid, "layers": layers})
    };
    (1..=EPOCHS).map(epoch).collect()
}

fn evidence(seed: usize) -> Evidence {
    let layers = LAYERS.iter().enumerate().map(|(index, (path, shape))| {
        let n: usize = shape.iter().product();
        // The sum of three uniform numbers has a bell-shaped distribution.
        let bell = |i: usize| (0..3).map(|k| noise(3 * i + k + 97 * index)).sum::<f64>() - 1.5;
        let latent: Vec<f32> = (0..n).map(|i| 0.2 * bell(i) as f32).collect();
        let threshold = 0.05 + 0.02 * index as f32;
        let codes: Vec<i8> = latent.iter().map(|w| i8::from(*w > threshold) - i8::from(*w < -threshold)).collect();
        let layer = Layer::new(path, shape, 0, &latent, &[threshold], &codes);
        Layer { positions: Some(256 >> (2 * index)), ..layer }
    });
    let predictions = |sharpness: f32| {
        let mut predictions = Predictions::new(CLASSES.len());
        for item in 0..2000 {
            let label = item % CLASSES.len();
            let logits: Vec<f32> = (0..CLASSES.len())
                .map(|class| {
                    let bonus = f32::from(u8::from(class == label)) * 0.6;
                    sharpness * (bonus + noise(4 * item + class + seed + (1e4 * sharpness) as usize) as f32)
                })
                .collect();
            predictions.push(&Prediction::new(label, &softmax(&logits)));
        }
        predictions
    };
    let (full_precision, ternary) = (predictions(5.0), predictions(3.5));
    let mistakes = ternary.most_confident_mistakes(6).into_iter().map(|index| {
        let prediction = ternary.iter().nth(index).unwrap();
        let pixels = (0..3 * 64).map(|i| (255.0 * noise(index + i)) as u8).collect();
        Mistake {
            index,
            label: prediction.label,
            predicted: prediction.predicted,
            confidence: prediction.confidence,
            label_probability: prediction.label_probability,
            picture: Picture { shape: [3, 8, 8], pixels },
        }
    });
    Evidence {
        environment: Environment {
            command: "synthetic --seed 1 --threshold max:0.05".into(),
            finished: "2026-01-02T03:04:05Z".into(),
            system: "linux, x86_64".into(),
            processor: "A processor".into(),
            threads: 2,
            memory_bytes: 16 << 30,
            accelerators: vec!["An accelerator".into()],
            versions: [("Burn".into(), "0.21.0".into()), ("rustc".into(), "1.92.0".into())].into(),
        },
        classes: CLASSES.map(String::from).to_vec(),
        mistakes: mistakes.collect(),
        layers: layers.collect(),
        dense: vec![
            DenseLayer { path: "network.stem.weight".into(), shape: vec![8, 3, 3, 3], positions: Some(256) },
            DenseLayer { path: "network.classes.weight".into(), shape: vec![24, 4], positions: Some(1) },
        ],
        full_precision: Some(full_precision),
        ternary: Some(ternary),
    }
}

fn summary(evidence: &Evidence) -> Value {
    let layers: Vec<Value> = evidence
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let (n, codes) = (layer.weights(), layer.unpack_codes());
            let share = |code: i8| codes.iter().filter(|c| **c == code).count() as f64 / n as f64;
            let shares = [share(-1), share(0), share(1)];
            let bits: f64 = shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum();
            json!({
                "path": layer.path, "shape": layer.shape, "weights": n, "negative": shares[0], "sparsity": shares[1],
                "positive": shares[2], "w_pos": 0.12 / (index + 1) as f64, "w_neg": 0.08 / (index + 1) as f64,
                "entropy_bits": bits, "packed_bytes": n.div_ceil(4) + 8, "float_bytes": 4 * n,
                "warnings": if index == 2 { vec!["scale_near_zero"] } else { vec![] },
            })
        })
        .collect();
    let weights: usize = evidence.layers.iter().map(Layer::weights).sum();
    let accuracy = |predictions: &Option<Predictions>| predictions.as_ref().map(|p| 100.0 * p.accuracy());
    json!({
        "example": "synthetic", "data": "closed-form numbers", "backend": "none", "sparsity": 0.4, "seconds": 4000.0,
        "full_precision_accuracy": accuracy(&evidence.full_precision), "full_precision_top5": 100.0,
        "ternary_accuracy": accuracy(&evidence.ternary), "ternary_top5": 100.0,
        "float_bytes": 4 * (weights + 400), "packed_bytes": weights / 4 + 24 + 1600,
        "layers": {"layers": layers, "full_precision_parameters": 400},
    })
}
