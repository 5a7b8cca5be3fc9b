//! The runs, and the tables that contain them.

use std::fmt::Display;

/// Name of the runs in full precision, from which all other runs start.
pub(super) const FULL_PRECISION: &str = "full-precision";

/// The runs of a command and their tables.
pub(super) struct Plan {
    /// Title behind that of the example.
    pub(super) title: &'static str,
    /// The variants. Full precision is first, since the others start from its networks.
    pub(super) variants: Vec<Variant>,
    pub(super) tables: Vec<Table>,
}

/// A variant of the training.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    /// Name in the results, and of the run's directory.
    pub(super) name: String,
    /// Name on the terminal and in the JSON file.
    pub(super) title: String,
    /// Arguments that differ from the defaults of the example.
    changes: Vec<&'static str>,
}

/// A table of the results.
pub(super) struct Table {
    pub(super) heading: &'static str,
    /// Headings of the first columns, as one cell in Markdown.
    pub(super) first_columns: &'static str,
    /// Name of each row's variant, and the row's label.
    pub(super) rows: Vec<(String, String)>,
}

impl Plan {
    /// Methods, thresholds, granularities, and the sign of the gradient of W_n.
    pub(super) fn methods() -> Self {
        let variants = METHODS.iter().map(|(name, title, changes)| Variant::new(name, title, changes.to_vec()));
        let tables = METHOD_TABLES.iter().map(|(heading, first_columns, rows)| Table {
            heading,
            first_columns,
            rows: rows.iter().map(|(name, label)| ((*name).into(), (*label).into())).collect(),
        });
        Self { title: "methods", variants: variants.collect(), tables: tables.collect() }
    }

    /// Every combination of slope, start of the scales, granularity and addition.
    pub(super) fn study() -> Self {
        let mut variants = vec![Variant::new(FULL_PRECISION, "full precision", vec!["--method", "fp"])];
        let mut rows = vec![(FULL_PRECISION.into(), "full precision, where the others start | | |".into())];
        for (slope, slope_title) in SLOPES {
            for scales in ["least-squares", "ones"] {
                for granularity in ["tensor", "channel"] {
                    for (addition, title, arguments) in ADDITIONS {
                        let name = format!("{slope}-{scales}-{granularity}-{addition}");
                        let label = format!("{slope_title} | {scales} | {granularity} | {title}");
                        let mut changes = vec!["--threshold", "mean:0.7", "--slope", slope];
                        changes.extend(["--initial-scales", scales, "--granularity", granularity]);
                        changes.extend(arguments);
                        variants.push(Variant::new(&name, label.replace(" |", ","), changes));
                        rows.push((name, label));
                    }
                }
            }
        }
        let table = Table {
            heading: "Slope, start of the scales, granularity, additions",
            first_columns: "slope | scales start at | granularity | addition",
            rows,
        };
        Self { title: "what matters", variants, tables: vec![table] }
    }
}

/// Slopes of the latent gradient outside the zero zone, `--slope`.
const SLOPES: [(&str, &str); 3] = [("scaled", "paper's"), ("identity", "identity"), ("relative", "relative")];

/// What is added to the training: name, title, arguments.
const ADDITIONS: [(&str, &str, &[&str]); 4] = [
    ("plain", "none", &[]),
    ("distillation", "distillation", &["--distill", "0.9:4"]),
    ("averaging", "averaging", &["--average", "0.999"]),
    ("reestimation", "re-estimation", &["--reestimate-batch-norm", "100"]),
];

/// Name, title and arguments of the variants of [`Plan::methods`].
const METHODS: [(&str, &str, &[&str]); 13] = [
    (FULL_PRECISION, "full precision", &["--method", "fp"]),
    ("full-precision-longer", "full precision, trained on", &["--method", "fp"]),
    ("ttq", "TTQ", &[]),
    ("ttq-published", "TTQ, published sign", &["--sign", "published"]),
    ("paper", "TTQ as in the paper", &["--method", "ttq-paper"]),
    ("paper-published", "TTQ as in the paper, published sign", &["--method", "ttq-paper", "--sign", "published"]),
    ("twn", "TWN", &["--method", "twn"]),
    ("absmean", "absmean (BitNet b1.58)", &["--method", "absmean"]),
    ("ttq-mean", "TTQ, Δ = 0.7 mean", &["--threshold", "mean:0.7"]),
    ("ttq-zeros", "TTQ, half of the weights zero", &["--threshold", "zeros:0.5"]),
    ("ttq-channel", "TTQ, scales per channel", &["--granularity", "channel"]),
    ("paper-ones", "TTQ as in the paper, from 1, 1", &["--method", "ttq-paper", "--initial-scales", "ones"]),
    (
        "paper-ones-published",
        "TTQ as in the paper, published sign, from 1, 1",
        &["--method", "ttq-paper", "--initial-scales", "ones", "--sign", "published"],
    ),
];

