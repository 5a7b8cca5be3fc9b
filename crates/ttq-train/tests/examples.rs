//! Runs the example with fewer epochs.

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/learner.rs"]
mod learner;

#[test]
fn learner_trains_in_both_phases_and_a_second_run_continues_from_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let accuracies = learner::run(directory.path(), 2).unwrap();
    assert!(accuracies.iter().all(|accuracy| *accuracy > 90.0), "{accuracies:?} %");
    assert_eq!(learner::run(directory.path(), 2).unwrap(), accuracies, "no epoch is left to train");
}

#[test]
fn the_example_fits_on_a_page() {
    let lines = include_str!("../examples/learner.rs").lines().count();
    assert!(lines <= 120, "{lines} lines, the maximum is 120");
}
