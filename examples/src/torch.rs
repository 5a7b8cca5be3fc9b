//! PyTorch's product in half precision, in a process of its own: `benchmarks/product_torch.py`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Inside the program: where it runs there may be no repository.
const SCRIPT: &str = include_str!("../../benchmarks/product_torch.py");

/// A Python with PyTorch that computes products as it is told.
pub(crate) struct Torch {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    hello: Hello,
}

/// What it says first.
#[derive(Deserialize)]
struct Hello {
    torch: String,
    device: String,
}

impl Torch {
    /// Starts it on `cuda` or `cpu`.
    pub(crate) fn start(python: &Path, device: &str) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let requests = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("Python has no output")?);
        let mut hello = String::new();
        answers.read_line(&mut hello)?;
        let Ok(hello) = serde_json::from_str(&hello) else {
            let mut error = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut error)?;
            }
            child.wait()?;
            bail!("{}", error.lines().last().unwrap_or("Python failed"));
        };
        Ok(Self { child, requests, answers, hello })
    }

    /// Version, and the device's name.
    pub(crate) fn describe(&self) -> String {
        format!("{} on {}", self.hello.torch, self.hello.device)
    }

    /// Seconds of a call in each of `turns` turns, each of which queues `queue` products of `[batch, size]` and `[size, size]`.
    pub(crate) fn turns(&mut self, [size, batch]: [usize; 2], queue: usize, turns: usize) -> Result<Vec<f64>> {
        let requests = self.requests.as_mut().context("Python has no input")?;
        writeln!(requests, "{size} {batch} {queue} {turns}").context("PyTorch's process has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let times: Vec<f64> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if times.len() != turns {
            bail!("PyTorch's process answered `{}` to {turns} turns", answer.trim());
        }
        Ok(times)
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}
