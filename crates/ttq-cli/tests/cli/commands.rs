//! Tests of every command on a small network.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use ttq_packed::file::{Container, Dtype};
use ttq_packed::{Codes, Coding, PackedModel, TernaryWeight};

use crate::files::{self, CONV, FC};
use crate::{error, json, text};

/// Creates a directory with the checkpoint `net.safetensors` and its packed file `net.ttq.safetensors`.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    files::write_safetensors(&directory.path().join("net.safetensors"), &files::network(), None);
    text(directory.path(), &["pack", "net.safetensors"]);
    directory
}

#[test]
fn pack_keeps_scales_exactly_and_other_tensors_unchanged() {
    let directory = directory();
    let model = files::packed(&directory.path().join("net.ttq.safetensors"));
    let network = files::network();
    assert_eq!(model.weights.keys().collect::<Vec<_>>(), ["conv.weight", "fc.weight"]);
    assert_eq!(model.weights["conv.weight"].scales(), [CONV]);
    assert_eq!((model.weights["fc.weight"].scales(), model.weights["fc.weight"].output_axis()), (&FC[..], 0));
    for (name, weight) in &model.weights {
        assert_eq!(weight.dequantize(), network[name].to_f32().unwrap());
    }
    assert_eq!(model.tensors.len(), 4);
    assert!(model.tensors.iter().all(|(name, tensor)| *tensor == network[name]));
    let names: BTreeSet<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["net.safetensors", "net.ttq.safetensors"].map(Into::into).into(), "a temporary file is left");
}

#[cfg(unix)]
#[test]
fn permissions_of_output_files_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;

    let directory = directory();
    fs::write(directory.path().join("reference"), "").unwrap();
    let mode = |name| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("net.ttq.safetensors"), mode("reference"));
}

#[test]
fn pack_lists_packed_weights_and_the_reasons_for_other_tensors() {
    let directory = directory();
    let output = json(directory.path(), &["pack", "net.safetensors", "-o", "again.safetensors"]);
    assert_eq!((&output["checkpoint"], &output["output"]), (&json!("net.safetensors"), &json!("again.safetensors")));
    assert_eq!(output["format"], "safetensors");
    assert_eq!(output["checkpoint_bytes"], fs::metadata(directory.path().join("net.safetensors")).unwrap().len());
    let reasons = json!([
        { "name": "embedding.weight", "shape": [3, 4], "dtype": "F32", "reason": "all values are equal" },
        { "name": "first.weight", "shape": [4, 6], "dtype": "F32", "reason": "more than three values" },
    ]);
    assert_eq!(output["not_ternary"], reasons);
    let table = text(directory.path(), &["pack", "net.safetensors", "-o", "third.safetensors"]);
    for part in ["conv.weight", "2×4×3×3", "50.0 %", "0.30000", "1.5000..2.5000", "more than three values"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn half_converts_other_float_tensors_to_float16_if_they_are_in_range() {
    let directory = directory();
    text(directory.path(), &["pack", "net.safetensors", "--half", "-o", "half.safetensors"]);
    let model = files::packed(&directory.path().join("half.safetensors"));
    let dtypes = ["embedding.weight", "fc.bias", "first.weight", "norm.count"].map(|name| model.tensors[name].dtype());
    assert_eq!(
        dtypes,
        [Dtype::F16, Dtype::F32, Dtype::F16, Dtype::I64],
        "the bias contains 70000, the maximum of float16 is 65504"
    );
}

#[test]
fn archive_codes_large_weights_at_about_their_entropy() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = 1_u32;
    let values: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, -0.25][(state >> 29) as usize]
    })
    .take(128 * 128)
    .collect();
    let tensor = ttq_packed::DenseTensor::from_f32([128, 128], &values).unwrap();
    files::write_safetensors(&directory.path().join("net.safetensors"), &[("w".to_owned(), tensor)].into(), None);
    let output = json(directory.path(), &["pack", "net.safetensors", "--archive"]);
    let weight = &output["weights"][0];
    assert_eq!(weight["coding"], "archive");
    let (bits, entropy) = (weight["bits"].as_f64().unwrap(), weight["entropy_bits"].as_f64().unwrap());
    assert!(bits < 1.02 * entropy && bits > entropy, "{bits} bits, entropy {entropy}");
    assert_eq!(output["total"]["archive_bits"], weight["bits"]);
    assert_eq!(output["total"]["plain_bits"], 2.0 + 8.0 * 8.0 / f64::from(128 * 128));
    assert_eq!(files::packed(&directory.path().join("net.ttq.safetensors")).weights["w"].dequantize(), values);
}

