//! The path of the current parameter while Burn visits or maps a module.

/// The current path and container types while Burn visits or maps a module.
#[derive(Debug, Default)]
pub(crate) struct ModulePath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    /// Appends a name; call it from `enter_module`.
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    /// Removes the last name; call it from `exit_module`.
    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// Returns the path with its names joined by dots.
    pub(crate) fn joined(&self) -> String {
        self.names.join(".")
    }

    /// Returns the path of the enclosing module.
    pub(crate) fn parent(&self) -> String {
        self.names[..self.names.len().saturating_sub(1)].join(".")
    }

    /// Returns the name of the current parameter.
    pub(crate) fn name(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }

    /// Returns the type of the module that holds the current parameter, as Burn names it, e.g. `Struct:Linear`.
    pub(crate) fn container(&self) -> Option<&str> {
        self.containers.last().map(String::as_str)
    }
}
