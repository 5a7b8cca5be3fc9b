//! The test of the page.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;

use super::browser::{Browser, Screen};
use super::{NETWORK, folder, path, ttq};

/// Maximum number of bytes of the page with the MNIST network.
const LIMIT: usize = 300_000;
/// Number of images of the MNIST test set.
const IMAGES: usize = 200;
/// Maximum difference of a logit from the host's.
const TOLERANCE: f64 = 1e-4;
const DESKTOP: Screen = Screen { width: 1280, height: 800, phone: false, scheme: "light" };
const PHONE: Screen = Screen { width: 390, height: 844, phone: true, scheme: "dark" };
/// The strokes of a 3, in parts of the canvas.
const THREE: [[f64; 2]; 11] = [
    [0.3, 0.25],
    [0.45, 0.17],
    [0.62, 0.22],
    [0.66, 0.36],
    [0.55, 0.46],
    [0.45, 0.48],
    [0.6, 0.52],
    [0.7, 0.64],
    [0.62, 0.78],
    [0.45, 0.84],
    [0.28, 0.76],
];
/// Waits until a network or an error is shown.
const LOADED: &str = "first.then(() => new Promise((done) => { const wait = () => network || !element('error').hidden ? \
    done(element('error').textContent) : setTimeout(wait, 5); wait(); }))";
/// Waits until the network has run on the drawing.
const ANSWERED: &str = "new Promise((done) => { const wait = () => busy ? setTimeout(wait, 5) : \
    done(element('answer').children[1].textContent); wait(); })";

/// Tests a page with the MNIST network in Chromium.
///
/// # Errors
/// Returns an error that says what the page does not do.
pub(super) fn run(page: &Path) -> Result<()> {
    let bytes = fs::metadata(page)?.len() as usize;
    let mut browser = Browser::start()?;
    for (name, screen) in [("desktop", DESKTOP), ("phone", PHONE)] {
        browser.open(page, "", screen)?;
        // Before the network is loaded: the answer comes afterwards.
        draw(&mut browser, screen)?;
        let error = browser.text(LOADED)?;
        ensure!(error.is_empty(), "the page shows an error: {error}");
        let answer = browser.text(ANSWERED)?;
        ensure!(answer == "3", "{name}: the strokes of a 3 are classified as {answer}");
        let picture = folder().join(name).with_extension("png");
        fs::write(&picture, STANDARD.decode(browser.picture()?)?)?;
        println!("{name}: a drawn 3 is a 3 ({}); {}", browser.text("element('time').textContent")?, picture.display());
    }
    keyboard(&mut browser, page)?;
    match images()? {
        Some(images) => {
            let expected = host(&images)?;
            for fragment in ["", "#scalar"] {
                predictions(&mut browser, page, fragment, &images, &expected)?;
            }
        }
        None => println!("skipped: $TTQ_DATA has no MNIST test images, whose predictions are compared with the host's"),
    }
    for fragment in ["", "#scalar"] {
        networks(&mut browser, page, fragment)?;
    }
    hostile(&mut browser, page)?;
    ensure!(browser.console.is_empty(), "the console has messages: {}", browser.console.join("; "));
    // A library `core` that is compiled already makes larger modules.
    ensure!(bytes <= LIMIT || !super::TOOLCHAIN.has_sources(), "the page has {bytes} bytes, the limit is {LIMIT}");
    println!("no message on the console; {bytes} bytes, the limit is {LIMIT}");
    Ok(())
}

/// Draws a 3.
fn draw(browser: &mut Browser, screen: Screen) -> Result<()> {
    let frame =
        browser.evaluate("(({ x, y, width, height }) => [x, y, width, height])(paper.getBoundingClientRect())")?;
    let [left, top, width, height] = [0, 1, 2, 3].map(|i| frame[i].as_f64().unwrap_or(f64::NAN));
    browser.draw(&THREE.map(|[x, y]| [left + x * width, top + y * height]), screen.phone)
}

/// Draws a 1 with keys, and removes it.
fn keyboard(browser: &mut Browser, page: &Path) -> Result<()> {
    browser.open(page, "", DESKTOP)?;
    browser.text(LOADED)?;
    browser.key("Tab")?;
    ensure!(browser.text("document.activeElement.id")? == "paper", "the first key Tab does not focus the canvas");
    for key in [["ArrowUp"; 5].as_slice(), &[" "], &["ArrowDown"; 11], &[" "]].concat() {
        browser.key(key)?;
    }
    let answer = browser.text(ANSWERED)?;
    ensure!(answer == "1", "a line drawn with keys is classified as {answer}");
    browser.key("Escape")?;
    let answer = browser.text(ANSWERED)?;
    ensure!(answer == "–", "after Escape the answer is {answer}");
    println!("keyboard: a drawn line is a 1, Escape removes it");
    Ok(())
}