#[test]
fn inspect_shows_statistics_of_a_packed_file() {
    let directory = directory();
    let file = directory.path().join("net.ttq.safetensors");
    let output = json(directory.path(), &["inspect", "net.ttq.safetensors"]);
    assert_eq!((&output["file"], &output["format"]), (&json!("net.ttq.safetensors"), &json!("ttq-packed")));
    let size = fs::metadata(&file).unwrap().len();
    assert_eq!(output["file_bytes"], size);
    let conv = json!({
        "name": "conv.weight", "shape": [2, 4, 3, 3], "output_axis": 0, "coding": "plain", "elements": 72,
        "negative": 18, "zero": 36, "positive": 18, "sparsity": 0.5, "scales": [[0.1, 0.3]], "entropy_bits": 1.5,
        "bits": 8.0 * 26.0 / 72.0, "bytes": 26, "two_bit_bytes": 26, "float32_bytes": 288, "warnings": [],
    });
    assert_eq!(output["weights"][0], conv);
    assert_eq!(output["weights"][1]["scales"], json!(FC));
    let header = u64::from_le_bytes(fs::read(&file).unwrap()[..8].try_into().unwrap()) + 8;
    // The other tensors have 24 + 12 + 2 floats and one 64-bit integer. The weights have 84 values.
    assert_eq!(output["other"], json!({ "tensors": 4, "elements": 39, "bytes": 160, "float32_bytes": 160 }));
    let total = &output["total"];
    assert_eq!((&total["weights"], &total["elements"]), (&json!(2), &json!(84)));
    assert_eq!((&total["packed_bytes"], &total["header_bytes"]), (&json!(size), &json!(header)));
    assert_eq!((&total["float32_bytes"], &total["ratio"]), (&json!(496), &json!(496.0 / size as f64)));
    assert_eq!((&total["sparsity"], &total["equal_scales"]), (&json!(41.0 / 84.0), &json!(0)));
}

#[test]
fn inspect_shows_a_checkpoint_as_pack_would_pack_it() {
    let directory = directory();
    let checkpoint = json(directory.path(), &["inspect", "net.safetensors"]);
    let packed = json(directory.path(), &["inspect", "net.ttq.safetensors"]);
    assert_eq!(checkpoint["format"], "safetensors");
    for field in ["weights", "not_ternary", "other", "total", "warnings"] {
        assert_eq!(checkpoint[field], packed[field]);
    }
}

fn weight(values: &[i8], pair: [f32; 2]) -> TernaryWeight {
    TernaryWeight::new(Codes::pack(values).unwrap(), [pair], [values.len()], 0).unwrap()
}

fn inspect(directory: &Path, weights: &[(&str, TernaryWeight)]) -> (Value, String) {
    let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), weight.clone())).collect();
    PackedModel { weights, ..PackedModel::default() }.save(directory.join("w.safetensors"), Coding::Plain).unwrap();
    (json(directory, &["inspect", "w.safetensors"]), text(directory, &["inspect", "w.safetensors"]))
}

