//! Every kind of invalid file has its own error.

use fastrand::Rng;
use ttq_packed::archive::ArchiveError;
use ttq_packed::file::{TensorError, WeightError};
use ttq_packed::{Codes, CodesError, Coding, DenseTensor, Dtype, FileError, PackedModel, TernaryWeight};

use crate::forge::{assemble, edit, open, repair_checksum};
use crate::random;

/// Returns a model with a weight of 6 codes and one pair of scales, and a bias.
///
/// The order in the file is `bias`, `w.scales`, `w.codes`.
fn model() -> PackedModel {
    let codes = Codes::pack(&[1, 0, -1, 0, 0, 1]).unwrap();
    let weight = TernaryWeight::new(codes, [[0.5, 0.75]], [2, 3], 1).unwrap();
    let bias = DenseTensor::from_f32([3], &[1.0, 2.0, 3.0]).unwrap();
    PackedModel {
        weights: [("w".to_string(), weight)].into(),
        tensors: [("bias".to_string(), bias)].into(),
        config: Some("{}".into()),
        ..PackedModel::default()
    }
}

fn file() -> Vec<u8> {
    model().write(Coding::Plain).unwrap()
}

/// Changes the data of the file and repairs the checksum.
fn with_data(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (header, mut data) = open(&file()).unwrap();
    change(&mut data);
    repair_checksum(assemble(&header, &data))
}

#[track_caller]
fn error(file: &[u8]) -> FileError {
    PackedModel::read(file).expect_err("the file is invalid")
}

/// Asserts that reading returns the expected error and that its message contains the evidence.
macro_rules! assert_error {
    ($file:expr, $pattern:pat $(if $guard:expr)? $(, $evidence:literal)* $(,)?) => {
        let error = error(&$file);
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        $(assert!(error.to_string().contains($evidence), "`{}` is not in `{error}`", $evidence);)*
    };
}

#[test]
fn a_truncated_file_is_rejected() {
    let file = file();
    let len = file.len() as u64;
    assert_error!([], FileError::Truncated { expected: 8, found: 0 }, "0 bytes");
    assert_error!(file[..7], FileError::Truncated { expected: 8, found: 7 }, "7 bytes");
    assert_error!(file[..100], FileError::Truncated { found: 100, .. }, "cut off");
    assert_error!(file[..file.len() - 1], FileError::OutOfBounds { .. }, "w.codes", "20..22 of 21");
    assert!((0..len).all(|end| PackedModel::read(&file[..end as usize]).is_err()));
}

#[test]
fn bytes_after_the_last_tensor_are_rejected() {
    let longer = [file(), vec![0; 3]].concat();
    assert_error!(longer, FileError::Unclaimed { bytes: 3, offset: 25 }, "3 bytes");
}

#[test]
fn a_header_length_beyond_the_file_is_rejected() {
    let mut file = file();
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_error!(file, FileError::Truncated { expected: u64::MAX, .. }, "18446744073709551615");
}

#[test]
fn a_header_that_is_not_a_json_object_is_rejected() {
    assert_error!(assemble("{\"a\":", &[]), FileError::Header { .. }, "not a safetensors header");
    assert_error!(assemble("[]", &[]), FileError::Header { .. }, "an object");
    assert_error!(assemble(&"[".repeat(100_000), &[]), FileError::Header { .. });
    assert_error!(assemble(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]), FileError::Header { .. });
    let mut file = file();
    file[20] = 0xff;
    assert_error!(file, FileError::Header { .. });
}

#[test]
fn a_header_entry_that_does_not_describe_a_tensor_is_rejected() {
    let file = file();
    assert_error!(edit(&file, "\"U8\"", "\"U9\""), FileError::Entry { .. }, "w.codes", "U9");
    assert_error!(edit(&file, "\"shape\":[3]", "\"shape\":[-3]"), FileError::Entry { .. }, "bias", "-3");
    assert_error!(edit(&file, "\"shape\":[3]", "\"shape\":[1e300]"), FileError::Entry { .. }, "bias");
    assert_error!(edit(&file, "\"shape\":[3],", ""), FileError::Entry { .. }, "bias", "shape");
}

