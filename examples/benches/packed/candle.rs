//! candle's quantized product, in a process of its own: the workspace would be compiled with other features if it depended on candle.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running `benchmarks/candle`.
pub(crate) struct Candle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Candle {
    /// Starts it for a product of `[m, inputs]` with a weight of the given kind, `q4_0` or `q2k`.
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
        let answers = BufReader::new(child.stdout.take().context("candle's process has no output")?);
        Ok(Self { child, requests, answers })
    }

    /// Seconds of each of some calls.
    pub(crate) fn turn(&mut self, calls: usize) -> Result<Vec<f64>> {
        let requests = self.requests.as_mut().context("candle's process has no input")?;
        writeln!(requests, "{calls}").context("candle's process has ended: its message is above")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let times: Vec<f64> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if times.len() != calls {
            bail!("candle's process answered `{}` to {calls} calls", answer.trim());
        }
        Ok(times)
    }
}

impl Drop for Candle {
    fn drop(&mut self) {
        // It ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}
