//! The tensors of one model in a file: without the wrappers that training scripts put around them.

use std::collections::BTreeSet;
use std::fmt;

use crate::checkpoint::{Checkpoint, Container, Entry};
use crate::{Error, Escaped};

/// Keys of dictionaries that hold the parameters of a model.
const WRAPPERS: [&str; 24] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "net_state_dict",
    "params",
    "weights_dict",
    "backbone",
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
    "student",
    "teacher",
    "generator",
    "discriminator",
    "best_model",
    "best_state_dict",
    "swa_model",
];
/// Parts of the keys of dictionaries that hold the state of training.
const TRAINING: [&str; 5] = ["optim", "scheduler", "scaler", "rng", "callbacks"];
/// Prefixes that `DataParallel` and `torch.compile` add to every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// The key of the metadata of a safetensors file, which no tensor can have as its name.
const METADATA: &str = "__metadata__";

/// The tensors of one model, with their names in the model.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    checkpoint: &'a Checkpoint,
    tensors: Vec<(String, &'a Entry)>,
    key: Option<String>,
    prefix: Option<String>,
    unused: Vec<String>,
    models: Vec<String>,
}

impl<'a> Model<'a> {
    /// Returns names and tensors, readable or not, in the order of the file. No two have the same name.
    pub fn tensors(&self) -> &[(String, &'a Entry)] {
        &self.tensors
    }

    /// Returns the key of the dictionary that holds the tensors, or `None` for the whole file.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the prefix that was removed from every name.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Returns the keys and paths at the top of the file whose tensors are not part of the model, such as `optimizer`.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Returns the keys of the models in the file if there are several and no key was given. The tensors are then those of
    /// all of them, with the keys in their names.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Returns the tensors as the bytes of a safetensors file: contiguous, row-major, under their names in the model. Its
    /// metadata say that it has PyTorch's layouts (`format: pt`).
    ///
    /// Tensors of kinds that are not read are left out: those with a [problem](Entry::problem) that are not
    /// [damaged](Entry::is_damaged).
    ///
    /// # Errors
    /// - [`Error::Damaged`] if a tensor is damaged, or if the bytes do not match their checksum;
    /// - [`Error::Unwritable`] if a tensor has the name `__metadata__`, or if the names take more than 100 MB.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for (name, entry) in &self.tensors {
            match entry.problem() {
                Some(reason) if entry.is_damaged() => {
                    return Err(Error::damaged(format!("tensor `{}` {reason}", Escaped(entry.path()))));
                }
                Some(_) => {}
                None if name == METADATA => {
                    let reason = format!("no tensor can have the name `{METADATA}`, so rename it");
                    return Err(Error::Unwritable { reason });
                }
                None => tensors.push((name.as_str(), self.checkpoint.stored(entry)?)),
            }
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::Unwritable { reason: error.to_string() })
    }
}

/// One sentence for each thing that was done to find the model. Empty if the tensors are the whole file.
impl fmt::Display for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| {
            let shown: Vec<String> = names.iter().take(8).map(|name| format!("`{}`", Escaped(name))).collect();
            let more = names.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            shown.join(", ") + &more
        };
        let mut sentences = Vec::new();
        if let Some(key) = &self.key {
            sentences.push(format!("the tensors are those of `{}`", Escaped(key)));
        }
        if let Some(prefix) = &self.prefix {
            sentences.push(format!("the prefix `{prefix}` is removed from every name"));
        }
        if !self.unused.is_empty() {
            sentences.push(format!("the tensors of {} are not used", list(&self.unused)));
        }
        if !self.models.is_empty() {
            sentences.push(format!("the file holds several models, {}: choose one with its key", list(&self.models)));
        }
        f.write_str(&sentences.join("; "))
    }
}

