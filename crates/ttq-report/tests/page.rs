//! Tests of whole pages: contents of the sections, missing files, no external resources.

mod synthetic;

use std::fs;
use std::path::Path;

use synthetic::{CLASSES, EPOCHS, write_run};
use tempfile::{TempDir, tempdir};
use ttq_report::record::{
    Evidence, Layer, LayerSummaries, LayerSummary, Mistake, Picture, Prediction, Predictions, Summary,
};
use ttq_report::{Record, ReportError};

fn run(seed: usize) -> TempDir {
    let directory = tempdir().unwrap();
    write_run(directory.path(), seed);
    directory
}

fn page(directory: &Path) -> String {
    fs::read_to_string(ttq_report::write(directory).unwrap()).unwrap()
}

/// Returns the HTML of a section.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no section {id}"));
    &page[start..start + page[start..].find("</section>").unwrap()]
}

/// Returns the HTML of the chart with a title.
fn chart<'a>(html: &'a str, title: &str) -> &'a str {
    let title = format!("<figcaption><b>{title}</b>");
    let start = html.find(&title).unwrap_or_else(|| panic!("no chart {title}"));
    &html[start..start + html[start..].find("</figure>").unwrap()]
}

/// Returns the number of points of the line with a colour class.
fn points(svg: &str, color: &str) -> usize {
    let path = svg.split(&format!("class=\"line {color}")).nth(1);
    let path = path.or_else(|| svg.split(&format!("class=\"line dashed {color}")).nth(1)).unwrap();
    let path = path.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
    path.matches(['M', 'L']).count()
}

#[test]
fn the_page_of_a_complete_run_has_no_gaps() {
    let page = page(run(1).path());
    assert!(!page.contains("Not recorded"), "{:?}", page.find("Not recorded").map(|at| &page[at..at + 200]));
    assert!(!page.contains("NaN") && !page.contains("inf"));
    assert!(page.len() < 300_000, "{} bytes", page.len());
}

