//! Products of PyTorch in float16, computed by a Python process: `benchmarks/product_torch.py`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::process::Process;

/// The script. It is part of the program, which also runs on machines without the repository.
const SCRIPT: &str = include_str!("../product_torch.py");

/// A Python process that times products on request.
pub(crate) struct Torch {
    process: Process,
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
        let (process, greeting) = Process::start(Command::new(python).args(["-c", SCRIPT, device]))?;
        Ok(Self { process, greeting })
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
        let times: Vec<f64> = self.process.ask(format_args!("{size} {batch} {queue} {count}"))?;
        ensure!(times.len() == count, "the PyTorch process answered {times:?} instead of {count} numbers");
        Ok(times)
    }
}
