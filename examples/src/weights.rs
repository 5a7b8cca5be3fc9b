//! Networks in files: safetensors, burnpack, PyTorch and packed ones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::prelude::Backend;
use burn_store::{
    ApplyResult, BurnpackStore, KeyRemapper, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, SafetensorsStore,
};
use ttq_core::Ternary;
use ttq_core::packed;
use ttq_inference::pytorch;
use ttq_packed::file::{Container, write_atomically};
use ttq_packed::{Coding, DenseTensor, Dtype, FileError, PackedModel};
use ttq_pytorch::Escaped;

use crate::RunConfig;
use crate::data::PackedText;
use crate::model::{Classifier, GptConfig, Network};

/// Writes a trained network with two bits per ternary weight, and with its configuration in JSON.
pub(crate) fn pack<B: Backend, N: Network<B>>(
    ternary: &Ternary<B, Classifier<B, N>>,
    config: String,
    path: &Path,
) -> Result<()>
where
    Classifier<B, N>: Module<B>,
{
    let packed = packed::pack(ternary)?;
    // The names are those of the network, without the classifier around it.
    let inner = |name: String| name.strip_prefix("network.").map_or(name.clone(), String::from);
    let network = PackedModel {
        weights: packed.weights.into_iter().map(|(name, weight)| (inner(name), weight)).collect(),
        tensors: packed.tensors.into_iter().map(|(name, tensor)| (inner(name), tensor)).collect(),
        config: Some(config),
        layout: packed.layout,
    };
    network.save(path, Coding::Plain).with_context(|| format!("cannot write the packed network to {}", path.display()))
}

/// Writes a network as safetensors, atomically. Equal networks give equal files.
///
/// # Errors
/// A file that cannot be written.
pub fn save<B: Backend, M: Module<B>>(network: &M, path: &Path) -> Result<()> {
    let bytes = to_bytes(network)?;
    write_atomically(path, |file| file.write_all(&bytes))
        .with_context(|| format!("cannot write the network to {}", path.display()))
}

/// Returns the contents of a network's safetensors file.
///
/// # Errors
/// A parameter that the format does not have.
pub fn to_bytes<B: Backend, M: Module<B>>(network: &M) -> Result<Vec<u8>> {
    // The store writes several entries of metadata in random order, and equal networks must give equal files.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().metadata("producer", "burn");
    let bytes = network.save_into(&mut store).and_then(|()| store.get_bytes());
    bytes.map_err(|error| anyhow!("the network does not fit a safetensors file: {error}"))
}

/// Loads a network from a file: safetensors, packed or not, burnpack or PyTorch. `key` is the entry of a PyTorch file that
/// holds the network. All floats become float32.
///
/// # Errors
/// A file that is missing, damaged or that of another network.
pub fn load<B: Backend, N: Network<B>>(network: &mut N, path: &Path, key: Option<&str>) -> Result<()> {
    if !path.is_file() {
        bail!("there is no checkpoint at {}: check the path", path.display());
    }
    let unreadable = || format!("the checkpoint {} cannot be read", path.display());
    if key.is_some() && !is_pytorch(path) {
        bail!("{} is no PyTorch file: omit --key", path.display());
    }
    if is_packed(path) {
        let packed = PackedModel::load(path).with_context(unreadable)?;
        let packed = pytorch::to_burn(network, packed, &N::pytorch_names()).with_context(unreadable)?;
        *network = ttq_inference::load(network.clone(), &packed).map_err(|error| {
            let tensors = packed.weights.len() + packed.tensors.len();
            let unfit = error.mismatched.len();
            let fit = tensors - error.unexpected.len() - unfit;
            // The list begins with the first difference.
            let first = error.to_string().lines().nth(1).unwrap_or_default().trim().to_owned();
            other_network(path, &first, [fit, error.missing.len(), unfit])
        })?;
        return Ok(());
    }
    if extension(path) == "bpk" {
        let mut store = BurnpackStore::from_file(path).validate(false).allow_partial(true);
        let applied = network.load_from(&mut store).map_err(|error| anyhow!("{}: {error}", unreadable()))?;
        return check(&applied, path, &[]);
    }
    let mut weights = Weights::read(path, key).with_context(unreadable)?;
    for note in &weights.notes {
        crate::print_line(format_args!("{}: {note}", path.display()));
    }
    to_float32(&mut weights.tensors).with_context(unreadable)?;
    let bytes = Container { tensors: weights.tensors, ..Container::default() }.write().with_context(unreadable)?;
    let mut apply = |names: Names| {
        let store = SafetensorsStore::from_bytes(Some(bytes.clone())).validate(false).allow_partial(true);
        // Indices in names are kept: a gap in them is not a missing layer.
        let store = store.map_indices_contiguous(false);
        let mut store = match names {
            Names::Burn => store,
            Names::Pytorch => store.with_from_adapter(PyTorchToBurnAdapter).remap(remapper::<B, N>()?),
        };
        let applied = network.load_from(&mut store).map_err(|error| anyhow!("{}: {error}", unreadable()))?;
        check(&applied, path, &weights.unread)
    };
    match weights.names {
        Some(names) => apply(names),
        // The error of Burn's names is shown: most such files are those of this project.
        None => apply(Names::Burn).or_else(|error| apply(Names::Pytorch).map_err(|_| error)),
    }
}

