//! What is written is read.

use fastrand::Rng;
use ttq_packed::{Codes, Coding, DenseTensor, PackedModel, TernaryWeight, file};

use crate::random;

#[test]
fn any_model_comes_back_from_either_coding() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..500 {
        let model = random::model(&mut rng);
        for coding in [Coding::Plain, Coding::Archive] {
            let file = model.write(coding).unwrap();
            assert_eq!(PackedModel::read(&file).unwrap(), model);
            assert_eq!(model.write(coding).unwrap(), file, "the same model gives the same bytes");
        }
    }
}

#[test]
fn the_coding_is_chosen_for_each_weight() {
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
fn an_archive_that_saves_nothing_is_plain() {
    let mut model = PackedModel::default();
    model.weights.insert("small".into(), random::weight(&mut Rng::with_seed(3), &[3, 3], 0.5, false));
    let weight = &model.weights["small"];
    assert_eq!(weight.bits_per_weight(Coding::Archive), weight.bits_per_weight(Coding::Plain));
    assert_eq!(model.write(Coding::Archive).unwrap(), model.write(Coding::Plain).unwrap());
}

#[test]
fn the_safetensors_crate_reads_what_is_written() {
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
fn a_file_written_again_by_another_tool_is_the_same_model() {
    let model = random::model(&mut Rng::with_seed(5));
    let file = model.write(Coding::Plain).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let mut entries = metadata.metadata().clone().unwrap();
    entries.insert("format".into(), "pt".into());
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let again = safetensors::serialize(tensors.iter(), Some(entries)).unwrap();
    assert_eq!(PackedModel::read(&again).unwrap(), model);
}

/// Bits a ternary weight takes in a plain file of such layers, header and scales included.
fn bits_in_a_file(shapes: impl IntoIterator<Item = Vec<usize>>, per_channel: bool) -> f64 {
    let mut model = PackedModel::default();
    for (index, shape) in shapes.into_iter().enumerate() {
        let weight = random::weight(&mut Rng::with_seed(6), &shape, 0.5, per_channel);
        model.weights.insert(format!("stages.{index}.conv.weight"), weight);
    }
    let weights: usize = model.weights.values().map(|weight| weight.codes().len()).sum();
    let bits = model.write(Coding::Plain).unwrap().len() as f64 * 8.0 / weights as f64;
    println!("{weights} weights, per channel: {per_channel}, {bits:.3} bits each");
    bits
}

#[test]
fn plain_files_take_at_most_2_1_bits_a_weight() {
    // Networks for ImageNet: four 3x3 layers of each width, as in ResNet-18.
    let resnet = || [64, 128, 256, 512].into_iter().flat_map(|width| vec![vec![width, width, 3, 3]; 4]);
    assert!(bits_in_a_file(resnet(), false) <= 2.1);
    assert!(bits_in_a_file(resnet(), true) <= 2.1);
    assert!(bits_in_a_file([vec![256, 256]], false) <= 2.1);
    assert!(bits_in_a_file([vec![1024, 1024]], true) <= 2.1);
}

#[test]
fn the_header_of_small_networks_costs_a_seventh_of_a_bit() {
    // ResNet-20 for CIFAR-10: six 3x3 layers of each width, 16 to 64. A header of some 260 bytes a layer shows in layers of 576 bytes.
    let resnet = [16, 32, 64].into_iter().flat_map(|width| vec![vec![width, width, 3, 3]; 6]);
    assert!(bits_in_a_file(resnet, false) <= 2.0 + 1.0 / 7.0);
    let smallest = random::weight(&mut Rng::with_seed(6), &[16, 16, 3, 3], 0.5, false);
    assert!(smallest.bits_per_weight(Coding::Plain) <= 2.1, "codes and scales alone");
}

#[test]
fn float16_tensors_stay_float16() {
    let tensor = DenseTensor::from_f32([2], &[1.5, -0.25]).unwrap().to_f16().unwrap();
    let model = PackedModel { tensors: [("bias".to_string(), tensor)].into(), ..Default::default() };
    let read = PackedModel::read(&model.write(Coding::Plain).unwrap()).unwrap();
    assert_eq!(read.tensors["bias"].as_bytes().len(), 4);
    assert_eq!(read.tensors["bias"].to_f32().unwrap(), [1.5, -0.25]);
}

#[test]
fn a_saved_model_is_loaded_and_leaves_no_other_file() {
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
fn a_failed_save_keeps_the_old_file_and_names_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    // A folder of that name, not empty, cannot be replaced by a file.
    let path = folder.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("old"), "old").unwrap();
    let error = PackedModel::default().save(&path, Coding::Plain).unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
    assert_eq!(std::fs::read(path.join("old")).unwrap(), b"old");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn dequantized_weights_survive_the_file_bit_for_bit() {
    let codes = Codes::pack(&[1, -1, 0, 1]).unwrap();
    let weight = TernaryWeight::new(codes, [[0.1, f32::MIN_POSITIVE / 2.0]], [4], 0).unwrap();
    let model = PackedModel { weights: [("w".to_string(), weight)].into(), ..Default::default() };
    let read = PackedModel::read(&model.write(Coding::Plain).unwrap()).unwrap();
    let bits = |model: &PackedModel| model.weights["w"].dequantize().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(&read), bits(&model));
}

#[test]
fn codes_and_tensors_of_a_file_are_told_without_its_model() {
    let mut rng = Rng::with_seed(8);
    let mut model = random::model(&mut rng);
    model.weights.clear();
    model.weights.insert("small".into(), random::weight(&mut rng, &[2, 3], 0.5, false));
    model.weights.insert("large".into(), random::weight(&mut rng, &[64, 64], 0.9, true));
    let file = model.write(Coding::Archive).unwrap();
    let file::Container { tensors, metadata } = file::Container::read(&file).unwrap();
    assert_eq!(tensors.len(), model.tensors.len() + 4);
    assert!(model.tensors.iter().all(|(name, tensor)| tensors[name] == *tensor));
    assert_eq!(metadata.keys().collect::<Vec<_>>(), [file::KEY]);
    let stored = file::stored_codes(&file).unwrap();
    assert_eq!(stored["small"], (Coding::Plain, 2), "an archive that is no smaller is none");
    assert_eq!(stored["large"], (Coding::Archive, tensors["large.codes"].as_bytes().len()));
    assert!(stored["large"].1 < 64 * 64 / 4);
}