#[test]
fn inspect_warns_about_all_zero_and_one_sided_weights() {
    let directory = tempfile::tempdir().unwrap();
    let dead = ("dead", weight(&[0, 0, 0], [1.0, 2.0]));
    let negative = ("negative", weight(&[0, -1, 0], [1.0, 2.0]));
    let (output, text) = inspect(directory.path(), &[dead, ("fine", weight(&[0, 1, -1], [1.0, 2.0])), negative]);
    let warnings = output["weights"].as_array().unwrap().iter().map(|weight| &weight["warnings"]);
    assert_eq!(warnings.collect::<Vec<_>>(), [&json!(["all_zero"]), &json!([]), &json!(["one_sided"])]);
    assert!(text.contains("warning: dead is all zero") && text.contains("warning: negative is one-sided"), "{text}");
}

#[test]
fn inspect_explains_equal_scales_in_every_layer() {
    let directory = tempfile::tempdir().unwrap();
    let rounded = ("rounded", weight(&[0, 1, -1], [0.23085201, 0.23085245]));
    let equal = ("equal", weight(&[0, 1, -1], [1.0, 1.0]));
    let dead = ("dead", weight(&[0, 0, 0], [0.0, 0.0]));
    let (output, text) = inspect(directory.path(), &[rounded.clone(), equal.clone(), dead]);
    assert_eq!((&output["warnings"], &output["total"]["equal_scales"]), (&json!(["equal_scales"]), &json!(2)));
    assert!(text.contains("W_p = W_n in every layer: with the published sign of the W_n gradient"), "{text}");
    let (output, text) = inspect(directory.path(), &[rounded, equal, ("apart", weight(&[0, 1, -1], [1.0, 1.001]))]);
    assert_eq!((&output["warnings"], &output["total"]["equal_scales"]), (&json!([]), &json!(2)));
    assert!(text.contains("W_p = W_n in 2 of 3 weights") && !text.contains("every layer"), "{text}");
}

#[test]
fn unpack_restores_the_tensors_of_the_checkpoint() {
    let directory = directory();
    for arguments in [&["pack", "net.safetensors", "--archive", "--force"][..], &["pack", "net.safetensors", "--force"]]
    {
        text(directory.path(), arguments);
        let output = json(directory.path(), &["unpack", "net.ttq.safetensors", "--force"]);
        let path = directory.path().join("net.float.safetensors");
        assert_eq!(files::read_safetensors(&path).tensors, files::network());
        let expected = json!({
            "file": "net.ttq.safetensors", "output": "net.float.safetensors", "integers": false, "weights": 2, "tensors": 6,
            "output_bytes": fs::metadata(path).unwrap().len(), "notes": [],
        });
        assert_eq!(output, expected);
    }
}

#[test]
fn unpack_writes_integer_codes_and_scales() {
    let directory = directory();
    let output = json(directory.path(), &["unpack", "net.ttq.safetensors", "--integers"]);
    assert_eq!(output["output"], "net.integers.safetensors");
    let Container { tensors, metadata } = files::read_safetensors(&directory.path().join("net.integers.safetensors"));
    let codes = &tensors["fc.weight.codes"];
    assert_eq!((codes.dtype(), codes.shape()), (Dtype::I8, &[2, 6][..]));
    let integers: Vec<i8> = codes.as_bytes().iter().map(|&byte| byte as i8).collect();
    assert_eq!(integers, [1, 1, 0, -1, 0, 1, 1, 0, 1, 0, 0, 1]);
    assert_eq!(tensors["fc.weight.scales"].shape(), [2, 2]);
    assert_eq!(tensors["fc.weight.scales"].to_f32().unwrap(), FC.concat());
    assert_eq!(tensors["conv.weight.codes"].shape(), [2, 4, 3, 3]);
    assert_eq!(tensors["conv.weight.scales"].to_f32().unwrap(), CONV);
    assert_eq!(tensors["fc.bias"], files::network()["fc.bias"]);
    let axes: Value = serde_json::from_str(&metadata["ttq-integers"]).unwrap();
    assert_eq!(axes, json!({ "output_axis": { "conv.weight": 0, "fc.weight": 0 } }));
}

