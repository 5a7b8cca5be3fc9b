//! What is needed to make the run again.

use maud::{Markup, html};
use serde_json::Value;

use super::{missing, number};
use crate::Record;

/// The line above the title.
pub(super) fn kicker(record: &Record) -> String {
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
                (facts(&machine(record)))
            }
            _ => { (missing("command line, machine and versions", "evidence.json")) }
        }
        h3 { "Configuration" }
        @match &record.config {
            Some(config) => { (facts(&flatten(config))) }
            None => { (missing("the configuration", "config.json")) }
        }
    }
}

/// Names and values, those that are known.
fn machine(record: &Record) -> Vec<(String, String)> {
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

fn facts(facts: &[(String, String)]) -> Markup {
    html! { dl { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

/// Every number and text of a configuration with its path; what is not set is left out.
pub(super) fn flatten(config: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    collect(config, "", &mut facts);
    facts
}

fn collect(value: &Value, path: &str, facts: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(value, &path, facts);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            facts.push((path.into(), texts.collect::<Vec<_>>().join(", ")));
        }
        Value::String(text) => facts.push((path.into(), text.clone())),
        other => facts.push((path.into(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_becomes_paths_and_values() {
        let config = serde_json::json!({"a": {"b": 1, "c": null}, "d": ["x", 2], "e": []});
        let facts = flatten(&config);
        assert_eq!(facts, [("a.b".into(), "1".into()), ("d".into(), "x, 2".into())]);
    }
}