impl Checkpoint {
    /// Returns the tensors of the model in the file.
    ///
    /// With a `key`, these are the tensors of that entry. Without one, they are those of the only dictionary with a name
    /// such as `state_dict` or `model`, if there is one, and otherwise all tensors except those of an optimizer. The
    /// prefixes `module.` and `_orig_mod.` are removed if all names start with them. [`Display`](fmt::Display) says what was
    /// done.
    ///
    /// # Errors
    /// - [`Error::NoKey`] if no container has this key;
    /// - [`Error::WholeModule`] if the file holds a module instead of a dictionary of tensors;
    /// - [`Error::Duplicate`] if two tensors have the same name.
    pub fn model(&self, key: Option<&str>) -> Result<Model<'_>, Error> {
        let mut models = Vec::new();
        let container = match key {
            Some(key) => Some(self.container(key)?),
            None => self.wrapped(&mut models),
        };
        let is_whole = container.is_none_or(|container| self.containers[container].parent.is_none());
        if let Some((path, class)) = self.modules.first().filter(|_| is_whole && models.is_empty()) {
            return Err(Error::WholeModule { path: path.clone(), class: class.clone() });
        }
        let path = container.map_or("", |container| &self.containers[container].path);
        let range = container.map_or(0..self.entries().len(), |container| {
            self.containers[container].start..self.containers[container].end
        });
        // The container at the top of the file that each entry is in.
        let mut owners = vec![None; self.entries().len()];
        for container in self.containers.iter().filter(|container| container.parent == Some(0)) {
            owners[container.start..container.end].fill(Some(container));
        }
        let is_state = |container: &Container| is_whole && self.containers[0].is_dict && is_training(&container.path);
        let is_state = |owner: &Option<&Container>| owner.is_some_and(is_state);
        // A file of an optimizer alone keeps its tensors.
        let skips_state = !owners.iter().all(is_state);
        let mut tensors: Vec<(String, &Entry)> = Vec::new();
        let mut unused: Vec<String> = Vec::new();
        for (index, (entry, owner)) in self.entries().iter().zip(&owners).enumerate() {
            if range.contains(&index) && !(skips_state && is_state(owner)) {
                let name = if is_whole { entry.path() } else { &entry.path()[path.len() + 1..] };
                tensors.push((name.to_owned(), entry));
            } else {
                let name = owner.map_or(entry.path(), |container| &container.path);
                if unused.last().is_none_or(|last| last != name) {
                    unused.push(name.to_owned());
                }
            }
        }
        let prefix = remove_prefixes(&mut tensors);
        let mut names = BTreeSet::new();
        if let Some((name, _)) = tensors.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(Error::Duplicate { path: name.clone() });
        }
        let key = container.filter(|_| !is_whole).map(|container| self.containers[container].path.clone());
        Ok(Model { checkpoint: self, tensors, key, prefix, unused, models })
    }

    fn container(&self, key: &str) -> Result<usize, Error> {
        let found = self.containers.iter().position(|container| container.parent.is_some() && container.path == key);
        found.ok_or_else(|| {
            if let Some((path, class)) = self.modules.iter().find(|(path, _)| path == key) {
                return Error::WholeModule { path: path.clone(), class: class.clone() };
            }
            let top = self.containers.iter().filter(|container| container.parent == Some(0));
            Error::NoKey { key: key.into(), available: top.map(|container| container.path.clone()).collect() }
        })
    }

    /// Returns the dictionary that a training script put the model in, or the root. If there are several, adds their keys
    /// to `models`.
    fn wrapped(&self, models: &mut Vec<String>) -> Option<usize> {
        let mut current = 0;
        self.containers.first()?;
        loop {
            let Container { path, .. } = &self.containers[current];
            let skip = if current == 0 { 0 } else { path.len() + 1 };
            let is_wrapper = |&index: &usize| {
                let Container { path, parent, is_dict, .. } = &self.containers[index];
                *parent == Some(current) && *is_dict && WRAPPERS.contains(&&path[skip..])
            };
            let wrappers: Vec<usize> = (0..self.containers.len()).filter(is_wrapper).collect();
            match wrappers[..] {
                [only] => current = only,
                [] => return Some(current),
                _ => {
                    models.extend(wrappers.iter().map(|&index| self.containers[index].path.clone()));
                    return Some(current);
                }
            }
        }
    }
}

fn is_training(key: &str) -> bool {
    let key = key.to_lowercase();
    TRAINING.iter().any(|part| key.contains(part))
}

/// Removes the prefixes that all names have, and returns them.
fn remove_prefixes(tensors: &mut [(String, &Entry)]) -> Option<String> {
    let mut removed = String::new();
    while let Some(prefix) = PREFIXES.iter().find(|prefix| {
        !tensors.is_empty() && tensors.iter().all(|(name, _)| name.len() > prefix.len() && name.starts_with(**prefix))
    }) {
        tensors.iter_mut().for_each(|(name, _)| *name = name.split_off(prefix.len()));
        removed += prefix;
    }
    (!removed.is_empty()).then_some(removed)
}
