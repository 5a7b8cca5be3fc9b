//! The float parameters of a module, with the kinds of their layers.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param, ParamId};
use burn::prelude::*;

use crate::module_path::ModulePath;
use crate::module_types::module_types;
use crate::{Choice, LayerKind};

/// The float parameters of a module.
#[derive(Default)]
pub(crate) struct Weights {
    /// The parameters of two or more dimensions.
    pub(crate) choices: Vec<Choice>,
    /// The type of the module that holds each of `choices`.
    pub(crate) owners: Vec<String>,
    /// Identifiers of all float parameters by path.
    pub(crate) ids: BTreeMap<String, ParamId>,
    /// The number of elements of all other float parameters.
    pub(crate) other_parameters: usize,
    path: ModulePath,
    /// The types of the modules by path. `None`: only the names of types are known.
    types: Option<BTreeMap<String, String>>,
}

impl Weights {
    /// Initializes the parameters of a module and collects them. Reads the parameters from the device
    /// ([`module_types`]).
    pub(crate) fn of<B: Backend, M: Module<B>>(module: &M) -> Self {
        module.visit(&mut Initialize);
        let mut weights = Self { types: Some(module_types(module)), ..Self::default() };
        module.visit(&mut weights);
        weights
    }

    /// Initializes the parameters of a module and collects them. A layer of the user's has the kind of the layer of Burn
    /// with its name. Reads nothing from the device.
    pub(crate) fn by_type_names<B: Backend, M: Module<B>>(module: &M) -> Self {
        module.visit(&mut Initialize);
        let mut weights = Self::default();
        module.visit(&mut weights);
        weights
    }

    /// Returns the type of the module that holds the current parameter, e.g. `burn_nn::modules::linear::Linear`.
    fn module_type(&self) -> Option<String> {
        match &self.types {
            Some(types) => types.get(&self.path.parent()).cloned(),
            None => Some(format!("burn_nn::{}", self.path.container()?.strip_prefix("Struct:")?)),
        }
    }

    /// Returns the type of the innermost module around the current parameter whose type is known.
    fn owner(&self) -> String {
        let mut path = self.path.parent();
        loop {
            match (self.types.as_ref().and_then(|types| types.get(&path)), path.rfind('.')) {
                (Some(name), _) => return name.clone(),
                (None, Some(dot)) => path.truncate(dot),
                (None, None) if path.is_empty() => return "an unknown type".into(),
                (None, None) => path.clear(),
            }
        }
    }
}

impl<B: Backend> ModuleVisitor<B> for Weights {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let (path, shape) = (self.path.joined(), param.val().dims());
        self.ids.insert(path.clone(), param.id);
        let elements: usize = shape.iter().product();
        if D < 2 || elements == 0 {
            self.other_parameters += elements;
            return;
        }
        let kind = LayerKind::of(self.module_type().as_deref(), self.path.name(), D);
        let choice = Choice { path, kind, shape: shape.to_vec(), channel_axis: kind.channel_axis(), kept: None };
        self.owners.push(self.owner());
        self.choices.push(choice);
    }
}

/// Initializes every lazy parameter. Burn's parameters are lazy, each clone of an uninitialized one draws other values,
/// and its shape can differ from that of the initialized one (`LinearLayout::Col`).
struct Initialize;

impl<B: Backend> ModuleVisitor<B> for Initialize {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        param.val();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        param.val();
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        param.val();
    }
}