#[test]
fn a_duplicate_tensor_is_rejected() {
    let file = edit(&file(), "\"bias\":", "\"w.codes\":");
    assert_error!(file, FileError::Duplicate { name } if name == "w.codes", "w.codes", "twice");
}

#[test]
fn a_duplicate_metadata_key_is_rejected() {
    let file = edit(&file(), "{\"ttq-packed\":", "{\"ttq-packed\":\"\",\"ttq-packed\":");
    assert_error!(file, FileError::Duplicate { name } if name == "ttq-packed");
}

#[test]
fn a_duplicate_weight_is_rejected() {
    let layout = r#"\"w\":{\"shape\":[2,3],\"output_axis\":1,\"coding\":\"plain\"}"#;
    let file = edit(&file(), layout, &format!("{layout},{layout}"));
    assert_error!(file, FileError::Duplicate { name } if name == "w");
}

#[test]
fn a_tensor_with_the_name_of_a_weight_is_rejected() {
    let file = edit(&file(), "\"bias\":", "\"w\":");
    assert_error!(file, FileError::Duplicate { name } if name == "w");
}

#[test]
fn overlapping_tensors_are_rejected() {
    let file = edit(&file(), "[12,20]", "[8,16]");
    assert_error!(file, FileError::Overlap { start: 8, end: 12, .. }, "w.scales");
}

#[test]
fn a_gap_between_tensors_is_rejected() {
    let (header, mut data) = open(&file()).unwrap();
    data.extend([0; 4]);
    let file = assemble(&header.replace("[20,22]", "[24,26]"), &data);
    assert_error!(file, FileError::Unclaimed { bytes: 4, offset: 24 }, "4 bytes");
}

#[test]
fn offsets_that_are_reversed_or_out_of_range_are_rejected() {
    let file = file();
    let backwards = FileError::OutOfBounds { name: "w.codes".into(), start: 22, end: 20, len: 22 };
    assert_eq!(error(&edit(&file, "[20,22]", "[22,20]")).to_string(), backwards.to_string());
    let beyond = "[18446744073709551615,18446744073709551615]";
    assert_error!(edit(&file, "[20,22]", beyond), FileError::OutOfBounds { start: usize::MAX, .. }, "w.codes");
    assert_error!(edit(&file, "[20,22]", "[20,18446744073709551616]"), FileError::Entry { .. }, "w.codes");
}

