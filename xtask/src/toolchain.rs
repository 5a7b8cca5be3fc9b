//! Compilers for machines that have no operating system, and whether they have the library `core` for them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// A compiler for a target.
pub(crate) struct Toolchain {
    /// The environment variable that names the compiler.
    pub(crate) variable: &'static str,
    pub(crate) target: &'static str,
}

impl Toolchain {
    /// Returns the compiler: that of the variable, else `$RUSTC`, else `rustc`.
    pub(crate) fn compiler(&self) -> OsString {
        env::var_os(self.variable).or_else(|| env::var_os("RUSTC")).unwrap_or_else(|| "rustc".into())
    }

    /// Returns whether the library is there, compiled.
    pub(crate) fn has_library(&self) -> bool {
        asks(self.compiler(), &["--print", "target-libdir", "--target", self.target]).is_dir()
    }

    /// Returns whether the library is there, as sources.
    pub(crate) fn has_sources(&self) -> bool {
        asks(self.compiler(), &["--print", "sysroot"]).join("lib/rustlib/src/rust/library/core").is_dir()
    }
}

/// Returns the path that a compiler prints.
pub(crate) fn asks(compiler: OsString, arguments: &[&str]) -> PathBuf {
    let output = Command::new(compiler).current_dir(crate::root()).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().into()).unwrap_or_default()
}
