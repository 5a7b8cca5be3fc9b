//! `cargo xtask snippets`: writes the code blocks of the READMEs from regions of the examples.
//!
//! A code block in `README.md` or `crates/*/README.md` that follows the line
//!
//! ```text
//! <!-- snippet: crates/ttq-core/examples/own_model.rs own-model -->
//! ```
//!
//! holds the lines between `// [own-model]` and `// [/own-model]` of that file, without their common indentation. The
//! line that opens the code block, with its language, is kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

const OPEN: &str = "<!-- snippet:";
const CLOSE: &str = "-->";
const FENCE: &str = "```";

pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    for readme in readmes(&root)? {
        let (old, new, _) = read(&root, &readme)?;
        if old != new {
            fs::write(root.join(&readme), new).with_context(|| format!("cannot write {}", readme.display()))?;
            println!("wrote {}", readme.display());
        }
    }
    println!("all snippets are up to date");
    Ok(())
}

/// Returns one sentence for each code block that differs from its region, or for the first fault of a README.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for readme in readmes(root)? {
        match read(root, &readme) {
            Ok((_, _, outdated)) => violations.extend(outdated.iter().map(|Snippet { line, file, region }| {
                let readme = readme.display();
                format!("{readme}:{line}: the code block differs from `{region}` in {file}: run `cargo xtask snippets`")
            })),
            Err(error) => violations.push(format!("{error:#}")),
        }
    }
    Ok(violations)
}

/// Returns the paths, relative to `root`, of its README and of those of the crates.
fn readmes(root: &Path) -> Result<Vec<PathBuf>> {
    let crates = fs::read_dir(root.join("crates")).context("cannot read the directory crates")?;
    let mut readmes: Vec<PathBuf> =
        crates.flatten().map(|entry| Path::new("crates").join(entry.file_name()).join("README.md")).collect();
    readmes.push("README.md".into());
    readmes.retain(|readme| root.join(readme).is_file());
    readmes.sort();
    Ok(readmes)
}

/// Returns the text of a README, the text with new code blocks, and the snippets that differ.
fn read(root: &Path, readme: &Path) -> Result<(String, String, Vec<Snippet>)> {
    let read =
        |path: &Path| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {}", path.display()));
    let old = read(readme)?;
    let (new, outdated) =
        fill(&old, |file, name| region(&read(Path::new(file))?, name).with_context(|| file.to_owned()))
            .with_context(|| readme.display().to_string())?;
    Ok((old, new, outdated))
}

/// A code block of a README that holds a region of a file.
#[derive(Debug, PartialEq)]
struct Snippet {
    /// Number of the line of the comment, from 1.
    line: usize,
    file: String,
    region: String,
}

impl Snippet {
    /// Parses the comment `<!-- snippet: FILE REGION -->`. Returns `None` for any other line.
    fn parse(number: usize, line: &str) -> Option<Result<Self>> {
        let words = line.trim().strip_prefix(OPEN)?;
        let words: Option<Vec<&str>> = words.strip_suffix(CLOSE).map(|words| words.split_whitespace().collect());
        Some(match words.as_deref() {
            Some([file, region]) => Ok(Self { line: number, file: (*file).into(), region: (*region).into() }),
            _ => Err(anyhow!("line {number}: `{line}` is not of the form `{OPEN} FILE REGION {CLOSE}`")),
        })
    }
}

/// Replaces the contents of each code block that follows a comment by its region, which `region(file, name)` returns.
/// Returns the new text and the snippets that changed.
fn fill(text: &str, region: impl Fn(&str, &str) -> Result<String>) -> Result<(String, Vec<Snippet>)> {
    let (mut new, mut outdated) = (Vec::new(), Vec::new());
    let mut lines = (1..).zip(text.split('\n'));
    while let Some((number, line)) = lines.next() {
        new.push(line.to_owned());
        let Some(snippet) = Snippet::parse(number, line) else { continue };
        let snippet = snippet?;
        let content = region(&snippet.file, &snippet.region).with_context(|| format!("line {number}"))?;
        match lines.next() {
            Some((_, fence)) if fence.starts_with(FENCE) => new.push(fence.to_owned()),
            _ => bail!("line {number}: a code block must begin on the line after the comment `{line}`"),
        }
        let mut old = Vec::new();
        loop {
            match lines.next() {
                Some((_, FENCE)) => break,
                Some((_, line)) => old.push(line),
                None => bail!("line {number}: the code block after the comment `{line}` does not end with `{FENCE}`"),
            }
        }
        if old.join("\n") != content {
            outdated.push(snippet);
        }
        new.push(content);
        new.push(FENCE.into());
    }
    Ok((new.join("\n"), outdated))
}

