//! `cargo xtask tables`: writes the benchmark tables of the documents in [`DOCUMENTS`] from the newest results under
//! `benchmarks/`.
//!
//! A table is enclosed by two comments, each on its own line:
//!
//! ```text
//! <!-- bench:packed machine=epyc-9005-2-cores threads=1 contains=linear -->
//! <!-- /bench -->
//! ```
//!
//! The first word is the suite. The other words are optional. `machine` is the name that the results were recorded
//! with; the default is any machine. `threads` and `contains` select rows by the number of threads and by a part of the
//! comparison's title. `contains` is the last word, and its value extends to the end of the comment.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::bench::{DATE, Suite};
use crate::results::Results;

/// Documents with tables, relative to the root.
const DOCUMENTS: [&str; 2] = ["README.md", "benchmarks/README.md"];

const OPEN: &str = "<!-- bench:";
const CONTAINS: &str = " contains=";
const CLOSE: &str = "<!-- /bench -->";

/// Writes the benchmark tables of the documents from the newest results under benchmarks/.
#[derive(Debug, Args)]
pub(crate) struct Tables {
    /// Write nothing; fail if the tables are out of date.
    #[arg(long)]
    check: bool,
}

impl Tables {
    pub(crate) fn run(&self) -> Result<()> {
        if self.check {
            return check();
        }
        for document in DOCUMENTS {
            let (path, old, new) = filled(document)?;
            match old == new {
                true => println!("{} is up to date", path.display()),
                false => {
                    fs::write(&path, new).with_context(|| format!("cannot write {}", path.display()))?;
                    println!("wrote {}", path.display());
                }
            }
        }
        Ok(())
    }
}

/// Fails if the tables of a document are not those of the newest results.
pub(crate) fn check() -> Result<()> {
    for document in DOCUMENTS {
        let (path, old, new) = filled(document)?;
        if old != new {
            bail!("the tables of {} are out of date: run `cargo xtask tables`", path.display());
        }
    }
    Ok(())
}

/// Returns the path of a document, its text, and the text with new tables.
fn filled(document: &str) -> Result<(PathBuf, String, String)> {
    let root = crate::root();
    let path = root.join(document);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let new = fill(&old, |marker| {
        let file = newest(&root.join("benchmarks"), marker)?;
        let results = Results::read(&file)?;
        results
            .table(marker.threads, &marker.contains)
            .with_context(|| format!("cannot create a table from {}", file.display()))
    });
    Ok((path, old, new.with_context(|| document.to_owned())?))
}

/// Description of a table, from its opening comment.
#[derive(Debug, PartialEq)]
struct Marker {
    suite: Suite,
    machine: Option<String>,
    threads: Option<usize>,
    contains: String,
}

impl Marker {
    /// Parses the comment `<!-- bench:SUITE machine=NAME threads=N contains=PART OF A TITLE -->`.
    fn parse(line: &str) -> Result<Self> {
        let inner = line.trim().strip_prefix(OPEN).and_then(|rest| rest.strip_suffix("-->"));
        let inner = inner.with_context(|| format!("`{line}` is not a complete comment: end the line with `-->`"))?;
        let (words, contains) = inner.split_once(CONTAINS).unwrap_or((inner, ""));
        let mut words = words.split_whitespace();
        let suite =
            Suite::from_str(words.next().unwrap_or_default(), false).map_err(|error| anyhow!("`{line}`: {error}"))?;
        let mut marker = Self { suite, machine: None, threads: None, contains: contains.trim().to_owned() };
        for word in words {
            match word.split_once('=') {
                Some(("machine", name)) => marker.machine = Some(name.to_owned()),
                Some(("threads", number)) => {
                    marker.threads = Some(number.parse().with_context(|| format!("`{line}`: threads={number}"))?);
                }
                _ => bail!("`{line}`: `{word}` is not one of machine=NAME, threads=N and contains=PART OF A TITLE"),
            }
        }
        Ok(marker)
    }
}

