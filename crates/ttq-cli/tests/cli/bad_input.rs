//! Files and arguments that cannot be used: exit code 1 and one sentence that names the file.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{error, files, text, ttq};

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files::write_safetensors(&folder.path().join("net.safetensors"), &files::network(), None);
    files::write_pytorch(&folder.path().join("net.pt"), &files::floats(), None);
    text(folder.path(), &["pack", "net.safetensors", "-o", "packed"]);
    folder
}

/// The commands that read a packed file, on this one.
fn refused(folder: &Path, file: &str, reason: &str) {
    for command in ["inspect", "verify", "unpack"] {
        let sentence = error(folder, &[command, file]);
        assert!(sentence.starts_with(&format!("{file}: ")) && sentence.contains(reason), "{command}: {sentence}");
    }
    assert!(!folder.join(format!("{file}.float.safetensors")).exists(), "nothing is written");
}

#[test]
fn a_file_that_is_not_there_or_no_file() {
    let folder = folder();
    fs::create_dir(folder.path().join("dir")).unwrap();
    for (file, reason) in [("absent", "cannot be read: No such file"), ("dir", "cannot be read: ")] {
        refused(folder.path(), file, reason);
        assert!(error(folder.path(), &["pack", file]).starts_with(&format!("{file}: {reason}")));
    }
}

#[test]
fn a_file_of_another_kind() {
    let folder = folder();
    for (file, bytes) in
        [("empty", &b""[..]), ("text", b"weights, to be sure"), ("json", b"{\"weights\": []}"), ("zeros", &[0; 600])]
    {
        fs::write(folder.path().join(file), bytes).unwrap();
        refused(folder.path(), file, "neither safetensors nor PyTorch nor burnpack");
        assert!(error(folder.path(), &["pack", file]).contains("neither safetensors"));
    }
}

