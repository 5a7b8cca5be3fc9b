//! The page and onnxruntime-web, measured in one browser.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::browser::{Browser, Screen};
use super::{NETWORK, folder, path, ttq};

/// Number of rounds, in which the candidates take turns.
const ROUNDS: usize = 31;
/// The candidates, in the order of the script.
const CANDIDATES: [&str; 3] = ["ttq, SIMD128", "ttq, scalar", "onnxruntime-web, 1 thread"];
/// Files of onnxruntime-web that a page with its CPU provider downloads.
const PEER: [&str; 3] = ["ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const SCREEN: Screen = Screen { width: 1280, height: 800, phone: false, scheme: "light" };
/// Runs the candidates and returns the microseconds of each round, and the largest difference of an output from the first candidate's.
const SCRIPT: &str = "(async () => {
    await first;
    const files = Object.fromEntries([...document.getElementById('peer').files].map((file) => [file.name, file]));
    const library = document.createElement('script');
    library.textContent = await files['ort.wasm.min.js'].text();
    document.head.append(library);
    const module = new Blob([await files['ort-wasm-simd-threaded.mjs'].text()], { type: 'text/javascript' });
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(module) };
    ort.env.wasm.wasmBinary = await files['ort-wasm-simd-threaded.wasm'].arrayBuffer();
    const model = new Uint8Array(await files['mnist.onnx'].arrayBuffer());
    const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
    const scalar = new Worker(URL.createObjectURL(new Blob([element('worker').textContent], { type: 'text/javascript' })));
    const askScalar = (command, message) => new Promise((resolve, reject) => {
        scalar.onmessage = ({ data: { result, error } }) => (error ? reject(Error(error)) : resolve(result));
        scalar.postMessage({ id: 0, command, ...message });
    });
    const { textContent: text, dataset: { packed, simd, scalar: length } } = element('modules');
    await askScalar('start', { text, packed: +packed, simd: +simd, scalar: +length, portable: true });
    await askScalar('load', { file: await first });
    const input = Float32Array.from({ length: 784 }, (_, i) => Math.sin(i * i)), milliseconds = 60;
    const peer = async () => {
        const begin = performance.now();
        let runs = 0, elapsed = 0, output;
        do {
            const tensor = new ort.Tensor('float32', input, [1, ...network.shape]);
            output = (await session.run({ [session.inputNames[0]]: tensor }))[session.outputNames[0]].data;
            runs++;
            elapsed = performance.now() - begin;
        } while (elapsed < milliseconds);
        return { output, microseconds: (1000 * elapsed) / runs };
    };
    const candidates = [() => ask('run', { input, milliseconds }), () => askScalar('run', { input, milliseconds }), peer];
    const rounds = [];
    let difference = 0;
    for (let i = -3; i < ROUNDS; i++) {
        const results = [];
        for (const candidate of candidates) results.push(await candidate());
        for (const { output } of results) output.forEach((y, k) => (difference = Math.max(difference, Math.abs(y - results[0].output[k]))));
        if (i >= 0) rounds.push(results.map(({ microseconds }) => microseconds));
    }
    return { rounds, difference };
})()";

/// Measures the latency of an image, and the bytes to download.
pub(super) fn run(page: &Path, package: &Path) -> Result<()> {
    let model = folder().join("mnist.onnx");
    ttq(&["export", NETWORK, "--onnx", path(&model)?, "--force"])?;
    let dist = std::path::absolute(package)?.join("dist");
    let mut files: Vec<PathBuf> = PEER.iter().map(|name| dist.join(name)).collect();
    for file in &files {
        ensure!(file.is_file(), "{}: is missing: pass the folder of the npm package onnxruntime-web", file.display());
    }
    files.push(model);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(package.join("package.json"))?)?;
    let mut browser = Browser::start()?;
    browser.open(page, "", SCREEN)?;
    browser.evaluate(
        "document.body.append(Object.assign(document.createElement('input'), { id: 'peer', type: 'file', multiple: true }))",
    )?;
    browser.choose("#peer", &files)?;
    let result = browser.evaluate(&SCRIPT.replace("ROUNDS", &ROUNDS.to_string()))?;
    let rounds: Vec<Vec<f64>> = serde_json::from_value(result["rounds"].clone()).context("the script has no result")?;
    let median = |value: &dyn Fn(&[f64]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|round| value(round)).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ours = bytes(&[page.to_path_buf()])?;
    let peer = bytes(&files)?;
    println!("| | latency | speed | bytes | compressed by gzip |\n|---|---:|---:|---:|---:|");
    for (i, name) in CANDIDATES.iter().enumerate() {
        let [raw, compressed] = if i < 2 { ours } else { peer };
        let (latency, speed) = (median(&|round| round[i]), median(&|round| round[2] / round[i]));
        println!("| {name} | {latency:.1} µs | {speed:.2} × | {raw} | {compressed} |");
    }
    println!(
        "Medians of {ROUNDS} rounds; speeds are medians of the ratios in a round. Outputs within {:.1e}. {}, onnxruntime-web {}.",
        result["difference"].as_f64().unwrap_or(f64::NAN),
        browser.call("Browser.getVersion", serde_json::json!({}))?["product"].as_str().unwrap_or("Chromium"),
        manifest["version"].as_str().unwrap_or("of an unknown version"),
    );
    Ok(())
}

/// Returns the bytes of files, and those of each of them compressed.
fn bytes(files: &[PathBuf]) -> Result<[usize; 2]> {
    let [mut raw, mut compressed] = [0, 0];
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes)?;
        raw += bytes.len();
        compressed += encoder.finish()?.len();
    }
    Ok([raw, compressed])
}
