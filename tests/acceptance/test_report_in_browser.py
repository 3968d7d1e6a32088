"""The report as a browser shows it: complete without a network, inert, and readable on every screen and on paper."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.browser import CHROMIUM, Browser, View, browser
from tests.harness import batcher, write_job, write_script
from tests.runs import write_records

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)")

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
#: how much lighter the lighter of two colours is (WCAG), of all text against what is behind it: the worst, and where
CONTRAST = """(() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
                       return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                        if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  let worst = [99, ''];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = texts.nextNode(); ) {
    const e = n.parentElement;
    if (!n.textContent.trim() || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), color = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, n.textContent.trim() + ' ' + color + ' on ' + behind(e)];
  }
  return worst;
})()"""
#: the same of what is drawn, against the page
DRAWN = """(() => [...document.querySelectorAll('.legend i, .progress .completed, .progress .failed')]
  .filter(e => e.getClientRects().length).map(e => getComputedStyle(e).backgroundColor))()"""
#: of each plot on the screen: its width and height, and the number of shapes in it that have a size
PLOTS = """[...document.querySelectorAll('.plot svg')].filter(e => e.getClientRects().length).map(e => [
  Math.round(e.getBoundingClientRect().width), Math.round(e.getBoundingClientRect().height),
  [...e.querySelectorAll('.role-mark path')].map(p => p.getBBox()).filter(b => b.width + b.height > 1).length,
  [...e.querySelectorAll('text')].filter(t => t.textContent).length])"""
WIDTH = "document.documentElement.scrollWidth"
BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
TEXT = "document.body.innerText"
ELEMENTS = "[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]"
TITLE = "document.title"
SMALLEST = """Math.min(...[...document.querySelectorAll('.plot svg text')].filter(e => e.getClientRects().length)
  .map(e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run in which much went wrong, with hostile names and messages."""
    folder = tmp_path_factory.mktemp("run")
    write_records(folder, ({"text": f"row {n}", HOSTILE: f"{HOSTILE}{n}"} for n in range(300)))
    script = write_script(
        folder / "script.yaml",
        {"share": 0.1, "answers": [{"status": 400, "code": HOSTILE, "message": HOSTILE * 50}], "forever": True},
        {"share": 0.2, "answers": [{"status": 429, "retry_after": 0.3}]},
    )
    with start_simulator(SimulatorOptions(latency_s=0.05, script=script)) as simulator:
        job = write_job(folder, simulator.base_url, input={"path": "rows.jsonl", "id": HOSTILE})
        assert batcher("run", str(job), "-q").returncode == 3
    assert batcher("report", str(job)).returncode == 0
    return folder / "out-report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests of this file."""
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def check_plots(view: View, width: int) -> None:
    """Assert that four plots are on the screen, none wider than it, each with shapes and words in it."""
    plots = view.values[PLOTS]
    assert len(plots) == 4
    for plot_width, height, shapes, words in plots:
        assert width * 0.7 < plot_width <= width
        assert height > 80
        assert shapes >= 1
        assert words >= 5


def check_contrast(view: View) -> None:
    """Assert that text stands out at least 4.5 to 1."""
    ratio, where = view.values[CONTRAST]
    assert ratio >= 4.5, where


def test_nothing_is_asked_for_and_nothing_complained_about(page: Path, chromium: Browser) -> None:
    """The one file is all that the page needs, and its policy allows all of it."""
    view = chromium.view(page.as_uri())
    assert view.requested == [page.as_uri()]
    assert view.complaints == []


def test_hostile_content_does_nothing(page: Path, chromium: Browser) -> None:
    """What looks like markup in rows and answers is text on the page: no element is made of it, no script runs."""
    view = chromium.view(page.as_uri(), ELEMENTS, TEXT, TITLE)
    assert not {"script", "img", "a", "iframe", "link"} & set(view.values[ELEMENTS])
    assert view.values[TEXT].count(HOSTILE[:30]) >= 10
    assert view.values[TITLE] == "job: report of a run"


def test_the_policy_would_hold_if_the_escaping_failed(page: Path, chromium: Browser, tmp_path: Path) -> None:
    """Markup put into the page by force runs no script and sends no request: the page forbids both."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        evil = f"{HOSTILE}<img src={there}/i><link rel=stylesheet href={there}/c><script src={there}/s></script>"
        evil += f"<p style='background:url({there}/b)'>x</p>"
        spoilt = page.read_text().replace("<main>", f"<main>{evil}")
        (tmp_path / "evil.html").write_text(spoilt)
        view = chromium.view((tmp_path / "evil.html").as_uri(), TITLE, ELEMENTS)
        assert {"script", "img", "link"} <= set(view.values[ELEMENTS])
        assert view.values[TITLE] == "job: report of a run"
        assert len([text for text in view.complaints if "Content Security Policy" in text]) >= 5
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        # the same without the policy is noticed, so that this test would see a request
        (tmp_path / "open.html").write_text(re.sub("<meta http-equiv[^>]*>", "", spoilt))
        server.settimeout(30)
        chromium.start(f"{(tmp_path / 'open.html').as_uri()}")
        server.accept()[0].close()


def test_on_a_light_screen(page: Path, chromium: Browser) -> None:
    """Four plots with something in them, text that stands out, and colours that can be told from the page."""
    view = chromium.view(page.as_uri(), PLOTS, CONTRAST, WIDTH, BACKGROUND, DRAWN, SMALLEST)
    check_plots(view, 1100)
    check_contrast(view)
    assert view.values[BACKGROUND] == "rgb(255, 255, 255)"
    assert len(set(view.values[DRAWN])) == 3
    assert 11 <= view.values[SMALLEST] <= 14


def test_on_a_dark_screen(page: Path, chromium: Browser) -> None:
    """Everything, plots included, changes its colours with the screen's, and can be read as well."""
    light = chromium.view(page.as_uri(), DRAWN)
    view = chromium.view(page.as_uri(), PLOTS, CONTRAST, BACKGROUND, DRAWN, dark=True)
    check_plots(view, 1100)
    check_contrast(view)
    assert view.values[BACKGROUND] == "rgb(20, 22, 26)"
    assert not set(view.values[DRAWN]) & set(light.values[DRAWN])


@pytest.mark.parametrize("width", [340, 390, 600, 680, 800])
def test_on_a_small_screen(page: Path, chromium: Browser, width: int) -> None:
    """The page needs no scrolling sideways, and the letters in its plots stay readable."""
    view = chromium.view(page.as_uri(), PLOTS, WIDTH, SMALLEST, width=width)
    check_plots(view, width)
    assert view.values[WIDTH] == width
    assert view.values[SMALLEST] >= 9


def test_on_paper(page: Path, chromium: Browser) -> None:
    """A page printed from a dark screen is dark on light, with the wide plots."""
    view = chromium.view(page.as_uri(), PLOTS, CONTRAST, BACKGROUND, dark=True, printed=True, width=720)
    check_plots(view, 720)
    check_contrast(view)
    assert view.values[BACKGROUND] == "rgb(255, 255, 255)"
