//! Files written: whole or not at all, and none replaced that the user did not give up.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// The file to write [default: beside the input, named after it].
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    path: Option<PathBuf>,
    /// Replace the output file where there is one.
    #[arg(long)]
    force: bool,
}

impl Output {
    /// The path to write to; fails where something is there already and may not be replaced.
    pub(crate) fn path(&self, input: &Path, ending: &str) -> Result<PathBuf> {
        let path = self.path.clone().unwrap_or_else(|| beside(input, ending));
        if path.is_dir() {
            bail!("{}: is a folder: give the name of a file with -o", path.display());
        }
        if path.exists() && !self.force {
            bail!("{}: is there already: give another name with -o, or --force to replace it", path.display());
        }
        Ok(path)
    }

    /// Writes under a temporary name, then gives the file its own.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let fail = || format!("{}: cannot be written", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!("{}: cannot be written: there is no folder {}", path.display(), folder.display());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ttq-").suffix(".tmp");
        // What a program creates is readable by whoever the user's umask allows, and not by the user alone as temporary files are.
        #[cfg(unix)]
        builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
        let mut file = builder.tempfile_in(folder).with_context(fail)?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(fail)?;
        let persisted = if self.force { file.persist(path) } else { file.persist_noclobber(path) };
        persisted.map_err(|error| error.error).with_context(fail)?;
        Ok(())
    }
}

/// `model.pt` → `model.ENDING`, `model.ttq.safetensors` → `model.ENDING`.
fn beside(input: &Path, ending: &str) -> PathBuf {
    let stem = input.with_extension("");
    let stem = if stem.extension().is_some_and(|ending| ending == "ttq") { stem.with_extension("") } else { stem };
    let mut name: OsString = stem.into_os_string();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_named_after_inputs() {
        let named = |input: &str, ending| beside(Path::new(input), ending);
        assert_eq!(named("a/model.pt", "ttq.safetensors"), Path::new("a/model.ttq.safetensors"));
        assert_eq!(named("v1.2.safetensors", "ttq.safetensors"), Path::new("v1.2.ttq.safetensors"));
        assert_eq!(named("model.ttq.safetensors", "float.safetensors"), Path::new("model.float.safetensors"));
        assert_eq!(named("model", "ttq.safetensors"), Path::new("model.ttq.safetensors"));
    }
}