/// Returns the names of a checkpoint's tensors; an empty list if the file is missing or not a checkpoint.
pub fn names(path: &Path, key: Option<&str>) -> Vec<String> {
    if extension(path) == "bpk" {
        return BurnpackStore::from_file(path).keys().unwrap_or_default();
    }
    Weights::read(path, key).map(|weights| weights.tensors.into_keys().collect()).unwrap_or_default()
}

/// Returns whether the file is one of packed weights, damaged or not.
pub fn is_packed(path: &Path) -> bool {
    let unknown = |bytes: Vec<u8>| matches!(PackedModel::read(&bytes), Err(FileError::UnknownFormat));
    extension(path) == "safetensors" && std::fs::read(path).is_ok_and(|bytes| !unknown(bytes))
}

/// Returns whether the file is one of PyTorch's.
pub(crate) fn is_pytorch(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| ttq_pytorch::is_pytorch(&bytes))
}

/// Returns the extension of a file's name.
fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Names and layouts of a checkpoint's tensors.
#[derive(Debug, Clone, Copy)]
enum Names {
    Burn,
    Pytorch,
}

/// The tensors of a checkpoint.
struct Weights {
    tensors: BTreeMap<String, DenseTensor>,
    /// `None` if the file does not tell.
    names: Option<Names>,
    /// Tensors of kinds that are not read, and the reasons.
    unread: Vec<(String, String)>,
    /// What was done to find the tensors.
    notes: Vec<String>,
}

impl Weights {
    /// Reads a safetensors or PyTorch file.
    fn read(path: &Path, key: Option<&str>) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        if ttq_pytorch::is_pytorch(&bytes) {
            return Self::read_pytorch(bytes, key);
        }
        match extension(path) {
            "pt" | "pth" => bail!("it is no file of torch.save: save the state_dict of the network again"),
            "safetensors" => {}
            _ => bail!("its extension is unknown: .safetensors, .bpk, .pt and .pth are read"),
        }
        let Container { tensors, metadata } = Container::read(&bytes)?;
        let is = |key: &str, value: &str| metadata.get(key).is_some_and(|found| found == value);
        let names = match () {
            () if is("producer", "burn") => Some(Names::Burn),
            () if is("format", "pt") => Some(Names::Pytorch),
            () => None,
        };
        Ok(Self { tensors, names, unread: Vec::new(), notes: Vec::new() })
    }

    fn read_pytorch(bytes: Vec<u8>, key: Option<&str>) -> Result<Self> {
        let file = ttq_pytorch::Checkpoint::from_bytes(bytes)?;
        let model = file.model(key)?;
        if !model.models().is_empty() {
            let models: Vec<String> = model.models().iter().map(|key| format!("`{}`", Escaped(key))).collect();
            bail!("it holds several models, {}: choose one with --key", models.join(", "));
        }
        let Container { tensors, .. } = Container::read(&model.to_safetensors()?)?;
        let unread =
            model.tensors().iter().filter_map(|(name, entry)| Some((name.clone(), entry.problem()?.to_owned())));
        let unread = unread.collect();
        let notes = Some(model.to_string()).filter(|note| !note.is_empty());
        Ok(Self { tensors, names: Some(Names::Pytorch), unread, notes: notes.into_iter().collect() })
    }
}

