//! Timing of candidates in alternating rounds, and the report of a benchmark suite.
//!
//! In each round, every candidate is called a few times in a row. Other load on the machine slows all candidates of a
//! round equally, so the ratio of two candidates is the median over the rounds of the ratio within a round. A candidate
//! declares its number of operations and the minimum number of bytes that a call reads and writes; with the limits of
//! the machine, its time becomes a share of what the machine can do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use ttq_report::record::Environment;

/// Approximate duration of a candidate's calls in a round, in seconds. There is at least one call.
const TURN_SECONDS: f64 = 2e-3;
/// Time of the calls before a turn on several threads. The threads of a pool that has slept may join after milliseconds in a
/// virtual machine, and those of the candidate before may spin as long.
const WAKE_SECONDS: f64 = 1e-2;
/// Minimum number of rounds, whatever their duration.
const MIN_ROUNDS: usize = 5;

/// Median and extremes of durations in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median_s: f64,
    /// Minimum.
    pub min_s: f64,
    /// Maximum.
    pub max_s: f64,
}

impl Spread {
    /// Computes the spread of durations; NaN if there are none.
    pub fn of(seconds: &[f64]) -> Self {
        let fold = |pick: fn(f64, f64) -> f64| seconds.iter().copied().fold(f64::NAN, pick);
        Self { median_s: median(seconds.to_vec()), min_s: fold(f64::min), max_s: fold(f64::max) }
    }
}

/// Returns the median, the upper one of an even number of values; NaN if there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A function to be timed in a comparison.
pub struct Candidate<'a> {
    name: String,
    note: String,
    bytes: usize,
    operations: usize,
    bandwidth: Option<f64>,
    peak: Option<f64>,
    measure: Box<dyn FnMut(usize) -> Result<Vec<f64>> + 'a>,
}

impl<'a> Candidate<'a> {
    /// Creates a candidate that times each call of `call`.
    pub fn new(name: impl Into<String>, mut call: impl FnMut() + 'a) -> Self {
        Self::self_timed(name, move |calls| {
            let times = (0..calls).map(|_| {
                let start = Instant::now();
                call();
                start.elapsed().as_secs_f64()
            });
            Ok(times.collect())
        })
    }

    /// Creates a candidate that measures its own time: `measure` makes the given number of calls and returns the
    /// seconds of each.
    pub fn self_timed(name: impl Into<String>, measure: impl FnMut(usize) -> Result<Vec<f64>> + 'a) -> Self {
        let (name, note) = (name.into(), String::new());
        Self { name, note, bytes: 0, operations: 0, bandwidth: None, peak: None, measure: Box::new(measure) }
    }

    /// Declares the minimum number of bytes that a call reads and writes, and the bytes per second that the machine can
    /// move, if known.
    pub fn with_bytes(mut self, bytes: usize, bandwidth: Option<f64>) -> Self {
        (self.bytes, self.bandwidth) = (bytes, bandwidth);
        self
    }

    /// Declares the number of operations of a call, and the operations per second that the machine can do, if known.
    pub fn with_operations(mut self, operations: usize, peak: Option<f64>) -> Self {
        (self.operations, self.peak) = (operations, peak);
        self
    }

    /// Adds a note about the implementation.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Result of a candidate in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Title of the comparison.
    pub comparison: String,
    /// Number of threads.
    pub threads: usize,
    /// Name of the candidate.
    pub candidate: String,
    /// Implementation of the candidate, if it has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Name of the comparison's first candidate, which `times` refers to.
    pub reference: String,
    /// Seconds per call.
    pub time: Spread,
    /// Number of timed calls.
    pub calls: usize,
    /// Time of the reference divided by the time of this candidate, median of the rounds: above 1, this candidate is
    /// faster.
    pub times: f64,
    /// Shortest time of the reference divided by the shortest time of this candidate. On a busy machine, long calls are
    /// interrupted more often than short ones, and this ratio is less biased.
    pub times_of_shortest: f64,
    /// Minimum number of bytes that a call reads and writes.
    pub bytes: usize,
    /// Number of operations of a call.
    pub operations: usize,
    /// Bytes per second, as a share of the machine's memory bandwidth for a working set of this size.
    pub share_of_bandwidth: Option<f64>,
    /// Operations per second, as a share of the maximum of the machine's instructions.
    pub share_of_peak: Option<f64>,
}

