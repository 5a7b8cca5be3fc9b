//! The time of a run over all processes that continue it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::out::{read_json, write_json};
use crate::processes::is_first;

/// Time that a run has taken, `time.json`.
#[derive(Serialize, Deserialize)]
struct Time {
    seconds: f64,
}

/// Counts the time of a run, with that before it was resumed.
pub(crate) struct Clock {
    path: PathBuf,
    before: f64,
    start: Instant,
}

impl Clock {
    /// The interval of the file.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(20);

    /// Starts a clock that writes its time at intervals: of the time of a process that is killed, no more than one interval
    /// is lost.
    pub(crate) fn start(path: PathBuf, interval: Duration) -> Result<Arc<Self>> {
        let before = if path.is_file() { read_json::<Time>(&path)?.seconds } else { 0.0 };
        let clock = Arc::new(Self { path, before, start: Instant::now() });
        let running = Arc::downgrade(&clock);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(interval);
                let Some(clock) = running.upgrade() else { return };
                // An error shows at the end, too.
                clock.write().ok();
            }
        });
        Ok(clock)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn write(&self) -> Result<()> {
        if !is_first() {
            return Ok(());
        }
        write_json(&self.path, &Time { seconds: self.seconds() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_from_the_time_of_a_process_that_wrote_at_intervals_and_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("time.json");
        let first = Clock::start(path.clone(), Duration::from_millis(5)).unwrap();
        while !path.is_file() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nothing writes at the end: the process is gone.
        drop(first);
        let written = read_json::<Time>(&path).unwrap().seconds;
        assert!(written >= 0.005, "{written}");
        let second = Clock::start(path.clone(), Duration::from_secs(3600)).unwrap();
        assert!(second.seconds() >= written);
        std::fs::write(&path, "{").unwrap();
        assert!(Clock::start(path, Clock::INTERVAL).is_err());
    }
}
