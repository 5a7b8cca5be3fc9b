//! Atomic writing of output files.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Arguments of commands that write a file.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// File to write [default: the input file with another extension].
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    path: Option<PathBuf>,
    /// Replace an existing output file.
    #[arg(long)]
    force: bool,
}

impl Output {
    /// Returns the path of the output file. Fails if it is a directory, or exists and may not be replaced.
    pub(crate) fn path(&self, input: &Path, extension: &str) -> Result<PathBuf> {
        self.check(self.path.clone().unwrap_or_else(|| default_path(input, extension)))
    }

    /// Returns the path of the output file if the command line names one, as [`path`](Self::path) does.
    pub(crate) fn named_path(&self) -> Result<Option<PathBuf>> {
        self.path.clone().map(|path| self.check(path)).transpose()
    }

    fn check(&self, path: PathBuf) -> Result<PathBuf> {
        if path.is_dir() {
            bail!("{}: is a directory: pass the name of a file", path.display());
        }
        if path.exists() && !self.force {
            bail!("{}: already exists: pass another name, or --force to replace it", path.display());
        }
        Ok(path)
    }

    /// Writes a file so that it is complete and synced when it appears under its name.
    ///
    /// An existing file is replaced with `--force` only. On failure it is unchanged, and no temporary file is left.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let context = || format!("{}: cannot be written", path.display());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.is_dir() {
            bail!("{}: cannot be written: the directory {} does not exist", path.display(), directory.display());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ttq-").suffix(".tmp");
        // By default, only the user can read temporary files. The umask applies to this mode, as to that of every new
        // file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(directory).with_context(context)?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(context)?;
        let persisted = if self.force { file.persist(path) } else { file.persist_noclobber(path) };
        persisted.map_err(|error| error.error).with_context(context)?;
        Ok(())
    }
}

/// Returns the default output path: `model.pt` and `model.ttq.safetensors` become `model.EXTENSION`.
fn default_path(input: &Path, extension: &str) -> PathBuf {
    let stem = input.with_extension("");
    let stem =
        if stem.extension().is_some_and(|extension| extension == "ttq") { stem.with_extension("") } else { stem };
    let mut name: OsString = stem.into_os_string();
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_is_the_input_with_another_extension() {
        let named = |input: &str, extension| default_path(Path::new(input), extension);
        assert_eq!(named("a/model.pt", "ttq.safetensors"), Path::new("a/model.ttq.safetensors"));
        assert_eq!(named("v1.2.safetensors", "ttq.safetensors"), Path::new("v1.2.ttq.safetensors"));
        assert_eq!(named("model.ttq.safetensors", "float.safetensors"), Path::new("model.float.safetensors"));
        assert_eq!(named("model", "ttq.safetensors"), Path::new("model.ttq.safetensors"));
    }
}
