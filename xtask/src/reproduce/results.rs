//! Output of the results as Markdown and JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::figures::{Figures, Spread};
use super::plan::{Plan, Table};
use super::{Example, Reproduce};

/// Maximum number of layer statistics in the JSON file with all epochs. If there are more, it contains the last epoch
/// only.
const MAX_LAYERS: usize = 500;

/// Results of all runs.
pub(super) struct Results {
    example: Example,
    plan: Plan,
    command: String,
    seeds: Vec<u64>,
    epochs: [usize; 2],
    limit: Option<usize>,
    /// The runs of each variant, in the order of the seeds.
    figures: Vec<Vec<Figures>>,
}

/// A column of the tables: name in JSON, heading, number of decimals, value of a run.
type Column = (&'static str, &'static str, usize, fn(&Figures) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("test_accuracy", "test, %", 2, |figures| Some(figures.test)),
    ("valid_accuracy_last", "validation, last epoch, %", 2, |figures| Some(figures.valid_last)),
    ("valid_accuracy_best", "validation, best epoch, %", 2, |figures| Some(figures.valid_best)),
    ("zeros", "zeros, %", 1, |figures| figures.zeros),
    ("entropy", "entropy, bits", 3, |figures| figures.entropy),
    ("flips", "flips, %", 3, |figures| figures.flips),
    ("seconds", "seconds", 0, |figures| Some(figures.seconds)),
];

const COLUMNS_EXPLAINED: &str = "\
Mean ± sample standard deviation over the seeds. **test**: accuracy on the test images, evaluated once at the end of
the run, of the network with the best validation accuracy. **validation**: accuracy on images held out of the training
set, after the last epoch and after the best one. **zeros**: share of zeros among the ternary weights. **entropy**: of
their codes, bits per weight. **flips**: share of codes that a step of the last epoch changes. **seconds**: time of training and evaluation of this row's phase; other programs may have run on the machine at the same time.
";

impl Results {
    pub(super) fn new(options: &Reproduce, plan: Plan, figures: Vec<Vec<Figures>>) -> Self {
        Self {
            example: options.example,
            plan,
            command: options.command(),
            seeds: options.seeds.clone(),
            epochs: [options.fp_epochs(), options.epochs()],
            limit: options.limit,
            figures,
        }
    }

