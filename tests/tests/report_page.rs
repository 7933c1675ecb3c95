//! The report's page in a browser: what somebody sees and does there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and says what it skips"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::run::{coordinator, prints, stderr, stdout};

/// A page of this log, and a browser to look at it. `None`, with a message, where there is no browser.
struct Look {
    directory: TempDir,
    browser: PathBuf,
    page: String,
}

impl Look {
    fn at(log: &str) -> Option<Self> {
        let Some(browser) = browser() else {
            let is_ci = std::env::var_os("CI").is_some();
            assert!(
                !is_ci,
                "CI has no Chromium, so nobody has looked at the page"
            );
            println!("skipped: there is no Chromium here");
            return None;
        };
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("run.jsonl");
        std::fs::write(&path, log).unwrap();
        let output = coordinator(&["report", path.to_str().unwrap()]).output();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let page = stdout(&output).to_owned();
        Some(Look {
            directory,
            browser,
            page,
        })
    }

    /// Opens the page with these flags and this end of its address, does something in it, and returns what that returns. The
    /// script finds all texts that charts have written in `texts`.
    fn does(&self, flags: &[&str], hash: &str, script: &str) -> Value {
        // A browser without a window may leave out frames, so they come by the clock.
        let before = "<head><script>window.requestAnimationFrame = (go) => setTimeout(go, 1); \
                      const texts = []; const write = CanvasRenderingContext2D.prototype.fillText; \
                      CanvasRenderingContext2D.prototype.fillText = function (text, ...at) { texts.push(text); \
                      return write.call(this, text, ...at); };</script>";
        let after = format!(
            "<script>addEventListener('load', async () => {{\n\
             const $$ = (what) => [...document.querySelectorAll(what)];\n\
             const frame = () => new Promise((go) => setTimeout(go, 50));\n\
             let result; try {{ result = await (async () => {{ {script} }})(); }} catch (error) {{ result = String(error); }}\n\
             const element = document.createElement('pre'); element.id = 'result';\n\
             element.textContent = JSON.stringify(result); document.body.append(element); }});</script></body>"
        );
        let page = self.page.replacen("<head>", before, 1);
        let page = page.replacen("</body>", &after, 1);
        let file = self.directory.path().join("page.html");
        std::fs::write(&file, page).unwrap();
        let document = self.dump(flags, &format!("file://{}{hash}", file.display()));
        assert!(document.contains("id=\"trouble\" hidden"), "{document}");
        let (_, result) = document.split_once("<pre id=\"result\">").expect(&document);
        let (result, _) = result.split_once("</pre>").unwrap();
        let result = result
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        serde_json::from_str(&result).unwrap()
    }

    fn dump(&self, flags: &[&str], address: &str) -> String {
        // A page whose script never ends would never be dumped.
        let dumped = Command::new("timeout")
            .args(["-k", "1", "90"])
            .arg(&self.browser)
            // Its sandbox does not start as root, or in most containers; the page is our own.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .args(["--virtual-time-budget=20000", "--window-size=1200,900"])
            .args(flags)
            .arg(format!(
                "--user-data-dir={}",
                self.directory.path().join("profile").display()
            ))
            .arg(address)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!dumped.stdout.is_empty(), "{}", stderr(&dumped));
        stdout(&dumped).to_owned()
    }
}

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let directories: Vec<_> = std::env::split_paths(&path).collect();
    let all = directories
        .iter()
        .flat_map(|directory| names.map(|name| directory.join(name)));
    all.into_iter().find(|file| Path::is_file(file))
}

/// A line of a log.
fn line(seq: u32, attempt: u32, status: &str, start: f64, ms: f64) -> String {
    let again = attempt == 1 && status == "died";
    format!(
        "{{\"v\":1,\"run\":\"a\",\"template\":\"exec -- ./it {{}}\",\"seq\":{seq},\"input\":\"it's {seq}\",\"attempt\":{attempt},\
         \"again\":{again},\"status\":\"{status}\",\"start\":{start},\"ms\":{ms},\"worker\":{},\"stderr\":\"said <{seq}>\"}}\n",
        seq % 4 + 1
    )
}

/// 500 calls: 300 with an error, one of them after a first attempt that died, and 200 that are fine.
fn mixed() -> String {
    let mut log = line(7, 1, "died", 1000.0, 50.0);
    for seq in 1..=500 {
        let status = if seq <= 300 { "failed" } else { "ok" };
        let start = 1001.0 + f64::from(seq) * 0.01;
        log += &line(
            seq,
            if seq == 7 { 2 } else { 1 },
            status,
            start,
            f64::from(seq % 97) + 1.0,
        );
    }
    log
}

#[test]
fn a_page_without_markup_of_others() {
    let log = mixed().replace(
        "it's 7\"",
        "</script><script>document.title='bad'</script>\"",
    );
    let Some(look) = Look::at(&log) else { return };
    let found = look.does(
        &[],
        "",
        "return [document.title, document.body.dataset.drawn];",
    );
    assert_eq!(found, json!(["run.jsonl – coordinator report", "501"]));
}

