//! Time of candidates that take turns, and the report of a benchmark suite.
//!
//! A busy machine slows all candidates alike: they run in rounds, each a few calls in a row, and the ratio of two candidates is the
//! median over the rounds of the ratio within a round. A candidate declares the bytes that its call has to read and write at least and
//! its operations, so that a time becomes a share of what the machine can do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
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
    fn new(comparison: &str, candidate: Candidate<'_>, reference: &str, times: &[f64], ratios: Vec<f64>) -> Self {
        let Candidate { name, note, bytes, operations, bandwidth, peak, .. } = candidate;
        let time = Spread::of(times);
        let share = |amount: usize, limit: Option<f64>| limit.map(|limit| amount as f64 / time.median_s / limit);
        Self {
            comparison: comparison.into(),
            threads: rayon::current_num_threads(),
            candidate: name,
            note,
            reference: reference.into(),
            time,
            calls: times.len(),
            times: median(ratios),
            bytes,
            operations,
            share_of_bandwidth: share(bytes, bandwidth),
            share_of_peak: share(operations, peak),
        }
    }

    fn print(&self) {
        let us = |seconds: f64| format!("{:.1}", 1e6 * seconds);
        let Spread { median_s, min_s, max_s } = self.time;
        let spread = format!("{} ({} to {})", us(median_s), us(min_s), us(max_s));
        let rate = |amount: usize, unit: &str| match amount {
            0 => String::new(),
            amount => format!("{:8.2} {unit}", amount as f64 / median_s / 1e9),
        };
        let share = |share: Option<f64>, of: &str| {
            share.map_or(String::new(), |share| format!("{:4.0} % of {of}", 100.0 * share))
        };
        let line = format!(
            "  {:24} {spread:>34} us {:>7.2}x {:>13} {:18} {:>15} {:14} {}",
            self.candidate,
            self.times,
            rate(self.bytes, "GB/s"),
            share(self.share_of_bandwidth, "bandwidth"),
            rate(self.operations, "Gop/s"),
            share(self.share_of_peak, "peak"),
            self.note
        );
        println!("{}", line.trim_end());
    }
}

/// Times candidates in turns on the current threads, for about `budget` each, and prints a line for each. The first is the reference.
///
/// # Errors
/// What a candidate with a clock of its own returns.
pub fn compare(comparison: &str, budget: Duration, mut candidates: Vec<Candidate<'_>>) -> Result<Vec<Row>> {
    println!("\n{comparison}, threads: {}", rayon::current_num_threads());
    let mut estimates = Vec::new();
    for candidate in &mut candidates {
        estimates.push(Spread::of(&(candidate.turn)(2)?).min_s);
    }
    let mut times = vec![Vec::new(); candidates.len()];
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    while start.elapsed() < budget * candidates.len() as u32 || rounds[0].len() < ROUNDS {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            let calls = ((TURN_S / estimates[index]) as usize).clamp(1, 64);
            // Where calls are short the first one finds the caches full of another candidate's data.
            let warm_up = usize::from(calls > 1);
            let turn = (candidate.turn)(calls + warm_up)?;
            let turn = turn.get(warm_up..).unwrap_or_default();
            estimates[index] = median(turn.to_vec());
            rounds[index].push(estimates[index]);
            times[index].extend_from_slice(turn);
        }
    }
    let reference = candidates.first().map_or(String::new(), |candidate| candidate.name.clone());
    let rows = candidates.into_iter().zip(times).zip(&rounds).map(|((candidate, times), own)| {
        let ratios = rounds[0].iter().zip(own).map(|(reference, own)| reference / own).collect();
        Row::new(comparison, candidate, &reference, &times, ratios)
    });
    let rows: Vec<Row> = rows.collect();
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
        Self {
            suite,
            quick,
            environment: environment::here(),
            instruction_sets: environment::instruction_sets(),
            settings,
            rows,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(rows[1].reference, "slow");
    }

    #[test]
    fn declared_work_becomes_a_share_of_the_machine() {
        let candidate = Candidate::timed("a", |calls| Ok(vec![0.5; calls])).moving(10, Some(40.0)).doing(3, Some(6.0));
        let rows = compare("one clock", Duration::ZERO, vec![candidate]).unwrap();
        assert_eq!((rows[0].share_of_bandwidth, rows[0].share_of_peak), (Some(0.5), Some(1.0)));
    }
}
