//! candle's `QMatMul`, timed on request, so that another process can let it take turns with its own candidates:
//! `ttq-bench-candle q4_0|q2k INPUTS OUTPUTS`.
//!
//! The first line of output says that the weight is ready. Each line of standard input is then a number of rows and a number
//! of calls; the answer is a list with the seconds of each, in JSON. Threads are rayon's (`RAYON_NUM_THREADS`).

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, sizes @ ..] = &arguments[..] else { return Err("which kind? q4_0 or q2k".into()) };
    let kind = match kind.as_str() {
        "q4_0" => GgmlDType::Q4_0,
        "q2k" => GgmlDType::Q2K,
        other => return Err(format!("`{other}` is neither q4_0 nor q2k").into()),
    };
    let sizes = sizes.iter().map(|size| size.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
    let &[inputs, outputs] = &sizes[..] else { return Err("two sizes: inputs, outputs".into()) };

    let weight = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu)?;
    let product = QMatMul::from_qtensor(QTensor::quantize(&weight, kind)?)?;
    drop(weight);
    println!(r#"{{"version": "candle", "difference": 0.0}}"#);
    let mut x = Tensor::randn(0f32, 1.0, (1, inputs), &Device::Cpu)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (rows, calls) = line.split_once(' ').ok_or("a request is ROWS CALLS")?;
        let (rows, calls): (usize, usize) = (rows.parse()?, calls.parse()?);
        if x.dim(0)? != rows {
            x = Tensor::randn(0f32, 1.0, (rows, inputs), &Device::Cpu)?;
        }
        let mut seconds = Vec::new();
        for _ in 0..calls {
            let start = Instant::now();
            black_box(product.forward(&x)?);
            seconds.push(format!("{:e}", start.elapsed().as_secs_f64()));
        }
        println!("[{}]", seconds.join(", "));
        std::io::stdout().flush()?;
    }
    Ok(())
}