#[test]
fn tables_sort_search_show_more_and_follow_the_legend() {
    let Some(look) = Look::at(&mixed()) else {
        return;
    };
    let script = "
        const rows = () => $$('#failed tbody tr').length;
        const calls = () => $$('#failed tbody button.open').slice(0, 2).map((button) => button.textContent);
        const press = (words) => $$('button, [role=button]').find((one) => one.textContent.startsWith(words)).click();
        const found = [rows()];
        press('Show 100 more');
        found.push(rows());
        const head = $$('#failed th')[4];
        head.firstChild.click();
        found.push(head.ariaSort, calls());
        head.firstChild.click();
        found.push(head.ariaSort, calls());
        const search = document.querySelector('input[type=search][aria-label=\"Search failed calls\"]');
        search.value = 'SAID <29>';
        search.dispatchEvent(new Event('input'));
        found.push(calls());
        search.value = '';
        search.dispatchEvent(new Event('input'));
        press('died');
        found.push(rows(), $$('#slowest tbody tr').length);
        return found;";
    assert_eq!(
        look.does(&[], "", script),
        json!([
            100,
            200,
            "ascending",
            ["97", "194"],
            "descending",
            ["96", "193"],
            ["29"],
            0,
            1
        ])
    );
}

#[test]
fn a_failure_opens_by_click_by_keyboard_and_by_address() {
    let Some(look) = Look::at(&mixed()) else {
        return;
    };
    let tell = "
        await frame();
        const detail = document.querySelector('tr.detail');
        return [location.hash, $$('.open[aria-expanded=true]').map((one) => one.textContent),
            [...detail.querySelectorAll('ol[aria-label=Attempts] > li')].map((one) => one.textContent.slice(0, 5)),
            [...detail.querySelectorAll('pre[aria-label=stderr]')].map((one) => one.textContent),
            detail.querySelector('p code').textContent];";
    let expected = json!([
        "#call-1-7",
        ["7"],
        ["died,", "error"],
        ["said <7>", "said <7>"],
        "coordinator exec -- ./it {} ::: 'it'\\''s 7'"
    ]);
    let click = "$$('#failed tbody tr')[6].cells[1].click();";
    assert_eq!(look.does(&[], "", &format!("{click}{tell}")), expected);
    // A button that has the focus is pressed by Enter and Space, which the browser turns into a click.
    let press = "const open = $$('#failed .open')[6]; open.focus(); if (document.activeElement !== open) return 'no focus'; \
                 open.click();";
    assert_eq!(look.does(&[], "", &format!("{press}{tell}")), expected);
    assert_eq!(look.does(&[], "#call-1-7", tell), expected);
    // Also one that the table would show much later.
    let late =
        "await frame(); return $$('.open[aria-expanded=true]').map((one) => one.textContent);";
    assert_eq!(look.does(&[], "#call-1-299", late), json!(["299"]));
}

#[test]
fn a_row_leads_to_its_bar_which_is_marked() {
    let Some(look) = Look::at(&mixed()) else {
        return;
    };
    let script = "
        const accent = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(accent.slice(at, at + 2), 16));
        const marked = () => {
            const canvas = document.querySelector('#bars');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let pixels = 0;
            for (let at = 0; at < data.length; at += 4)
                if (data[at] === r && data[at + 1] === g && data[at + 2] === b) pixels++;
            return pixels > 50;
        };
        const found = [marked()];
        $$('#failed tbody tr')[10].click();
        [...document.querySelectorAll('tr.detail button')].find((one) => one.textContent === 'Show in the timeline').click();
        await frame();
        found.push(marked(), document.querySelector('#range').textContent.includes(' of '));
        return found;";
    assert_eq!(look.does(&[], "", script), json!([false, true, true]));
}

/// Two attempts with nothing between them, and the view in between.
#[test]
fn an_axis_of_emptiness_has_sane_units() {
    let log = line(1, 1, "ok", 1000.0, 10.0) + &line(2, 1, "ok", 1100.0, 10.0);
    let Some(look) = Look::at(&log) else { return };
    let script = "
        for (let n = 0; n < 30; n++) {
            $$('button[aria-label=\"Zoom in\"]')[0].click();
        }
        texts.length = 0;
        await frame();
        return [texts.includes('No attempt ended here'), texts.filter((text) => /e[-+]|NaN|Infinity/.test(text))];";
    assert_eq!(look.does(&[], "", script), json!([true, []]));
}

#[test]
fn the_curve_has_as_many_at_once_as_there_were() {
    let log: String = (0..12)
        .map(|seq| line(seq, 1, "ok", 1000.0 + f64::from(seq / 4) * 0.1, 90.0))
        .collect();
    let Some(look) = Look::at(&log) else { return };
    let script = "
        const curve = document.querySelector('canvas[aria-label=\"Attempts at once over time\"]');
        const box = curve.getBoundingClientRect();
        const told = (part) => {
            curve.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + 48 + (box.width - 54) * part }));
            const tip = document.querySelector('#tip');
            return tip.hidden ? '' : tip.firstChild.textContent;
        };
        return [told(0.1), told(0.32), told(0.5)];";
    assert_eq!(
        look.does(&[], "", script),
        json!(["4 at once", "0 at once", "4 at once"])
    );
}

