//! Where data lies, and how it gets there.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn_dataset::network::downloader::download_file_as_bytes;
use md5::{Digest, Md5};

use super::DataError;

/// A data set on disk and where it can be had.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// The folder that holds it, inside a data directory or the cache.
    pub(crate) folder: &'static str,
    /// A file of it.
    pub(crate) witness: &'static str,
}

impl Place {
    /// The folder of the data set in `--data` or `$TTQ_DATA` if either is given, else in the cache if it is there.
    pub(crate) fn find(&self, data: Option<&Path>) -> Result<Option<PathBuf>, DataError> {
        let variable = std::env::var_os("TTQ_DATA").map(PathBuf::from);
        if let Some(directory) = data.map(Path::to_path_buf).or(variable) {
            return self.within(&directory).map(Some).ok_or(DataError::Missing {
                name: self.name,
                directory,
                expected: self.witness,
                folder: self.folder,
            });
        }
        Ok(self.cache().ok().and_then(|cache| self.within(&cache)))
    }

    /// The folder itself or `directory`, whichever holds the files (plain or with `.gz`).
    fn within(&self, directory: &Path) -> Option<PathBuf> {
        let holds = |folder: &Path| {
            folder.join(self.witness).is_file() || folder.join(format!("{}.gz", self.witness)).is_file()
        };
        [directory.join(self.folder), directory.to_path_buf()].into_iter().find(|folder| holds(folder))
    }

    /// The cache of this program.
    pub(crate) fn cache(&self) -> Result<PathBuf, DataError> {
        Ok(dirs::cache_dir().ok_or(DataError::NoCache { name: self.name })?.join("ttq"))
    }

    /// Downloads a file and checks its MD5 sum.
    pub(crate) fn download(&self, url: &str, md5: &str) -> Result<Vec<u8>, DataError> {
        let error = |reason: String| DataError::Download { name: self.name, url: url.into(), reason };
        reach(url).map_err(error)?;
        // Burn's downloader panics where a download breaks off; its message would say less than ours.
        let hook = take_hook();
        set_hook(Box::new(|_| {}));
        let bytes = catch_unwind(|| download_file_as_bytes(url, self.name));
        set_hook(hook);
        let bytes = bytes.map_err(|_| error("the download broke off".into()))?;
        let found = checksum(&bytes);
        if found != md5 {
            return Err(error(format!("its MD5 sum should be {md5} and is {found}")));
        }
        Ok(bytes)
    }
}

fn checksum(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the host of a URL answers within three seconds.
fn reach(url: &str) -> Result<(), String> {
    let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let mut addresses = (host, 443).to_socket_addrs().map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("the host has no address")?;
    TcpStream::connect_timeout(&address, Duration::from_secs(3)).map_err(|error| error.to_string())?;
    Ok(())
}

/// Writes a file under a temporary name, then renames, so that nothing half-written has the final name.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(DataError::file("make the directory", folder))?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!("{name}.part-{}", std::process::id()));
    fs::write(&temporary, bytes).map_err(DataError::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(DataError::file("rename to", path))
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(DataError::file("read", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const PLACE: Place = Place { name: "Toy", folder: "toy", witness: "toy.bin" };

    /// The real data, where this machine has it.
    pub(crate) fn real_data() -> Option<PathBuf> {
        let beside = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
        let found = std::env::var_os("TTQ_DATA").map(PathBuf::from).or(beside.is_dir().then(|| beside.into()));
        if found.is_none() {
            println!("skipped: no real data (set TTQ_DATA)");
        }
        found
    }

    #[test]
    fn a_data_set_is_found_in_its_folder_or_in_the_directory_itself() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("toy");
        write(&nested.join("toy.bin.gz"), b"x").unwrap();
        assert_eq!(PLACE.find(Some(directory.path())).unwrap(), Some(nested.clone()));
        assert_eq!(PLACE.find(Some(&nested)).unwrap(), Some(nested.clone()));
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_missing_data_set_says_what_was_expected_where() {
        let directory = tempfile::tempdir().unwrap();
        let message = PLACE.find(Some(directory.path())).unwrap_err().to_string();
        assert!(message.contains("toy.bin") && message.contains("`toy`"), "{message}");
    }

    #[test]
    fn an_unreachable_host_is_an_error_and_no_panic() {
        let message = PLACE.download("https://host.invalid/toy.bin", "00").unwrap_err().to_string();
        assert!(message.contains("host.invalid") && message.contains("--data DIR"), "{message}");
    }

    #[test]
    fn a_checksum_is_md5() {
        assert_eq!(checksum(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
    }
}
