//! Quantized products of candle, computed by another process: as a dependency, candle would change the features of
//! crates that the workspace compiles.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running process of `benchmarks/candle`.
pub(crate) struct Candle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Candle {
    /// Starts the process for products of `[m, inputs]` and a weight `[outputs, inputs]` of the given kind, `q4_0` or
    /// `q2k`.
    pub(crate) fn start(program: &Path, kind: &str, [m, outputs, inputs]: [usize; 3]) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(kind)
            .args([m, outputs, inputs].map(|size| size.to_string()))
            .env("RAYON_NUM_THREADS", rayon::current_num_threads().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the output of candle is not piped")?);
        Ok(Self { child, requests, answers })
    }

    /// Measures the seconds of each of `calls` calls.
    pub(crate) fn measure(&mut self, calls: usize) -> Result<Vec<f64>> {
        let requests = self.requests.as_mut().context("the input of candle is closed")?;
        writeln!(requests, "{calls}").context("the candle process has ended: see its message above")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let times: Vec<f64> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if times.len() != calls {
            bail!("the candle process answered `{}` instead of {calls} numbers", answer.trim());
        }
        Ok(times)
    }
}

impl Drop for Candle {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}
