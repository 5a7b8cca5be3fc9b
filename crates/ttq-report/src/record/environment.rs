//! Machine, date and versions of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Machine, date and versions of a run. Unknown fields are empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Command line of the run, or of its last continuation.
    pub command: String,
    /// Time at which the run ended, in RFC 3339.
    pub finished: String,
    /// Operating system and architecture.
    pub system: String,
    /// Model name of the processor.
    pub processor: String,
    /// Number of processors available to the program.
    pub threads: usize,
    /// Size of the main memory in bytes.
    pub memory_bytes: u64,
    /// Names of the machine's accelerators, used or not.
    pub accelerators: Vec<String>,
    /// Versions by name, such as the program, Burn, the compiler and the commit.
    pub versions: BTreeMap<String, String>,
}