/// Returns the pixels of the first MNIST test images.
fn images() -> Result<Option<Vec<u8>>> {
    let Some(file) = env::var_os("TTQ_DATA").map(|data| PathBuf::from(data).join("mnist/t10k-images-idx3-ubyte.gz"))
    else {
        return Ok(None);
    };
    let Ok(file) = File::open(file) else { return Ok(None) };
    let mut bytes = vec![0; 16 + IMAGES * 784];
    GzDecoder::new(file).read_exact(&mut bytes).context("the MNIST test images cannot be read")?;
    Ok(Some(bytes.split_off(16)))
}

/// Returns the logits that the host computes.
fn host(images: &[u8]) -> Result<Vec<f32>> {
    let file = fs::read(crate::root().join(NETWORK))?;
    let text = String::from_utf8_lossy(&file);
    // The strings in the header are escaped twice.
    let number = |key: &str| -> Option<f64> {
        let (_, rest) = text.split_once(&format!(r#"\\\"{key}\\\":["#))?;
        rest.split_once(']')?.0.parse().ok()
    };
    let (mean, std) = number("mean").zip(number("std")).context("the network has no mean and standard deviation")?;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({IMAGES}, 1, 28, 28), }}");
    let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    array.extend(format!("{header:<117}\n").bytes());
    array.extend(images.iter().flat_map(|pixel| (((f64::from(*pixel) / 255.0 - mean) / std) as f32).to_le_bytes()));
    let [input, output] = ["input.npy", "output.npy"].map(|name| folder().join(name));
    fs::write(&input, array)?;
    ttq(&["run", NETWORK, "--input", path(&input)?, "--output", path(&output)?, "--force"])?;
    let output = fs::read(output)?;
    let values = &output[output.len() - 4 * 10 * IMAGES..];
    Ok(values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Compares the outputs of the page's worker with the host's.
fn predictions(browser: &mut Browser, page: &Path, fragment: &str, images: &[u8], expected: &[f32]) -> Result<()> {
    browser.open(page, fragment, DESKTOP)?;
    browser.text(LOADED)?;
    let script = format!(
        "(async () => {{
            const bytes = Uint8Array.from(atob('{}'), (c) => c.charCodeAt(0)), outputs = [];
            for (let i = 0; i < {IMAGES}; i++) {{
                const input = Float32Array.from(bytes.subarray(784 * i, 784 * (i + 1)), (x) => (x / 255 - config.mean[0]) / config.std[0]);
                outputs.push(...(await ask('run', {{ input, milliseconds: 0 }})).output);
            }}
            return outputs;
        }})()",
        STANDARD.encode(images)
    );
    let outputs = browser.evaluate(&script)?;
    let found: Vec<f32> = outputs.as_array().into_iter().flatten().filter_map(|x| Some(x.as_f64()? as f32)).collect();
    ensure!(found.len() == expected.len(), "{} of {} outputs", found.len(), expected.len());
    let most = |logits: &[f32]| (0..10).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    let mut difference = 0.0;
    for (image, (found, expected)) in found.chunks(10).zip(expected.chunks(10)).enumerate() {
        if most(found) != most(expected) {
            bail!("test image {image} is class {:?} in the page and {:?} on the host", most(found), most(expected));
        }
        let differences = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
        difference = differences.chain([difference]).max_by(|a, b| a.total_cmp(b)).unwrap_or_default();
    }
    ensure!(difference <= TOLERANCE, "logits differ by {difference:e} from the host's, the limit is {TOLERANCE:e}");
    let module = browser.evaluate("network.simd ? 'SIMD128' : 'scalar'")?;
    println!("{module}: {IMAGES} test images have the host's predictions, logits within {difference:.1e}");
    Ok(())
}

/// Runs the networks that the tests of ttq-packed write, and compares their outputs with the definition.
fn networks(browser: &mut Browser, page: &Path, fragment: &str) -> Result<()> {
    let directory = super::networks();
    let Ok(entries) = fs::read_dir(&directory) else {
        println!("skipped: {} is missing, which `cargo test -p ttq-packed --test network` writes", directory.display());
        return Ok(());
    };
    let files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    browser.open(page, fragment, DESKTOP)?;
    browser.text(LOADED)?;
    browser.evaluate(
        "document.body.append(Object.assign(document.createElement('input'), { id: 'cases', type: 'file', multiple: true }))",
    )?;
    browser.choose("#cases", &files)?;
    let result = browser.evaluate(
        "(async () => {
            const files = Object.fromEntries([...document.getElementById('cases').files].map((file) => [file.name, file]));
            const wrong = [];
            let count = 0;
            for (const name of Object.keys(files).filter((name) => name.endsWith('.json'))) {
                const { input, expected, tolerance, int8 } = JSON.parse(await files[name].text());
                const file = new Uint8Array(await files[name.replace('.json', '.safetensors')].arrayBuffer());
                await ask('load', { file, int8 });
                const { output } = await ask('run', { input: Float32Array.from(input), milliseconds: 0 });
                const difference = expected.reduce((most, y, i) => Math.max(most, Math.abs(y - output[i])), 0);
                if (!(difference <= tolerance)) wrong.push(`${name}: ${difference} instead of at most ${tolerance}`);
                count++;
            }
            return { count, wrong };
        })()",
    )?;
    let wrong: Vec<&str> = result["wrong"].as_array().into_iter().flatten().filter_map(|text| text.as_str()).collect();
    ensure!(wrong.is_empty(), "outputs differ from the definition: {}", wrong.join("; "));
    let module = browser.evaluate("network.simd ? 'SIMD128' : 'scalar'")?;
    println!("{module}: {} networks with every operation have the outputs of the definition", result["count"]);
    Ok(())
}