/// Converts float tensors to float32.
fn to_float32(tensors: &mut BTreeMap<String, DenseTensor>) -> Result<()> {
    let is_other = |tensor: &DenseTensor| matches!(tensor.dtype(), Dtype::F64 | Dtype::F16 | Dtype::BF16);
    // Burn has no float8, and reading it as another type would scramble it.
    tensors.retain(|_, tensor| !matches!(tensor.dtype(), Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E8M0));
    for (name, tensor) in tensors.iter_mut().filter(|(_, tensor)| is_other(tensor)) {
        let values = tensor.to_f32().with_context(|| format!("tensor `{}`", Escaped(name)))?;
        *tensor = DenseTensor::from_f32(tensor.shape(), &values)?;
    }
    Ok(())
}

fn remapper<B: Backend, N: Network<B>>() -> Result<KeyRemapper> {
    KeyRemapper::from_patterns(N::pytorch_names()).context("a PyTorch name of this network is no regular expression")
}

fn check(applied: &ApplyResult, path: &Path, unread: &[(String, String)]) -> Result<()> {
    let unused = unused(applied);
    if applied.errors.is_empty() && applied.missing.is_empty() && unused.is_none() {
        return Ok(());
    }
    let first = match (applied.errors.first(), applied.missing.first(), unread.first()) {
        (_, Some(_), Some((name, reason))) => format!("tensor `{name}` {reason}"),
        (Some(error), ..) => error.to_string(),
        (None, Some((name, _)), None) => format!("`{name}` is missing"),
        (None, None, _) => unused.map(|name| format!("`{name}` is not in the network")).unwrap_or_default(),
    };
    Err(other_network(path, &first, [applied.applied.len(), applied.missing.len(), applied.errors.len()]))
}

/// Returns the first tensor of a file for which the network has no parameter.
fn unused(applied: &ApplyResult) -> Option<&String> {
    // PyTorch's names of normalization are `weight` and `bias`: burn-store reads them, and counts them as unused.
    let of_norm = |name: &str| {
        let parts = [(".weight", ".gamma"), (".bias", ".beta")];
        parts.into_iter().find_map(|(pytorch, burn)| Some(format!("{}{burn}", name.strip_suffix(pytorch)?)))
    };
    let is_read = |name: &str| of_norm(name).is_some_and(|name| applied.applied.contains(&name));
    // PyTorch's batch normalization counts its batches, Burn's does not.
    applied.unused.iter().find(|name| !name.ends_with(".num_batches_tracked") && !is_read(name))
}

/// Checks that the checkpoint of an option exists, and that a packed language model has the size in `config`: the number
/// of heads changes no tensor.
///
/// # Errors
/// A missing or damaged file, another size.
pub(crate) fn check_file(option: &str, path: &Path, config: &RunConfig) -> Result<()> {
    if !path.is_file() {
        bail!("there is no checkpoint at {}: check --{option}", path.display());
    }
    let Some(size) = config.gpt.filter(|_| is_packed(path)) else { return Ok(()) };
    let packed =
        PackedModel::load(path).with_context(|| format!("the checkpoint {} cannot be read", path.display()))?;
    let saved = packed.config.and_then(|config| serde_json::from_str::<PackedText>(&config).ok());
    if let Some(saved) = saved.map(|saved| saved.gpt).filter(|saved| *saved != size) {
        let [saved, size] = [saved, size].map(|GptConfig { layers, width, heads, context }| {
            format!("--layers {layers} --width {width} --heads {heads} --context {context}")
        });
        bail!("the network in {} has {saved}, and not {size}: give its size", path.display());
    }
    Ok(())
}

