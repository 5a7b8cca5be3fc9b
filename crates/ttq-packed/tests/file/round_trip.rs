//! Round trips of models through files.

use fastrand::Rng;
use ttq_packed::{Codes, Coding, DenseTensor, FileError, PackedModel, TensorLayout, TernaryWeight, file};

use crate::random;

#[test]
fn random_models_round_trip_in_both_codings() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..500 {
        let model = random::model(&mut rng);
        for coding in [Coding::Plain, Coding::Archive] {
            let file = model.write(coding).unwrap();
            assert_eq!(PackedModel::read(&file).unwrap(), model);
            assert_eq!(model.write(coding).unwrap(), file, "equal models give equal bytes");
        }
    }
}

#[test]
fn each_weight_can_have_its_own_coding() {
    let mut rng = Rng::with_seed(2);
    let mut model = PackedModel::default();
    for name in ["first", "second"] {
        model.weights.insert(name.into(), random::weight(&mut rng, &[64, 64], 0.9, false));
    }
    let file = model
        .write_with(|name, weight| match name {
            "second" if weight.sparsity() > 0.5 => Coding::Archive,
            _ => Coding::Plain,
        })
        .unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.tensor("first.codes").unwrap().data(), model.weights["first"].codes().as_bytes());
    assert!(tensors.tensor("second.codes").unwrap().data().len() < 1024 / 2);
    assert_eq!(PackedModel::read(&file).unwrap(), model);
}

#[test]
fn a_weight_that_an_archive_does_not_shrink_is_plain() {
    let mut model = PackedModel::default();
    model.weights.insert("small".into(), random::weight(&mut Rng::with_seed(3), &[3, 3], 0.5, false));
    let weight = &model.weights["small"];
    assert_eq!(weight.bits_per_weight(Coding::Archive), weight.bits_per_weight(Coding::Plain));
    assert_eq!(model.write(Coding::Archive).unwrap(), model.write(Coding::Plain).unwrap());
}

#[test]
fn the_safetensors_crate_reads_the_file() {
    let model = random::model(&mut Rng::with_seed(4));
    let file = model.write(Coding::Plain).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.len(), 2 * model.weights.len() + model.tensors.len());
    for (name, weight) in &model.weights {
        let codes = tensors.tensor(&format!("{name}.codes")).unwrap();
        assert_eq!(codes.data(), weight.codes().as_bytes());
        let scales = tensors.tensor(&format!("{name}.scales")).unwrap();
        assert_eq!(scales.shape(), [weight.scales().len(), 2]);
        let bytes: Vec<u8> = weight.scales().as_flattened().iter().flat_map(|scale| scale.to_le_bytes()).collect();
        assert_eq!(scales.data(), bytes);
    }
}

#[test]
fn a_file_rewritten_by_another_tool_is_the_same_model() {
    let model = random::model(&mut Rng::with_seed(5));
    let file = model.write(Coding::Plain).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let mut entries = metadata.metadata().clone().unwrap();
    entries.insert("origin".into(), "elsewhere".into());
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let again = safetensors::serialize(tensors.iter(), Some(entries)).unwrap();
    assert_eq!(PackedModel::read(&again).unwrap(), model);
}

#[test]
fn the_layout_is_read_as_it_is_written() {
    for layout in [TensorLayout::Burn, TensorLayout::Pytorch] {
        let model = PackedModel { layout, ..random::model(&mut Rng::with_seed(5)) };
        assert_eq!(PackedModel::read(&model.write(Coding::Plain).unwrap()).unwrap(), model);
    }
}

/// Returns the bits per ternary weight of a plain file with such layers, including header and scales.
fn bits_in_a_file(shapes: impl IntoIterator<Item = Vec<usize>>, per_channel: bool) -> f64 {
    let mut model = PackedModel::default();
    for (index, shape) in shapes.into_iter().enumerate() {
        let weight = random::weight(&mut Rng::with_seed(6), &shape, 0.5, per_channel);
        model.weights.insert(format!("stages.{index}.conv.weight"), weight);
    }
    let weights: usize = model.weights.values().map(|weight| weight.codes().len()).sum();
    let bits = model.write(Coding::Plain).unwrap().len() as f64 * 8.0 / weights as f64;
    println!("{weights} weights, per channel: {per_channel}, {bits:.3} bits per weight");
    bits
}

#[test]
fn plain_files_take_at_most_2_1_bits_per_weight() {
    // The layers of ResNet-18 for ImageNet: four 3x3 layers of each width.
    let resnet = || [64, 128, 256, 512].into_iter().flat_map(|width| vec![vec![width, width, 3, 3]; 4]);
    assert!(bits_in_a_file(resnet(), false) <= 2.1);
    assert!(bits_in_a_file(resnet(), true) <= 2.1);
    assert!(bits_in_a_file([vec![256, 256]], false) <= 2.1);
    assert!(bits_in_a_file([vec![1024, 1024]], true) <= 2.1);
}

#[test]
fn the_header_of_a_small_network_takes_a_seventh_of_a_bit_per_weight() {
    // The layers of ResNet-20 for CIFAR-10: six 3x3 layers of each width, 16 to 64. The header takes about 260 bytes
    // per layer, compared with 576 bytes of codes in the smallest layers.
    let resnet = [16, 32, 64].into_iter().flat_map(|width| vec![vec![width, width, 3, 3]; 6]);
    assert!(bits_in_a_file(resnet, false) <= 2.0 + 1.0 / 7.0);
    let smallest = random::weight(&mut Rng::with_seed(6), &[16, 16, 3, 3], 0.5, false);
    assert!(smallest.bits_per_weight(Coding::Plain) <= 2.1, "codes and scales without the header");
}

