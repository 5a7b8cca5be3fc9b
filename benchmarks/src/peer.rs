//! The implementations that the suite `train` compares, each in a process of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use burn::backend::{Autodiff, Flex};
use clap::ValueEnum;
use serde::Serialize;
#[cfg(all(feature = "autocast", feature = "cuda"))]
use ttq_autocast::{Autocast, Bf16, F16};
use ttq_cpu::Cpu;

use crate::measure;
use crate::worker::{NetworkName, Training};

/// An implementation of training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// ttq-cpu, the CPU backend of this project.
    Cpu,
    /// Flex, a CPU backend of Burn.
    Flex,
    /// CUDA on an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
    /// CUDA with products in bfloat16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaBf16,
    /// CUDA with products in float16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaF16,
    /// PyTorch in eager mode, with one autograd function per ternary layer.
    Pytorch,
    /// The same in the memory format channels last. ResNet only.
    PytorchChannelsLast,
    /// The same with `torch.compile` around network and loss, ResNet in the memory format channels last.
    PytorchCompile,
    /// PyTorch as in the port: a loop over the ternary layers after the backward pass, and three optimizers. ResNet
    /// only.
    PytorchLoop,
    /// PyTorch with products in bfloat16, ResNet in the memory format channels last.
    PytorchAmp,
}

/// Script for the steps of PyTorch. It is part of the program, which also runs on machines without the repository.
const SCRIPT: &str = include_str!("../train_torch.py");

/// How the processes of PyTorch are started.
pub(crate) struct Python {
    pub(crate) interpreter: PathBuf,
    /// `cuda` or `cpu`.
    pub(crate) device: &'static str,
}

impl Peer {
    /// Returns whether the peer is a backend of this project. Burn's CUDA backend counts, with the kernels of
    /// ttq-cubecl.
    pub(crate) fn is_from_this_project(self) -> bool {
        match self {
            Self::Cpu => true,
            #[cfg(feature = "cuda")]
            Self::Cuda => true,
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaBf16 | Self::CudaF16 => true,
            _ => false,
        }
    }

    /// Returns the name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Returns whether the peer differs from the others for this network.
    pub(crate) fn applies_to(self, network: NetworkName) -> bool {
        !matches!(self, Self::PytorchChannelsLast | Self::PytorchLoop) || network == NetworkName::Resnet
    }

    /// Returns the command that trains in PyTorch; `None` if the peer is a backend of Burn.
    pub(crate) fn pytorch(self, python: &Python, training: Training, threads: usize) -> Option<Command> {
        let flags: &[&str] = match self {
            Self::Pytorch => &[],
            Self::PytorchChannelsLast => &["--channels-last"],
            Self::PytorchCompile => &["--compile", "--channels-last"],
            Self::PytorchLoop => &["--loop"],
            Self::PytorchAmp => &["--amp", "--channels-last"],
            _ => return None,
        };
        let mut command = Command::new(&python.interpreter);
        command.args(["-c", SCRIPT, "--network", &training.network.name(), "--device", python.device]);
        for (name, number) in [("--batch", training.batch), ("--layers", training.layers), ("--threads", threads)] {
            command.args([name, &number.to_string()]);
        }
        command.args(flags).args(training.processor_time.then_some("--processor-time"));
        Some(command)
    }

    /// Trains on this backend of Burn, in this process, until the standard input ends.
    ///
    /// # Errors
    /// Returns an error if the peer is not a backend of Burn, or if the standard input or output fails.
    pub(crate) fn serve(self, training: Training, threads: usize) -> Result<()> {
        let pools = measure::thread_pools(&[threads])?;
        pools.first().context("there is one pool")?.install(|| match self {
            Self::Cpu => training.serve::<Autodiff<Cpu>>(),
            Self::Flex => training.serve::<Autodiff<Flex>>(),
            #[cfg(feature = "cuda")]
            Self::Cuda => training.serve::<Autodiff<burn::backend::Cuda>>(),
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaBf16 => training.serve::<Autodiff<Autocast<burn::backend::Cuda, Bf16>>>(),
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaF16 => training.serve::<Autodiff<Autocast<burn::backend::Cuda, F16>>>(),
            _ => bail!("{} is not a backend of Burn", self.name()),
        })
    }
}
