//! Writes small checkpoints in every format, without the original frameworks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use ttq_packed::file::{Container, Dtype};
use ttq_packed::{DenseTensor, PackedModel};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Tensors of a checkpoint.
pub(crate) type Tensors = BTreeMap<String, DenseTensor>;

/// Scales of `conv.weight`.
pub(crate) const CONV: [f32; 2] = [0.1, 0.3];
/// Scales of `fc.weight`, one pair per output channel along axis 0.
pub(crate) const FC: [[f32; 2]; 2] = [[1.5, 0.25], [2.5, 0.0]];

/// Returns the tensors of a network: a ternary convolution with 36 zeros among 72 weights, a ternary linear weight with
/// scales per output channel, and tensors that are not ternary.
pub(crate) fn network() -> Tensors {
    let conv: Vec<f32> = (0..72).map(|i| [0.0, CONV[0], 0.0, -CONV[1]][i % 4]).collect();
    let fc = [1.5, 1.5, 0.0, -0.25, 0.0, 1.5, 2.5, 0.0, 2.5, 0.0, 0.0, 2.5];
    let first: Vec<f32> = (0..24).map(|i| (i as f32).sin()).collect();
    let count = DenseTensor::new(Dtype::I64, [], 7_i64.to_le_bytes().to_vec()).unwrap();
    [
        ("conv.weight", DenseTensor::from_f32([2, 4, 3, 3], &conv).unwrap()),
        ("fc.weight", DenseTensor::from_f32([2, 6], &fc).unwrap()),
        ("fc.bias", DenseTensor::from_f32([2], &[0.1, 70000.0]).unwrap()),
        ("first.weight", DenseTensor::from_f32([4, 6], &first).unwrap()),
        ("embedding.weight", DenseTensor::from_f32([3, 4], &[1.0; 12]).unwrap()),
        ("norm.count", count),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

/// Returns the float32 tensors of the network.
pub(crate) fn floats() -> Tensors {
    network().into_iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32).collect()
}

/// Writes a safetensors file with at most one metadata entry.
pub(crate) fn write_safetensors(path: &Path, tensors: &Tensors, metadata: Option<(&str, &str)>) {
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    fs::write(path, Container { tensors: tensors.clone(), metadata }.write().unwrap()).unwrap();
}

/// Writes the network as a burnpack file, as the writer of burn-store 0.21 wrote it.
pub(crate) fn write_burnpack(path: &Path) {
    fs::write(path, include_bytes!("burn-0.21.bpk")).unwrap();
}

/// Writes float tensors as a PyTorch file in the format before version 1.6. With a `prefix`, they are in a dictionary
/// of that name.
pub(crate) fn write_pytorch(path: &Path, tensors: &Tensors, prefix: Option<&str>) {
    let mut keys = b"\x80\x02](".to_vec();
    let mut storages = Vec::new();
    for (key, tensor) in tensors.values().enumerate() {
        pickle_string(&mut keys, &key.to_string());
        storages.extend((tensor.as_bytes().len() as u64 / 4).to_le_bytes());
        storages.extend(tensor.as_bytes());
    }
    keys.extend(b"e.");
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02\x4d\xe9\x03.";
    let system = b"\x80\x02}.";
    let main = pickle_tensors(tensors, prefix, b"N");
    fs::write(path, [&magic[..], version, system, &main, &keys, &storages].concat()).unwrap();
}

/// Writes float tensors as a PyTorch file in the zip format of version 1.6 and later.
pub(crate) fn write_pytorch_zip(path: &Path, tensors: &Tensors) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        archive.start_file(name, options).unwrap();
        archive.write_all(bytes).unwrap();
    };
    entry("archive/data.pkl".into(), &pickle_tensors(tensors, None, b""));
    tensors.values().enumerate().for_each(|(key, tensor)| entry(format!("archive/data/{key}"), tensor.as_bytes()));
    archive.finish().unwrap();
}

/// Returns a pickled dictionary of tensors with one numbered storage per tensor. `view` is the pickled view metadata of
/// a storage, which only the format before version 1.6 has.
fn pickle_tensors(tensors: &Tensors, prefix: Option<&str>, view: &[u8]) -> Vec<u8> {
    let mut main = b"\x80\x02}".to_vec();
    if let Some(prefix) = prefix {
        pickle_string(&mut main, prefix);
        main.push(b'}');
    }
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let shape = tensor.shape();
        pickle_string(&mut main, name);
        main.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle_string(&mut main, "storage");
        main.extend(b"ctorch\nFloatStorage\n");
        pickle_string(&mut main, &key.to_string());
        pickle_string(&mut main, "cpu");
        pickle_integer(&mut main, shape.iter().product());
        main.extend(view);
        main.extend(b"tQ");
        pickle_integer(&mut main, 0);
        main.push(b'(');
        shape.iter().for_each(|&dim| pickle_integer(&mut main, dim));
        main.extend(b"t(");
        (0..shape.len()).for_each(|axis| pickle_integer(&mut main, shape[axis + 1..].iter().product()));
        main.extend(b"t\x89}tRs");
    }
    main.extend(if prefix.is_some() { &b"s."[..] } else { b"." });
    main
}

fn pickle_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'X');
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn pickle_integer(bytes: &mut Vec<u8>, number: usize) {
    bytes.push(b'J');
    bytes.extend((number as i32).to_le_bytes());
}

/// Loads a packed file.
pub(crate) fn packed(path: &Path) -> PackedModel {
    PackedModel::load(path).unwrap()
}

/// Reads tensors and metadata of a safetensors file.
pub(crate) fn read_safetensors(path: &Path) -> Container {
    Container::read(&fs::read(path).unwrap()).unwrap()
}