#[test]
fn lengths_that_add_up_to_more_than_64_bits_are_rejected() {
    // These eight lengths and the header exceed 2^64 bytes. Version 0.7.0 of safetensors adds them without a check.
    let length = (1u64 << 61) - 1;
    let offsets = |i: u64| format!("[{},{}]", i * length, (i + 1) * length);
    let entry = |i| format!(r#""t{i}":{{"dtype":"U8","shape":[{length}],"data_offsets":{}}}"#, offsets(i));
    let entries: Vec<String> = (0..8).map(entry).collect();
    assert_error!(assemble(&format!("{{{}}}", entries.join(",")), &[]), FileError::OutOfBounds { .. }, "t0", "of 0");
}

#[test]
fn a_shape_that_overflows_is_rejected() {
    let file = edit(&file(), "\"shape\":[3]", "\"shape\":[4294967296,4294967296,3]");
    assert_error!(file, FileError::Tensor { cause: TensorError::Shape { .. }, .. }, "bias", "4294967296");
}

#[test]
fn a_shape_that_needs_more_bytes_is_rejected() {
    let file = edit(&file(), "\"shape\":[3]", "\"shape\":[4]");
    let expected = TensorError::Length { dtype: Dtype::F32, shape: vec![4], expected: 16, found: 12 };
    assert_error!(file, FileError::Tensor { cause, .. } if *cause == expected, "bias", "16", "12");
}

#[test]
fn a_file_without_the_metadata_key_is_rejected() {
    let tensors =
        safetensors::serialize([("a", safetensors::tensor::TensorView::new(Dtype::U8, vec![1], &[7]).unwrap())], None);
    assert_error!(tensors.unwrap(), FileError::UnknownFormat, "ttq-packed");
    assert_error!(edit(&file(), "{\"ttq-packed\":", "{\"ttq_packed\":"), FileError::UnknownFormat,);
}

#[test]
fn another_format_version_is_rejected() {
    // A future version with unknown fields.
    let file = edit(&file(), r#"{\"version\":1,"#, r#"{\"version\":2,\"new\":[],"#);
    assert_error!(file, FileError::Version { found: 2 }, "version 2", "update");
}

#[test]
fn an_invalid_description_is_rejected() {
    let file = file();
    assert_error!(edit(&file, r#"{\"version\":1,"#, ""), FileError::Description { .. });
    assert_error!(edit(&file, r#"\"config\":"#, r#"\"konfig\":"#), FileError::Description { .. }, "konfig");
    assert_error!(edit(&file, r#"\"output_axis\":1"#, r#"\"output_axis\":-1"#), FileError::Description { .. }, "-1");
    assert_error!(edit(&file, r#"\"plain\""#, r#"\"huffman\""#), FileError::Description { .. }, "huffman");
}

#[test]
fn missing_codes_or_scales_are_rejected() {
    let file = file();
    assert_error!(edit(&file, "\"w.codes\":", "\"v.codes\":"), FileError::Missing { .. }, "w.codes");
    assert_error!(edit(&file, "\"w.scales\":", "\"v.scales\":"), FileError::Missing { .. }, "w.scales");
}

#[test]
fn codes_and_scales_of_the_wrong_type_are_rejected() {
    let file = file();
    let codes = edit(&file, "\"U8\"", "\"I8\"");
    assert_error!(codes, FileError::Dtype { expected: Dtype::U8, found: Dtype::I8, .. }, "w.codes", "I8");
    let scales = edit(&file, "\"dtype\":\"F32\",\"shape\":[1,2]", "\"dtype\":\"I32\",\"shape\":[1,2]");
    assert_error!(scales, FileError::Dtype { expected: Dtype::F32, found: Dtype::I32, .. }, "w.scales");
}

#[test]
fn codes_and_scales_of_the_wrong_shape_are_rejected() {
    let file = file();
    assert_error!(edit(&file, "\"shape\":[1,2]", "\"shape\":[2]"), FileError::Shape { .. }, "w.scales", "[groups, 2]");
    assert_error!(edit(&file, "\"shape\":[1,2]", "\"shape\":[2,1]"), FileError::Shape { .. }, "w.scales", "[2, 1]");
    assert_error!(edit(&file, "\"shape\":[2]", "\"shape\":[2,1]"), FileError::Shape { .. }, "w.codes");
}

#[test]
fn every_flipped_bit_of_the_data_is_detected() {
    let (header, data) = open(&file()).unwrap();
    for bit in 0..8 * data.len() {
        let mut data = data.clone();
        data[bit / 8] ^= 1 << (bit % 8);
        assert_error!(assemble(&header, &data), FileError::Checksum { .. }, "damaged");
    }
}

#[test]
fn changes_that_only_the_checksum_detects_are_rejected() {
    let change = |from: &str, to: &str| {
        let (header, data) = open(&file()).unwrap();
        assert!(header.contains(from));
        assemble(&header.replacen(from, to, 1), &data)
    };
    assert_error!(change(r#"\"config\":\"{}\""#, r#"\"config\":\"[]\""#), FileError::Checksum { .. },);
    assert_error!(change("\"bias\"", "\"gain\""), FileError::Checksum { .. },);
    assert_error!(change(r#"\"output_axis\":1"#, r#"\"output_axis\":0"#), FileError::Checksum { .. },);
    assert_error!(change(r#"\"shape\":[2,3]"#, r#"\"shape\":[3,2]"#), FileError::Checksum { .. },);
    assert_error!(change("\"F32\",\"shape\":[3]", "\"I32\",\"shape\":[3]"), FileError::Checksum { .. },);
    assert_error!(change("\"shape\":[3]", "\"shape\":[3,1]"), FileError::Checksum { .. },);
    assert_error!(change(r#"\"crc32\":\""#, r#"\"crc32\":\"0"#), FileError::Checksum { .. },);
}

#[test]
fn the_unused_code_is_rejected() {
    let file = with_data(|data| data[20] |= 0b11 << 4);
    assert_error!(
        file,
        FileError::Weight { cause: WeightError::Codes(CodesError::UnusedCode { index: 2 }), .. },
        "`w`",
        "0b11"
    );
}

#[test]
fn padding_other_than_zeros_is_rejected() {
    let file = with_data(|data| data[21] = 0b01_10_10_01);
    assert_error!(file, FileError::Weight { cause: WeightError::Codes(CodesError::Padding { .. }), .. }, "`w`");
}

#[test]
fn scales_that_are_nan_infinite_or_negative_are_rejected() {
    for (at, value, name) in [(12, f32::NAN, "w_pos"), (16, f32::INFINITY, "w_neg"), (16, -0.5, "w_neg")] {
        let file = with_data(|data| data[at..at + 4].copy_from_slice(&value.to_le_bytes()));
        let error = error(&file);
        assert!(matches!(error, FileError::Weight { cause: WeightError::Scale { group: 0, .. }, .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("{name} {value}")), "{error}");
    }
}

#[test]
fn a_shape_that_does_not_match_the_codes_is_rejected() {
    let file = file();
    let shape = |to: &str| edit(&file, r#"\"shape\":[2,3]"#, &format!(r#"\"shape\":{to}"#));
    assert_error!(
        shape("[3,3]"),
        FileError::Weight { cause: WeightError::Codes(CodesError::Length { .. }), .. },
        "`w`"
    );
    let absurd = shape("[4294967296,4294967296]");
    assert_error!(absurd, FileError::Weight { cause: WeightError::Shape { .. }, .. }, "4294967296");
    let empty = shape("[0,4294967296,4294967296]");
    assert_error!(empty, FileError::Weight { cause: WeightError::Shape { .. }, .. }, "4294967296");
    let large = shape("[1099511627776]");
    assert_error!(
        large,
        FileError::Weight { cause: WeightError::Codes(CodesError::Length { .. }), .. },
        "1099511627776"
    );
    let axis = edit(&file, r#"\"output_axis\":1"#, r#"\"output_axis\":7"#);
    assert_error!(axis, FileError::Weight { cause: WeightError::OutputAxis { output_axis: 7, .. }, .. }, "axis 7");
}

#[test]
fn scales_that_do_not_match_the_output_channels_are_rejected() {
    let codes = Codes::pack(&[0; 6]).unwrap();
    let weight = TernaryWeight::new(codes, [[1.0, 2.0]; 3], [2, 3], 1).unwrap();
    let model = PackedModel { weights: [("w".to_string(), weight)].into(), ..Default::default() };
    let file = edit(&model.write(Coding::Plain).unwrap(), r#"\"output_axis\":1"#, r#"\"output_axis\":0"#);
    assert_error!(
        file,
        FileError::Weight { cause: WeightError::Groups { found: 3, channels: 2 }, .. },
        "`w`",
        "3 pairs"
    );
}

#[test]
fn an_archive_with_too_many_values_per_byte_is_rejected() {
    let mut model = PackedModel::default();
    model.weights.insert("w".into(), random::weight(&mut Rng::with_seed(1), &[4096], 0.9, false));
    let file = model.write(Coding::Archive).unwrap();
    let bomb = edit(&file, r#"\"shape\":[4096]"#, r#"\"shape\":[1099511627776]"#);
    assert_error!(
        bomb,
        FileError::Archive { cause: ArchiveError::Ratio { .. }, .. },
        "`w`",
        "1099511627776",
        "at most 256"
    );
    let shorter = edit(&file, r#"\"shape\":[4096]"#, r#"\"shape\":[4095]"#);
    assert_error!(shorter, FileError::Archive { cause: ArchiveError::End { .. }, .. }, "`w`");
}

#[test]
fn reserved_and_duplicate_names_are_rejected_when_writing() {
    let bias = || DenseTensor::from_f32([], &[1.0]).unwrap();
    let write = |name: &str| {
        let mut model = model();
        model.tensors.insert(name.into(), bias());
        model.write(Coding::Plain).unwrap_err()
    };
    assert!(matches!(write("__metadata__"), FileError::Name { .. }));
    for name in ["w", "w.codes", "w.scales"] {
        assert!(matches!(write(name), FileError::Duplicate { name: found } if found == name));
    }
}

#[test]
fn the_error_of_a_missing_file_names_it() {
    let error = PackedModel::load("no/such/model.safetensors").unwrap_err();
    assert!(matches!(error, FileError::Io { action: "read", .. }));
    assert!(error.to_string().contains("no/such/model.safetensors"), "{error}");
}
