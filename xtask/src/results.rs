//! Results of a benchmark suite, and their table in Markdown.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Results that a suite has written.
#[derive(Debug, Deserialize)]
pub(crate) struct Results {
    suite: String,
    quick: bool,
    environment: Environment,
    rows: Rows,
    /// Name of the file's directory.
    #[serde(skip)]
    directory: String,
}

#[derive(Debug, Deserialize)]
struct Environment {
    processor: String,
    threads: usize,
    finished: String,
    versions: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rows {
    Comparisons(Vec<Comparison>),
    Steps(Vec<Steps>),
}

/// Time of a candidate in a comparison.
#[derive(Debug, Deserialize)]
struct Comparison {
    comparison: String,
    threads: usize,
    candidate: String,
    reference: String,
    time: Spread,
    calls: usize,
    /// How many times faster the candidate is than the reference.
    times: f64,
}

/// Training steps of an implementation.
#[derive(Debug, Deserialize)]
struct Steps {
    /// Missing in results from before there were several.
    #[serde(default = "resnet")]
    network: String,
    peer: String,
    batch: usize,
    threads: usize,
    full_precision: Spread,
    /// Time of a ternary step, divided by that of a step in full precision.
    ratio: f64,
    /// Time of a step in full precision, divided by that of the first peer.
    times_ours: Option<f64>,
    /// In bytes.
    peak_memory: Option<u64>,
}

fn resnet() -> String {
    "resnet".into()
}

#[derive(Debug, Deserialize)]
struct Spread {
    median_s: f64,
}

impl Results {
    /// Reads the results in a JSON file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not valid, or contains the results of a quick run.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut results: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a valid results file", path.display()))?;
        ensure!(
            !results.quick,
            "{} contains the results of a quick run, which are not representative: run the suite without --quick",
            path.display()
        );
        let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
        results.directory = directory.to_string_lossy().into_owned();
        Ok(results)
    }

    /// Returns the rows with the given number of threads and text in their title, as a Markdown table with the origin
    /// of the results below it.
    ///
    /// # Errors
    /// Returns an error if no row matches.
    pub(crate) fn table(&self, threads: Option<usize>, contains: &str) -> Result<String> {
        let has_threads = |number: usize| threads.is_none_or(|threads| threads == number);
        let (table, what) = match &self.rows {
            Rows::Comparisons(rows) => {
                let rows = rows.iter().filter(|row| has_threads(row.threads) && row.comparison.contains(contains));
                comparisons(&rows.collect::<Vec<_>>())
            }
            Rows::Steps(rows) => steps(
                &rows
                    .iter()
                    .filter(|row| has_threads(row.threads) && row.network.contains(contains))
                    .collect::<Vec<_>>(),
            ),
        };
        ensure!(!table.is_empty(), "no row matches threads={threads:?} and contains=`{contains}`");
        Ok(format!("{table}\n{what} {}\n", self.origin()))
    }

    /// Machine, versions, date and command of the results.
    fn origin(&self) -> String {
        let Environment { processor, threads, finished, versions } = &self.environment;
        let versions: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let date = finished.get(..10).unwrap_or(finished);
        let name = self.directory.strip_suffix(date).map_or(&*self.directory, |name| name.trim_end_matches('-'));
        let suite = &self.suite;
        format!(
            "{processor}, {threads} threads, {}, {date}: `cargo xtask bench {suite} --record {name}`.",
            versions.join(", ")
        )
    }
}

/// One table for each reference, with a row for each comparison and a column for each candidate.
fn comparisons(rows: &[&Comparison]) -> (String, String) {
    let mut tables = Vec::new();
    for reference in distinct(rows.iter().map(|row| &*row.reference)) {
        let rows: Vec<_> = rows.iter().filter(|row| row.reference == reference).collect();
        let candidates = distinct(rows.iter().map(|row| &*row.candidate));
        let mut table =
            line(["".into(), "threads".into()].into_iter().chain(candidates.iter().map(|name| (*name).into())));
        table += &line(std::iter::once("---".into()).chain(std::iter::repeat_n("---:".into(), candidates.len() + 1)));
        for (title, threads) in distinct(rows.iter().map(|row| (&*row.comparison, row.threads))) {
            let cells = candidates.iter().map(|candidate| {
                let mut line = rows.iter().filter(|row| row.comparison == title && row.threads == threads);
                match line.find(|row| row.candidate == *candidate) {
                    Some(row) if row.candidate == reference => duration(row.time.median_s),
                    Some(row) => times(row.times),
                    None => String::new(),
                }
            });
            table += &line([title.to_owned(), threads.to_string()].into_iter().chain(cells));
        }
        tables.push(table);
    }
    let calls = rows.iter().map(|row| row.calls).min().unwrap_or(0);
    let what = format!(
        "The first column of figures is a median time; the others are speedups over it, measured in the same run. \
         At least {calls} timed calls each."
    );
    (tables.join("\n"), what)
}

