//! A process that answers requests: lines of JSON on its standard output, one when it is ready and one for each line
//! on its standard input.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// A process that runs only while it answers, so that its threads do not spin while others are measured. It ends at the end of
/// its input, when this value is dropped.
pub struct Process {
    child: Child,
    /// `None` once the input is closed.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    errors: File,
}

impl Process {
    /// Starts the process and returns it with its first answer.
    ///
    /// # Errors
    /// Returns an error if the process cannot be started or gives no answer of the type `A`.
    pub fn start<A: DeserializeOwned>(command: &mut Command) -> Result<(Self, A)> {
        let errors = tempfile::tempfile().context("cannot create a temporary file")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the output of the process is not piped")?);
        let mut process = Self { child, requests, answers, errors };
        let answer = process.answer()?;
        process.signal(libc::SIGSTOP);
        Ok((process, answer))
    }

    /// Sends a request and returns the answer.
    ///
    /// # Errors
    /// Returns an error if the process has ended or gives no answer of the type `A`.
    pub fn ask<A: DeserializeOwned>(&mut self, request: impl Display) -> Result<A> {
        self.signal(libc::SIGCONT);
        let requests = self.requests.as_mut().context("the input of the process is closed")?;
        writeln!(requests, "{request}").context("the process has ended")?;
        let answer = self.answer()?;
        self.signal(libc::SIGSTOP);
        Ok(answer)
    }

    /// Stops the process or lets it go on, unless it has ended.
    fn signal(&mut self, signal: i32) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: the child has not been waited for, so that its number is not that of another process.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    fn answer<A: DeserializeOwned>(&mut self) -> Result<A> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? > 0 {
            return serde_json::from_str(&line).with_context(|| format!("the process answered `{}`", line.trim()));
        }
        self.child.wait()?;
        let mut error = String::new();
        self.errors.rewind()?;
        self.errors.read_to_string(&mut error)?;
        bail!("{}", error.lines().last().unwrap_or("the process has ended without a message"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        self.requests = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    #[cfg(unix)]
    fn each_request_has_its_answer() {
        let (mut process, first) = Process::start::<i32>(&mut shell("echo 1; cat")).unwrap();
        assert_eq!(first, 1);
        assert_eq!(process.ask::<[i32; 2]>("[2, 3]").unwrap(), [2, 3]);
        assert!(process.ask::<i32>("text").unwrap_err().to_string().contains("text"));
    }

    #[test]
    #[cfg(unix)]
    fn the_error_of_a_process_that_ends_is_its_last_message() {
        let started = Process::start::<i32>(&mut shell("echo first >&2; echo no such device >&2; exit 1"));
        assert_eq!(started.err().unwrap().to_string(), "no such device");
        assert!(Process::start::<i32>(&mut Command::new("/no/such/program")).is_err());
    }
}