#[test]
fn the_page_has_no_external_resources() {
    let page = page(run(1).path());
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    for forbidden in ["<script", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for source in page.split(" src=\"").skip(1).chain(page.split(" href=\"").skip(1)) {
        assert!(source.starts_with("data:") || source.starts_with('#'), "{}", &source[..40.min(source.len())]);
    }
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"));
}

#[test]
fn curves_contain_every_epoch_of_both_phases() {
    let page = page(run(1).path());
    let training = section(&page, "training");
    for title in ["Loss", "Top-1 accuracy", "Top-5 accuracy"] {
        assert_eq!(points(chart(training, title), "c-train"), 2 * EPOCHS, "{title}");
        assert!(chart(training, title).contains("class=\"switch\""), "{title}");
    }
    assert_eq!(points(chart(training, "Top-1 accuracy"), "c-valid"), 2 * EPOCHS);
    // One validation loss is `null` in the history, which is a gap in the line.
    assert_eq!(points(chart(training, "Loss"), "c-valid"), 2 * EPOCHS - 1);
    assert_eq!(points(chart(training, "Learning rate"), "c-train"), 2 * EPOCHS);
    assert_eq!(points(chart(training, "Flip ratio"), "c-flip"), EPOCHS);
    for layer in ["blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1"] {
        assert_eq!(training.matches(&format!("<figcaption><b>{layer}</b>")).count(), 2, "scales and sparsity");
        assert_eq!(points(chart(training, layer), "c-pos"), EPOCHS);
        assert_eq!(points(chart(training, layer), "c-neg"), EPOCHS);
    }
}

#[test]
fn the_layers_section_shows_latent_weights_thresholds_kernels_shares_and_warnings() {
    let page = page(run(1).path());
    let layers = section(&page, "layers");
    assert!(layers.contains("blocks.1.conv1</b>: scale near zero"));
    assert_eq!(layers.matches("class=\"stack\"").count(), 3);
    assert_eq!(layers.matches("class=\"dumbbell\"").count(), 3);
    assert_eq!(layers.matches("ternary weights of ").count(), 3);
    let latents = chart(layers, "Latent weights");
    assert_eq!(latents.matches("class=\"area ").count(), 3);
    assert!(latents.contains("−Δ</text>") && latents.contains("+Δ</text>"));
    for title in ["Sparsity, %", "Wₚ", "Wₙ"] {
        assert!(chart(layers, title).contains("median"), "{title}");
    }
}

#[test]
fn the_errors_section_shows_the_statistics_of_the_predictions() {
    let directory = run(1);
    let page = page(directory.path());
    let errors = section(&page, "errors");
    let evidence = Record::read(directory.path()).unwrap().evidence.unwrap();
    let ternary = evidence.ternary.unwrap();
    let correct = ternary.iter().filter(|prediction| prediction.is_correct()).count();
    assert!(0 < correct && correct < ternary.len());
    assert!(errors.contains(&format!("{:.2} %", 100.0 * correct as f64 / ternary.len() as f64)));
    assert!(errors.contains(&format!("correct ({correct})")));
    assert!(errors.contains(&format!("wrong ({})", ternary.len() - correct)));
    let pair = ternary.iter().filter(|p| (p.label, p.predicted) == (0, 1)).count();
    assert!(errors.contains(&format!("cat predicted as dog\">{pair}<")));
    assert_eq!(chart(errors, "Calibration").matches("ECE").count(), 2);
    assert_eq!(errors.matches("alt=\"test item ").count(), 6);
    // Names of classes are escaped.
    assert!(errors.contains("&lt;bird&gt;") && errors.contains("fish &amp; chips") && !page.contains(CLASSES[2]));
}

#[test]
fn the_size_and_setup_sections_show_bytes_operations_machine_and_configuration() {
    let page = page(run(1).path());
    let size = section(&page, "size");
    for text in ["Ternary at its entropy", "Multiplications", "Skipped", "(full precision)"] {
        assert!(size.contains(text), "{text}");
    }
    let setup = section(&page, "setup");
    for text in ["synthetic --seed 1", "A processor", "0.21.0", "ternary.quantizer.threshold.max_fraction", "17.2 GB"] {
        assert!(setup.contains(text), "{text}");
    }
}

#[test]
fn the_page_of_an_incomplete_run_names_the_missing_files() {
    let directory = run(1);
    for (file, sections) in [
        ("evidence.json", &["layers", "errors", "size", "setup"][..]),
        ("summary.json", &["layers", "size"]),
        ("config.json", &["setup"]),
        ("full-precision/history.json", &[]),
        ("ternary/history.json", &["training"]),
    ] {
        if file == "ternary/history.json" {
            // Only an empty configuration is left beside this file.
            fs::write(directory.path().join("config.json"), "{}").unwrap();
        }
        fs::remove_file(directory.path().join(file)).unwrap();
        let page = page(directory.path());
        for id in sections {
            let html = section(&page, id);
            assert!(html.contains("Not recorded") && html.contains(file), "{id} without {file}");
        }
    }
}

#[test]
fn a_run_of_an_older_version_is_rendered() {
    let directory = run(1);
    let path = directory.path().join("ternary/history.json");
    let mut history: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for epoch in history.as_array_mut().unwrap() {
        epoch.as_object_mut().unwrap().remove("layers");
    }
    fs::write(&path, history.to_string()).unwrap();
    fs::write(directory.path().join("evidence.json"), "{}").unwrap();
    let page = page(directory.path());
    let training = section(&page, "training");
    assert!(training.contains("scales of each layer") && training.contains("mean over layers"));
}

#[test]
fn a_comparison_has_a_row_a_curve_and_a_column_per_run() {
    let runs = [run(1), run(2)];
    let out = runs[0].path().join("comparison.html");
    ttq_report::compare(&[runs[0].path(), runs[1].path()], &out).unwrap();
    let page = fs::read_to_string(out).unwrap();
    let names = runs.each_ref().map(|run| run.path().file_name().unwrap().to_string_lossy().into_owned());
    for name in &names {
        assert!(section(&page, "results").contains(name) && section(&page, "settings").contains(name));
    }
    let curves = chart(section(&page, "curves"), "Validation accuracy");
    assert_eq!((points(curves, "c-0"), points(curves, "c-1")), (2 * EPOCHS, 2 * EPOCHS));
    // The runs differ only in the seed, so the page shows their mean and standard deviation.
    assert!(section(&page, "results").contains(" ± "));
    let settings = section(&page, "settings");
    assert!(settings.find("<td>seed</td><td>1</td><td>2</td>").is_some());
    assert!(!settings.contains("<td>batch_size</td>"));
}

#[test]
fn a_language_model_is_shown_by_its_perplexity_without_classes() {
    let directory = run(1);
    let path = directory.path().join("summary.json");
    let mut summary: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let fields = summary.as_object_mut().unwrap();
    fields.retain(|name, _| !name.contains("accuracy") && !name.contains("top5"));
    fields.insert("full_precision_perplexity".into(), 4.0.into());
    fields.insert("ternary_perplexity".into(), 8.0.into());
    fs::write(&path, summary.to_string()).unwrap();
    let page = page(directory.path());
    assert!(page.contains("8.000 (3.000 bits)") && page.contains("4.000 (2.000 bits) in full precision"));
    assert!(!page.contains("id=\"errors\"") && !page.contains("Top-1"));
    let training = section(&page, "training");
    // One validation loss is `null` in the history.
    assert_eq!(points(chart(training, "Perplexity"), "c-valid"), 2 * EPOCHS - 1);
    let out = directory.path().join("comparison.html");
    ttq_report::compare(&[directory.path()], &out).unwrap();
    let comparison = fs::read_to_string(out).unwrap();
    assert!(section(&comparison, "results").contains(">4.00<") && section(&comparison, "results").contains(">8.00<"));
}

#[test]
fn a_directory_without_a_run_and_damaged_files_are_errors() {
    let directory = tempdir().unwrap();
    assert!(matches!(ttq_report::write(directory.path()), Err(ReportError::NoRun { .. })));
    assert!(matches!(ttq_report::compare::<&Path>(&[], "x"), Err(ReportError::NothingToCompare)));
    fs::write(directory.path().join("summary.json"), "{\"seconds\": \"long\"}").unwrap();
    let error = ttq_report::write(directory.path()).unwrap_err().to_string();
    assert!(error.contains("summary.json") && error.contains("line 1"), "{error}");
}

#[test]
fn a_failed_write_leaves_no_files_and_names_the_file() {
    let directory = run(1);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // A directory cannot be replaced by a file.
    fs::create_dir(directory.path().join("report.html")).unwrap();
    let before = names();
    let error = ttq_report::write(directory.path()).unwrap_err();
    assert!(matches!(&error, ReportError::Write { path, .. } if path.ends_with("report.html")), "{error}");
    let missing = directory.path().join("missing/comparison.html");
    let error = ttq_report::compare(&[directory.path()], &missing).unwrap_err();
    assert!(matches!(error, ReportError::Write { path, .. } if path == missing));
    assert_eq!(names(), before);
}

#[cfg(unix)]
#[test]
fn permissions_follow_the_umask_and_reports_are_replaced() {
    use std::os::unix::fs::PermissionsExt;

    let directory = run(1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let reference = directory.path().join("reference");
    fs::write(&reference, "").unwrap();
    for _ in 0..2 {
        let report = ttq_report::write(directory.path()).unwrap();
        assert_eq!(mode(&report), mode(&reference));
    }
    assert_eq!(mode(&directory.path().join("evidence.json")), mode(&reference));
}

#[test]
fn numbers_that_are_not_finite_survive_the_files_and_the_page_shows_them() {
    let nan = f32::NAN;
    let mut predictions = Predictions::new(3);
    predictions.push(&Prediction::new(1, &[0.25, 0.25, 0.5]));
    predictions.push(&Prediction::new(2, &[f64::NAN; 3]));
    let layer = Layer::new("a.weight", &[2, 2], 0, &[nan, 0.5, f32::INFINITY, -0.5], &[nan], &[0, 1, 0, -1]);
    let picture = Picture { shape: [1, 1, 1], pixels: vec![7] };
    let [confidence, label_probability] = [f64::NAN, f64::INFINITY];
    let mistake = Mistake { index: 1, label: 2, predicted: 0, confidence, label_probability, picture };
    let evidence =
        Evidence { ternary: Some(predictions), layers: vec![layer], mistakes: vec![mistake], ..Evidence::default() };
    let directory = tempfile::tempdir().unwrap();
    evidence.write(directory.path()).unwrap();
    let summary =
        LayerSummary { path: "a.weight".into(), w_pos: f64::NAN, sparsity: f64::INFINITY, ..Default::default() };
    let layers = LayerSummaries { layers: vec![summary], full_precision_parameters: 1 };
    let summary = Summary { sparsity: Some(f64::NAN), layers: Some(layers), ..Summary::default() };
    fs::write(directory.path().join("summary.json"), serde_json::to_string(&summary).unwrap()).unwrap();

    let read = Record::read(directory.path()).unwrap();
    let found = read.evidence.unwrap();
    let predictions: Vec<_> = found.ternary.as_ref().unwrap().iter().collect();
    assert_eq!((predictions[0].confidence, predictions[1].label), (0.5, 2));
    assert!(predictions[1].confidence.is_nan() && predictions[1].entropy.is_nan());
    assert!(found.layers[0].thresholds[0].is_nan());
    assert_eq!((found.layers[0].histogram.high, found.layers[0].histogram.total()), (0.5, 2));
    assert_eq!(found.layers[0].codes, evidence.layers[0].codes);
    assert!(found.mistakes[0].confidence.is_nan() && found.mistakes[0].label_probability.is_nan());
    assert!(read.summary.unwrap().layers.unwrap().layers[0].w_pos.is_nan());
    let page = page(directory.path());
    assert!(page.contains("<td>a</td>"), "the layer has a row");
    for text in ["NaN", "inf%", ">inf"] {
        let around = page.find(text).map(|at| page[..at].chars().rev().take(60).collect::<Vec<_>>());
        assert_eq!(around.map(|text| text.into_iter().rev().collect::<String>()), None, "a dash stands for {text}");
    }
}
