//! Invalid files and arguments: exit code 1 and one message that names the file.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{error, files, text, ttq};

/// Creates a directory with two checkpoints, `net.safetensors` and `net.pt`, and the packed file `packed`.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    files::write_safetensors(&directory.path().join("net.safetensors"), &files::network(), None);
    files::write_pytorch(&directory.path().join("net.pt"), &files::floats(), None);
    text(directory.path(), &["pack", "net.safetensors", "-o", "packed"]);
    directory
}

/// Asserts that all commands that read a packed file reject this one and write nothing.
fn assert_rejected(directory: &Path, file: &str, reason: &str) {
    for command in ["inspect", "verify", "unpack"] {
        let message = error(directory, &[command, file]);
        assert!(message.starts_with(&format!("{file}: ")) && message.contains(reason), "{command}: {message}");
    }
    assert!(!directory.join(format!("{file}.float.safetensors")).exists(), "an output file was written");
}

#[test]
fn missing_files_and_directories_are_rejected() {
    let directory = directory();
    fs::create_dir(directory.path().join("dir")).unwrap();
    for (file, reason) in [("absent", "cannot be read: No such file"), ("dir", "cannot be read: ")] {
        assert_rejected(directory.path(), file, reason);
        assert!(error(directory.path(), &["pack", file]).starts_with(&format!("{file}: {reason}")));
    }
}

#[test]
fn files_of_other_formats_are_rejected() {
    let directory = directory();
    for (file, bytes) in
        [("empty", &b""[..]), ("text", b"weights, to be sure"), ("json", b"{\"weights\": []}"), ("zeros", &[0; 600])]
    {
        fs::write(directory.path().join(file), bytes).unwrap();
        assert_rejected(directory.path(), file, "is not a safetensors, PyTorch or burnpack file");
        assert!(error(directory.path(), &["pack", file]).contains("is not a safetensors"));
    }
}