/// A table with a row for each network, and two columns for each peer.
fn steps(rows: &[&Steps]) -> (String, String) {
    let peers = distinct(rows.iter().map(|row| &*row.peer));
    let Some((ours, others)) = peers.split_first() else { return Default::default() };
    let memory = peers.iter().map(|peer| format!("{peer} memory"));
    let head = ["network", "batch", "threads", ours, "ternary / full"].into_iter().chain(others.iter().copied());
    let mut table = line(head.map(String::from).chain(memory));
    table += &line(std::iter::once("---".into()).chain(std::iter::repeat_n("---:".into(), 3 + 2 * peers.len())));
    for (network, batch, threads) in distinct(rows.iter().map(|row| (&*row.network, row.batch, row.threads))) {
        let of_peer = |peer: &str| {
            let mut line =
                rows.iter().filter(|row| (&*row.network, row.batch, row.threads) == (network, batch, threads));
            line.find(|row| row.peer == peer)
        };
        let cell = |peer: &str, text: fn(&Steps) -> Option<String>| {
            of_peer(peer).and_then(|row| text(row)).unwrap_or_default()
        };
        let ours = [
            cell(ours, |row| Some(duration(row.full_precision.median_s))),
            cell(ours, |row| Some(format!("{:.3}", row.ratio))),
        ];
        let times = others.iter().map(|peer| cell(peer, |row| row.times_ours.map(times)));
        let memory =
            peers.iter().map(|peer| cell(peer, |row| row.peak_memory.map(|bytes| format!("{} MB", bytes / 1_000_000))));
        let first = [network.to_owned(), batch.to_string(), threads.to_string()];
        table += &line(first.into_iter().chain(ours).chain(times).chain(memory));
    }
    let what = format!(
        "The column {ours} is the median time of a step in full precision; the next is that of a ternary step, divided by it. For the \
         others: by how much {ours} is faster, measured in alternating rounds. Memory is the largest resident set after the warm-up."
    );
    (table, what)
}

/// Removes duplicates and keeps the order of first occurrence.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// Formats a time with three digits and a unit.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (1e6 * s, "µs"),
        s if s < 1.0 => (1e3 * s, "ms"),
        s => (s, "s"),
    };
    format!("{} {unit}", digits(value))
}

fn times(value: f64) -> String {
    format!("{} ×", digits(value))
}

/// Formats a number with three digits.
fn digits(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPARISONS: &str = r#"{
        "suite": "packed", "quick": false, "settings": {"levels": ["Avx512"]},
        "environment": {"processor": "A CPU", "threads": 2, "finished": "2026-01-31T12:00:00Z", "versions": {"Burn": "0.21.0"}},
        "rows": [
            {"comparison": "linear", "threads": 1, "candidate": "gemm", "reference": "gemm", "calls": 9, "times": 1.0,
             "time": {"median_s": 3.694e-3, "min_s": 3e-3, "max_s": 4e-3}},
            {"comparison": "linear", "threads": 1, "candidate": "packed", "reference": "gemm", "calls": 80, "times": 11.14,
             "time": {"median_s": 3.3e-4, "min_s": 3e-4, "max_s": 4e-4}},
            {"comparison": "linear", "threads": 2, "candidate": "gemm", "reference": "gemm", "calls": 9, "times": 1.0,
             "time": {"median_s": 2.1e-5, "min_s": 2e-5, "max_s": 4e-5}},
            {"comparison": "3×3", "threads": 1, "candidate": "Flex", "reference": "Flex", "calls": 9, "times": 1.0,
             "time": {"median_s": 1.5, "min_s": 1.0, "max_s": 2.0}}
        ]
    }"#;

    fn results(text: &str) -> Results {
        let directory = tempfile::tempdir().unwrap();
        let record = directory.path().join("desk-2026-01-31");
        fs::create_dir(&record).unwrap();
        fs::write(record.join("suite.json"), text).unwrap();
        Results::read(&record.join("suite.json")).unwrap()
    }

    #[test]
    fn comparisons_with_the_same_reference_share_a_table() {
        let table = results(COMPARISONS).table(None, "").unwrap();
        let expected = "|  | threads | gemm | packed |\n| --- | ---: | ---: | ---: |\n| linear | 1 | 3.69 ms | 11.1 × |\n\
                        | linear | 2 | 21.0 µs |  |\n\n|  | threads | Flex |\n| --- | ---: | ---: |\n| 3×3 | 1 | 1.50 s |\n\n";
        assert_eq!(table.strip_prefix(expected).map(|rest| rest.contains("9 timed calls")), Some(true), "{table}");
        assert!(
            table.contains("A CPU, 2 threads, Burn 0.21.0, 2026-01-31: `cargo xtask bench packed --record desk`"),
            "{table}"
        );
    }

    #[test]
    fn rows_are_selected_by_threads_and_title() {
        let results = results(COMPARISONS);
        let table = results.table(Some(1), "linear").unwrap();
        assert!(table.contains("3.69 ms") && !table.contains("21.0 µs") && !table.contains("3×3"), "{table}");
        assert!(results.table(Some(3), "").is_err());
    }

    #[test]
    fn training_steps_have_their_own_table_layout() {
        let row = |peer: &str, more: &str| {
            format!(
                r#"{{"network": "gpt", "peer": "{peer}", "batch": 16, "threads": 1, "ratio": 1.0421,
                "full_precision": {{"median_s": 0.5, "min_s": 0.4, "max_s": 0.75}}, {more}}}"#
            )
        };
        let text = format!(
            r#"{{"suite": "train", "quick": false,
            "environment": {{"processor": "A CPU", "threads": 2, "finished": "2026-01-31T12:00:00Z", "versions": {{}}}},
            "rows": [{}, {}]}}"#,
            row("cpu", r#""times_ours": 1.0, "peak_memory": 123456789"#),
            row("flex", r#""times_ours": 4.2, "peak_memory": null"#),
        );
        let table = results(&text).table(None, "").unwrap();
        let head = "| network | batch | threads | cpu | ternary / full | flex | cpu memory | flex memory |";
        let row = "| gpt | 16 | 1 | 500 ms | 1.042 | 4.20 × | 123 MB |  |";
        assert!(table.contains(head) && table.contains(row), "{table}");
    }

    #[test]
    fn results_of_a_quick_run_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packed.json");
        fs::write(&path, COMPARISONS.replace("\"quick\": false", "\"quick\": true")).unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().contains("quick"));
    }
}
