//! Files that other people's tools wrote, if the environment variable `TTQ_CASES` names their folder: exit code, message
//! and values of `ttq pack` and `ttq inspect`.

use std::fs;
use std::path::{Path, PathBuf};

use ttq_packed::file::Container;

use crate::{error, files, text, ttq};

/// Files that `pack` refuses, with parts of the message.
const REFUSED: &[(&str, &[&str])] = &[
    ("bitnet_u8.safetensors", &["2-bit codes in bytes", "weight_scale"]),
    ("complex.pt", &["tensor `c` is complex"]),
    ("expanded_huge.pt", &["tensor `w` has the shape [2097152, 2097152]", "memory"]),
    ("quantized.pt", &["tensor `q` is quantized", "dequantize"]),
    ("sparse.pt", &["tensor `s` is sparse", "to_dense"]),
    ("st_duplicate_key.safetensors", &["`a.weight` occurs twice"]),
    ("st_empty.safetensors", &["none of its 0 tensors"]),
    ("st_header_array.safetensors", &["is not a safetensors"]),
    ("st_header_length_huge.safetensors", &["bytes instead of at least"]),
    ("st_header_not_utf8.safetensors", &["header"]),
    ("st_html.safetensors", &["is not a safetensors"]),
    ("st_leading_spaces_header.safetensors", &["is not a safetensors"]),
    ("st_lfs_pointer.safetensors", &["is not a safetensors"]),
    ("st_metadata_nested.safetensors", &["`__metadata__` is invalid"]),
    ("st_metadata_number.safetensors", &["`__metadata__` is invalid"]),
    ("st_offsets_float.safetensors", &["`a.weight` is invalid"]),
    ("st_offsets_negative.safetensors", &["`a.weight` is invalid"]),
    ("st_offsets_overlap.safetensors", &["the header is damaged"]),
    ("st_offsets_swapped.safetensors", &["truncated or damaged"]),
    ("st_offsets_three.safetensors", &["`a.weight` is invalid"]),
    ("st_seven_bytes.safetensors", &["is not a safetensors"]),
    ("st_shape_larger_than_offsets.safetensors", &["tensor `a.weight`", "needs 4000000 bytes"]),
    ("st_shape_overflow.safetensors", &["tensor `a.weight`", "overflows"]),
    ("st_trailing_bytes.safetensors", &["belong to no tensor"]),
    ("st_trailing_garbage.safetensors", &["belong to no tensor"]),
    ("st_unknown_dtype.safetensors", &["tensor `a.weight`"]),
    ("st_zero_bytes.safetensors", &["is not a safetensors"]),
    ("whole_model.pt", &["whole module (torch.nn.modules.container.Sequential)", "state_dict()"]),
    ("zip_offset_200.pt", &["is damaged", "tensor `w`", "offset 200"]),
    ("zip_storage_empty.pt", &["is damaged", "tensor `w`", "0 bytes instead of 1024"]),
    ("zip_storage_missing.pt", &["is damaged", "tensor `w`", "missing"]),
    ("zip_storage_short.pt", &["is damaged", "tensor `w`", "400 bytes instead of 1024"]),
];

/// Files that `inspect` shows although `pack` refuses them.
const SHOWN: &[&str] =
    &["bitnet_u8.safetensors", "complex.pt", "expanded_huge.pt", "quantized.pt", "sparse.pt", "st_empty.safetensors"];

/// Files with the same tensors as a reference.
const REFERENCES: &[(&str, &[&str])] = &[
    ("ref_channels_last", &["channels_last.pt", "channels_last_legacy.pt"]),
    ("ref_channels_last_per_channel", &["channels_last_per_channel.pt"]),
    ("ref_expanded", &["expanded.pt"]),
    ("ref_legacy_views", &["legacy_views.pt"]),
    ("ref_parameter", &["parameter.pt"]),
    (
        "ref_protocol",
        &[
            "protocol2.pt",
            "protocol3.pt",
            "protocol4.pt",
            "zip_big_endian.pt",
            "zip_deflated.pt",
            "zip_extra_files.pt",
            "zip_no_folder.pt",
            "zip_resaved.pt",
        ],
    ),
    ("ref_sliced_view", &["sliced_view.pt"]),
    ("ref_tied", &["tied.pt"]),
];

