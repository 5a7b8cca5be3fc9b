//! Limits of the machine: memory bandwidth by the size of the working set, and multiply-accumulates per second of its
//! instruction sets. All current threads measure at the same time, and the best of several runs counts.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;
use ttq_packed::kernels::Level;

/// Sizes of working sets in bytes, from the first-level cache to main memory.
const SIZES: [usize; 6] = [32 << 10, 512 << 10, 4 << 20, 16 << 20, 64 << 20, 256 << 20];
/// Minimum number of bytes that a run reads.
const MIN_READ: usize = 64 << 20;
const RUNS: usize = 7;

/// Limits for a number of threads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    threads: usize,
    /// Size of the working set in bytes, and bytes read per second.
    bandwidth: Vec<(usize, f64)>,
    /// Maximum rate of each instruction set.
    peaks: Vec<Peak>,
}

/// Multiply-accumulates per second of an instruction set.
#[derive(Debug, Clone, Serialize)]
struct Peak {
    level: String,
    float32: f64,
    /// Products of an unsigned and a signed byte, accumulated in 32 bits, or in 16 bits without VNNI.
    int8: f64,
}

impl Limits {
    /// Measures the limits for the current threads.
    pub(crate) fn measure(levels: &[Level], quick: bool) -> Self {
        let sizes = if quick { &SIZES[..4] } else { &SIZES };
        let threads = rayon::current_num_threads();
        let buffer = vec![1; sizes[sizes.len() - 1] / size_of::<u64>()];
        let bandwidth = sizes.iter().map(|size| (*size, read_rate(&buffer[..size / size_of::<u64>()]))).collect();
        let peaks = levels.iter().filter_map(|level| {
            let (float32, int8) = (peak(*level, false)?, peak(*level, true)?);
            Some(Peak { level: format!("{level:?}"), float32, int8 })
        });
        Self { threads, bandwidth, peaks: peaks.collect() }
    }

    pub(crate) fn print(&self) {
        let size = |bytes: usize| {
            if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
        };
        let read = self.bandwidth.iter().map(|(bytes, rate)| format!("{} {:.0}", size(*bytes), rate / 1e9));
        println!("threads: {}; GB/s read: {}", self.threads, read.collect::<Vec<_>>().join(", "));
        for Peak { level, float32, int8 } in &self.peaks {
            println!("  {level}: {:.0} G multiply-accumulates/s in float32, {:.0} in int8", float32 / 1e9, int8 / 1e9);
        }
    }

    /// Returns the bytes per second for a working set of this size: those of the next larger measured one, or of the
    /// largest.
    pub(crate) fn bandwidth(&self, bytes: usize) -> Option<f64> {
        let fitting = self.bandwidth.iter().find(|(size, _)| *size >= bytes);
        fitting.or(self.bandwidth.last()).map(|(_, rate)| *rate)
    }

    /// Returns the multiply-accumulates per second of an instruction set, in int8 or float32.
    pub(crate) fn peak(&self, level: Level, int8: bool) -> Option<f64> {
        let peak = self.peaks.iter().find(|peak| peak.level == format!("{level:?}"));
        peak.map(|peak| if int8 { peak.int8 } else { peak.float32 })
    }
}

/// Returns the work per second, summed over all threads: a call of `run` on a thread does `work(thread)`. Best of
/// several runs.
fn best_rate(work: impl Fn(usize) -> f64 + Sync, run: impl Fn(usize) + Sync) -> f64 {
    let rate = || {
        let rates = rayon::broadcast(|context| {
            let start = Instant::now();
            run(context.index());
            work(context.index()) / start.elapsed().as_secs_f64()
        });
        rates.into_iter().sum::<f64>()
    };
    (0..RUNS).map(|_| rate()).fold(0.0, f64::max)
}

/// Measures the bytes per second when each thread reads its part of a buffer repeatedly.
fn read_rate(buffer: &[u64]) -> f64 {
    let passes = MIN_READ.div_ceil(size_of_val(buffer));
    let threads = rayon::current_num_threads();
    let part = |thread: usize| buffer.chunks(buffer.len().div_ceil(threads)).nth(thread).unwrap_or_default();
    best_rate(
        |thread| (passes * size_of_val(part(thread))) as f64,
        |thread| {
            for _ in 0..passes {
                black_box(sum(black_box(part(thread))));
            }
        },
    )
}

/// Sums all words with the widest vectors of the processor.
fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if Level::Avx512.is_available() {
            // SAFETY: the processor has the instructions.
            return unsafe { x86::sum_avx512(words) };
        }
        if Level::Avx2.is_available() {
            // SAFETY: the processor has the instructions.
            return unsafe { x86::sum_avx2(words) };
        }
    }
    sum_words(words)
}

/// Sums all words in 64 partial sums, so that many loads are in flight.
#[inline(always)]
fn sum_words(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<64>();
    let mut sums = [0_u64; 64];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Measures the multiply-accumulates per second of an instruction set; `None` if there is no measurement for it.
#[cfg(target_arch = "x86_64")]
fn peak(level: Level, int8: bool) -> Option<f64> {
    const ITERATIONS: usize = 400_000;
    type Run = unsafe fn(usize);
    let (lanes, run): (usize, Run) = match (level, int8) {
        (Level::Avx512, false) => (16, x86::fma_avx512),
        (Level::Avx512, true) => (64, x86::dot_avx512),
        (Level::Avx2 | Level::AvxVnni, false) => (8, x86::fma_avx2),
        (Level::AvxVnni, true) => (32, x86::dot_avx_vnni),
        (Level::Avx2, true) => (32, x86::dot_avx2),
        _ => return None,
    };
    // SAFETY: callers pass levels that the processor supports.
    Some(best_rate(|_| (ITERATIONS * x86::CHAINS * lanes) as f64, |_| unsafe { run(ITERATIONS) }))
}

#[cfg(not(target_arch = "x86_64"))]
fn peak(_level: Level, _int8: bool) -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Number of independent sums: more than latency times throughput of the instructions, fewer than registers.
    pub(super) const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512(words: &[u64]) -> u64 {
        super::sum_words(words)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(words: &[u64]) -> u64 {
        super::sum_words(words)
    }

    /// Defines a function that adds to each of the sums in turn, `iterations` times.
    macro_rules! chains {
        ($name:ident, $features:literal, $zero:ident, $x:expr, |$sum:ident, $operand:ident| $next:expr) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(iterations: usize) {
                let $operand = black_box($x);
                let mut sums = [$zero(); CHAINS];
                for _ in 0..iterations {
                    for sum in &mut sums {
                        let $sum = *sum;
                        *sum = $next;
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(fma_avx512, "avx512f", _mm512_setzero_ps, _mm512_set1_ps(0.5), |sum, x| _mm512_fmadd_ps(x, x, sum));
    chains!(fma_avx2, "avx2,fma", _mm256_setzero_ps, _mm256_set1_ps(0.5), |sum, x| _mm256_fmadd_ps(x, x, sum));
    chains!(dot_avx512, "avx512f,avx512vnni", _mm512_setzero_si512, _mm512_set1_epi8(1), |sum, x| {
        _mm512_dpbusd_epi32(sum, x, x)
    });
    chains!(dot_avx_vnni, "avx2,avxvnni", _mm256_setzero_si256, _mm256_set1_epi8(1), |sum, x| {
        _mm256_dpbusd_avx_epi32(sum, x, x)
    });
    // The sum is also an operand of the product. Otherwise the compiler would move the product out of the loop.
    chains!(dot_avx2, "avx2", _mm256_setzero_si256, _mm256_set1_epi8(1), |sum, x| {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(sum, x))
    });
}
