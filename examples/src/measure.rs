//! Time of candidates that take turns, and the report of a benchmark suite.
//!
//! A busy machine slows all candidates alike: they run in rounds, each a few calls in a row, and the ratio of two candidates is the
//! median over the rounds of the ratio within a round. A candidate declares the bytes that its call has to read and write at least and
//! its operations, so that a time becomes a share of what the machine can do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use ttq_report::record::Environment;

use crate::environment;

/// A candidate's turn lasts about as long, and no fewer calls than one.
const TURN_S: f64 = 2e-3;
/// Rounds at least, however long they take.
const ROUNDS: usize = 5;

/// Median and extremes of times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median_s: f64,
    /// The shortest.
    pub min_s: f64,
    /// The longest.
    pub max_s: f64,
}

impl Spread {
    /// Of some times; NaN where there are none.
    pub fn of(seconds: &[f64]) -> Self {
        let fold = |pick: fn(f64, f64) -> f64| seconds.iter().copied().fold(f64::NAN, pick);
        Self { median_s: median(seconds.to_vec()), min_s: fold(f64::min), max_s: fold(f64::max) }
    }
}

/// The middle one of some values, the upper one of two in the middle; NaN where there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What can be timed.
pub struct Candidate<'a> {
    name: String,
    note: String,
    bytes: usize,
    operations: usize,
    bandwidth: Option<f64>,
    peak: Option<f64>,
    turn: Box<dyn FnMut(usize) -> Result<Vec<f64>> + 'a>,
}

impl<'a> Candidate<'a> {
    /// Times `call`.
    pub fn new(name: impl Into<String>, mut call: impl FnMut() + 'a) -> Self {
        Self::timed(name, move |calls| {
            let times = (0..calls).map(|_| {
                let start = Instant::now();
                call();
                start.elapsed().as_secs_f64()
            });
            Ok(times.collect())
        })
    }

    /// Has a clock of its own: `turn` calls as often as it is told and returns the seconds of each call.
    pub fn timed(name: impl Into<String>, turn: impl FnMut(usize) -> Result<Vec<f64>> + 'a) -> Self {
        let (name, note) = (name.into(), String::new());
        Self { name, note, bytes: 0, operations: 0, bandwidth: None, peak: None, turn: Box::new(turn) }
    }

    /// Declares the bytes that a call reads and writes, and how many the machine can move in a second if that is known.
    pub fn moving(mut self, bytes: usize, bandwidth: Option<f64>) -> Self {
        (self.bytes, self.bandwidth) = (bytes, bandwidth);
        self
    }

    /// Declares the operations of a call, and how many the machine can do in a second if that is known.
    pub fn doing(mut self, operations: usize, peak: Option<f64>) -> Self {
        (self.operations, self.peak) = (operations, peak);
        self
    }

    /// Says how it is done.
    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// A candidate's time in one comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub comparison: String,
    /// Threads that it was done with.
    pub threads: usize,
    /// By whom.
    pub candidate: String,
    /// How, where that is a choice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Whom `times` is about: the comparison's first candidate.
    pub reference: String,
    /// Seconds of a call.
    pub time: Spread,
    /// Timed calls.
    pub calls: usize,
    /// The reference's time over this one, median of the rounds: above 1, this one is faster.
    pub times: f64,
    /// The reference's shortest time over this one's: where the machine is busy, long calls are interrupted more often than short ones,
    /// and this is the fairer ratio.
    pub times_of_shortest: f64,
    /// Bytes that a call reads and writes at least.
    pub bytes: usize,
    /// Operations of a call.
    pub operations: usize,
    /// Bytes a second over the machine's memory bandwidth for a working set of this size.
    pub share_of_bandwidth: Option<f64>,
    /// Operations a second over those that the machine's instructions allow.
    pub share_of_peak: Option<f64>,
}

