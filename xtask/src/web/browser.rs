//! Chromium without a window, driven over its DevTools protocol.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub(super) struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    questions: u64,
    session: String,
    /// Messages of the page's console, and its uncaught errors.
    pub(super) console: Vec<String>,
    _profile: TempDir,
}

/// A size of the page in pixels of CSS, and the scheme of its colors.
#[derive(Clone, Copy)]
pub(super) struct Screen {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) phone: bool,
    pub(super) scheme: &'static str,
}

/// Returns a sentence if there is no browser.
pub(super) fn missing() -> Option<String> {
    let starts = Command::new(program()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let text = "chromium is missing: install Debian's chromium, or set TTQ_CHROMIUM to a Chromium or Chrome";
    (!starts.is_ok_and(|status| status.success())).then(|| text.to_owned())
}

fn program() -> OsString {
    env::var_os("TTQ_CHROMIUM").unwrap_or_else(|| "chromium".into())
}

impl Browser {
    /// Starts the browser with an empty page.
    pub(super) fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // The protocol uses the descriptors 3 and 4; messages end with a zero byte.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh"])
            .arg(program())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Chromium")?;
        let (commands, output) = process.stdin.take().zip(process.stdout.take()).context("Chromium has no pipes")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            let parts = BufReader::new(output).split(0).map_while(Result::ok);
            parts.map_while(|part| serde_json::from_slice(&part).ok()).try_for_each(|message| sender.send(message))
        });
        let (session, console) = (String::new(), Vec::new());
        let mut browser = Self { process, commands, messages, questions: 0, session, console, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().context("Chromium made no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol, and returns its result.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.questions += 1;
        let mut message = json!({ "id": self.questions, "method": method, "params": parameters });
        if !self.session.is_empty() && !method.starts_with("Browser.") {
            message["sessionId"] = json!(self.session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).context("Chromium has ended")?;
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let mut answer = answer.with_context(|| format!("Chromium does not answer {method}"))?;
            if answer["id"] == self.questions {
                return match answer["error"]["message"].as_str() {
                    Some(error) => bail!("{method}: {error}"),
                    None => Ok(answer["result"].take()),
                };
            }
            self.record(&answer);
        }
    }

    /// Records a message of the console or an uncaught error.
    fn record(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => self.console.push(parameters["args"].to_string()),
            Some("Runtime.exceptionThrown") => self.console.push(parameters["exceptionDetails"].to_string()),
            Some("Log.entryAdded") => self.console.push(parameters["entry"]["text"].to_string()),
            _ => {}
        }
    }

    /// Evaluates an expression in the page, and the promise if it is one.
    pub(super) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", parameters)?;
        if !result["exceptionDetails"].is_null() {
            bail!("{expression}: {}", result["exceptionDetails"]["exception"]["description"]);
        }
        Ok(result["result"]["value"].take())
    }

    /// Evaluates an expression whose value is a string.
    pub(super) fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.evaluate(expression)?;
        value.as_str().map(str::to_owned).with_context(|| format!("{expression}: {value} is no string"))
    }

    /// Opens a page of this machine on a screen.
    pub(super) fn open(&mut self, page: &Path, fragment: &str, screen: Screen) -> Result<()> {
        let Screen { width, height, phone, scheme } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": phone }))?;
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }))?;
        // A page with another fragment alone would not be loaded again.
        self.call("Page.navigate", json!({ "url": "about:blank" }))?;
        let url = format!("file://{}{fragment}", page.display());
        let loaded = self.call("Page.navigate", json!({ "url": url }))?;
        if let Some(error) = loaded["errorText"].as_str() {
            bail!("{url}: {error}");
        }
        let ready = "new Promise((done) => document.readyState === 'complete' ? done(1) : addEventListener('load', () => done(1)))";
        self.evaluate(ready)?;
        Ok(())
    }

    /// Draws a line through points by mouse or finger.
    pub(super) fn draw(&mut self, points: &[[f64; 2]], finger: bool) -> Result<()> {
        let events = if finger {
            ["touchStart", "touchMove", "touchEnd"]
        } else {
            ["mousePressed", "mouseMoved", "mouseReleased"]
        };
        let mut steps: VecDeque<(&str, [f64; 2])> = points.iter().map(|point| (events[1], *point)).collect();
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            steps.push_front((events[0], *first));
            steps.push_back((events[2], *last));
        }
        for (kind, [x, y]) in steps {
            if finger {
                let touches = if kind == "touchEnd" { json!([]) } else { json!([{ "x": x, "y": y }]) };
                self.call("Input.dispatchTouchEvent", json!({ "type": kind, "touchPoints": touches }))?;
            } else {
                let mouse = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
                self.call("Input.dispatchMouseEvent", mouse)?;
            }
        }
        Ok(())
    }

    /// Presses and releases a key.
    pub(super) fn key(&mut self, key: &str) -> Result<()> {
        let codes = [("Tab", 9), ("Escape", 27), (" ", 32), ("ArrowUp", 38), ("ArrowDown", 40)];
        let code = codes.iter().find(|(name, _)| *name == key).map(|(_, code)| code).context("the key has no code")?;
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Chooses files in an `input` element.
    pub(super) fn choose<P: AsRef<Path>>(&mut self, selector: &str, files: &[P]) -> Result<()> {
        let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
        let parameters = json!({ "expression": format!("document.querySelector('{selector}')") });
        let element = self.call("Runtime.evaluate", parameters)?;
        let object = &element["result"]["objectId"];
        self.call("DOM.setFileInputFiles", json!({ "files": files, "objectId": object }))?;
        Ok(())
    }

    /// Returns a picture of the whole page as base64 of a PNG file.
    pub(super) fn picture(&mut self) -> Result<String> {
        let picture = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }))?;
        picture["data"].as_str().map(str::to_owned).context("Chromium made no picture")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.call("Browser.close", json!({})).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
