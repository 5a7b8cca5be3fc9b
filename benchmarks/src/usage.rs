//! What the operating system counts for this process: peak memory and processor time.

use std::fs;
use std::time::Duration;

/// Returns the processor time of all threads of this process; `None` where the system does not count it.
#[cfg(unix)]
pub fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Returns the processor time of all threads of this process; `None` where the system does not count it.
#[cfg(not(unix))]
pub fn processor_time() -> Option<Duration> {
    None
}

/// Returns the resident set of this process in bytes. Linux only.
pub fn memory() -> Option<u64> {
    status("VmRSS:")
}

/// Returns the largest resident set of this process since its start or the last [`reset_peak_memory`], in bytes. Linux
/// only.
pub fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}

/// Forgets the peak of the past.
pub fn reset_peak_memory() {
    // Other systems, and some containers, do not have the file; the peak is then that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    // Other tests run in this process at the same time, hence the distance between the two numbers of bytes.
    #[test]
    fn the_peak_outlives_the_memory() {
        reset_peak_memory();
        let before = peak_memory().unwrap();
        drop(std::hint::black_box(vec![1u8; 256 << 20]));
        assert!(peak_memory().unwrap() >= before + (128 << 20));
    }

    #[test]
    fn work_takes_processor_time() {
        let before = processor_time().unwrap();
        let sum = (0..10_000_000_u64).fold(0_u64, |sum, x| std::hint::black_box(sum ^ x));
        std::hint::black_box(sum);
        assert!(processor_time().unwrap() > before);
    }
}
