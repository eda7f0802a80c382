//! The receiver's page in a browser: Chromium without windows, driven as a person would use it.
//!
//! Pictures of every page are kept in `target/tmp/pages/`.

mod common;
#[path = "browser/driver.rs"]
mod driver;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "web/http.rs"]
mod http;
#[path = "browser/scene.rs"]
mod scene;
#[path = "common/testbed.rs"]
mod testbed;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use common::{Serve, temp_dir};
use driver::Browser;
use scene::Scene;
use serde_json::{Value, json};
use testbed::testbed;
use tiny_sender::TinySender;

/// The key that goes from one place to the next.
const TAB: &str = "\u{e004}";

/// The pages of a filled receiver, each with a name for its picture.
fn pages(cores: &scene::Cores) -> [(&'static str, String); 7] {
    [
        ("cores", "/".to_owned()),
        ("core", format!("/cores/{}", cores.linux)),
        ("hostile", format!("/cores/{}", cores.hostile)),
        ("groups", "/groups".to_owned()),
        ("health", "/health".to_owned()),
        ("login", "/login".to_owned()),
        ("missing", "/cores/none".to_owned()),
    ]
}

#[test]
fn a_running_dump_s_bar_moves_and_goes_when_the_dump_ends() {
    let Some(browser) = Browser::start() else { return };
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    browser.open(&serve.api, "/");
    browser.wait("the quiet page", "return !document.querySelector('.running')");
    let mut sender = TinySender::connect(serve.netdump);
    sender.header(&dumps::header(64 * 4096, "web-17", "<b id=hostile>late"));
    sender.data(0, &[7; 4096]);
    let bar = "const bar = document.querySelector('.running progress'); return bar && bar.max > 1 && bar.value";
    let first = browser.wait("a bar", bar).as_f64().expect("a number");
    assert_eq!(
        browser.run("return document.querySelector('.running progress').max"),
        64 * 4096
    );
    for part in 1..48 {
        sender.data(part * 4096, &[7; 4096]);
    }
    let moved = format!("const bar = document.querySelector('.running progress'); return bar && bar.value > {first}");
    browser.wait("the bar to move", &moved);
    browser.wait(
        "three quarters",
        "return document.querySelector('.running progress')?.value == 48 * 4096",
    );
    assert_eq!(browser.run("return document.getElementById('hostile')"), Value::Null);
    for (width, scheme) in [(1200, "light"), (380, "dark")] {
        browser.look(width, scheme);
        browser.picture(&format!("running-{scheme}-{width}"));
    }
    (48..64).for_each(|part| sender.data(part * 4096, &[7; 4096]));
    sender.finish();
    browser.wait("the bar to go", "return !document.querySelector('.running')");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_shows_the_crash_and_what_a_guest_wrote_stays_text() {
    let Some(browser) = Browser::start() else { return };
    let Scene { serve, cores, .. } = &Scene::new();
    for (name, path) in pages(cores) {
        browser.open(&serve.api, &path);
        let strange = "return [window.hostile ?? null, document.querySelectorAll('#hostile, main svg[onload], main img, \
                       main script, main b, main i, [onerror], [onload]').length]";
        assert_eq!(browser.run(strange), json!([null, 0]), "{name}:\n{}", browser.source());
        let missing = browser.complaints();
        let expected = usize::from(name == "missing");
        assert_eq!(missing.len(), expected, "{name}: {missing:?}");
    }
    browser.open(&serve.api, &format!("/cores/{}", cores.hostile));
    assert_eq!(browser.text("pre.panic"), scene::HOSTILE);
    assert!(browser.text("h1").contains(scene::HOSTILE_NAME));
    browser.open(&serve.api, &format!("/cores/{}", cores.linux));
    let page = browser.text("main");
    for part in [
        "Fatal exception",
        "null-pointer in ferry_land",
        "2nd of 2",
        "web-16",
        "process_one_work",
        "kworker/u8:2",
        "0xffffffffc04a202a",
        "same as <b>last week</b>",
        "Hardware name: <i>unknown</i>",
        "coreferry cores fetch",
        "vmcore",
        "info.txt",
        "pinned",
    ] {
        assert!(page.contains(part), "`{part}` is not shown:\n{page}");
    }
    // Links lead on.
    browser.run("document.querySelector('a[href^=\"/?signature=\"]').click()");
    browser.wait(
        "the list of the group",
        "return location.search.startsWith('?signature=') && document.querySelectorAll('tbody tr').length == 2",
    );
}

#[test]
fn pages_are_accessible_and_fit_in_every_look() {
    let (Some(rules), Some(browser)) = (testbed("axe.min.js"), Browser::start()) else {
        return;
    };
    let rules = std::fs::read_to_string(rules).expect("the rules");
    let Scene { serve, cores, .. } = &Scene::new();
    for (name, path) in pages(cores) {
        browser.open(&serve.api, &path);
        browser.run(&rules);
        for (width, scheme) in [
            (1200, "light"),
            (1200, "dark"),
            (380, "light"),
            (380, "dark"),
            (320, "light"),
        ] {
            browser.look(width, scheme);
            let shown = format!("{name}, {width} pixels, {scheme}");
            let found = browser.run_async(
                "const done = arguments[arguments.length - 1]; axe.run().then(result => done({ passed: result.passes.length, \
                 found: result.violations.map(v => `${v.id} (${v.impact}): ${v.nodes[0].html}`) }))",
            );
            assert_eq!(found["found"], json!([]), "{shown}");
            assert!(
                found["passed"].as_u64() > Some(10),
                "{shown}: the rules were held against the page: {found}"
            );
            let room =
                browser.run("const root = document.documentElement; return [root.scrollWidth, root.clientWidth]");
            assert!(
                room[0].as_u64() <= room[1].as_u64(),
                "{shown}: wider than the screen: {room}"
            );
            browser.picture(&format!("{name}-{scheme}-{width}"));
        }
    }
}

#[test]
fn the_keyboard_reaches_everything_and_shows_where_it_is() {
    let Some(browser) = Browser::start() else { return };
    let Scene { serve, cores, .. } = &Scene::new();
    for (name, path) in pages(cores) {
        browser.open(&serve.api, &path);
        let wanted = "return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')] \
                      .map((element, number) => { element.dataset.number = number; return number }).length";
        let wanted = browser.run(wanted).as_u64().expect("a number");
        let mut reached = Vec::new();
        for _ in 0..wanted {
            browser.press(TAB);
            let at = browser.run(
                "const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect(); \
                 return [Number(at.dataset.number ?? -1), style.outlineStyle != 'none' && parseFloat(style.outlineWidth) >= 2, \
                 box.width > 0 && box.right > 0 && box.bottom > 0, at.outerHTML.slice(0, 120)]",
            );
            assert_eq!(
                (&at[1], &at[2]),
                (&true.into(), &true.into()),
                "{name}: focus does not show on {at}"
            );
            reached.push(
                at[0]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name}: the keyboard is at {at}")),
            );
        }
        // In the order in which it is read.
        assert_eq!(reached, (0..wanted).collect::<Vec<_>>(), "{name}");
    }
    // The first stop leads past what is on every page.
    browser.open(&serve.api, "/");
    browser.press(TAB);
    browser.press("\u{e007}");
    browser.wait("the jump", "return location.hash == '#main'");
}

#[test]
fn pages_are_read_without_script() {
    let Some(browser) = Browser::start() else { return };
    let Scene { serve, cores, .. } = &Scene::new();
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.open(&serve.api, &format!("/cores/{}", cores.linux));
    assert!(browser.text("pre.panic").contains("Fatal exception"));
    assert!(browser.text("ol.trace").contains("process_one_work"));
    browser.open(&serve.api, "/?guest=web-17");
    let list = browser.text("tbody");
    assert!(list.contains("web-17") && !list.contains("bsd-3"), "{list}");
    // What runs is seen to run: the page asks for itself again.
    let mut sender = TinySender::connect(serve.netdump);
    sender.header(&dumps::header(64 * 4096, "web-18", "late"));
    sender.data(0, &[7; 4096]);
    browser.open(&serve.api, "/");
    let first = browser.text(".running");
    assert!(first.contains("4.0 KiB of at most 256.0 KiB"), "{first}");
    (1..32).for_each(|part| sender.data(part * 4096, &[7; 4096]));
    let shown = common::wait_for("the page to come again", || {
        let shown = browser.try_text(".running")?;
        shown.contains("128.0 KiB").then_some(shown)
    });
    assert!(shown.contains("web-18"), "{shown}");
}