impl Row {
    fn new(comparison: &str, reference: (&str, &Turns), candidate: Candidate<'_>, turns: &Turns) -> Self {
        let Candidate { name, note, bytes, operations, bandwidth, peak, .. } = candidate;
        let (reference, first) = reference;
        let time = Spread::of(&turns.times);
        let ratios = first.medians.iter().zip(&turns.medians).map(|(reference, own)| reference / own).collect();
        let share = |amount: usize, limit: Option<f64>| limit.map(|limit| amount as f64 / time.median_s / limit);
        Self {
            comparison: comparison.into(),
            threads: rayon::current_num_threads(),
            candidate: name,
            note,
            reference: reference.into(),
            time,
            calls: turns.times.len(),
            times: median(ratios),
            times_of_shortest: Spread::of(&first.times).min_s / time.min_s,
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

/// Three digits, or all of an integer.
fn digits(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// What the clock said of a candidate.
#[derive(Debug, Clone, Default)]
struct Turns {
    /// Seconds of each call.
    times: Vec<f64>,
    /// Median of each turn.
    medians: Vec<f64>,
}

/// Times candidates in turns on the current threads, for about `budget` each, and prints a line for each: median (shortest to longest), how
/// many times faster than the first candidate (the same of the shortest times), what was declared.
///
/// # Errors
/// No candidates; what one with a clock of its own returns.
pub fn compare(comparison: &str, budget: Duration, mut candidates: Vec<Candidate<'_>>) -> Result<Vec<Row>> {
    ensure!(!candidates.is_empty(), "there is nothing to compare for `{comparison}`");
    println!("\n{comparison}, threads: {}", rayon::current_num_threads());
    let mut estimates = Vec::new();
    for candidate in &mut candidates {
        estimates.push(Spread::of(&(candidate.turn)(2)?).min_s);
    }
    let mut turns = vec![Turns::default(); candidates.len()];
    let start = Instant::now();
    while start.elapsed() < budget * candidates.len() as u32 || turns[0].medians.len() < ROUNDS {
        for ((candidate, turns), estimate) in candidates.iter_mut().zip(&mut turns).zip(&mut estimates) {
            let calls = ((TURN_S / *estimate) as usize).clamp(1, 64);
            // Where calls are short the first one finds the caches full of another candidate's data.
            let warm_up = usize::from(calls > 1);
            let turn = (candidate.turn)(calls + warm_up)?;
            let turn = turn.get(warm_up..).unwrap_or_default();
            *estimate = median(turn.to_vec());
            turns.medians.push(*estimate);
            turns.times.extend_from_slice(turn);
        }
    }
    let reference = candidates.first().map_or(String::new(), |candidate| candidate.name.clone());
    let rows = candidates.into_iter().zip(&turns);
    let rows: Vec<Row> =
        rows.map(|(candidate, own)| Row::new(comparison, (&reference, &turns[0]), candidate, own)).collect();
    rows.iter().for_each(Row::print);
    Ok(rows)
}

/// Threads of these numbers; each number once.
///
/// # Errors
/// Threads that cannot be started.
pub fn pools(numbers: &[usize]) -> Result<Vec<ThreadPool>> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let pool = |number| ThreadPoolBuilder::new().num_threads(number).build().context("cannot start threads");
    numbers.into_iter().map(pool).collect()
}

/// One, and as many as there are.
pub fn one_and_all() -> Vec<usize> {
    vec![1, std::thread::available_parallelism().map_or(1, usize::from)]
}

/// What a suite measured, where and with what.
#[derive(Debug, Serialize)]
pub struct Report<S, R> {
    /// The suite.
    pub suite: &'static str,
    /// A small size, for finding out whether it runs?
    pub quick: bool,
    /// Machine, versions, command line.
    pub environment: Environment,
    /// Vector instruction sets of the processor, as the system calls them.
    pub instruction_sets: Vec<String>,
    /// What the suite was asked for, and what it found out about the machine.
    pub settings: S,
    /// The figures.
    pub rows: Vec<R>,
}

impl<S: Serialize, R: Serialize> Report<S, R> {
    /// Of this process.
    pub fn new(suite: &'static str, quick: bool, settings: S, rows: Vec<R>) -> Self {
        let mut environment = environment::here();
        // (Another program than a bench target was called as it was called.)
        if std::env::args().any(|argument| argument == "--bench") {
            environment.command = command(suite, std::env::args().skip(1));
        }
        Self { suite, quick, environment, instruction_sets: environment::instruction_sets(), settings, rows }
    }

    /// Writes it to a file, if there is one to write to.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What to type for the same figures; paths that say only where things lie on one machine are left out.
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
    fn the_command_names_no_paths_of_one_machine() {
        let command = |words: &str| command("packed", words.split_whitespace().map(String::from));
        assert_eq!(command("--bench --json /a/b.json --candle /c"), "cargo xtask bench packed");
        assert_eq!(command("--levels all --json x --quick"), "cargo xtask bench packed -- --levels all --quick");
    }

    #[test]
    fn a_spread_is_the_median_and_the_extremes() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median_s: 2.0, min_s: 1.0, max_s: 3.0 });
        assert!(Spread::of(&[]).median_s.is_nan());
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // Both become ten times slower in every second round, as on a busy machine; their ratio stays 2.
        let clock = |seconds: f64| {
            let mut turns = 0;
            move |calls: usize| {
                turns += 1;
                Ok(vec![if turns % 2 == 0 { 10.0 * seconds } else { seconds }; calls])
            }
        };
        let candidates = vec![Candidate::timed("slow", clock(2.0)), Candidate::timed("fast", clock(1.0))];
        let rows = compare("two clocks", Duration::ZERO, candidates).unwrap();
        assert_eq!((rows[0].times, rows[1].times, rows[1].calls), (1.0, 2.0, ROUNDS));
        assert_eq!((rows[1].times_of_shortest, &*rows[1].reference), (2.0, "slow"));
        assert!(compare("nothing", Duration::ZERO, Vec::new()).is_err());
    }

    #[test]
    fn declared_work_becomes_a_share_of_the_machine() {
        let candidate = Candidate::timed("a", |calls| Ok(vec![0.5; calls])).moving(10, Some(40.0)).doing(3, Some(6.0));
        let rows = compare("one clock", Duration::ZERO, vec![candidate]).unwrap();
        assert_eq!((rows[0].share_of_bandwidth, rows[0].share_of_peak), (Some(0.5), Some(1.0)));
    }
}
