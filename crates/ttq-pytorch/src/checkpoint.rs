//! A file and all of its tensors.

use std::collections::HashMap;
use std::path::Path;

use crate::Error;
use crate::archive::{Archive, MEMORY};
use crate::dtype::Dtype;
use crate::objects::{Description, Problem};
use crate::pickle::{self, Id, Object, Pickle};
use crate::tensor::{Stored, Tensor, check, contiguous};

/// Maximum depth of nested containers.
const DEPTH: usize = 64;
/// Maximum number of values in all containers with tensors, and maximum length of all texts about them together in bytes.
const ENTRIES: usize = 400_000;
const TEXTS: usize = 1 << 27;

/// A tensor of the file.
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    tensor: Result<Description, Problem>,
}

impl Entry {
    /// Returns the path in the file: keys and indices of the containers around the tensor, joined by dots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the element type; `None` if the tensor cannot be read.
    pub fn dtype(&self) -> Option<Dtype> {
        self.tensor.as_ref().ok().map(|tensor| tensor.dtype)
    }

    /// Returns the shape; `None` if the tensor cannot be read.
    pub fn shape(&self) -> Option<&[usize]> {
        self.tensor.as_ref().ok().map(|tensor| &tensor.shape[..])
    }

    /// Returns the key of the storage; `None` if the tensor cannot be read. Tensors that share values (tied weights, views)
    /// have the same storage.
    pub fn storage(&self) -> Option<&str> {
        self.tensor.as_ref().ok().map(|tensor| &tensor.storage[..])
    }

    /// Returns why the tensor cannot be read: the rest of a sentence that starts with its name. `None` if it can.
    pub fn problem(&self) -> Option<&str> {
        match self.tensor.as_ref() {
            Ok(_) => None,
            Err(Problem::Unsupported(reason) | Problem::Damaged(reason)) => Some(reason),
        }
    }

    /// Returns whether the description of the tensor contradicts the file.
    pub fn is_damaged(&self) -> bool {
        matches!(self.tensor, Err(Problem::Damaged(_)))
    }
}

/// Something in the file that is no tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Path in the file; empty for the root.
    pub path: String,
    /// Kind, such as `a float` or `an object of argparse.Namespace`.
    pub kind: String,
    /// Whether there are tensors inside, which are not read.
    pub has_tensors: bool,
}

/// A dictionary or list that holds tensors.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) path: String,
    /// Index of the container around it; `None` for the root.
    pub(crate) parent: Option<usize>,
    pub(crate) is_dict: bool,
    /// Its entries are `start..end`.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A PyTorch file.
///
/// ```no_run
/// use ttq_pytorch::Checkpoint;
///
/// let checkpoint = Checkpoint::open("model.pt")?;
/// let model = checkpoint.model(None)?;
/// for (name, entry) in model.tensors() {
///     let tensor = checkpoint.tensor(entry.path())?;
///     println!("{name}: {} {:?}, {} bytes", tensor.dtype, tensor.shape, tensor.bytes.len());
/// }
/// # Ok::<(), ttq_pytorch::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    archive: Archive,
    entries: Vec<Entry>,
    skipped: Vec<Skipped>,
    pub(crate) containers: Vec<Container>,
    /// Whole modules: path and class.
    pub(crate) modules: Vec<(String, String)>,
    /// Indices of entries; none for a path that several have.
    by_path: HashMap<String, Option<usize>>,
}

