//! Runs the examples with fewer steps.

use std::sync::{Mutex, PoisonError};

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/checkpoint.rs"]
mod checkpoint;
#[allow(dead_code, unreachable_pub)]
#[path = "../examples/own_model.rs"]
mod own_model;
#[allow(dead_code, unreachable_pub)]
#[path = "../examples/packed.rs"]
mod packed;

/// Runs one example at a time: all threads of a process draw from one random number generator.
fn alone<R>(example: impl FnOnce() -> R) -> R {
    static RUNNING: Mutex<()> = Mutex::new(());
    let _guard = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    example()
}

#[test]
fn own_model_trains_in_full_precision_and_with_ternary_weights() {
    let (float, ternary) = alone(|| own_model::run(100)).unwrap();
    assert!(float > 90.0 && ternary > 90.0, "{float} % in full precision, {ternary} % ternary");
}

#[test]
fn checkpoint_fine_tunes_and_its_packed_file_gives_equal_results_with_packed_and_dense_weights() {
    let directory = tempfile::tempdir().unwrap();
    let [float, start, end] = alone(|| checkpoint::run(None, directory.path(), 160)).unwrap();
    assert!(float > 90.0 && end > 90.0 && end > start, "{float} % float, {start} % ternary, {end} % fine-tuned");
    let float_file = directory.path().join("ttq-float.safetensors");
    let packed_file = directory.path().join("ttq-packed.safetensors");
    let bytes = [&float_file, &packed_file].map(|path| path.metadata().unwrap().len());
    assert!(10 * bytes[1] < bytes[0], "{bytes:?} bytes");

    let (difference, accuracy) = packed::run(Some(packed_file), directory.path(), 0).unwrap();
    assert!(difference < 1e-4, "{difference}");
    assert!((accuracy - end).abs() < 0.05, "{accuracy} % instead of {end} % on the same images");
    let untrained = alone(|| checkpoint::run(Some(float_file), directory.path(), 0)).unwrap();
    assert_eq!(untrained, [float, start, start], "no step of fine-tuning");
}

#[test]
fn the_packed_example_packs_a_network_if_it_is_given_none() {
    let directory = tempfile::tempdir().unwrap();
    let (difference, accuracy) = alone(|| packed::run(None, directory.path(), 160)).unwrap();
    assert!(difference < 1e-4 && accuracy > 90.0, "{difference}, {accuracy} %");
}

#[test]
fn an_example_fits_on_a_page() {
    let examples = [
        include_str!("../examples/checkpoint.rs"),
        include_str!("../examples/own_model.rs"),
        include_str!("../examples/packed.rs"),
    ];
    for example in examples {
        let (lines, title) = (example.lines().count(), example.lines().next());
        assert!(lines <= 120, "{lines} lines, the maximum is 120: {title:?}");
    }
}
