//! Every output of a command is a valid input of the next.

use std::fs;
use std::path::Path;

use serde_json::json;
use ttq_packed::file::Dtype;
use ttq_packed::{DenseTensor, PackedModel};

use crate::{files, json, text};

/// Returns the network with its float tensors in another type.
fn network_in(dtype: Dtype) -> files::Tensors {
    let convert = |tensor: DenseTensor| {
        let Ok(values) = tensor.to_f32() else { return tensor };
        let bytes = |value: &f32| match dtype {
            Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
            // Truncated: ternary values stay ternary.
            Dtype::BF16 => value.to_le_bytes()[2..].to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        DenseTensor::new(dtype, tensor.shape(), values.iter().flat_map(bytes).collect()).unwrap()
    };
    files::network().into_iter().map(|(name, tensor)| (name, convert(tensor))).collect()
}

/// Runs `pack`, `inspect`, `verify` and both kinds of `unpack` on a file, and all of them again on each output.
fn chain(directory: &Path, checkpoint: &str, options: &[&str]) {
    text(directory, &[&["pack", checkpoint, "-o", "packed", "--force"], options].concat());
    text(directory, &["verify", "packed"]);
    let weights = json(directory, &["inspect", "packed"])["weights"].clone();
    assert!(weights.as_array().is_some_and(|weights| weights.len() == 2), "{checkpoint}");
    let packed = files::packed(&directory.join("packed"));
    for arguments in [&["unpack", "packed"][..], &["unpack", "packed", "--integers"]] {
        text(directory, &[arguments, &["-o", "unpacked", "--force"]].concat());
        assert_eq!(json(directory, &["inspect", "unpacked"])["weights"], weights, "{checkpoint} {arguments:?}");
        text(directory, &["pack", "unpacked", "-o", "again", "--force"]);
        let again = files::packed(&directory.join("again"));
        assert_eq!(again.weights, packed.weights, "{checkpoint} {arguments:?}");
        assert_eq!(again.config, packed.config, "{checkpoint} {arguments:?}");
        text(directory, &["verify", "again"]);
    }
}

#[test]
fn every_output_of_a_command_is_a_valid_input_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    files::write_burnpack(&path("burn.bpk"));
    files::write_pytorch(&path("old.pt"), &files::floats(), None);
    files::write_pytorch_zip(&path("new.pt"), &files::floats());
    files::write_safetensors(&path("pytorch.safetensors"), &files::network(), Some(("config", "{\"layers\": 2}")));
    files::write_safetensors(&path("burn.safetensors"), &files::network(), Some(("producer", "burn")));
    files::write_safetensors(&path("f64.safetensors"), &network_in(Dtype::F64), None);
    files::write_safetensors(&path("bf16.safetensors"), &network_in(Dtype::BF16), None);
    let checkpoints = ["burn.bpk", "old.pt", "new.pt", "pytorch.safetensors", "burn.safetensors", "f64.safetensors"];
    for checkpoint in checkpoints.into_iter().chain(["bf16.safetensors"]) {
        chain(directory.path(), checkpoint, &[]);
    }
    chain(directory.path(), "burn.safetensors", &["--half", "--archive"]);
}

#[test]
fn unpack_gives_float32_and_the_output_axes_of_the_packed_file() {
    let directory = tempfile::tempdir().unwrap();
    let model = files::floats();
    // With one pair of scales, the values do not show which axis the output channels have.
    let fc = DenseTensor::from_f32([2, 3], &[1.0, 0.0, -2.0, 1.0, 0.0, 1.0]).unwrap();
    let tensors = model.into_iter().chain([("burn.weight".to_owned(), fc)]).collect();
    files::write_safetensors(&directory.path().join("net.safetensors"), &tensors, Some(("producer", "burn")));
    text(directory.path(), &["pack", "net.safetensors", "--half"]);
    text(directory.path(), &["unpack", "net.ttq.safetensors"]);
    let floats = files::read_safetensors(&directory.path().join("net.float.safetensors")).tensors;
    assert!(floats.values().all(|tensor| tensor.dtype() == Dtype::F32));
    text(directory.path(), &["pack", "net.float.safetensors", "-o", "again"]);
    let PackedModel { weights, .. } = files::packed(&directory.path().join("again"));
    assert_eq!(weights["burn.weight"].output_axis(), 1);
}

#[test]
fn equal_models_give_equal_bytes_with_any_number_of_metadata_entries() {
    let directory = tempfile::tempdir().unwrap();
    files::write_safetensors(&directory.path().join("net.safetensors"), &files::network(), Some(("config", "{}")));
    text(directory.path(), &["pack", "net.safetensors"]);
    let mut outputs = Vec::new();
    for _ in 0..8 {
        text(directory.path(), &["unpack", "net.ttq.safetensors", "--force"]);
        outputs.push(fs::read(directory.path().join("net.float.safetensors")).unwrap());
    }
    assert!(files::read_safetensors(&directory.path().join("net.float.safetensors")).metadata.len() > 1);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
}

#[test]
fn names_with_control_characters_are_escaped_on_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let name = "a\n\u{1b}[31m\u{9b}weight";
    let tensors: files::Tensors = [(name.to_owned(), files::network()["conv.weight"].clone())].into();
    files::write_safetensors(&directory.path().join("net.safetensors"), &tensors, None);
    for arguments in [&["inspect", "net.safetensors"][..], &["pack", "net.safetensors", "--force"]] {
        let output = text(directory.path(), arguments);
        assert!(output.contains(r"a\n\u{1b}[31m\u{9b}weight"), "{output}");
        let parsed = json(directory.path(), arguments);
        assert_eq!(parsed["weights"][0]["name"], json!(name));
        for output in [output, text(directory.path(), &[arguments, &["--json"]].concat())] {
            assert!(output.chars().all(|character| character == '\n' || !character.is_control()), "{output:?}");
        }
    }
}

#[test]
fn bitnet_codes_in_bytes_are_refused_with_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let codes = DenseTensor::new(Dtype::U8, [2, 4], vec![0b10_01_00_10; 8]).unwrap();
    let scale = DenseTensor::from_f32([1], &[0.5]).unwrap();
    let tensors: files::Tensors = [("a.weight".to_owned(), codes), ("a.weight_scale".to_owned(), scale)].into();
    files::write_safetensors(&directory.path().join("net.safetensors"), &tensors, None);
    let message = crate::error(directory.path(), &["pack", "net.safetensors"]);
    assert!(message.contains("`a.weight` holds 2-bit codes in bytes with the scale `a.weight_scale`"), "{message}");
    let reason = &json(directory.path(), &["inspect", "net.safetensors"])["not_ternary"][0]["reason"];
    assert!(reason.as_str().unwrap().starts_with("2-bit codes in bytes"), "{reason}");
}