/// Variant and label of a row.
type Row = (&'static str, &'static str);

/// Heading, heading of the first column, and rows of the tables of [`Plan::methods`].
const METHOD_TABLES: [(&str, &str, &[Row]); 3] = [
    (
        "Methods",
        "method",
        &[
            (FULL_PRECISION, "full precision, where the others start"),
            ("full-precision-longer", "full precision, trained on for as long as the others"),
            ("ttq", "TTQ"),
            ("paper", "TTQ as in the paper"),
            ("twn", "TWN"),
            ("absmean", "absmean (BitNet b1.58)"),
        ],
    ),
    (
        "Thresholds and granularity (TTQ)",
        "threshold",
        &[
            ("ttq", "`max:0.05`"),
            ("ttq-mean", "`mean:0.7`"),
            ("ttq-zeros", "`zeros:0.5`"),
            ("ttq-channel", "`max:0.05`, threshold and scales per output channel"),
        ],
    ),
    (
        "The sign of the gradient of W_n",
        "method, sign",
        &[
            ("ttq", "TTQ, exact"),
            ("ttq-published", "TTQ, published"),
            ("paper", "as in the paper from least squares, exact"),
            ("paper-published", "as in the paper from least squares, published"),
            ("paper-ones", "as in the paper from 1, 1, exact"),
            ("paper-ones-published", "as in the paper from 1, 1, published (the PyTorch port)"),
        ],
    ),
];

impl Variant {
    fn new(name: &str, title: impl Display, changes: Vec<&'static str>) -> Self {
        Self { name: name.into(), title: title.to_string(), changes }
    }

    /// Returns whether the run starts from the network in full precision of the same seed.
    pub(super) fn starts_from_checkpoint(&self) -> bool {
        self.name != FULL_PRECISION
    }

    /// Returns whether the run trains ternary weights.
    pub(super) fn is_ternary(&self) -> bool {
        self.changes != ["--method", "fp"]
    }

    /// Returns the arguments of the example, without seed, data and directories.
    pub(super) fn arguments(&self, fp_epochs: usize, epochs: usize) -> Vec<String> {
        let (fp_epochs, epochs) = match (self.starts_from_checkpoint(), self.is_ternary()) {
            (false, _) => (fp_epochs, 0),
            (true, false) => (epochs, 0),
            (true, true) => (0, epochs),
        };
        let numbers = ["--fp-epochs".into(), fp_epochs.to_string(), "--epochs".into(), epochs.to_string()];
        self.changes.iter().map(|change| (*change).to_owned()).chain(numbers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_in_a_table_and_every_row_is_a_variant() {
        for plan in [Plan::methods(), Plan::study()] {
            let rows: Vec<&String> = plan.tables.iter().flat_map(|table| &table.rows).map(|(name, _)| name).collect();
            assert!(plan.variants.iter().all(|variant| rows.contains(&&variant.name)));
            assert!(rows.iter().all(|row| plan.variants.iter().any(|variant| variant.name == **row)));
        }
    }

    #[test]
    fn only_the_first_variant_trains_from_scratch() {
        let variants = Plan::methods().variants;
        assert!(!variants[0].starts_from_checkpoint());
        assert_eq!(variants[0].arguments(5, 7), ["--method", "fp", "--fp-epochs", "5", "--epochs", "0"]);
        assert_eq!(variants[1].arguments(5, 7), ["--method", "fp", "--fp-epochs", "7", "--epochs", "0"]);
        assert!(variants[1..].iter().all(Variant::starts_from_checkpoint));
        for variant in variants[2..].iter().chain(&Plan::study().variants[1..]) {
            assert!(variant.arguments(5, 7).ends_with(&["--fp-epochs", "0", "--epochs", "7"].map(String::from)));
        }
    }

    #[test]
    fn the_study_has_every_combination_once() {
        let variants = Plan::study().variants;
        assert_eq!(variants.len(), 1 + 3 * 2 * 2 * 4);
        let mut arguments: Vec<_> = variants.iter().map(|variant| variant.arguments(1, 1)).collect();
        arguments.sort_unstable();
        arguments.dedup();
        assert_eq!(arguments.len(), variants.len());
    }
}