#[test]
fn unpack_and_pack_keep_the_configuration() {
    let directory = directory();
    let mut model = files::packed(&directory.path().join("net.ttq.safetensors"));
    model.config = Some("{\"layers\": 20}".into());
    model.save(directory.path().join("a.safetensors"), Coding::Plain).unwrap();
    text(directory.path(), &["unpack", "a.safetensors", "-o", "b.safetensors"]);
    text(directory.path(), &["pack", "b.safetensors", "-o", "c.safetensors"]);
    assert_eq!(files::packed(&directory.path().join("c.safetensors")), model);
    text(directory.path(), &["unpack", "a.safetensors", "--integers", "-o", "d.safetensors"]);
    let Container { metadata, .. } = files::read_safetensors(&directory.path().join("d.safetensors"));
    let description: Value = serde_json::from_str(&metadata["ttq-integers"]).unwrap();
    assert_eq!(description["config"], "{\"layers\": 20}");
}

#[test]
fn verify_accepts_a_valid_file() {
    let directory = directory();
    let output = json(directory.path(), &["verify", "net.ttq.safetensors"]);
    let file = fs::read(directory.path().join("net.ttq.safetensors")).unwrap();
    let expected = json!({
        "file": "net.ttq.safetensors", "version": 1, "crc32": ttq_packed::file::checksum(&file).unwrap(), "weights": 2,
        "tensors": 4, "file_bytes": file.len(),
    });
    assert_eq!(output, expected);
    assert!(text(directory.path(), &["verify", "net.ttq.safetensors"]).starts_with("net.ttq.safetensors: valid"));
}

/// Collects the names of all fields at any depth.
pub(crate) fn fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            names.insert(name.clone());
            fields(value, names);
        }),
        Value::Array(values) => values.iter().for_each(|value| fields(value, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_output_is_documented() {
    let directory = directory();
    let mut names = BTreeSet::new();
    fields(&json(directory.path(), &["inspect", "net.ttq.safetensors"]), &mut names);
    fields(&json(directory.path(), &["pack", "net.safetensors", "-o", "a"]), &mut names);
    fields(&json(directory.path(), &["unpack", "net.ttq.safetensors"]), &mut names);
    fields(&json(directory.path(), &["verify", "net.ttq.safetensors"]), &mut names);
    files::write_burnpack(&directory.path().join("net.bpk"));
    fields(&json(directory.path(), &["convert", "net.bpk", "-o", "b"]), &mut names);
    assert!(names.len() > 35, "{names:?}");
    assert_documented(&names);
}

#[track_caller]
pub(crate) fn assert_documented(names: &BTreeSet<String>) {
    let documentation = include_str!("../../OUTPUT.md");
    for name in names {
        let spellings = [format!("`{name}`"), format!("`{name}[]`")];
        assert!(spellings.iter().any(|spelling| documentation.contains(spelling)), "{name} is not documented");
    }
}

#[test]
fn help_lists_every_command_and_option() {
    let directory = tempfile::tempdir().unwrap();
    let help = text(directory.path(), &["--help"]);
    for command in
        ["inspect", "pack", "unpack", "convert", "verify", "run", "bench", "export", "web", "--json", "Exit code"]
    {
        assert!(help.contains(command), "{command} is not in\n{help}");
    }
    let pack = text(directory.path(), &["pack", "--help"]);
    for option in ["--output", "--force", "--archive", "--half", "--key", "--layout", "[in, out]"] {
        assert!(pack.contains(option), "{option} is not in\n{pack}");
    }
    let run = text(directory.path(), &["run", "--help"]);
    for option in [
        "--input",
        "--output",
        "[default: print the largest",
        "--mean",
        "--std",
        "--int8",
        "--threads",
        "--batch",
        "--top",
    ] {
        assert!(run.contains(option), "{option} is not in\n{run}");
    }
}

#[test]
fn report_and_compare_reject_directories_without_a_run() {
    let directory = directory();
    fs::create_dir(directory.path().join("empty")).unwrap();
    for command in [&["report", "empty"][..], &["compare", "empty"], &["report", "missing"]] {
        let message = error(directory.path(), command);
        assert!(message.contains(command[1]), "{message}");
    }
}
