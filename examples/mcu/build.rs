//! Compiles the network to constants, and computes what the microcontroller is to find.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use ttq_micro::build::{compile, source};
use ttq_packed::PackedModel;
use ttq_packed::kernels::Level;
use ttq_packed::network::{Arena, CompileOptions, Graph, Int8, Network};

const FILE: &str = "../../models/mnist/network.safetensors";
const DIGITS: &str = "digits.bin";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for path in [FILE, DIGITS, "link.x", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rustc-link-arg=-T{}/link.x", env::var("CARGO_MANIFEST_DIR")?);
    let (file, digits) = (fs::read(FILE)?, fs::read(DIGITS)?);
    let int8 = if env::var_os("CARGO_FEATURE_INT8").is_some() { Int8::Inner } else { Int8::Off };

    let program = compile(&Graph::read(&file)?, int8)?;
    // The example `mnist` writes the mean and standard deviation of its pixels, which range from 0 to 1.
    let config: serde_json::Value = serde_json::from_str(PackedModel::read(&file)?.config.as_deref().unwrap_or("{}"))?;
    let number = |name: &str| config[name][0].as_f64().ok_or(format!("the configuration in {FILE} has no `{name}`"));
    let (mean, std) = (number("mean")? as f32, number("std")? as f32);

    // The same digits by the runtime of this machine: another compiler, and other kernels.
    let network = Network::read(&file, &CompileOptions::default().with_int8(int8))?.with_level(Level::Portable)?;
    let pixels: Vec<f32> = digits.iter().map(|pixel| (f32::from(*pixel) / 255.0 - mean) / std).collect();
    let mut logits = vec![0.0; pixels.len() / program.input * program.output];
    network.run(&mut Arena::new(), &pixels, &mut logits)?;

    let text = format!(
        "static FILE: &[u8] = include_bytes!(\"{}/{FILE}\");\n{}\
         const MEAN: f32 = {mean:?};\nconst STD: f32 = {std:?};\n\
         /// Logits that the runtime of another machine computes.\n\
         static EXPECTED: [[f32; {}]; {}] = {:?};\n",
        env::var("CARGO_MANIFEST_DIR")?,
        source("NETWORK", &program, "FILE", &file),
        program.output,
        logits.len() / program.output,
        logits.chunks(program.output).collect::<Vec<_>>(),
    );
    fs::write(out.join("network.rs"), text)?;
    Ok(())
}
