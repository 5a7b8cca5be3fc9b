//! The path of the current parameter while Burn visits or maps a module.

/// The names from the module that is visited to the current parameter.
#[derive(Debug, Default)]
pub(crate) struct ModulePath(Vec<String>);

impl ModulePath {
    /// Appends a name; call it from `enter_module`.
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.into());
    }

    /// Removes the last name; call it from `exit_module`.
    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// Returns the path with its names joined by dots.
    pub(crate) fn joined(&self) -> String {
        self.0.join(".")
    }
}
