//! Where, when and with what a run was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where, when and with what a run was made. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The command line of the last sitting.
    pub command: String,
    /// When the run ended, in RFC 3339.
    pub finished: String,
    /// Operating system and architecture.
    pub system: String,
    /// Model of the processor.
    pub processor: String,
    /// Processors that the program may use.
    pub threads: usize,
    /// Main memory.
    pub memory_bytes: u64,
    /// Names of accelerators that the machine has, whether used or not.
    pub accelerators: Vec<String>,
    /// Versions by name: the program, Burn, the compiler, the commit.
    pub versions: BTreeMap<String, String>,
}
