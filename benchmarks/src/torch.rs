//! Products of PyTorch in float16, computed by a Python process: `benchmarks/product_torch.py`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The script. It is part of the program, which also runs on machines without the repository.
const SCRIPT: &str = include_str!("../product_torch.py");

/// A Python process that times products on request.
pub(crate) struct Torch {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    greeting: Greeting,
}

/// First line of the process's output.
#[derive(Deserialize)]
struct Greeting {
    torch: String,
    device: String,
}

impl Torch {
    /// Starts the process for the PyTorch device `cuda` or `cpu`.
    ///
    /// # Errors
    /// Returns an error if Python cannot be started or has no PyTorch with this device.
    pub(crate) fn start(python: &Path, device: &str) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let requests = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("the output of Python is not piped")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let Ok(greeting) = serde_json::from_str(&line) else {
            let mut error = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut error)?;
            }
            child.wait()?;
            bail!("{}", error.lines().last().unwrap_or("Python failed"));
        };
        Ok(Self { child, requests, answers, greeting })
    }

    /// Returns PyTorch's version and the name of the device.
    pub(crate) fn describe(&self) -> String {
        format!("{} on {}", self.greeting.torch, self.greeting.device)
    }

    /// Measures `count` times the mean seconds per product of `queue` queued products of `[batch, size]` and `[size,
    /// size]`.
    ///
    /// # Errors
    /// Returns an error if the process has ended or answers with another number of values.
    pub(crate) fn measure(&mut self, [size, batch]: [usize; 2], queue: usize, count: usize) -> Result<Vec<f64>> {
        let requests = self.requests.as_mut().context("the input of Python is closed")?;
        writeln!(requests, "{size} {batch} {queue} {count}").context("the PyTorch process has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let times: Vec<f64> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if times.len() != count {
            bail!("the PyTorch process answered `{}` instead of {count} numbers", answer.trim());
        }
        Ok(times)
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}