/// Compares the kernels of packed weights of two modules: floats within a tolerance, results of bytes bit by bit.
///
/// # Errors
/// Returns an error if they differ.
pub(super) fn kernels(modules: &[PathBuf; 2]) -> Result<()> {
    let mut browser = Browser::start()?;
    let mut texts = Vec::new();
    for module in modules {
        let bytes = fs::read(module).with_context(|| format!("{}: cannot be read", module.display()))?;
        texts.push(STANDARD.encode(bytes));
    }
    let script = format!(
        "(async () => {{
            const all = await Promise.all(['{}', '{}'].map(async (text) => {{
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                const {{ instance: {{ exports }} }} = await WebAssembly.instantiate(bytes);
                return [0, 1].map((int8) => {{
                    const result = exports.outputs(int8);
                    const [address, length] = new Uint32Array(exports.memory.buffer, result, 2);
                    return new Float32Array(exports.memory.buffer, address, length).slice();
                }});
            }}));
            const [floats, bytes] = [0, 1].map((int8) => {{
                const [a, b] = all.map((outputs) => outputs[int8]);
                return a.reduce((most, y, i) => Math.max(most, Math.abs(y - b[i]) / Math.max(1, Math.abs(y))), a.length === b.length ? 0 : 1);
            }});
            return {{ count: all[0][0].length, floats, bytes, finite: all.flat().every((y) => y.every(Number.isFinite)) }};
        }})()",
        texts[0], texts[1]
    );
    let result = browser.evaluate(&script)?;
    let (floats, bytes) = (result["floats"].as_f64().unwrap_or(1.0), result["bytes"].as_f64().unwrap_or(1.0));
    ensure!(result["finite"] == true, "a kernel computes numbers that are not finite");
    ensure!(floats <= TOLERANCE, "kernels with floats differ by {floats:e}, the limit is {TOLERANCE:e}");
    ensure!(bytes == 0.0, "kernels with bytes differ by {bytes:e}: they must be equal");
    println!(
        "packed kernels: {} outputs of SIMD128 and scalar, floats within {floats:.1e}, bytes equal",
        result["count"]
    );
    Ok(())
}

/// Opens files that cannot run: each gives a sentence, and the network before stays.
fn hostile(browser: &mut Browser, page: &Path) -> Result<()> {
    browser.open(page, "", DESKTOP)?;
    browser.text(LOADED)?;
    let network = fs::read(crate::root().join(NETWORK))?;
    let mut damaged = network.clone();
    damaged[20_000] ^= 1;
    let folder = folder();
    let written = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let file = folder.join(name);
        fs::write(&file, bytes)?;
        Ok(file)
    };
    let files = [
        (written("damaged.safetensors", &damaged)?, "checksum"),
        (written("short.safetensors", &network[..9000])?, ""),
        (written("empty.safetensors", &[])?, ""),
        (crate::root().join("models/mnist/seven.png"), ""),
        (crate::root().join("models/mnist/packed.safetensors"), "no graph"),
        (crate::root().join("models/cifar10-resnet20/network.safetensors"), "[3, 32, 32]"),
    ];
    for (file, expected) in &files {
        browser.evaluate("show()")?;
        browser.choose("#file", &[file])?;
        let error = browser.text(
            "new Promise((done) => { const wait = () => element('error').hidden ? setTimeout(wait, 5) : \
             done(element('error').textContent); wait(); })",
        )?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_sentence = error.starts_with(&*name) && !error.contains('\n') && !error.contains("stopped");
        ensure!(is_sentence && error.contains(expected), "{name}: the error is {error:?}");
    }
    // Each damage of a byte is an error, and none stops the module.
    let outcome = browser.text(
        "(async () => {
            const file = await first;
            for (let i = 0; i < 500; i++) {
                const damaged = file.slice();
                damaged[i < 250 ? i * 13 : (i * 7919) % file.length] ^= 1 << (i % 8);
                const error = await ask('load', { file: damaged }).then(() => '', (error) => error.message);
                if (!error || error.includes('stopped')) return `byte ${i}: ${error || 'no error'}`;
            }
            return 'refused';
        })()",
    )?;
    ensure!(outcome == "refused", "a damaged file: {outcome}");
    browser.evaluate("element('reset').click()")?;
    draw(browser, DESKTOP)?;
    let answer = browser.text(ANSWERED)?;
    ensure!(answer == "3", "after files with errors, a 3 is classified as {answer}");
    browser.choose("#file", &[crate::root().join(NETWORK)])?;
    let error = browser.text(&format!("new Promise((done) => setTimeout(done, 300)).then(() => {LOADED})"))?;
    ensure!(error.is_empty(), "{NETWORK}: {error}");
    println!("{} files and 500 damaged ones are refused with a sentence each", files.len());
    Ok(())
}