impl Checkpoint {
    /// Opens a file and checks the description of every tensor against its storage. Reads the file into memory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] and [`Error::Damaged`]. A tensor that cannot be read is no error here: see
    /// [`Entry::problem`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|cause| Error::Io { path: path.into(), cause })?;
        Self::from_bytes(bytes)
    }

    /// Opens the contents of a file.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open) except for [`Error::Io`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        let archive = Archive::open(bytes)?;
        let pickle = pickle::read(archive.pickle())?;
        let mut walk = Walk::new(&pickle);
        walk.visit(pickle.root, String::new(), None, 0)?;
        let Walk { mut entries, skipped, containers, modules, .. } = walk;
        let limit = archive.size().saturating_mul(4).saturating_add(MEMORY);
        let mut total = 0usize;
        for entry in &mut entries {
            let checked = entry.tensor.as_ref().map_err(Clone::clone).and_then(|tensor| {
                let storage = archive.storages.get(&tensor.storage).map(|storage| storage.size);
                let bytes = check(tensor, storage)?;
                total = total.checked_add(bytes).filter(|&total| total <= limit).ok_or_else(|| {
                    let shape = &tensor.shape;
                    Problem::Unsupported(format!(
                        "has the shape {shape:?}, which takes {bytes} bytes of memory, more than this file may: save it as \
                         the smaller tensor that was expanded"
                    ))
                })?;
                Ok(())
            });
            if let Err(problem) = checked {
                entry.tensor = Err(problem);
            }
        }
        let mut by_path = HashMap::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            by_path.entry(entry.path.clone()).and_modify(|index| *index = None).or_insert(Some(index));
        }
        Ok(Self { archive, entries, skipped, containers, modules, by_path })
    }

    /// Returns every tensor of the file, readable or not, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns everything else in the file: values that are no tensors, and objects whose tensors are not read.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Reads the tensor with this path as contiguous bytes.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::Duplicate`], [`Error::Tensor`] with the [problem](Entry::problem) of the tensor, and [`Error::Damaged`] if
    /// the bytes do not match their checksum.
    pub fn tensor(&self, path: &str) -> Result<Tensor, Error> {
        let index = self.by_path.get(path).ok_or_else(|| Error::NoTensor { path: path.into() })?;
        let index = index.ok_or_else(|| Error::Duplicate { path: path.into() })?;
        let tensor = self.stored(&self.entries[index])?;
        let Description { dtype, shape, .. } = tensor.description;
        Ok(Tensor { dtype: *dtype, shape: shape.clone(), bytes: contiguous(&tensor) })
    }

    /// Finds the storage of a tensor of this file.
    pub(crate) fn stored<'a>(&'a self, entry: &'a Entry) -> Result<Stored<'a>, Error> {
        let description = match &entry.tensor {
            Ok(description) => description,
            Err(Problem::Unsupported(reason) | Problem::Damaged(reason)) => {
                return Err(Error::Tensor { path: entry.path.clone(), reason: reason.clone() });
            }
        };
        let missing = || Error::damaged(format!("storage {} is missing", description.storage));
        let storage = self.archive.storages.get(&description.storage).ok_or_else(missing)?;
        let storage = self.archive.read(storage).map_err(Error::damaged)?;
        Ok(Stored { description, storage, is_big_endian: self.archive.is_big_endian })
    }
}