/// Names of the tensors of files whose containers are lists, wrappers or several models.
const NAMES: &[(&str, &[&str])] = &[
    ("list.pt", &["tuple.0", "weights.0", "weights.1"]),
    ("list_and_dict.pt", &["a", "weights.0", "weights.1"]),
    ("rootlist.pt", &["0", "1"]),
    ("roottensor.pt", &["tensor"]),
    ("nested_model.pt", STATE),
    ("nested_model_state_dict.pt", STATE),
    ("nested_module.pt", STATE),
    ("nested_net.pt", STATE),
    ("nested_objects.pt", STATE),
    ("nested_state_dict.pt", STATE),
    ("state_dict.pt", STATE),
    ("extra_adam_one_param.pt", &["w"]),
    ("extra_rng.pt", &["w"]),
    ("extra_numpy_array.pt", &["w"]),
    ("extra_namespace.pt", &["w"]),
];
const STATE: &[&str] =
    &["0.bias", "0.weight", "1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight"];

/// Returns the paths of the files.
fn cases() -> Option<Vec<PathBuf>> {
    let Some(folder) = std::env::var_os("TTQ_CASES") else {
        eprintln!("skipped: set TTQ_CASES to a folder with files of other tools");
        return None;
    };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("TTQ_CASES is a folder").map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pt" || extension == "safetensors"));
    paths.sort();
    Some(paths)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap()
}

#[test]
fn every_file_of_other_tools_is_packed_or_refused_with_what_is_wrong() {
    let Some(cases) = cases() else { return };
    let directory = tempfile::tempdir().unwrap();
    for path in &cases {
        let (name, path) = (name(path), path.to_str().unwrap());
        let inspect = ttq(directory.path(), &["inspect", path]);
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
        match refused {
            Some((_, parts)) => {
                let message = error(directory.path(), &["pack", path, "-o", "out", "--force"]);
                assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
                assert!(!ttq(directory.path(), &["convert", path, "-o", "out", "--force"]).status.success(), "{name}");
                assert_eq!(inspect.status.success(), SHOWN.contains(&name), "{name}");
            }
            // References hold float weights too, of which some have none that is ternary.
            None if name.starts_with("ref_") => assert!(inspect.status.success(), "{name}"),
            None => {
                let output = text(directory.path(), &["pack", path, "-o", "out", "--force"]);
                assert!(output.chars().all(|character| character == '\n' || !character.is_control()), "{name}");
                assert!(inspect.status.success(), "{name}");
                text(directory.path(), &["verify", "out"]);
            }
        }
    }
}

#[test]
fn values_of_the_files_of_other_tools_are_those_of_pytorch() {
    let Some(cases) = cases() else { return };
    let directory = tempfile::tempdir().unwrap();
    let unpacked = |file: &str| -> Option<Container> {
        let path = cases.iter().find(|path| name(path) == file)?;
        text(directory.path(), &["pack", path.to_str()?, "-o", "out", "--force"]);
        text(directory.path(), &["unpack", "out", "-o", "floats", "--force"]);
        Some(files::read_safetensors(&directory.path().join("floats")))
    };
    for (reference, names) in REFERENCES {
        let expected = cases.iter().find(|path| path.file_stem().is_some_and(|stem| stem == *reference)).unwrap();
        let expected = files::read_safetensors(expected).tensors;
        for file in *names {
            assert_eq!(unpacked(file).unwrap().tensors, expected, "{file}");
            let path = cases.iter().find(|path| name(path) == *file).and_then(|path| path.to_str()).unwrap();
            if path.ends_with(".pt") {
                text(directory.path(), &["convert", path, "-o", "floats", "--force"]);
                let converted = files::read_safetensors(&directory.path().join("floats")).tensors;
                assert_eq!(converted, expected, "{file}");
            }
        }
    }
    for (file, names) in NAMES {
        let tensors = unpacked(file).unwrap().tensors;
        assert_eq!(tensors.keys().map(String::as_str).collect::<Vec<_>>(), *names, "{file}");
    }
    for (file, tensors) in [("two_models.pt", "model"), ("float8.pt", "f8")] {
        let output = unpacked(file).unwrap().tensors;
        assert!(output.keys().any(|name| name.starts_with(tensors)), "{file}: {:?}", output.keys());
    }
}
