//! `ttq bench`: measures the latency and the throughput of a network, and the time of its layers.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rayon::ThreadPool;
use serde::Serialize;
use ttq_packed::kernels::Level;
use ttq_packed::network::{Arena, Int8, Network};

use crate::memory::measure as with_memory;
use crate::network::{self, NetworkFile, available_threads};
use crate::table::Table;

/// Time of the calls of a configuration in a round; a longer call is made once.
const TURN: Duration = Duration::from_millis(20);
/// Minimum number of rounds.
const LEAST_ROUNDS: usize = 3;

/// Arguments of `ttq bench`.
#[derive(Debug, Args)]
#[command(mut_arg("int8", |int8| {
    int8.default_value("inner").help("Measure int8 beside float32, if the file has ranges of values")
}))]
pub(crate) struct Bench {
    #[command(flatten)]
    network: NetworkFile,
    /// Numbers of items of a call. The first is that of the times per layer.
    #[arg(long, value_delimiter = ',', default_value = "1,8,100", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// Numbers of threads [default: 1, and all of the machine].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// Time of all measurements together, unless three rounds take longer.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Output of `ttq bench`.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    file: String,
    processor: String,
    instructions: String,
    version: &'static str,
    parameters: usize,
    multiply_adds: usize,
    rounds: usize,
    notes: Vec<String>,
    networks: Vec<Compiled>,
    calls: Vec<Calls>,
}

/// A network in float32 or in int8.
#[derive(Debug, Serialize)]
struct Compiled {
    precision: &'static str,
    /// Allocated memory of the network.
    network_bytes: usize,
    /// Number of items that go through the layers together, and the size of their values, for each thread.
    items_together: usize,
    arena_bytes: usize,
    /// Number of items of a call for the times of the layers.
    batch: usize,
    layers: Vec<Layer>,
}

/// Time of a layer on one thread.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    algorithm: &'static str,
    median_seconds: f64,
    share: f64,
    multiply_adds: usize,
    giga_operations_per_second: f64,
}

/// Times of calls of the same kind.
#[derive(Debug, Serialize)]
struct Calls {
    precision: &'static str,
    threads: usize,
    batch: usize,
    calls: usize,
    minimum_seconds: f64,
    median_seconds: f64,
    /// At the median.
    items_per_second: f64,
}

/// Calls of a network of the same kind.
struct Candidate<'a> {
    network: &'a Network,
    network_bytes: usize,
    precision: &'static str,
    pool: &'a ThreadPool,
    batch: usize,
    /// Seconds of each call, or of each layer of each call.
    times: Vec<Vec<f64>>,
    by_layer: bool,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<Measured> {
        if !(self.seconds.is_finite() && self.seconds >= 0.0) {
            bail!("--seconds is {}: it must be a positive number", self.seconds);
        }
        let (graph, _) = network::read(&self.network.file)?;
        let summary = ttq_report::network::NetworkSummary::new(&graph);
        let mut notes = Vec::new();
        let compile = |int8| {
            let (network, bytes) = with_memory(|| network::compile(&self.network.file, &graph, int8));
            network.map(|network| (network, bytes))
        };
        let mut networks = vec![("float32", compile(Int8::Off)?)];
        if self.network.int8 != Int8::Off {
            match compile(self.network.int8) {
                Ok(network) => networks.push(("int8", network)),
                Err(error) => notes.push(format!("int8 is not measured: {error:#}")),
            }
        }
        let threads = match &self.threads[..] {
            [] if available_threads() == 1 => vec![1],
            [] => vec![1, available_threads()],
            threads => threads.iter().map(|threads| usize::from(*threads)).collect(),
        };
        let pools = threads.into_iter().map(network::threads).collect::<Result<Vec<_>>>()?;
        let one = network::threads(1)?;
        let batches: Vec<usize> = self.batch.iter().map(|batch| usize::from(*batch)).collect();
        let mut candidates = Vec::new();
        for (precision, (network, network_bytes)) in &networks {
            let candidate = |pool, batch, by_layer| {
                let series = if by_layer { network.layers().len() } else { 1 };
                let network_bytes = *network_bytes;
                Candidate { network, network_bytes, precision, pool, batch, times: vec![Vec::new(); series], by_layer }
            };
            for pool in &pools {
                candidates.extend(batches.iter().map(|batch| candidate(pool, *batch, false)));
            }
            candidates.push(candidate(&one, batches[0], true));
        }
        let rounds = measure(&mut candidates, Duration::from_secs_f64(self.seconds.min(1e6)))
            .with_context(|| self.network.file.display().to_string())?;
        let (layers, calls): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| candidate.by_layer);
        Ok(Measured {
            file: self.network.file.display().to_string(),
            processor: ttq_report::environment(&[]).processor,
            instructions: format!("{:?}", Level::best()),
            version: env!("CARGO_PKG_VERSION"),
            parameters: summary.total.parameters,
            multiply_adds: summary.total.multiply_adds,
            rounds,
            notes,
            networks: layers.into_iter().map(Compiled::new).collect(),
            calls: calls.into_iter().map(Calls::new).collect(),
        })
    }
}