/// Replaces the text between each pair of comments with a new table.
fn fill(text: &str, mut table: impl FnMut(&Marker) -> Result<String>) -> Result<String> {
    let (mut new, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(OPEN) {
        let line_end = start + rest[start..].find('\n').unwrap_or(rest.len() - start);
        let line = &rest[start..line_end];
        let marker = Marker::parse(line)?;
        let end = rest[line_end..].find(CLOSE).map(|end| line_end + end);
        let end = end.filter(|end| !rest[line_end..*end].contains(OPEN));
        let end = end.with_context(|| format!("`{line}` is not followed by `{CLOSE}`"))?;
        new.push_str(&rest[..line_end]);
        new.push_str("\n\n");
        new.push_str(table(&marker)?.trim());
        new.push_str("\n\n");
        new.push_str(CLOSE);
        rest = &rest[end + CLOSE.len()..];
    }
    Ok(new + rest)
}

/// Returns the newest results file of a suite: of the directories `NAME-DATE` that contain one, that of the latest
/// date, and the last by name among several.
fn newest(benchmarks: &Path, marker: &Marker) -> Result<PathBuf> {
    let suite = marker.suite;
    let entries = fs::read_dir(benchmarks).with_context(|| format!("cannot read {}", benchmarks.display()))?;
    let dated = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (machine, date) = name.split_at_checked(name.len().checked_sub(DATE)?)?;
        let wanted = marker.machine.as_ref().is_none_or(|wanted| machine.strip_suffix('-') == Some(wanted));
        let date = date.to_owned();
        let file = entry.path().join(format!("{}.json", suite.name()));
        (wanted && date.starts_with(|c: char| c.is_ascii_digit()) && file.is_file()).then_some((date, name, file))
    });
    dated.max().map(|(_, _, file)| file).with_context(|| {
        let name = suite.name();
        format!("there are no results of `{name}`: record some with `cargo xtask bench {name} --record MACHINE`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_between_comments_is_replaced() {
        let text = "before\n<!-- bench:load threads=2 contains=batch 1 -->\nold\n<!-- /bench -->\nafter\n";
        let mut markers = Vec::new();
        let new = fill(text, |marker| {
            markers.push((marker.suite, marker.threads, marker.contains.clone()));
            Ok("new\n".into())
        });
        let new = new.unwrap();
        let expected = text.replace("\nold\n", "\n\nnew\n\n");
        assert_eq!(new, expected);
        assert_eq!(markers, [(Suite::Load, Some(2), "batch 1".to_owned())]);
        assert_eq!(fill(&new, |_| Ok("new".into())).unwrap(), new, "a second time changes nothing");
        assert_eq!(fill("no comments", |_| bail!("never called")).unwrap(), "no comments");
    }

    #[test]
    fn invalid_comments_are_rejected() {
        for text in [
            "<!-- bench:load -->\n",
            "<!-- bench:load -->\n<!-- bench:train -->\n<!-- /bench -->\n",
            "<!-- bench:speed -->\n<!-- /bench -->\n",
            "<!-- bench:load threads=two -->\n<!-- /bench -->\n",
            "<!-- bench:load colour=red -->\n<!-- /bench -->\n",
            "<!-- bench:load\n<!-- /bench -->\n",
        ] {
            assert!(fill(text, |_| Ok(String::new())).is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_results_are_those_of_the_latest_date() {
        let benchmarks = tempfile::tempdir().unwrap();
        for (directory, suite) in
            [("z-2026-01-31", "load"), ("a-2026-02-01", "load"), ("b-2026-03-01", "train"), ("candle", "load")]
        {
            let directory = benchmarks.path().join(directory);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(format!("{suite}.json")), "{}").unwrap();
        }
        let newest = |comment: &str| newest(benchmarks.path(), &Marker::parse(comment).unwrap());
        assert_eq!(newest("<!-- bench:load -->").unwrap(), benchmarks.path().join("a-2026-02-01/load.json"));
        let of_machine = newest("<!-- bench:load machine=z -->").unwrap();
        assert_eq!(of_machine, benchmarks.path().join("z-2026-01-31/load.json"));
        assert!(newest("<!-- bench:train machine=z -->").is_err());
        let error = newest("<!-- bench:packed -->").unwrap_err().to_string();
        assert!(error.contains("cargo xtask bench packed --record"), "{error}");
    }
}
