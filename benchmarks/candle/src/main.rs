//! candle's `QMatMul`, timed on request, so that another process can let it take turns with its own candidates:
//! `ttq-bench-candle q4_0|q2k ROWS OUTPUTS INPUTS`.
//!
//! Each line of standard input is a number of calls; the answer is a line with the seconds of each. Threads are rayon's
//! (`RAYON_NUM_THREADS`).

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
    let &[rows, outputs, inputs] = &sizes[..] else { return Err("three sizes: rows, outputs, inputs".into()) };

    let weight = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu)?;
    let product = QMatMul::from_qtensor(QTensor::quantize(&weight, kind)?)?;
    drop(weight);
    let x = Tensor::randn(0f32, 1.0, (rows, inputs), &Device::Cpu)?;
    for line in std::io::stdin().lock().lines() {
        let mut answer = String::new();
        for _ in 0..line?.trim().parse()? {
            let start = Instant::now();
            black_box(product.forward(&x)?);
            answer += &format!("{:e} ", start.elapsed().as_secs_f64());
        }
        println!("{}", answer.trim_end());
        std::io::stdout().flush()?;
    }
    Ok(())
}