#[test]
fn a_packed_file_that_is_damaged() {
    let folder = folder();
    let file = fs::read(folder.path().join("packed")).unwrap();
    let damage = |name: &str, bytes: &[u8], reason: &str| {
        fs::write(folder.path().join(name), bytes).unwrap();
        refused(folder.path(), name, reason);
        assert!(error(folder.path(), &["pack", name]).contains(reason));
    };
    damage("cut", &file[..file.len() - 1], "the header places tensor");
    damage("cut-in-the-header", &file[..100], "it was cut off");
    let mut flipped = file.clone();
    *flipped.last_mut().unwrap() ^= 1;
    damage("flipped", &flipped, "the checksum is");
    let mut absurd = file.clone();
    absurd[7] = 0xff;
    damage("absurd", &absurd, "it was cut off");
    let mut newer = file.clone();
    let at = file.windows(13).position(|window| window == br#"\"version\":1"#).unwrap();
    newer[at + 12] = b'9';
    damage("newer", &newer, "version 9 of the format");
}

#[test]
fn a_checkpoint_that_was_cut_off() {
    let folder = folder();
    files::write_burnpack(&folder.path().join("net.bpk"), &files::network());
    files::write_pytorch_zip(&folder.path().join("new.pt"), &files::floats());
    for file in ["net.pt", "new.pt", "net.bpk", "net.safetensors"] {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        for keep in [20, bytes.len() / 4, bytes.len() / 2, bytes.len() - 1] {
            fs::write(folder.path().join("cut"), &bytes[..keep]).unwrap();
            let sentence = error(folder.path(), &["pack", "cut"]);
            assert!(sentence.starts_with("cut: "), "{file} {keep}: {sentence}");
        }
    }
    assert!(!folder.path().join("cut.ttq.safetensors").exists());
}

#[test]
fn a_zip_of_pytorch_whose_storage_is_damaged() {
    let folder = folder();
    files::write_pytorch_zip(&folder.path().join("new.pt"), &files::floats());
    let mut bytes = fs::read(folder.path().join("new.pt")).unwrap();
    let scale = files::CONV[0].to_le_bytes();
    let at = bytes.windows(4).position(|window| window == scale).unwrap();
    bytes[at] ^= 1;
    fs::write(folder.path().join("flipped.pt"), bytes).unwrap();
    let sentence = error(folder.path(), &["pack", "flipped.pt"]);
    assert!(sentence.starts_with("flipped.pt: is damaged") && sentence.contains("archive/data/0"), "{sentence}");
}

#[test]
fn a_pytorch_file_that_asks_for_more_memory_than_it_is_long() {
    let folder = folder();
    let file = fs::read(folder.path().join("net.pt")).unwrap();
    let integer = |number: i32| [&b"J"[..], &number.to_le_bytes()].concat();
    // The convolution's storage has 72 elements; its shape is the only one that begins 2, 4.
    let cases = [
        (integer(72), "storage 0 is longer than the file"),
        ([integer(2), integer(4)].concat(), "tensor `conv.weight` has the shape [2147483647, 4, 3, 3]"),
    ];
    for (number, reason) in cases {
        let mut file = file.clone();
        let at = file.windows(number.len()).position(|window| window == number).unwrap();
        file[at..at + 5].copy_from_slice(&integer(i32::MAX));
        fs::write(folder.path().join("absurd.pt"), file).unwrap();
        let sentence = error(folder.path(), &["pack", "absurd.pt"]);
        assert!(sentence.starts_with("absurd.pt: ") && sentence.contains(reason), "{sentence}");
    }
}

#[test]
fn files_of_pytorch_that_are_not_read() {
    let folder = folder();
    let mut tar = vec![0; 600];
    tar[..4].copy_from_slice(b"name");
    tar[257..262].copy_from_slice(b"ustar");
    for (file, bytes) in [("net.tar", &tar[..]), ("net.pkl", b"\x80\x02}.")] {
        fs::write(folder.path().join(file), bytes).unwrap();
        let sentence = error(folder.path(), &["pack", file]);
        assert!(sentence.starts_with(&format!("{file}: is a tar file or a pickle")), "{sentence}");
    }
}

#[test]
fn a_checkpoint_where_a_packed_file_is_asked_for() {
    let folder = folder();
    for command in ["verify", "unpack"] {
        let sentence = error(folder.path(), &[command, "net.safetensors"]);
        assert!(sentence.starts_with("net.safetensors: is a safetensors checkpoint, not packed"), "{sentence}");
        let sentence = error(folder.path(), &[command, "net.pt"]);
        assert!(sentence.starts_with("net.pt: is a PyTorch checkpoint, not packed"), "{sentence}");
    }
}

#[test]
fn a_file_that_is_packed_already() {
    let folder = folder();
    assert!(error(folder.path(), &["pack", "packed"]).starts_with("packed: is packed already"));
}

#[test]
fn a_checkpoint_without_ternary_weights() {
    let folder = folder();
    let tensors = files::network().into_iter().filter(|(name, _)| name.starts_with("first")).collect();
    files::write_safetensors(&folder.path().join("latent.safetensors"), &tensors, None);
    let sentence = error(folder.path(), &["pack", "latent.safetensors"]);
    assert!(sentence.starts_with("latent.safetensors: none of its 1 tensors is ternary"), "{sentence}");
    assert!(!folder.path().join("latent.ttq.safetensors").exists());
    assert!(text(folder.path(), &["inspect", "latent.safetensors"]).contains("more than three values"));
}

#[test]
fn an_output_that_is_there_already() {
    let folder = folder();
    for arguments in [&["pack", "net.pt", "-o", "old"][..], &["unpack", "packed", "-o", "old"]] {
        fs::write(folder.path().join("old"), "old").unwrap();
        let sentence = error(folder.path(), arguments);
        assert!(sentence.starts_with("old: is there already") && sentence.contains("--force"), "{sentence}");
        assert_eq!(fs::read(folder.path().join("old")).unwrap(), b"old");
        text(folder.path(), &[arguments, &["--force"]].concat());
        assert_ne!(fs::read(folder.path().join("old")).unwrap(), b"old");
    }
}

#[test]
fn an_output_that_cannot_be_written() {
    let folder = folder();
    fs::create_dir(folder.path().join("dir")).unwrap();
    let sentence = error(folder.path(), &["pack", "net.pt", "-o", "absent/out"]);
    assert!(sentence.starts_with("absent/out: cannot be written: there is no folder absent"), "{sentence}");
    let sentence = error(folder.path(), &["unpack", "packed", "-o", "dir", "--force"]);
    assert!(sentence.starts_with("dir: is a folder"), "{sentence}");
}

#[test]
fn a_key_that_leads_nowhere() {
    let folder = folder();
    let sentence = error(folder.path(), &["pack", "net.pt", "--key", "model"]);
    assert!(sentence.starts_with("net.pt: ") && sentence.contains("has no dictionary `model`"), "{sentence}");
    let sentence = error(folder.path(), &["pack", "net.safetensors", "--key", "model"]);
    assert!(sentence.starts_with("net.safetensors: --key is for PyTorch checkpoints"), "{sentence}");
}

#[test]
fn two_tensors_that_would_have_one_name() {
    let folder = folder();
    let mut tensors = files::network();
    tensors.insert("conv.weight.codes".into(), tensors["fc.bias"].clone());
    files::write_safetensors(&folder.path().join("twice.safetensors"), &tensors, None);
    let sentence = error(folder.path(), &["pack", "twice.safetensors"]);
    assert_eq!(sentence, "twice.safetensors: `conv.weight.codes` is there twice");
}

#[test]
fn wrong_arguments_have_the_exit_code_two() {
    let folder = folder();
    for arguments in [&["inspect"][..], &["compress", "net.pt"], &["pack", "net.pt", "--layout", "keras"]] {
        assert_eq!(ttq(folder.path(), arguments).status.code(), Some(2));
    }
}
