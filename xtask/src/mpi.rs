//! What building and testing `ttq-mpi` needs.

use std::path::Path;
use std::process::{Command, Stdio};

/// Returns what is missing on this machine, if anything is.
pub(crate) fn missing() -> Option<&'static str> {
    let runs = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !runs("mpirun") || !runs("mpicc") {
        return Some("an MPI library (Debian: openmpi-bin, libopenmpi-dev)");
    }
    let has_libclang = std::env::var_os("LIBCLANG_PATH").is_some()
        || std::fs::read_dir("/usr/lib").is_ok_and(|folders| {
            folders.flatten().any(|folder| holds_libclang(&folder.path()) || holds_libclang(&folder.path().join("lib")))
        });
    if has_libclang {
        None
    } else {
        Some("libclang, by which the bindings to MPI are generated (Debian: libclang-dev)")
    }
}

fn holds_libclang(folder: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(folder) else { return false };
    let mut names = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let is_library =
        |name: &str| name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so");
    // The interface of C++ is in another library.
    names.any(|name| is_library(&name) && !name.contains("-cpp."))
}