#[test]
fn a_page_is_readable_by_day_by_night_and_on_a_telephone() {
    let Some(look) = Look::at(&mixed()) else {
        return;
    };
    let colours = "
        const style = getComputedStyle(document.body);
        const light = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0) > 382;
        return [light(style.backgroundColor), light(style.color)];";
    let [dark, light] =
        [0, 1].map(|scheme| format!("--blink-settings=preferredColorScheme={scheme}"));
    assert_eq!(look.does(&[&light], "", colours), json!([true, false]));
    assert_eq!(look.does(&[&dark], "", colours), json!([false, true]));
    // A window can't be as narrow as a telephone, but a frame can.
    let outer = look.directory.path().join("outer.html");
    let frame = "<iframe src='page.html' width='390' height='800' style='border:0'></iframe><script>onload = () => { \
                 const inner = document.querySelector('iframe').contentWindow; \
                 document.title = [inner.innerWidth, inner.document.documentElement.scrollWidth <= 390]; };</script>";
    std::fs::write(&outer, frame).unwrap();
    let flags = ["--disable-web-security", "--allow-file-access-from-files"];
    let document = look.dump(&flags, &format!("file://{}", outer.display()));
    assert!(document.contains("<title>390,true</title>"), "{document}");
}

#[test]
fn a_hundred_thousand_attempts_can_be_looked_at() {
    let mut log = String::new();
    for seq in 0..100_000 {
        let status = if seq % 10 == 0 { "timed_out" } else { "ok" };
        log += &line(seq, 1, status, 1000.0 + f64::from(seq) * 0.001, 3.5);
    }
    let Some(look) = Look::at(&log) else { return };
    let script = "
        const began = performance.now();
        const search = document.querySelector('input[type=search]');
        search.value = '99990';
        search.dispatchEvent(new Event('input'));
        return [document.body.dataset.drawn, $$('#failed tbody tr').length];";
    assert_eq!(look.does(&[], "", script), json!(["100000", 1]));
}

/// What a server at this address says to a request.
fn ask(address: &str, path: &str) -> String {
    let rest = address.trim().strip_prefix("http://").unwrap();
    let (host, secret) = rest.split_once('/').unwrap();
    let mut server = TcpStream::connect(host).unwrap();
    let path = path.replace("{}", secret);
    server
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_live_page_follows_its_log_and_is_for_those_who_know_its_address() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run.jsonl");
    std::fs::write(&path, "").unwrap();
    let mut run = coordinator(&["report", "--live", path.to_str().unwrap()]);
    let mut child = run.command.spawn().unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let empty = ask(&address, "/{}");
    assert!(empty.starts_with("HTTP/1.1 200 OK\r\n"), "{empty}");
    assert!(
        empty.contains("The log is empty") && empty.contains("location.reload()"),
        "{empty}"
    );
    let before = ask(&address, "/{}state");
    assert!(
        empty.contains(before.rsplit("\r\n\r\n").next().unwrap()),
        "{before}"
    );
    std::fs::write(&path, line(1, 1, "ok", 1000.0, 10.0)).unwrap();
    assert_ne!(ask(&address, "/{}state"), before);
    assert!(ask(&address, "/{}").contains("✓ 1 call succeeded"));
    for other in [
        "/",
        "/state",
        "/{}/../x",
        "/00000000000000000000000000000000/",
    ] {
        let refused = ask(&address, other);
        assert!(
            refused.starts_with("HTTP/1.1 404 ") && !refused.contains("succeeded"),
            "{refused}"
        );
    }
    // A client that says nothing keeps nobody waiting.
    let host = address
        .trim()
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let _silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(host).unwrap()).collect();
    assert!(ask(&address, "/{}").contains("✓ 1 call succeeded"));
    // A request of any length is none.
    let rest = address.trim().strip_prefix("http://").unwrap();
    let mut long = TcpStream::connect(rest.split('/').next().unwrap()).unwrap();
    let _ = long.write_all(&[b'x'; 100_000]);
    assert!(ask(&address, "/{}").contains("✓ 1 call succeeded"));
    if let Some(browser) = browser() {
        let look = Look {
            directory,
            browser,
            page: String::new(),
        };
        let document = look.dump(&[], address.trim());
        assert!(document.contains("data-drawn=\"1\""), "{document}");
        assert!(document.contains("role=\"status\">live<"), "{document}");
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let _ = child.wait().unwrap();
}

#[test]
fn a_log_that_is_no_file_has_no_live_page() {
    let output = coordinator(&["report", "--live", "/dev/null"]).output();
    prints(&output, 2, "");
    let mut said = String::new();
    write!(said, "{}", stderr(&output)).unwrap();
    assert!(said.contains("has to be a file"), "{said}");
}
