//! The runs, and the tables that contain them.

/// Name of the runs in full precision, from which all other runs start.
pub(super) const FULL_PRECISION: &str = "full-precision";

/// A variant of the training.
pub(super) struct Variant {
    /// Name in the results, and of the run's directory.
    pub(super) name: &'static str,
    /// Name in the tables.
    pub(super) title: &'static str,
    /// Arguments that differ from the defaults of the example.
    changes: &'static [&'static str],
}

/// The variants. Full precision is first, since the others start from its networks.
pub(super) const VARIANTS: [Variant; 12] = [
    Variant { name: FULL_PRECISION, title: "full precision", changes: &["--method", "fp"] },
    Variant { name: "full-precision-longer", title: "full precision, trained on", changes: &["--method", "fp"] },
    Variant { name: "ttq", title: "TTQ", changes: &[] },
    Variant { name: "ttq-paper", title: "TTQ as in the paper", changes: &["--method", "ttq-paper"] },
    Variant {
        name: "ttq-published",
        title: "TTQ as in the paper, published sign",
        changes: &["--method", "ttq-paper", "--sign", "published"],
    },
    Variant { name: "twn", title: "TWN", changes: &["--method", "twn"] },
    Variant { name: "absmean", title: "absmean (BitNet b1.58)", changes: &["--method", "absmean"] },
    Variant { name: "ttq-mean", title: "TTQ, Δ = 0.7 mean", changes: &["--threshold", "mean:0.7"] },
    Variant { name: "ttq-zeros", title: "TTQ, half of the weights zero", changes: &["--threshold", "zeros:0.5"] },
    Variant { name: "ttq-channel", title: "TTQ, scales per channel", changes: &["--granularity", "channel"] },
    Variant {
        name: "ttq-ones",
        title: "TTQ as in the paper, from 1, 1",
        changes: &["--method", "ttq-paper", "--initial-scales", "ones"],
    },
    Variant {
        name: "ttq-ones-published",
        title: "TTQ as in the paper, published sign, from 1, 1",
        changes: &["--method", "ttq-paper", "--initial-scales", "ones", "--sign", "published"],
    },
];

impl Variant {
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

/// A table of the results.
pub(super) struct Table {
    pub(super) heading: &'static str,
    /// Heading of the first column.
    pub(super) first_column: &'static str,
    /// Name of each row's variant, and the row's label.
    pub(super) rows: &'static [(&'static str, &'static str)],
}

/// The tables of the results.
pub(super) const TABLES: [Table; 3] = [
    Table {
        heading: "Methods",
        first_column: "method",
        rows: &[
            (FULL_PRECISION, "full precision, where the others start"),
            ("full-precision-longer", "full precision, trained on for as long as the others"),
            ("ttq", "TTQ"),
            ("ttq-paper", "TTQ as in the paper, exact sign"),
            ("ttq-published", "TTQ as in the paper, published sign"),
            ("twn", "TWN"),
            ("absmean", "absmean (BitNet b1.58)"),
        ],
    },
    Table {
        heading: "Thresholds and granularity (TTQ)",
        first_column: "threshold",
        rows: &[
            ("ttq", "`max:0.05`"),
            ("ttq-mean", "`mean:0.7`"),
            ("ttq-zeros", "`zeros:0.5`"),
            ("ttq-channel", "`max:0.05`, threshold and scales per output channel"),
        ],
    },
    Table {
        heading: "The sign, from two starts (TTQ as in the paper)",
        first_column: "scales start at, sign",
        rows: &[
            ("ttq-paper", "least squares, exact"),
            ("ttq-published", "least squares, published"),
            ("ttq-ones", "1, 1, exact"),
            ("ttq-ones-published", "1, 1, published (start and sign of the PyTorch port)"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_in_a_table_and_every_row_is_a_variant() {
        let rows: Vec<&str> = TABLES.iter().flat_map(|table| table.rows).map(|(name, _)| *name).collect();
        assert!(VARIANTS.iter().all(|variant| rows.contains(&variant.name)));
        assert!(rows.iter().all(|row| VARIANTS.iter().any(|variant| variant.name == *row)));
    }

    #[test]
    fn only_the_first_variant_trains_from_scratch() {
        assert!(!VARIANTS[0].starts_from_checkpoint());
        assert_eq!(VARIANTS[0].arguments(5, 7), ["--method", "fp", "--fp-epochs", "5", "--epochs", "0"]);
        assert_eq!(VARIANTS[1].arguments(5, 7), ["--method", "fp", "--fp-epochs", "7", "--epochs", "0"]);
        assert!(VARIANTS[1..].iter().all(Variant::starts_from_checkpoint));
        for variant in &VARIANTS[2..] {
            assert!(variant.arguments(5, 7).ends_with(&["--fp-epochs", "0", "--epochs", "7"].map(String::from)));
        }
    }
}
