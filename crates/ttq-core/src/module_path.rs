//! The path of the current parameter while Burn visits or maps a module.

/// The path of the current parameter while Burn visits or maps a module, and the types of the modules around it. Burn's
/// [`ModuleVisitor`](burn::module::ModuleVisitor) and [`ModuleMapper`](burn::module::ModuleMapper) have only the hooks.
///
/// # Examples
/// ```
/// use burn::backend::Flex;
/// use burn::module::{ModuleVisitor, Param};
/// use burn::nn::LinearConfig;
/// use burn::prelude::*;
/// use ttq_core::ModulePath;
///
/// #[derive(Default)]
/// struct Names {
///     path: ModulePath,
///     names: Vec<String>,
/// }
///
/// impl<B: Backend> ModuleVisitor<B> for Names {
///     fn enter_module(&mut self, name: &str, container: &str) {
///         self.path.enter(name, container);
///     }
///
///     fn exit_module(&mut self, _name: &str, _container: &str) {
///         self.path.exit();
///     }
///
///     fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
///         self.names.push(self.path.joined());
///     }
/// }
///
/// let mut names = Names::default();
/// LinearConfig::new(2, 3).init::<Flex>(&Default::default()).visit(&mut names);
/// assert_eq!(names.names, ["weight", "bias"]);
/// ```
#[derive(Debug, Default)]
pub struct ModulePath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    /// Appends a name; call it from `enter_module`.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    /// Removes the last name; call it from `exit_module`.
    pub fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// Returns the path with its names joined by dots.
    #[must_use]
    pub fn joined(&self) -> String {
        self.names.join(".")
    }

    /// Returns the path of the enclosing module.
    #[must_use]
    pub fn parent(&self) -> String {
        self.names[..self.names.len().saturating_sub(1)].join(".")
    }

    /// Returns the name of the current parameter.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }

    /// Returns the type of the module that holds the current parameter, as Burn names it, e.g. `Struct:Linear`.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        self.containers.last().map(String::as_str)
    }
}