/// Returns the lines between `// [name]` and `// [/name]` without their common indentation.
fn region(source: &str, name: &str) -> Result<String> {
    let (open, close) = (format!("// [{name}]"), format!("// [/{name}]"));
    let mut lines = source.lines();
    if !lines.any(|line| line.trim() == open) {
        bail!("the line `{open}` is missing");
    }
    let rest: Vec<&str> = lines.collect();
    let content = match rest.iter().position(|line| line.trim() == close) {
        Some(end) if end > 0 => &rest[..end],
        _ => bail!("the line `{open}` is not followed by lines of code and `{close}`"),
    };
    let text = content.iter().filter(|line| !line.trim().is_empty());
    let indentation = text.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    let content: Vec<&str> = content.iter().map(|line| line.get(indentation..).unwrap_or_default()).collect();
    Ok(content.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "fn f() {\n    // [a]\n    let x = 1;\n\n    if x > 0 {\n        g();\n    }\n    // [/a]\n}\n";
    const REGION: &str = "let x = 1;\n\nif x > 0 {\n    g();\n}";

    fn readme(content: &str) -> String {
        format!("# Title\n\n<!-- snippet: f.rs a -->\n```rust,ignore\n{content}\n```\nafter\n```\nuntouched\n```\n")
    }

    #[test]
    fn a_region_loses_its_common_indentation() {
        assert_eq!(region(SOURCE, "a").unwrap(), REGION);
        assert_eq!(region("// [a]\nx\n// [/a]", "a").unwrap(), "x");
    }

    #[test]
    fn an_incomplete_region_is_an_error_that_names_its_line() {
        assert!(region(SOURCE, "b").unwrap_err().to_string().contains("`// [b]` is missing"));
        for source in ["// [a]\nx\n", "// [a]\n// [/a]\n", "// [/a]\n// [a]\nx\n"] {
            assert!(region(source, "a").unwrap_err().to_string().contains("`// [/a]`"), "{source}");
        }
    }

    #[test]
    fn only_code_blocks_after_comments_are_replaced() {
        let source = |file: &str, name: &str| {
            assert_eq!(file, "f.rs");
            region(SOURCE, name)
        };
        let (new, outdated) = fill(&readme("old\nlines"), source).unwrap();
        assert_eq!(new, readme(REGION));
        assert_eq!(outdated, [Snippet { line: 3, file: "f.rs".into(), region: "a".into() }]);
        assert_eq!(fill(&new, source).unwrap(), (new, vec![]), "a second time changes nothing");
    }

    #[test]
    fn invalid_comments_are_errors_that_name_the_line() {
        for text in [
            "\n<!-- snippet: f.rs -->\n```\n```\n",
            "\n<!-- snippet: f.rs a b -->\n```\n```\n",
            "\n<!-- snippet: f.rs a\n```\n```\n",
            "\n<!-- snippet: f.rs a -->\n\n```\n```\n",
            "\n<!-- snippet: f.rs a -->\n```\nx",
            "\n<!-- snippet: f.rs a -->",
        ] {
            let error = fill(text, |_, _| Ok("x".into())).unwrap_err();
            assert!(error.to_string().starts_with("line 2: "), "{text}: {error}");
        }
    }

    #[test]
    fn a_code_block_that_differs_is_one_sentence_with_readme_line_and_file() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("crates/one");
        fs::create_dir_all(&directory).unwrap();
        fs::write(root.path().join("f.rs"), SOURCE).unwrap();
        fs::write(root.path().join("README.md"), readme(REGION)).unwrap();
        assert!(violations(root.path()).unwrap().is_empty());
        fs::write(directory.join("README.md"), readme("old")).unwrap();
        let expected = "crates/one/README.md:3: the code block differs from `a` in f.rs: run `cargo xtask snippets`";
        assert_eq!(violations(root.path()).unwrap(), [expected]);
        fs::remove_file(root.path().join("f.rs")).unwrap();
        assert!(violations(root.path()).unwrap()[0].starts_with("README.md: line 3: cannot read f.rs"));
    }
}