/// The error of a file that does not fit the network: the first difference, and the numbers of tensors that fit, that the file
/// lacks and that do not fit.
fn other_network(path: &Path, first: &str, [fit, missing, unfit]: [usize; 3]) -> anyhow::Error {
    anyhow!(
        "{} is a checkpoint of another network ({}; {fit} tensors fit, {missing} are missing, {unfit} do not fit): give one of \
         this network",
        path.display(),
        Escaped(first)
    )
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::model::{Gpt, MnistNet, ResNet};
    use burn::tensor::Tensor;

    #[test]
    fn a_network_reads_the_file_that_it_wrote_and_refuses_that_of_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.safetensors");
        let device = Default::default();
        let network = MnistNet::<Cpu>::new(10, &device);
        save(&network, &path).unwrap();
        assert!(!is_packed(&path));
        let bytes = std::fs::read(&path).unwrap();
        for _ in 0..5 {
            save(&network, &path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "equal networks give equal files");
        }
        assert!(names(&path, None).contains(&"conv2.weight".into()));
        let mut other = MnistNet::<Cpu>::new(10, &device);
        load(&mut other, &path, None).unwrap();
        let image = Tensor::<Cpu, 4>::ones([1, 1, 28, 28], &device);
        assert_eq!(other.forward(image.clone()).into_data(), network.forward(image).into_data());
        let error = load(&mut ResNet::<Cpu>::new(8, 10, &device), &path, None).unwrap_err();
        assert!(error.to_string().contains("is a checkpoint of another network"), "{error}");
        let deeper = directory.path().join("deeper.safetensors");
        let gpt = |layers| Gpt::<Cpu>::new(&GptConfig { layers, width: 8, heads: 2, context: 4 }, &device);
        save(&gpt(3), &deeper).unwrap();
        let error = load(&mut gpt(2), &deeper, None).unwrap_err().to_string();
        assert!(error.contains("is not in the network"), "{error}");
        std::fs::remove_file(deeper).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        let tensors = Container::read(&bytes).unwrap().tensors;
        PackedModel { tensors, ..PackedModel::default() }.save(&path, Coding::Plain).unwrap();
        load(&mut other, &path, None).unwrap();
        let error = load(&mut ResNet::<Cpu>::new(8, 10, &device), &path, None).unwrap_err().to_string();
        assert!(error.contains("is a checkpoint of another network (") && !error.contains('\n'), "{error}");
        let error = load(&mut other, &path, Some("model")).unwrap_err().to_string();
        assert!(error.contains("omit --key"), "{error}");
        std::fs::write(&path, &bytes[..5]).unwrap();
        let error = format!("{:#}", load(&mut other, &path, None).unwrap_err());
        assert!(error.contains("network.safetensors cannot be read") && error.contains("cut off"), "{error}");
    }

    /// Returns a network in other types, as files of PyTorch and of this project hold it.
    fn in_type(tensors: &BTreeMap<String, DenseTensor>, dtype: Dtype) -> BTreeMap<String, DenseTensor> {
        let convert = |tensor: &DenseTensor| {
            let bytes = |value: &f32| match dtype {
                Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
                // Truncated to bfloat16.
                _ => value.to_le_bytes()[2..].to_vec(),
            };
            let bytes = tensor.to_f32().unwrap().iter().flat_map(bytes).collect();
            DenseTensor::new(dtype, tensor.shape(), bytes).unwrap()
        };
        tensors.iter().map(|(name, tensor)| (name.clone(), convert(tensor))).collect()
    }

    /// A network whose values are exact in every type.
    fn rounded(path: &Path) -> BTreeMap<String, DenseTensor> {
        let mut tensors = Container::read(&std::fs::read(path).unwrap()).unwrap().tensors;
        tensors = in_type(&tensors, Dtype::BF16);
        to_float32(&mut tensors).unwrap();
        tensors
    }

    fn logits(path: &Path, key: Option<&str>) -> burn::tensor::TensorData {
        let device = Default::default();
        let mut network = MnistNet::<Cpu>::new(10, &device);
        load(&mut network, path, key).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        network.forward(Tensor::ones([2, 1, 28, 28], &device)).into_data()
    }

    #[test]
    fn every_float_type_is_cast_on_load() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        save(&MnistNet::<Cpu>::new(10, &Default::default()), &path("network.safetensors")).unwrap();
        let tensors = rounded(&path("network.safetensors"));
        let write = |name: &str, tensors: BTreeMap<String, DenseTensor>| {
            std::fs::write(path(name), Container { tensors, ..Container::default() }.write().unwrap()).unwrap();
        };
        write("f32.safetensors", tensors.clone());
        write("f64.safetensors", in_type(&tensors, Dtype::F64));
        write("bf16.safetensors", in_type(&tensors, Dtype::BF16));
        let halves = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_f16().unwrap())).collect();
        write("f16.safetensors", halves);
        let packed = PackedModel { tensors: in_type(&tensors, Dtype::F64), ..PackedModel::default() };
        packed.save(path("packed.safetensors"), Coding::Plain).unwrap();
        let expected = logits(&path("f32.safetensors"), None);
        for name in ["f64.safetensors", "bf16.safetensors", "packed.safetensors"] {
            assert_eq!(logits(&path(name), None), expected, "{name}");
        }
        let half: Vec<f32> = logits(&path("f16.safetensors"), None).iter().collect();
        assert!(expected.iter::<f32>().zip(half).all(|(full, half)| (full - half).abs() < 1e-3));
    }

    /// A file of torch.save with the network under `key`, with every matrix and filter stored column by column.
    fn write_pytorch(path: &Path, tensors: &BTreeMap<String, DenseTensor>, keys: &[&str], prefix: &str) {
        let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let int = |number: usize| [&b"J"[..], &(number as u32).to_le_bytes()].concat();
        let tuple =
            |numbers: &[usize]| [b"(".to_vec(), numbers.iter().flat_map(|&n| int(n)).collect(), b"t".to_vec()].concat();
        let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut pickle = b"\x80\x02}".to_vec();
        pickle.extend([text("epoch"), int(3), b"s".to_vec()].concat());
        for key in keys {
            pickle.extend([text(key), b"}".to_vec()].concat());
            for (index, (name, tensor)) in tensors.iter().enumerate() {
                // Burn's layout of a linear weight is the transpose of PyTorch's: the same bytes with other strides.
                let (shape, strides) = match *tensor.shape() {
                    [inputs, outputs] => (vec![outputs, inputs], vec![1, outputs]),
                    ref shape => {
                        (shape.to_vec(), (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect())
                    }
                };
                let name = name.replace("gamma", "weight").replace("beta", "bias");
                let count = tensor.shape().iter().product();
                pickle.extend(
                    [text(&format!("{prefix}{name}")), b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec()].concat(),
                );
                pickle.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&index.to_string())].concat());
                pickle
                    .extend([text("cpu"), int(count), b"tQ".to_vec(), int(0), tuple(&shape), tuple(&strides)].concat());
                pickle.extend(b"\x89)tRs");
            }
            pickle.push(b's');
        }
        pickle.push(b'.');
        let mut entry = |name: String, bytes: &[u8]| {
            archive.start_file(name, options).unwrap();
            std::io::Write::write_all(&mut archive, bytes).unwrap();
        };
        entry("net/data.pkl".into(), &pickle);
        tensors.values().enumerate().for_each(|(index, tensor)| entry(format!("net/data/{index}"), tensor.as_bytes()));
        archive.finish().unwrap();
    }

    #[test]
    fn pytorch_files_load_with_strides_wrappers_prefixes_and_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        save(&MnistNet::<Cpu>::new(10, &Default::default()), &path("network.safetensors")).unwrap();
        let tensors = rounded(&path("network.safetensors"));
        std::fs::write(
            path("f32.safetensors"),
            Container { tensors: tensors.clone(), ..Container::default() }.write().unwrap(),
        )
        .unwrap();
        let expected = logits(&path("f32.safetensors"), None);
        for (wrapper, prefix) in [("state_dict", ""), ("model", "module."), ("net", "_orig_mod.")] {
            write_pytorch(&path("network.pt"), &tensors, &[wrapper], prefix);
            assert_eq!(logits(&path("network.pt"), None), expected, "{wrapper} {prefix}");
            assert_eq!(logits(&path("network.pt"), Some(wrapper)), expected, "{wrapper} {prefix}");
            assert_eq!(names(&path("network.pt"), None).len(), tensors.len());
        }
        let mut more = tensors.clone();
        more.insert("norm.num_batches_tracked".into(), DenseTensor::from_f32([1], &[3.0]).unwrap());
        write_pytorch(&path("network.pt"), &more, &["model"], "");
        assert_eq!(logits(&path("network.pt"), None), expected);
        more.insert("other.weight".into(), DenseTensor::from_f32([1], &[3.0]).unwrap());
        write_pytorch(&path("network.pt"), &more, &["model"], "");
        let mut network = MnistNet::<Cpu>::new(10, &Default::default());
        let error = load(&mut network, &path("network.pt"), None).unwrap_err().to_string();
        assert!(error.contains("`other.weight` is not in the network"), "{error}");
        write_pytorch(&path("two.pt"), &tensors, &["model", "model_ema"], "");
        assert_eq!(logits(&path("two.pt"), Some("model_ema")), expected);
        let error = format!("{:#}", load(&mut network, &path("two.pt"), None).unwrap_err());
        assert!(error.contains("several models, `model`, `model_ema`: choose one with --key"), "{error}");
    }
}
