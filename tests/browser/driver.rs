//! A browser driven from outside: W3C WebDriver by hand over TCP, to the chromedriver that the testbed unpacks.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE, temp_dir};
use crate::http::request;
use crate::testbed::testbed;

/// What an element's reference is called in answers (WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser window.
#[derive(Debug)]
pub(crate) struct Browser {
    /// `127.0.0.1:PORT` of the driver.
    driver: String,
    /// Path of the session.
    session: String,
    _chromedriver: Daemon,
    _home: tempfile::TempDir,
}

impl Browser {
    /// Starts driver and browser; none where the testbed has none.
    pub(crate) fn start() -> Option<Self> {
        let (program, chromium) = (testbed("browser/bin/chromedriver")?, testbed("browser/bin/chromium")?);
        // Both write caches and locks: into a place of their own.
        let home = temp_dir();
        let mut command = Command::new(program);
        command.arg("--port=0");
        for name in ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, home.path());
        }
        let chromedriver = Daemon::start(command);
        let line = chromedriver.line_starting("ChromeDriver was started successfully on port ");
        let port = line
            .trim_end_matches('.')
            .rsplit(' ')
            .next()
            .expect("a port")
            .to_owned();
        // The sandbox needs rights that a test may not have; every page shown is ours.
        let options = json!({ "binary": chromium, "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        ] });
        let wanted = json!({ "browserName": "chrome-headless-shell", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" } });
        let mut browser = Self {
            driver: format!("127.0.0.1:{port}"),
            session: String::new(),
            _chromedriver: chromedriver,
            _home: home,
        };
        let made = browser.ask(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": wanted } }),
        );
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_ask(method, path, body);
        answer.unwrap_or_else(|why| panic!("{method} {path} {body}: {why}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        let answer = request(&self.driver, method, path, &["Content-Type: application/json"], &body);
        let status = answer.status;
        let value = answer.json()["value"].take();
        if status == 200 { Ok(value) } else { Err(value) }
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}/{command}", self.session), body)
    }

    /// Loads a page of a receiver.
    pub(crate) fn open(&self, api: &str, path: &str) {
        self.post("url", &json!({ "url": format!("http://{api}{path}") }));
    }

    /// Runs the body of a function in the page and gives what it returns.
    ///
    /// The driver puts it in from outside, so that the page's policy does not stop it.
    pub(crate) fn run(&self, body: &str) -> Value {
        self.post("execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The same for a body that calls its last argument with the result.
    pub(crate) fn run_async(&self, body: &str) -> Value {
        self.post("execute/async", &json!({ "script": body, "args": [] }))
    }

    /// Asks until a body returns something true; gives that.
    pub(crate) fn wait(&self, what: &str, body: &str) -> Value {
        let began = Instant::now();
        loop {
            let found = self.run(body);
            if !matches!(found, Value::Null | Value::Bool(false)) {
                return found;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain for {what}; the browser says {:?} and the page is\n{}",
                self.complaints(),
                self.source()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The page as it stands, as markup.
    pub(crate) fn source(&self) -> String {
        let source = self.ask("GET", &format!("{}/source", self.session), &Value::Null);
        source.as_str().expect("text").to_owned()
    }

    /// Presses a key; `\u{e004}` is Tab, `\u{e007}` Enter (WebDriver, section 17.4.2).
    pub(crate) fn press(&self, key: &str) {
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.post("actions", &actions);
    }

    /// Text of the first element that a selector of CSS finds, as a reader sees it, script or none.
    pub(crate) fn text(&self, selector: &str) -> String {
        let text = self.try_text(selector);
        text.unwrap_or_else(|| panic!("no {selector} on the page:\n{}", self.source()))
    }

    /// The same; none if there is no such element, or the page went away meanwhile.
    pub(crate) fn try_text(&self, selector: &str) -> Option<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self
            .try_ask("POST", &format!("{}/element", self.session), &wanted)
            .ok()?;
        let path = format!("{}/element/{}/text", self.session, found[ELEMENT].as_str()?);
        let text = self.try_ask("GET", &path, &Value::Null).ok()?;
        text.as_str().map(str::to_owned)
    }

    /// A command of the Chrome DevTools protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Shows pages `width` pixels wide, light or dark.
    pub(crate) fn look(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Keeps a picture of the whole page among the artifacts of the tests.
    pub(crate) fn picture(&self, name: &str) {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", &whole);
        let png = from_base64(taken["data"].as_str().expect("a picture"));
        assert!(png.starts_with(b"\x89PNG"), "{name} is a picture");
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&dir).expect("a folder for pictures");
        std::fs::write(dir.join(format!("{name}.png")), png).expect("the picture is written");
    }

    /// What the browser complained of since it was last asked: scripts that failed or were refused, files not found.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().expect("a log").iter();
        let grave = entries.filter(|entry| entry["level"] == "SEVERE");
        grave.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session; without it the browser would outlive the driver.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &self.session.clone(), &Value::Null);
        } else if !self.session.is_empty() {
            let end = || request(&self.driver, "DELETE", &self.session, &[], "");
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
        }
    }
}

/// RFC 4648, section 4.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{byte} is no digit of base 64"),
    };
    let digits: Vec<u32> = text
        .trim_end_matches('=')
        .bytes()
        .map(|byte| u32::from(digit(byte)))
        .collect();
    let groups = digits.chunks(4).flat_map(|four| {
        let word = (0..4).fold(0, |word, at| word << 6 | four.get(at).copied().unwrap_or(0));
        let [_, bytes @ ..] = word.to_be_bytes();
        bytes.into_iter().take(four.len() * 6 / 8)
    });
    groups.collect()
}