#[test]
fn float16_tensors_remain_float16() {
    let tensor = DenseTensor::from_f32([2], &[1.5, -0.25]).unwrap().to_f16().unwrap();
    let model = PackedModel { tensors: [("bias".to_string(), tensor)].into(), ..Default::default() };
    let read = PackedModel::read(&model.write(Coding::Plain).unwrap()).unwrap();
    assert_eq!(read.tensors["bias"].as_bytes().len(), 4);
    assert_eq!(read.tensors["bias"].to_f32().unwrap(), [1.5, -0.25]);
}

#[test]
fn saving_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut rng = Rng::with_seed(7);
    for coding in [Coding::Plain, Coding::Archive] {
        let model = random::model(&mut rng);
        model.save(&path, coding).unwrap();
        assert_eq!(PackedModel::load(&path).unwrap(), model);
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_failed_save_keeps_the_existing_path_and_removes_the_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    // The rename fails, because a file cannot replace a directory that is not empty.
    let path = folder.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("old"), "old").unwrap();
    let error = PackedModel::default().save(&path, Coding::Plain).unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
    assert_eq!(std::fs::read(path.join("old")).unwrap(), b"old");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_writer_that_fails_leaves_the_old_file_whole_and_no_other_file_behind() {
    use std::io::{Error, ErrorKind, Write};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::write(&path, "old").unwrap();
    let full = || Error::from(ErrorKind::StorageFull);
    // The disk is full at once, after some bytes, and when the last buffered bytes are written.
    for written in [0, 1, 100_000] {
        let result = file::write_atomically(&path, |file| {
            file.write_all(&vec![b'n'; written])?;
            Err(full())
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    }
    let write = |_: &mut dyn Write| panic!("serialization fails");
    std::panic::catch_unwind(|| file::write_atomically(&path, write)).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_leaves_the_old_file_whole_and_no_other_file_behind() {
    // A limit of the size of files has the effect of a full disk, here within the last flush. It applies to the whole
    // process, so a child is limited: this test starts itself.
    const LIMITED: &str = "TTQ_TEST_LIMITED_FILE";
    if let Ok(path) = std::env::var(LIMITED) {
        let result = file::write_atomically(path, |file| file.write_all(&[b'n'; 5000]));
        assert!(result.is_err(), "the file is larger than the limit");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::write(&path, "old").unwrap();
    let name = "round_trip::a_disk_that_is_full_leaves_the_old_file_whole_and_no_other_file_behind";
    let status = std::process::Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(LIMITED, &path)
        .stdout(std::process::Stdio::null())
        .status();
    let Ok(status) = status else { return println!("skipped: there is no bash") };
    if matches!(status.code(), Some(126 | 127)) {
        return println!("skipped: this test cannot start itself, as under an emulator");
    }
    assert!(status.success());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_file_that_a_killed_process_has_left_does_not_hinder_saving() {
    let folder = tempfile::tempdir().unwrap();
    for call in 0..50 {
        std::fs::write(folder.path().join(format!(".{}-{call}.part", std::process::id())), "part").unwrap();
    }
    let path = folder.path().join("m".repeat(255));
    file::write_atomically(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn equal_models_give_equal_bytes() {
    for coding in [Coding::Plain, Coding::Archive] {
        let bytes = || {
            let mut model = random::model(&mut Rng::with_seed(9));
            model.config = Some("{}".into());
            model.write(coding).unwrap()
        };
        let first = bytes();
        assert!((0..4).all(|_| bytes() == first));
        // Also after a file was read.
        assert_eq!(PackedModel::read(&first).unwrap().write(coding).unwrap(), first);
    }
}

#[test]
fn saving_to_a_missing_directory_fails_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("model.safetensors");
    let error = PackedModel::default().save(&path, Coding::Plain).unwrap_err();
    assert!(matches!(error, FileError::Io { action: "write", .. }), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn dequantized_weights_round_trip_bit_for_bit() {
    let codes = Codes::pack(&[1, -1, 0, 1]).unwrap();
    let weight = TernaryWeight::new(codes, [[0.1, f32::MIN_POSITIVE / 2.0]], [4], 0).unwrap();
    let model = PackedModel { weights: [("w".to_string(), weight)].into(), ..Default::default() };
    let read = PackedModel::read(&model.write(Coding::Plain).unwrap()).unwrap();
    let bits = |model: &PackedModel| model.weights["w"].dequantize().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(&read), bits(&model));
}

#[test]
fn tensors_and_stored_codings_can_be_read_without_a_model() {
    let mut rng = Rng::with_seed(8);
    let mut model = random::model(&mut rng);
    model.weights.clear();
    model.weights.insert("small".into(), random::weight(&mut rng, &[2, 3], 0.5, false));
    model.weights.insert("large".into(), random::weight(&mut rng, &[64, 64], 0.9, true));
    let file = model.write(Coding::Archive).unwrap();
    let file::Container { tensors, metadata } = file::Container::read(&file).unwrap();
    assert_eq!(tensors.len(), model.tensors.len() + 4);
    assert!(model.tensors.iter().all(|(name, tensor)| tensors[name] == *tensor));
    assert_eq!(metadata.keys().collect::<Vec<_>>(), [file::METADATA_KEY]);
    let stored = file::stored_codes(&file).unwrap();
    assert_eq!(stored["small"], (Coding::Plain, 2), "an archive that is not smaller is stored as plain codes");
    assert_eq!(stored["large"], (Coding::Archive, tensors["large.codes"].as_bytes().len()));
    assert!(stored["large"].1 < 64 * 64 / 4);
}