impl Row {
    fn new(
        comparison: &str,
        (reference, reference_times): (&str, &Measurements),
        candidate: Candidate<'_>,
        own_times: &Measurements,
    ) -> Self {
        let Candidate { name, note, bytes, operations, bandwidth, peak, .. } = candidate;
        let time = Spread::of(&own_times.calls);
        let rounds = reference_times.medians.iter().zip(&own_times.medians);
        let share = |amount: usize, limit: Option<f64>| limit.map(|limit| amount as f64 / time.median_s / limit);
        Self {
            comparison: comparison.into(),
            threads: rayon::current_num_threads(),
            candidate: name,
            note,
            reference: reference.into(),
            time,
            calls: own_times.calls.len(),
            times: median(rounds.map(|(reference, own)| reference / own).collect()),
            times_of_shortest: Spread::of(&reference_times.calls).min_s / time.min_s,
            bytes,
            operations,
            share_of_bandwidth: share(bytes, bandwidth),
            share_of_peak: share(operations, peak),
        }
    }

    fn print(&self) {
        let us = |seconds: f64| digits(1e6 * seconds);
        let Spread { median_s, min_s, max_s } = self.time;
        let spread = format!("{} ({} to {})", us(median_s), us(min_s), us(max_s));
        let rate = |amount: usize, unit: &str| match amount as f64 / median_s {
            0.0 => String::new(),
            rate if rate < 1e9 => format!("{} M{unit}", digits(rate / 1e6)),
            rate => format!("{} G{unit}", digits(rate / 1e9)),
        };
        let share = |share: Option<f64>, of: &str| {
            share.map_or(String::new(), |share| format!("{:4.0} % of {of}", 100.0 * share))
        };
        let line = format!(
            "  {:24} {spread:>28} us {:>6}x ({:>6}x) {:>11} {:18} {:>11} {:14} {}",
            self.candidate,
            digits(self.times),
            digits(self.times_of_shortest),
            rate(self.bytes, "B/s"),
            share(self.share_of_bandwidth, "bandwidth"),
            rate(self.operations, "op/s"),
            share(self.share_of_peak, "peak"),
            self.note
        );
        println!("{}", line.trim_end());
    }
}

/// Formats a number with three digits, or all digits of the integer part if there are more.
fn digits(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Measured times of a candidate, in seconds.
#[derive(Debug, Clone, Default)]
struct Measurements {
    /// Time of each call.
    calls: Vec<f64>,
    /// Median time of the calls of each round.
    medians: Vec<f64>,
}

/// Times the candidates in alternating rounds on the current threads, for about `budget` per candidate. Prints a line
/// for each: median (minimum to maximum), speedup over the first candidate (in brackets that of the shortest times),
/// and the declared bytes and operations as rates.
///
/// # Errors
/// Returns an error if there are no candidates, and the errors of candidates that measure their own time.
pub fn compare(comparison: &str, budget: Duration, mut candidates: Vec<Candidate<'_>>) -> Result<Vec<Row>> {
    ensure!(!candidates.is_empty(), "the comparison `{comparison}` has no candidates");
    println!("\n{comparison}, threads: {}", rayon::current_num_threads());
    let mut estimates = Vec::new();
    for candidate in &mut candidates {
        estimates.push(Spread::of(&(candidate.measure)(2)?).min_s);
    }
    let mut measurements = vec![Measurements::default(); candidates.len()];
    let start = Instant::now();
    while start.elapsed() < budget * candidates.len() as u32 || measurements[0].medians.len() < MIN_ROUNDS {
        for ((candidate, own), estimate) in candidates.iter_mut().zip(&mut measurements).zip(&mut estimates) {
            let calls = ((TURN_SECONDS / *estimate) as usize).clamp(1, 64);
            // The first of several short calls finds data of another candidate in the caches, and other threads asleep.
            let warm_up = match rayon::current_num_threads() {
                1 => usize::from(calls > 1),
                _ => (WAKE_SECONDS / *estimate).ceil().clamp(1.0, 4096.0) as usize,
            };
            let times = (candidate.measure)(calls + warm_up)?;
            let times = times.get(warm_up..).unwrap_or_default();
            *estimate = median(times.to_vec());
            own.medians.push(*estimate);
            own.calls.extend_from_slice(times);
        }
    }
    let reference = candidates.first().map_or(String::new(), |candidate| candidate.name.clone());
    let rows = candidates.into_iter().zip(&measurements);
    let rows: Vec<Row> =
        rows.map(|(candidate, own)| Row::new(comparison, (&reference, &measurements[0]), candidate, own)).collect();
    rows.iter().for_each(Row::print);
    Ok(rows)
}

/// Creates a thread pool for each distinct number of threads, in ascending order.
///
/// # Errors
/// Returns an error if the threads cannot be started.
pub fn thread_pools(numbers: &[usize]) -> Result<Vec<ThreadPool>> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let pool = |number| ThreadPoolBuilder::new().num_threads(number).build().context("cannot start threads");
    numbers.into_iter().map(pool).collect()
}