    /// Returns the tables, with the command and environment that reproduce them.
    pub(super) fn table(&self) -> String {
        let [fp_epochs, epochs] = self.epochs;
        let mut text = format!("# {}: {}\n\n```sh\n{}\n```\n\n", self.example.title(), self.plan.title, self.command);
        for line in self.environments() {
            let _ = writeln!(text, "{line}  ");
        }
        let images = self.limit.map_or_else(|| "all".into(), |limit| format!("the first {limit}"));
        let _ = writeln!(
            text,
            "Seeds {:?}; {fp_epochs} epochs in full precision, then {epochs} of each row from that network; \
             {images} training images.\n\n{COLUMNS_EXPLAINED}",
            self.seeds
        );
        for table in &self.plan.tables {
            self.write(table, &mut text);
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    fn write(&self, table: &Table, text: &mut String) {
        let _ = writeln!(text, "## {}\n", table.heading);
        let headings: Vec<&str> = COLUMNS.iter().map(|column| column.1).collect();
        let _ = writeln!(text, "| {} | {} |", table.first_columns, headings.join(" | "));
        let columns = table.first_columns.split('|').count();
        let _ = writeln!(text, "|{}{}", "---|".repeat(columns), "---:|".repeat(COLUMNS.len()));
        for (name, label) in &table.rows {
            let runs = self.plan.variants.iter().zip(&self.figures).find(|(variant, _)| variant.name == *name);
            let Some((_, runs)) = runs else { continue };
            let cells = COLUMNS.map(|(_, _, decimals, value)| match spread(runs, value) {
                Some(spread) => format!("{spread:.decimals$}"),
                None => "-".into(),
            });
            let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
        }
        text.push('\n');
    }

    /// Returns the results as JSON, with the values of every run and the statistics of its layers.
    pub(super) fn json(&self) -> Value {
        let layers = self.figures.iter().flatten().flat_map(|run| &run.layers);
        let every_epoch = layers.map(|epoch| epoch.as_array().map_or(0, Vec::len)).sum::<usize>() <= MAX_LAYERS;
        let variants = self.plan.variants.iter().zip(&self.figures).map(|(variant, runs)| {
            let mut entry: Map<String, Value> = COLUMNS
                .iter()
                .filter_map(|(name, _, _, value)| Some(((*name).into(), spread(runs, *value)?.json())))
                .collect();
            entry.insert("title".into(), variant.title.clone().into());
            if variant.is_ternary() {
                let of_run = |run: &Figures| match (every_epoch, run.layers.last()) {
                    (true, _) | (_, None) => Value::from(run.layers.clone()),
                    (false, Some(last)) => json!([last]),
                };
                entry.insert("layers".into(), runs.iter().map(of_run).collect());
            }
            (variant.name.clone(), Value::from(entry))
        });
        json!({
            "example": self.example.name(),
            "command": self.command,
            "environments": self.environments(),
            "seeds": self.seeds,
            "fp_epochs": self.epochs[0],
            "epochs": self.epochs[1],
            "limit": self.limit,
            "layers_of_every_epoch": every_epoch,
            "variants": variants.collect::<Map<String, Value>>(),
        })
    }

    /// Returns the distinct combinations of day, machine and versions of the runs.
    fn environments(&self) -> BTreeSet<String> {
        self.figures.iter().flatten().map(environment).collect()
    }
}

/// Returns the values of a column; `None` if a run has no value.
fn spread(runs: &[Figures], value: fn(&Figures) -> Option<f64>) -> Option<Spread> {
    runs.iter().map(value).collect::<Option<Vec<f64>>>().map(Spread)
}

/// Returns day, machine and versions of a run.
fn environment(run: &Figures) -> String {
    let text = |name: &str| run.environment[name].as_str().unwrap_or("unknown");
    let day = text("finished").split('T').next().unwrap_or_default();
    let names = |value: &Value| match value {
        Value::Object(map) => map.iter().map(|(name, version)| format!("{name} {}", plain(version))).collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        _ => Vec::new(),
    };
    let accelerators: Vec<String> = names(&run.environment["accelerators"]);
    let versions: Vec<String> = names(&run.environment["versions"]);
    let accelerators = if accelerators.is_empty() { String::new() } else { format!(", {}", accelerators.join(", ")) };
    format!(
        "{day}; {}, {} threads available, {}{accelerators}; backend {}; {}",
        text("processor"),
        run.environment["threads"],
        text("system"),
        run.backend,
        versions.join(", ")
    )
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: f64, zeros: Option<f64>) -> Figures {
        let environment = json!({ "finished": "2026-11-24T21:20:29Z", "processor": "P", "system": "S", "threads": 2,
                                  "accelerators": [], "versions": { "Burn": "0.21.0" } });
        let layers = vec![json!([]), json!([{ "path": "a", "w_pos": test }])];
        Figures {
            test,
            valid_last: 1.0,
            valid_best: 2.0,
            zeros,
            entropy: zeros.map(|_| 1.25),
            flips: zeros.map(|_| 0.125),
            seconds: 3.4,
            layers,
            environment,
            backend: "cpu".into(),
        }
    }

    fn results() -> Results {
        let runs = |zeros| vec![run(98.0, zeros), run(99.0, zeros)];
        let plan = Plan::methods();
        let figures = plan.variants.iter().map(|variant| runs(variant.is_ternary().then_some(8.25))).collect();
        Results {
            example: Example::Mnist,
            plan,
            command: "cargo xtask reproduce mnist".into(),
            seeds: vec![1, 2],
            epochs: [3, 4],
            limit: None,
            figures,
        }
    }

    #[test]
    fn a_row_contains_mean_and_deviation_and_a_dash_for_missing_values() {
        let table = results().table();
        assert!(
            table.contains(
                "| TWN | 98.50 ± 0.71 | 1.00 ± 0.00 | 2.00 ± 0.00 | 8.2 ± 0.0 | 1.250 ± 0.000 | 0.125 ± 0.000 | 3 ± 0 |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| full precision, where the others start | 98.50 ± 0.71 | 1.00 ± 0.00 | 2.00 ± 0.00 | - |")
        );
        assert!(table.contains("2026-11-24; P, 2 threads available, S; backend cpu; Burn 0.21.0"));
        assert!(table.contains("cargo xtask reproduce mnist\n"));
    }

    #[test]
    fn the_json_contains_every_run() {
        let json = results().json();
        assert_eq!(json["variants"]["ttq"]["test_accuracy"]["values"], json!([98.0, 99.0]));
        assert_eq!(json["variants"]["ttq"]["layers"][1][1][0]["w_pos"], 99.0);
        assert_eq!(json["variants"]["full-precision"]["layers"], Value::Null);
        assert_eq!(json["environments"].as_array().map(Vec::len), Some(1));
    }
}