/// Measures all candidates in turns, for some time, and returns the number of rounds.
fn measure(candidates: &mut [Candidate<'_>], duration: Duration) -> Result<usize> {
    let largest = candidates.iter().map(|candidate| candidate.batch * length(candidate.network.input_dims())).max();
    // Values from -1 to 1, without a pattern of the period of a row.
    let x = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / 2.0_f32.powi(31) - 1.0;
    let x: Vec<f32> = (0..largest.unwrap_or(0)).map(x).collect();
    let mut arena = Arena::new();
    // The first calls allocate memory and start threads.
    candidates.iter_mut().try_for_each(|candidate| candidate.call(&x, &mut arena, Duration::ZERO))?;
    candidates.iter_mut().for_each(|candidate| candidate.times.iter_mut().for_each(Vec::clear));
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < LEAST_ROUNDS || start.elapsed() < duration {
        let mut turn = |candidate: &mut Candidate<'_>| candidate.call(&x, &mut arena, TURN);
        match rounds % 2 {
            0 => candidates.iter_mut().try_for_each(&mut turn)?,
            _ => candidates.iter_mut().rev().try_for_each(&mut turn)?,
        }
        rounds += 1;
    }
    Ok(rounds)
}

impl Candidate<'_> {
    /// Calls the network until some time has passed, at least once.
    fn call(&mut self, x: &[f32], arena: &mut Arena, duration: Duration) -> Result<()> {
        let Self { network, pool, batch, times, by_layer, .. } = self;
        let x = &x[..*batch * length(network.input_dims())];
        let mut y = vec![0.0; *batch * length(network.output_dims())];
        pool.install(|| {
            let start = Instant::now();
            loop {
                if *by_layer {
                    let seconds = network.run_timed(arena, x, &mut y)?;
                    times.iter_mut().zip(seconds).for_each(|(times, seconds)| times.push(seconds));
                } else {
                    let start = Instant::now();
                    network.run(arena, x, &mut y)?;
                    times[0].push(start.elapsed().as_secs_f64());
                }
                if start.elapsed() >= duration {
                    return Ok(());
                }
            }
        })
    }
}

fn length(dims: &[usize]) -> usize {
    dims.iter().product()
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Compiled {
    fn new(Candidate { network, network_bytes, precision, batch, times, .. }: &Candidate<'_>) -> Self {
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        let sum: f64 = medians.iter().sum();
        let layers = network.layers().zip(medians).map(|(layer, seconds)| Layer {
            name: layer.name.to_owned(),
            algorithm: layer.algorithm,
            median_seconds: seconds,
            share: if sum > 0.0 { seconds / sum } else { 0.0 },
            multiply_adds: layer.multiply_adds,
            giga_operations_per_second: if seconds > 0.0 {
                2e-9 * layer.multiply_adds as f64 * *batch as f64 / seconds
            } else {
                0.0
            },
        });
        let (items_together, arena_bytes) = network.memory();
        let network_bytes = *network_bytes;
        Self { precision, network_bytes, items_together, arena_bytes, batch: *batch, layers: layers.collect() }
    }
}

impl Calls {
    fn new(Candidate { precision, pool, batch, times, .. }: &Candidate<'_>) -> Self {
        let [times] = &times[..] else { unreachable!("one series of times") };
        let median_seconds = median(times);
        Self {
            precision,
            threads: pool.current_num_threads(),
            batch: *batch,
            calls: times.len(),
            minimum_seconds: times.iter().copied().fold(f64::INFINITY, f64::min),
            median_seconds,
            items_per_second: *batch as f64 / median_seconds,
        }
    }
}

/// Formats a time with three significant digits.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.999_5e-3 => (1e6 * s, "µs"),
        s if s < 0.999_5 => (1e3 * s, "ms"),
        s => (s, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, processor, instructions, version, parameters, multiply_adds, rounds, notes, networks, calls } =
            self;
        writeln!(f, "{file}: {parameters} parameters, {multiply_adds} multiply-adds per item")?;
        let processor = if processor.is_empty() { "unknown processor" } else { processor };
        writeln!(f, "{processor}, {instructions}, ttq {version}; {rounds} interleaved rounds\n")?;
        let mut table = Table::new(1, ["precision", "threads", "batch", "minimum", "median", "items/s", "calls"]);
        for call in calls {
            table.row([
                call.precision.to_owned(),
                call.threads.to_string(),
                call.batch.to_string(),
                time(call.minimum_seconds),
                time(call.median_seconds),
                format!("{:.0}", call.items_per_second),
                call.calls.to_string(),
            ]);
        }
        writeln!(f, "{table}")?;
        for Compiled { precision, network_bytes, items_together, arena_bytes, batch, layers } in networks {
            writeln!(
                f,
                "{precision}, one thread, batch {batch}: medians; {network_bytes} bytes of memory for the network, \
                 {arena_bytes} per thread for the values of up to {items_together} items at a time"
            )?;
            let mut table = Table::new(2, ["layer", "algorithm", "time", "share", "multiply-adds", "Gop/s"]);
            for layer in layers {
                let product = |text: String| if layer.multiply_adds == 0 { String::new() } else { text };
                table.row([
                    layer.name.clone(),
                    layer.algorithm.to_owned(),
                    time(layer.median_seconds),
                    format!("{:.1} %", 100.0 * layer.share),
                    product(layer.multiply_adds.to_string()),
                    product(format!("{:.1}", layer.giga_operations_per_second)),
                ]);
            }
            writeln!(f, "{table}")?;
        }
        writeln!(f, "Gop/s: a multiply-add of the definition is two operations; Winograd's algorithm executes fewer.")?;
        notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let cases = [
            (1.234e-6, "1.23 µs"),
            (99.96e-6, "100 µs"),
            (0.9996e-3, "1.00 ms"),
            (0.0456, "45.6 ms"),
            (12.0, "12.0 s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }
}