/// Returns the default numbers of threads: one, and all threads of the machine.
pub fn one_and_all_threads() -> Vec<usize> {
    vec![1, std::thread::available_parallelism().map_or(1, usize::from)]
}

/// Results of a suite, with the environment that they were measured in.
#[derive(Debug, Serialize)]
pub struct Report<S, R> {
    /// Name of the suite.
    pub suite: &'static str,
    /// Whether the sizes were small, to test whether the suite runs.
    pub quick: bool,
    /// Machine, versions and command line.
    pub environment: Environment,
    /// Vector instruction sets of the processor, as the operating system names them.
    pub instruction_sets: Vec<String>,
    /// Options of the suite, and measured limits of the machine.
    pub settings: S,
    /// Results.
    pub rows: Vec<R>,
}

impl<S: Serialize, R: Serialize> Report<S, R> {
    /// Creates a report with the environment of this process.
    pub fn new(suite: &'static str, quick: bool, settings: S, rows: Vec<R>) -> Self {
        let mut environment = ttq_examples::environment();
        // Cargo passes `--bench` to bench targets. Other programs keep their own command line.
        if std::env::args().any(|argument| argument == "--bench") {
            environment.command = command(suite, std::env::args().skip(1));
        }
        Self { suite, quick, environment, instruction_sets: ttq_report::instruction_sets(), settings, rows }
    }

    /// Writes the report to a file as JSON; does nothing without a path.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Returns the command that repeats the measurement. Options whose paths are specific to one machine are left out.
fn command(suite: &str, mut arguments: impl Iterator<Item = String>) -> String {
    let mut own = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--json" | "--candle" | "--python" => drop(arguments.next()),
            _ => own.push(argument),
        }
    }
    let separator = if own.is_empty() { "" } else { " -- " };
    format!("cargo xtask bench {suite}{separator}{}", own.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_contains_no_machine_specific_paths() {
        let command = |words: &str| command("packed", words.split_whitespace().map(String::from));
        assert_eq!(command("--bench --json /a/b.json --candle /c"), "cargo xtask bench packed");
        assert_eq!(command("--levels all --json x --quick"), "cargo xtask bench packed -- --levels all --quick");
    }

    #[test]
    fn a_spread_contains_the_median_and_the_extremes() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median_s: 2.0, min_s: 1.0, max_s: 3.0 });
        assert!(Spread::of(&[]).median_s.is_nan());
    }

    #[test]
    fn ratios_are_computed_within_rounds() {
        // In every second round both are ten times slower, as on a busy machine. Their ratio is always 2.
        let clock = |seconds: f64| {
            let mut rounds = 0;
            move |calls: usize| {
                rounds += 1;
                Ok(vec![if rounds % 2 == 0 { 10.0 * seconds } else { seconds }; calls])
            }
        };
        let candidates = vec![Candidate::self_timed("slow", clock(2.0)), Candidate::self_timed("fast", clock(1.0))];
        let rows = compare("two clocks", Duration::ZERO, candidates).unwrap();
        assert_eq!((rows[0].times, rows[1].times, rows[1].calls), (1.0, 2.0, MIN_ROUNDS));
        assert_eq!((rows[1].times_of_shortest, &*rows[1].reference), (2.0, "slow"));
        assert!(compare("nothing", Duration::ZERO, Vec::new()).is_err());
    }

    #[test]
    fn declared_bytes_and_operations_become_shares_of_the_limits() {
        let candidate = Candidate::self_timed("a", |calls| Ok(vec![0.5; calls]))
            .with_bytes(10, Some(40.0))
            .with_operations(3, Some(6.0));
        let rows = compare("one clock", Duration::ZERO, vec![candidate]).unwrap();
        assert_eq!((rows[0].share_of_bandwidth, rows[0].share_of_peak), (Some(0.5), Some(1.0)));
    }
}
