//! The machine and the command line of this process.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::record::Environment;

/// Describes the machine and the command line of this process, with the versions that the caller names; empty versions
/// are left out. On systems without `/proc`, the processor and the size of the memory are unknown.
pub fn environment(versions: &[(&str, &str)]) -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Environment {
        command: command(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned())),
        finished: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        system: format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        threads: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(|text| kibibytes(&text)).unwrap_or(0),
        accelerators: accelerators(Path::new("/proc/driver/nvidia/gpus")),
        versions: versions
            .iter()
            .filter(|(_, version)| !version.is_empty())
            .map(|(name, version)| ((*name).into(), (*version).into()))
            .collect(),
    }
}

/// Returns the vector instruction sets of the processor, as the Linux kernel names them; none on other systems.
pub fn instruction_sets() -> Vec<String> {
    vector_flags(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn vector_flags(cpuinfo: &str) -> Vec<String> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let vector =
        |flag: &&str| ["avx", "fma", "f16c", "amx", "asimd", "sve"].iter().any(|start| flag.starts_with(start));
    flags.split_whitespace().filter(vector).map(String::from).collect()
}

/// Formats a command line for a shell, the program without its directory.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let quoted = arguments.enumerate().map(|(index, argument)| {
        let argument = match Path::new(&argument).file_name() {
            Some(name) if index == 0 => name.to_string_lossy().into_owned(),
            _ => argument,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Returns the value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value.into())
}

/// Parses sizes such as `16384 kB` to bytes.
fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|count| 1024 * count)
}

/// Returns the models of the GPUs that NVIDIA's driver lists, one directory each.
fn accelerators(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let information = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok());
    let mut models: Vec<String> = information.filter_map(|text| field(&text, "Model")).collect();
    models.sort();
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let arguments = ["target/release/mnist", "--threshold", "max:0.05", "--out", "my runs", "--exclude", "it's"];
        let text = command(arguments.into_iter().map(String::from));
        assert_eq!(text, r"mnist --threshold max:0.05 --out 'my runs' --exclude 'it'\''s'");
    }

    #[test]
    fn fields_of_proc_files_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "MemTotal").and_then(|text| kibibytes(&text)), Some(16 * 1024));
        assert_eq!(field(text, "nothing"), None);
    }

    #[test]
    fn vector_flags_are_picked_from_all_flags() {
        assert_eq!(vector_flags("flags\t: fpu avx2 fma ht avx512f\n"), ["avx2", "fma", "avx512f"]);
        assert_eq!(vector_flags("Features\t: fp asimd sve\n"), ["asimd", "sve"]);
    }

    #[test]
    fn gpus_are_read_from_the_directories_of_the_driver() {
        let directory = tempfile::tempdir().unwrap();
        assert!(accelerators(&directory.path().join("absent")).is_empty());
        fs::create_dir(directory.path().join("0000:01:00.0")).unwrap();
        fs::write(directory.path().join("0000:01:00.0/information"), "Model: \t NVIDIA H100\nIRQ: 1\n").unwrap();
        assert_eq!(accelerators(directory.path()), ["NVIDIA H100"]);
    }
}
