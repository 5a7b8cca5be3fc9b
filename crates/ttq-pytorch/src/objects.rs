//! What the objects of a pickle are in PyTorch: tensors, storages, names of entries.

use std::collections::HashMap;

use crate::dtype::Dtype;
use crate::pickle::{Id, Object, Pickle};

/// Maximum number of wrappers, such as `Parameter`, around a tensor.
const WRAPPERS: usize = 8;
/// Maximum number of dimensions.
const RANK: usize = 64;

/// A tensor as the pickle describes it. Nothing is checked against the storage yet.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) dtype: Dtype,
    /// Key of the storage.
    pub(crate) storage: String,
    /// Size of the storage in bytes.
    pub(crate) storage_size: Option<usize>,
    /// Index of the first element in the storage.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// Why a tensor is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Its kind is not supported.
    Unsupported(String),
    /// Its description contradicts itself or the storage.
    Damaged(String),
}

/// A storage as a tensor refers to it.
struct StorageReference<'p> {
    class: &'p str,
    key: &'p str,
    location: &'p str,
    /// Number of elements.
    count: usize,
    /// Index of the first element of a view of a storage, which old versions had.
    offset: usize,
}

impl<'a> Pickle<'a> {
    fn global(&self, id: Id) -> Option<(&str, &str)> {
        match &self.objects[id] {
            Object::Global { module, name } => Some((module, name)),
            // A class in a module saved by an old version: ("module", class, file, source).
            Object::Persistent(id) => match self.items(*id)? {
                &[kind, class, ..] if self.text(kind) == Some("module") => match &self.objects[class] {
                    Object::Global { module, name } => Some((module, name)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.objects[id] {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    fn text(&self, id: Id) -> Option<&str> {
        match &self.objects[id] {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.objects[id] {
            Object::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
    }

    /// Returns the sizes or strides of a tensor.
    fn sizes(&self, id: Id, name: &str) -> Result<Vec<usize>, Problem> {
        let items = self.items(id).unwrap_or_default();
        if items.len() > RANK {
            return Err(Problem::Damaged(format!("has {} {name}, more than {RANK}", items.len())));
        }
        let sizes = self.items(id).and_then(|items| items.iter().map(|&item| self.size(item)).collect());
        sizes.ok_or_else(|| Problem::Damaged(format!("has {name} that are no list of whole numbers")))
    }

    /// Returns the name of an entry with this key.
    pub(crate) fn label(&self, key: Id) -> String {
        self.label_to(key, 4)
    }

    fn label_to(&self, key: Id, depth: usize) -> String {
        match &self.objects[key] {
            Object::Text(text) => text.to_string(),
            Object::Int(number) => number.to_string(),
            Object::Float(number) => number.to_string(),
            Object::Bool(true) => "True".into(),
            Object::Bool(false) => "False".into(),
            Object::None => "None".into(),
            Object::Tuple(items) if depth > 0 && items.len() <= 8 => {
                let items: Vec<String> = items.iter().map(|&item| self.label_to(item, depth - 1)).collect();
                format!("({})", items.join(", "))
            }
            _ => self.describe(key),
        }
    }

    /// Returns the kind of a value, such as `a float` or `an object of numpy.dtype`.
    pub(crate) fn describe(&self, id: Id) -> String {
        match &self.objects[id] {
            Object::None => "None".into(),
            Object::Bool(_) => "a bool".into(),
            Object::Int(_) => "an integer".into(),
            Object::Float(_) => "a float".into(),
            Object::Text(_) => "text".into(),
            Object::Other(kind) => (*kind).into(),
            Object::Tuple(_) => "a tuple".into(),
            Object::List(_) => "a list".into(),
            Object::Dict { .. } => "a dictionary".into(),
            Object::Global { module, name } => format!("the class or constant {module}.{name}"),
            Object::Persistent(_) => "a storage".into(),
            Object::Built { class, .. } => match self.global(*class) {
                Some(("_codecs", "encode")) => "bytes".into(),
                Some((module, name)) if module.starts_with("numpy") => format!("a numpy object ({module}.{name})"),
                Some((module, name)) => format!("an object of {module}.{name}"),
                None => "an object".into(),
            },
        }
    }

    /// Returns the class of an object that is a `torch.nn.Module` or a TorchScript module.
    pub(crate) fn module_class(&self, id: Id) -> Option<String> {
        let Object::Built { class, contents, .. } = &self.objects[id] else { return None };
        let (module, name) = self.global(*class)?;
        let is_state = |&id: &Id| match &self.objects[id] {
            Object::Dict { entries, .. } => {
                entries.iter().any(|&(key, _)| matches!(self.text(key), Some("_parameters" | "_modules")))
            }
            _ => false,
        };
        let is_module = module.starts_with("__torch__") || contents.iter().any(is_state);
        is_module.then(|| format!("{module}.{name}"))
    }

    /// Returns the tensor that the object is, or why it is not read; `None` if it is no tensor.
    pub(crate) fn tensor(&self, id: Id) -> Option<Result<Description, Problem>> {
        let Object::Built { class, arguments, .. } = self.objects[id] else { return None };
        let (mut function, mut arguments) = (class, arguments);
        for _ in 0..WRAPPERS {
            let (module, name) = self.global(function)?;
            if !matches!(module, "torch._utils" | "torch._tensor" | "torch.tensor") {
                return None;
            }
            let items = self.items(arguments)?;
            match name {
                "_rebuild_parameter" | "_rebuild_parameter_with_state" => match self.objects[*items.first()?] {
                    Object::Built { class, arguments: inner, .. } => (function, arguments) = (class, inner),
                    _ => return Some(Err(damaged("is a parameter without a tensor"))),
                },
                // (function, class, arguments, state)
                "_rebuild_from_type_v2" => match items {
                    &[inner, _, inner_arguments, ..] => (function, arguments) = (inner, inner_arguments),
                    _ => return Some(Err(damaged("is described by too few values"))),
                },
                "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
                    return Some(self.strided(name, items));
                }
                "_rebuild_qtensor" => return Some(Err(unsupported("is quantized: save it after .dequantize()"))),
                "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => {
                    return Some(Err(unsupported("is sparse: save it after .to_dense()")));
                }
                "_rebuild_meta_tensor_no_storage" => return Some(Err(unsupported(META))),
                _ if name.starts_with("_rebuild_") => {
                    return Some(Err(Problem::Unsupported(format!(
                        "is built by {module}.{name}, which is not read: save it as a plain float tensor"
                    ))));
                }
                _ => return None,
            }
        }
        Some(Err(damaged("has too many wrappers")))
    }

    /// Reads the arguments of `_rebuild_tensor` (storage, offset, size, stride), of `_rebuild_tensor_v2` (also
    /// requires_grad, hooks, metadata) or of `_rebuild_tensor_v3` (also requires_grad, hooks, dtype, metadata).
    fn strided(&self, name: &str, items: &[Id]) -> Result<Description, Problem> {
        let &[storage, offset, shape, strides, ..] = items else {
            return Err(damaged("is described by too few values"));
        };
        let reference = self.storage(storage).ok_or_else(|| damaged("has no storage"))?;
        let is_v3 = name == "_rebuild_tensor_v3";
        let metadata = items.get(if is_v3 { 7 } else { 6 });
        if metadata.is_some_and(|&id| matches!(&self.objects[id], Object::Dict { entries, .. } if !entries.is_empty()))
        {
            return Err(unsupported("is a conjugated or negated view: save it after .resolve_conj().resolve_neg()"));
        }
        let dtype = if is_v3 {
            let dtype = items.get(6).and_then(|&id| self.global(id)).ok_or_else(|| damaged("has no type"))?;
            dtype.1
        } else {
            reference.class
        };
        let shape = self.sizes(shape, "sizes")?;
        let dtype = Dtype::from_name(dtype).map_err(Problem::Unsupported)?;
        if reference.location == "meta" {
            return Err(unsupported(META));
        }
        let strides = self.sizes(strides, "strides")?;
        if shape.len() != strides.len() {
            return Err(Problem::Damaged(format!("has {} sizes and {} strides", shape.len(), strides.len())));
        }
        let offset = self.size(offset).and_then(|offset| offset.checked_add(reference.offset));
        let offset = offset.ok_or_else(|| damaged("has an invalid offset in its storage"))?;
        let element = Dtype::storage_size(reference.class);
        let storage_size = element.and_then(|element| reference.count.checked_mul(element));
        Ok(Description { dtype, storage: reference.key.into(), storage_size, offset, shape, strides })
    }

    /// Reads a reference `("storage", class, key, location, number of elements)`, to which the format before version 1.6
    /// adds a view: `None` or `(key, offset, number of elements)`.
    fn storage(&self, id: Id) -> Option<StorageReference<'_>> {
        let Object::Persistent(id) = self.objects[id] else { return None };
        let &[kind, class, key, location, count, ref view @ ..] = self.items(id)? else { return None };
        if self.text(kind) != Some("storage") {
            return None;
        }
        let offset = match view.first().and_then(|&view| self.items(view)) {
            Some(&[_, offset, _]) => self.size(offset)?,
            _ => 0,
        };
        let (key, location) = (self.text(key)?, self.text(location).unwrap_or_default());
        Some(StorageReference { class: self.global(class)?.1, key, location, count: self.size(count)?, offset })
    }
}

/// Returns the size of an element of each storage to which the pickle refers.
pub(crate) fn element_sizes<'p>(pickle: &'p Pickle) -> HashMap<&'p str, usize> {
    let storages = (0..pickle.objects.len()).filter_map(|id| pickle.storage(id));
    storages.filter_map(|storage| Some((storage.key, Dtype::storage_size(storage.class)?))).collect()
}

const META: &str = "has no values, because it is on the device meta: save it after it has been loaded";

fn unsupported(reason: &str) -> Problem {
    Problem::Unsupported(reason.into())
}

fn damaged(reason: &str) -> Problem {
    Problem::Damaged(reason.into())
}
