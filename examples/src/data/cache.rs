//! Location of data sets on disk, and their download.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use md5::{Digest, Md5};

use super::DataError;

/// Names of a data set's files.
pub struct DataSet {
    /// Name of the data set.
    pub name: &'static str,
    /// Folder of the files, inside a data directory or the cache.
    pub folder: &'static str,
    /// A file whose presence shows that the folder holds the data set.
    pub marker: &'static str,
}

impl DataSet {
    /// Returns the folder of the data set: in `data` or `$TTQ_DATA` if either is given, else in the cache if it is there.
    ///
    /// # Errors
    /// [`DataError::Missing`] if the given directory does not hold the data set.
    pub fn find(&self, data: Option<&Path>) -> Result<Option<PathBuf>, DataError> {
        if let Some((directory, named_by)) = given(data) {
            return self.within(&directory).map(Some).ok_or(DataError::Missing {
                name: self.name,
                directory,
                named_by,
                expected: self.marker,
                folder: self.folder,
            });
        }
        Ok(self.cache().ok().and_then(|cache| self.within(&cache)))
    }

    /// Returns the folder in `directory`, or `directory` itself, whichever holds the files (plain or with `.gz`).
    fn within(&self, directory: &Path) -> Option<PathBuf> {
        let holds =
            |folder: &Path| folder.join(self.marker).is_file() || folder.join(format!("{}.gz", self.marker)).is_file();
        [directory.join(self.folder), directory.to_path_buf()].into_iter().find(|folder| holds(folder))
    }

    /// Returns the cache directory of this program.
    pub(crate) fn cache(&self) -> Result<PathBuf, DataError> {
        Ok(dirs::cache_dir().ok_or(DataError::NoCache { name: self.name })?.join("ttq"))
    }

    /// Downloads a file by `curl`, which every common system has, and checks its MD5 sum.
    pub(crate) fn download(&self, url: &str, md5: &str) -> Result<Vec<u8>, DataError> {
        let error = |reason: String| DataError::Download { name: self.name, url: url.into(), reason };
        eprintln!("downloading {url}");
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--location", "--connect-timeout", "5"]);
        if std::io::stderr().is_terminal() {
            curl.arg("--progress-bar").stderr(Stdio::inherit());
        } else {
            curl.args(["--silent", "--show-error"]);
        }
        let output = curl.arg(url).output().map_err(|cause| error(format!("curl cannot be started: {cause}")))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(error(if message.is_empty() { format!("curl: {}", output.status) } else { message }));
        }
        let found = checksum(&output.stdout);
        if found != md5 {
            return Err(error(format!("its MD5 sum is {found} instead of {md5}")));
        }
        Ok(output.stdout)
    }
}

/// Returns the directory of data that the user gives, `data` or `$TTQ_DATA`, and which of them it is.
pub fn given(data: Option<&Path>) -> Option<(PathBuf, &'static str)> {
    let variable = || Some((PathBuf::from(std::env::var_os("TTQ_DATA")?), "$TTQ_DATA"));
    data.map(|directory| (directory.to_path_buf(), "--data")).or_else(variable)
}

fn checksum(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file atomically, and creates its folder.
///
/// # Errors
/// [`DataError::File`] if it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(DataError::file("create the directory", folder))?;
    }
    ttq_packed::file::write_atomically(path, |file| file.write_all(bytes)).map_err(DataError::file("write", path))
}

/// Reads a file.
///
/// # Errors
/// [`DataError::File`] if it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(DataError::file("read", path))
}

/// Returns the directory of real data for tests, `$TTQ_DATA`; prints that a test is skipped if it is not set.
#[doc(hidden)]
pub fn real_data() -> Option<PathBuf> {
    let found = std::env::var_os("TTQ_DATA").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: no real data (set TTQ_DATA)");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOY: DataSet = DataSet { name: "Toy", folder: "toy", marker: "toy.bin" };

    #[test]
    fn a_data_set_is_found_in_its_folder_or_in_the_directory_itself() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("toy");
        write(&nested.join("toy.bin.gz"), b"x").unwrap();
        assert_eq!(TOY.find(Some(directory.path())).unwrap(), Some(nested.clone()));
        assert_eq!(TOY.find(Some(&nested)).unwrap(), Some(nested.clone()));
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_missing_data_set_says_what_was_expected_where() {
        let directory = tempfile::tempdir().unwrap();
        let message = TOY.find(Some(directory.path())).unwrap_err().to_string();
        assert!(message.contains("toy.bin") && message.contains("`toy`"), "{message}");
    }

    #[test]
    fn an_unreachable_host_is_an_error_and_no_panic() {
        let message = TOY.download("https://host.invalid/toy.bin", "00").unwrap_err().to_string();
        assert!(message.contains("host.invalid") && message.contains("--data DIR"), "{message}");
    }

    #[test]
    fn a_checksum_is_md5() {
        assert_eq!(checksum(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
    }
}
