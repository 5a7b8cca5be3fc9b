//! Machine, versions and configuration of a run.

use maud::{Markup, html};
use serde_json::Value;

use super::{missing, number};
use crate::Record;

/// Returns the line above the title: example, depth, method, seed and date.
pub(super) fn run_description(record: &Record) -> String {
    let mut parts = Vec::new();
    parts.extend(record.summary.as_ref().map(|summary| summary.example.clone()).or_else(|| record.setting("example")));
    parts.extend(record.setting("depth").map(|depth| format!("depth {depth}")));
    parts.extend(record.setting("method").map(|method| method.to_uppercase()));
    parts.extend(record.setting("seed").map(|seed| format!("seed {seed}")));
    let finished = record.evidence.as_ref().map(|evidence| evidence.environment.finished.clone());
    parts.extend(finished.filter(|date| !date.is_empty()).map(|date| date.replace('T', " ").replace('Z', " UTC")));
    parts.join(" · ")
}

pub(super) fn render(record: &Record) -> Markup {
    html! {
        @match record.evidence.as_ref().map(|evidence| &evidence.environment) {
            Some(environment) if environment != &Default::default() => {
                h3 { "Machine and versions" }
                @if !environment.command.is_empty() { pre { code { (environment.command) } } }
                (list(&machine_and_versions(record)))
            }
            _ => { (missing("command line, machine and versions", "evidence.json")) }
        }
        h3 { "Configuration" }
        @match &record.config {
            Some(config) => { (list(&flatten(config))) }
            None => { (missing("configuration", "config.json")) }
        }
    }
}

/// Returns names and values of all known facts about the machine, the versions and the run.
fn machine_and_versions(record: &Record) -> Vec<(String, String)> {
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(environment) = record.evidence.as_ref().map(|evidence| &evidence.environment) {
        facts.push(("Finished", environment.finished.clone()));
        facts.push(("System", environment.system.clone()));
        facts.push(("Processor", environment.processor.clone()));
        facts.push(("Threads", if environment.threads > 0 { environment.threads.to_string() } else { String::new() }));
        let memory = environment.memory_bytes as f64;
        facts.push(("Memory", if memory > 0.0 { number::bytes(memory) } else { String::new() }));
        facts.push(("Accelerators in the machine", environment.accelerators.join(", ")));
        facts.extend(environment.versions.iter().map(|(name, version)| (name.as_str(), version.clone())));
    }
    if let Some(summary) = &record.summary {
        facts.push(("Backend", summary.backend.clone()));
        facts.push(("Data", summary.data.clone()));
        facts.push(("Time", summary.seconds.map_or_else(String::new, number::duration)));
    }
    facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn list(entries: &[(String, String)]) -> Markup {
    html! { dl { @for (name, value) in entries { div { dt { (name) } dd { (value) } } } } }
}

/// Returns path and value of every setting of a configuration. Null and empty arrays are left out.
pub(super) fn flatten(config: &Value) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    collect_settings(config, "", &mut settings);
    settings
}

fn collect_settings(value: &Value, path: &str, settings: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect_settings(value, &path, settings);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            settings.push((path.into(), texts.collect::<Vec<_>>().join(", ")));
        }
        Value::String(text) => settings.push((path.into(), text.clone())),
        other => settings.push((path.into(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_flattened_to_paths_and_values() {
        let config = serde_json::json!({"a": {"b": 1, "c": null}, "d": ["x", 2], "e": []});
        let settings = flatten(&config);
        assert_eq!(settings, [("a.b".into(), "1".into()), ("d".into(), "x, 2".into())]);
    }
}