/// Visits the containers of a pickle.
struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    has_tensors: Vec<bool>,
    entries: Vec<Entry>,
    skipped: Vec<Skipped>,
    containers: Vec<Container>,
    modules: Vec<(String, String)>,
    /// Number of values in the containers visited so far, and length of all texts about them in bytes.
    values: usize,
    texts: usize,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(pickle: &'p Pickle<'a>) -> Self {
        Self {
            has_tensors: has_tensors(pickle),
            pickle,
            entries: Vec::new(),
            skipped: Vec::new(),
            containers: Vec::new(),
            modules: Vec::new(),
            values: 0,
            texts: 0,
        }
    }

    /// Counts the bytes of a text.
    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.texts = self.texts.saturating_add(bytes);
        if self.texts > TEXTS {
            return Err(Error::damaged(format!("the names of its entries have more than {TEXTS} bytes")));
        }
        Ok(())
    }

    fn skip(&mut self, path: String, kind: String, has_tensors: bool) -> Result<(), Error> {
        self.count(kind.len())?;
        self.skipped.push(Skipped { path, kind, has_tensors });
        Ok(())
    }

    fn visit(&mut self, id: Id, path: String, parent: Option<usize>, depth: usize) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(Error::damaged(format!("its entries are nested more than {DEPTH} levels deep")));
        }
        let pickle = self.pickle;
        if let Some(tensor) = pickle.tensor(id) {
            // A tensor that is the whole file.
            let path = if path.is_empty() && parent.is_none() { "tensor".into() } else { path };
            self.count(match &tensor {
                Ok(description) => description.storage.len(),
                Err(Problem::Unsupported(reason) | Problem::Damaged(reason)) => reason.len(),
            })?;
            self.entries.push(Entry { path, tensor });
            return Ok(());
        }
        if !self.has_tensors[id] {
            return self.skip(path, pickle.describe(id), false);
        }
        let is_dict = matches!(pickle.objects[id], Object::Dict { .. });
        let values = match &pickle.objects[id] {
            Object::Dict { entries, .. } => entries.len(),
            Object::Tuple(items) | Object::List(items) => items.len(),
            _ => 0,
        };
        self.values = self.values.saturating_add(values);
        if self.values > ENTRIES {
            return Err(Error::damaged(format!("its containers have more than {ENTRIES} values")));
        }
        if let Object::Dict { attributes: Some(attributes), .. } = pickle.objects[id]
            && self.has_tensors[attributes]
        {
            self.skip(path.clone(), format!("attributes, {}", pickle.describe(attributes)), true)?;
        }
        let is_root = parent.is_none();
        let mut named = |label: &str| {
            self.count(path.len() + label.len() + 1)?;
            Ok(if is_root { label.to_owned() } else { format!("{path}.{label}") })
        };
        let children: Vec<(String, Id)> = match &pickle.objects[id] {
            Object::Dict { entries, .. } => {
                // As in Python, the last of equal keys counts, at the place of the first.
                let mut children: Vec<(String, Id)> = Vec::new();
                let mut texts = HashMap::new();
                for &(key, value) in entries {
                    let Object::Text(text) = &pickle.objects[key] else {
                        children.push((named(&pickle.label(key))?, value));
                        continue;
                    };
                    let index = *texts.entry(text).or_insert(children.len());
                    match children.get_mut(index) {
                        Some(child) => child.1 = value,
                        None => children.push((named(text)?, value)),
                    }
                }
                children
            }
            Object::Tuple(items) | Object::List(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, &item)| Ok((named(&index.to_string())?, item))).collect::<Result<_, Error>>()?
            }
            _ => {
                if let Some(class) = pickle.module_class(id) {
                    self.modules.push((path.clone(), class));
                }
                return self.skip(path, pickle.describe(id), true);
            }
        };
        let container = self.containers.len();
        let start = self.entries.len();
        self.containers.push(Container { path: path.clone(), parent, is_dict, start, end: start });
        for (path, child) in children {
            self.visit(child, path, Some(container), depth + 1)?;
        }
        self.containers[container].end = self.entries.len();
        Ok(())
    }
}

/// Returns for each object whether it is a tensor or contains one, at any depth.
fn has_tensors(pickle: &Pickle) -> Vec<bool> {
    let objects = &pickle.objects;
    let mut parents: Vec<(Id, Id)> = Vec::new();
    let mut found = vec![false; objects.len()];
    let mut pending = Vec::new();
    for (id, object) in objects.iter().enumerate() {
        if pickle.tensor(id).is_some() {
            found[id] = true;
            pending.push(id);
            continue;
        }
        match object {
            Object::Tuple(items) | Object::List(items) => parents.extend(items.iter().map(|&item| (item, id))),
            Object::Dict { entries, attributes } => {
                parents.extend(entries.iter().map(|&(_, value)| (value, id)));
                parents.extend(attributes.map(|attributes| (attributes, id)));
            }
            Object::Built { arguments, contents, .. } => {
                parents.push((*arguments, id));
                parents.extend(contents.iter().map(|&item| (item, id)));
            }
            _ => {}
        }
    }
    parents.sort_unstable();
    while let Some(child) = pending.pop() {
        let start = parents.partition_point(|&(id, _)| id < child);
        for &(_, parent) in parents[start..].iter().take_while(|&&(id, _)| id == child) {
            if !found[parent] {
                found[parent] = true;
                pending.push(parent);
            }
        }
    }
    found
}