#[test]
fn damaged_packed_files_are_rejected() {
    let directory = directory();
    let file = fs::read(directory.path().join("packed")).unwrap();
    let damage = |name: &str, bytes: &[u8], reason: &str| {
        fs::write(directory.path().join(name), bytes).unwrap();
        assert_rejected(directory.path(), name, reason);
        assert!(error(directory.path(), &["pack", name]).contains(reason));
    };
    damage("cut", &file[..file.len() - 1], "at bytes");
    damage("cut-in-the-header", &file[..100], "bytes instead of at least");
    let mut flipped = file.clone();
    *flipped.last_mut().unwrap() ^= 1;
    damage("flipped", &flipped, "checksum");
    let mut absurd = file.clone();
    absurd[7] = 0xff;
    damage("absurd", &absurd, "bytes instead of at least");
    let mut newer = file.clone();
    let at = file.windows(13).position(|window| window == br#"\"version\":1"#).unwrap();
    newer[at + 12] = b'9';
    damage("newer", &newer, "version 9");
}

#[test]
fn truncated_checkpoints_are_rejected() {
    let directory = directory();
    files::write_burnpack(&directory.path().join("net.bpk"));
    files::write_pytorch_zip(&directory.path().join("new.pt"), &files::floats());
    for file in ["net.pt", "new.pt", "net.bpk", "net.safetensors"] {
        let bytes = fs::read(directory.path().join(file)).unwrap();
        for keep in [20, bytes.len() / 4, bytes.len() / 2, bytes.len() - 1] {
            fs::write(directory.path().join("cut"), &bytes[..keep]).unwrap();
            let message = error(directory.path(), &["pack", "cut"]);
            assert!(message.starts_with("cut: "), "{file} {keep}: {message}");
        }
    }
    assert!(!directory.path().join("cut.ttq.safetensors").exists());
}

#[test]
fn a_pytorch_zip_file_with_a_damaged_storage_is_rejected() {
    let directory = directory();
    files::write_pytorch_zip(&directory.path().join("new.pt"), &files::floats());
    let mut bytes = fs::read(directory.path().join("new.pt")).unwrap();
    let scale = files::CONV[0].to_le_bytes();
    let at = bytes.windows(4).position(|window| window == scale).unwrap();
    bytes[at] ^= 1;
    fs::write(directory.path().join("flipped.pt"), bytes).unwrap();
    let message = error(directory.path(), &["pack", "flipped.pt"]);
    assert!(message.starts_with("flipped.pt: is damaged") && message.contains("archive/data/0"), "{message}");
}

#[test]
fn pytorch_files_with_tensors_larger_than_the_file_are_rejected() {
    let directory = directory();
    let file = fs::read(directory.path().join("net.pt")).unwrap();
    let integer = |number: i32| [&b"J"[..], &number.to_le_bytes()].concat();
    // The storage of the convolution has 72 elements, and its shape is the only one that starts with 2, 4.
    let cases = [
        (integer(72), "storage 0, which has 288 bytes instead of 8589934588"),
        ([integer(2), integer(4)].concat(), "tensor `conv.weight` has the shape [2147483647, 4, 3, 3], the strides"),
    ];
    for (number, reason) in cases {
        let mut file = file.clone();
        let at = file.windows(number.len()).position(|window| window == number).unwrap();
        file[at..at + 5].copy_from_slice(&integer(i32::MAX));
        fs::write(directory.path().join("absurd.pt"), file).unwrap();
        let message = error(directory.path(), &["pack", "absurd.pt"]);
        assert!(message.starts_with("absurd.pt: ") && message.contains(reason), "{message}");
    }
}

#[test]
fn unsupported_pytorch_files_are_rejected() {
    let directory = directory();
    let mut tar = vec![0; 600];
    tar[..4].copy_from_slice(b"name");
    tar[257..262].copy_from_slice(b"ustar");
    for (file, bytes) in [("net.tar", &tar[..]), ("net.pkl", b"\x80\x02}.")] {
        fs::write(directory.path().join(file), bytes).unwrap();
        let message = error(directory.path(), &["pack", file]);
        assert!(message.starts_with(&format!("{file}: is a tar file or a plain pickle")), "{message}");
    }
}

#[test]
fn verify_and_unpack_reject_checkpoints() {
    let directory = directory();
    for command in ["verify", "unpack"] {
        let message = error(directory.path(), &[command, "net.safetensors"]);
        assert!(message.starts_with("net.safetensors: is a safetensors checkpoint, not a packed file"), "{message}");
        let message = error(directory.path(), &[command, "net.pt"]);
        assert!(message.starts_with("net.pt: is a PyTorch checkpoint, not a packed file"), "{message}");
    }
}

#[test]
fn pack_rejects_packed_files() {
    let directory = directory();
    assert!(error(directory.path(), &["pack", "packed"]).starts_with("packed: is already packed"));
}

#[test]
fn pack_rejects_checkpoints_without_ternary_weights() {
    let directory = directory();
    let tensors = files::network().into_iter().filter(|(name, _)| name.starts_with("first")).collect();
    files::write_safetensors(&directory.path().join("latent.safetensors"), &tensors, None);
    let message = error(directory.path(), &["pack", "latent.safetensors"]);
    assert!(message.starts_with("latent.safetensors: none of its 1 tensors is ternary"), "{message}");
    assert!(!directory.path().join("latent.ttq.safetensors").exists());
    assert!(text(directory.path(), &["inspect", "latent.safetensors"]).contains("more than three values"));
}

#[test]
fn existing_outputs_are_replaced_with_force_only() {
    let directory = directory();
    for arguments in [&["pack", "net.pt", "-o", "old"][..], &["unpack", "packed", "-o", "old"]] {
        fs::write(directory.path().join("old"), "old").unwrap();
        let message = error(directory.path(), arguments);
        assert!(message.starts_with("old: already exists") && message.contains("--force"), "{message}");
        assert_eq!(fs::read(directory.path().join("old")).unwrap(), b"old");
        text(directory.path(), &[arguments, &["--force"]].concat());
        assert_ne!(fs::read(directory.path().join("old")).unwrap(), b"old");
    }
}

#[test]
fn outputs_in_missing_directories_and_directories_as_outputs_are_rejected() {
    let directory = directory();
    fs::create_dir(directory.path().join("dir")).unwrap();
    let message = error(directory.path(), &["pack", "net.pt", "-o", "absent/out"]);
    assert!(message.starts_with("absent/out: cannot be written: the directory absent does not exist"), "{message}");
    let message = error(directory.path(), &["unpack", "packed", "-o", "dir", "--force"]);
    assert!(message.starts_with("dir: is a directory"), "{message}");
}

#[test]
fn a_wrong_key_is_rejected() {
    let directory = directory();
    let message = error(directory.path(), &["pack", "net.pt", "--key", "model"]);
    assert!(message.starts_with("net.pt: ") && message.contains("no entry `model` holds tensors"), "{message}");
    let message = error(directory.path(), &["pack", "net.safetensors", "--key", "model"]);
    assert!(message.starts_with("net.safetensors: --key applies to PyTorch checkpoints only"), "{message}");
}

#[test]
fn tensors_whose_packed_names_collide_are_rejected() {
    let directory = directory();
    let mut tensors = files::network();
    tensors.insert("conv.weight.codes".into(), tensors["fc.bias"].clone());
    files::write_safetensors(&directory.path().join("twice.safetensors"), &tensors, None);
    let message = error(directory.path(), &["pack", "twice.safetensors"]);
    assert!(message.starts_with("twice.safetensors: ") && message.contains("`conv.weight.codes`"), "{message}");
}

#[test]
fn invalid_arguments_exit_with_code_two() {
    let directory = directory();
    for arguments in [&["inspect"][..], &["compress", "net.pt"], &["pack", "net.pt", "--layout", "keras"]] {
        assert_eq!(ttq(directory.path(), arguments).status.code(), Some(2));
    }
}
