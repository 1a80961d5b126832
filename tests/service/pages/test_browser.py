"""A real browser: 50,000 points, budgets that move, points that are clicked, light and dark, wide and narrow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fn3hw.service import tokens
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Job
from tests.service.conftest import free_port, wait_for

from .rows import OTHER, PROFILE, RUN, SEARCH, Shown, fill

CHROMIUM = "/usr/bin/chromium"
POINTS = 50_000
SHOWN = "heading => document.querySelector('#chosen h3')?.textContent === heading"
DRAWN = "() => document.getElementById('chart-state').textContent.startsWith('Choose')"
PAGES = {
    "overview": "/",
    "runs": "/runs",
    "profile": f"/profiles/{PROFILE}",
    "devices": "/devices",
    "device": "/devices/pi5",
    "jobs": "/jobs",
    "job-running": "/jobs/profile-3",
    "job-failed": "/jobs/check-2",
    "job-exported": "/jobs/export-5",
    "comparisons": "/comparisons",
    "comparison": "/comparisons/compare-6",
    "error": "/runs/nothing",
}
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="apt-get install chromium")


@pytest.fixture
def address(parts: Parts) -> Iterator[str]:
    """A server at work."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(parts), port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, 10)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures are kept: ``$FN3HW_SCREENSHOTS``, or a folder of the test."""
    found = Path(os.environ.get("FN3HW_SCREENSHOTS") or tmp_path / "screenshots")
    found.mkdir(parents=True, exist_ok=True)
    return found


class Tab:
    """A page of the browser, and what went wrong there."""

    def __init__(self, browser: Any, address: str, **settings: Any) -> None:
        self.context = browser.new_context(base_url=address, **settings)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"
        )

    def log_in(self, token: str) -> None:
        self.page.goto("/jobs?state=failed")
        assert "/login?next=" in self.page.url
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url("**/jobs?state=failed")

    def overflow(self) -> list[str]:
        """What is wider than the screen."""
        found: list[str] = self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('main *, header *')]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.tagName + '.' + e.className)"""
        )
        return found


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def until(page: Any, script: str, argument: Any = None, seconds: float = 30) -> None:
    """Wait for a script to be true: Playwright's own way to wait is an eval, which the policy refuses."""
    end = time.monotonic() + seconds
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, script
        time.sleep(0.01)


def settle(page: Any) -> None:
    page.wait_for_load_state("load")
    if page.locator("[data-curves], [hx-get$=curves]").count():
        page.wait_for_selector(".multiples canvas", timeout=30_000)
    page.wait_for_timeout(250)


def test_a_front_of_fifty_thousand_points(
    parts: Parts, address: str, browser: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = fill(parts, points=POINTS, profile=os.environ.get("FN3HW_SHOWN", "mlp-1-thread.json"))
    atlas = shown.atlas
    tab = Tab(browser, address, viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = tab.page
    tab.log_in(tokens.create(parts.database, "me", "admin"))
    tab.wrong.clear()

    started = time.monotonic()
    page.goto(f"/runs/{RUN}?search={SEARCH}")
    until(page, DRAWN)
    print(f"open to drawn: {time.monotonic() - started:.2f} s")
    settle(page)
    page.screenshot(path=pictures / "run-light.png", full_page=True)

    # A click shows the subnet that was clicked, on the front and behind it.
    slow = [n for n, one in enumerate(atlas.dominated) if one.latency_ms > 0.8 * atlas.dominated[-1].latency_ms]
    behind = min(slow, key=lambda n: atlas.dominated[n].accuracy)  # far from the front, on which a click is caught
    for number in (len(atlas.points) // 2, len(atlas.points) + behind):
        on_front = number < len(atlas.points)
        point = atlas.points[number] if on_front else atlas.dominated[number - len(atlas.points)]
        at = page.evaluate(
            """([x, y]) => { const c = document.getElementById('chart').chart, b = c.over.getBoundingClientRect();
            return [b.left + c.valToPos(x, 'x'), b.top + c.valToPos(y, 'y')]; }""",
            [point.latency_ms, point.accuracy],
        )
        page.mouse.move(*at)
        tip = page.locator(".mark.tip").inner_text()
        begun = time.monotonic()
        page.mouse.click(*at)
        until(page, SHOWN, "Chosen point" if on_front else "Dominated point", 60)
        print(f"click to subnet: {time.monotonic() - begun:.2f} s")
        place = int(page.locator("#chosen [data-number]").get_attribute("data-number"))
        clicked = [*atlas.points, *atlas.dominated][place]
        assert page.locator("[data-subnet]").inner_text() == clicked.subnet.id
        assert tip.startswith(f"{clicked.accuracy:.2f} %")
        assert (place < len(atlas.points)) or not on_front
        # Points may lie over each other: what was chosen is where the mouse was.
        assert abs(clicked.accuracy - point.accuracy) < 0.2
        if on_front:
            page.screenshot(path=pictures / "run-chosen-light.png", full_page=True)

    # A slider's answer is the lookup's.
    slider = page.get_by_role("slider", name="Latency (ms), at most")
    slider.evaluate("e => { e.value = 500; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    page.wait_for_selector("text=Most accurate within budget")
    limit = float(page.locator("#limit-latency_ms").input_value())
    assert page.locator("[data-subnet]").inner_text() == atlas.lookup(latency_ms=limit).subnet.id
    assert f"latency_ms={limit:g}" in page.url
    page.locator("#limit-size_mib").fill("0.00001")
    page.wait_for_selector("text=No subnet meets this")
    page.screenshot(path=pictures / "run-refused-light.png", full_page=True)
    page.get_by_role("button", name="No budget").click()
    page.wait_for_selector("text=Most accurate within budget")
    assert page.locator("[data-subnet]").inner_text() == atlas.lookup().subnet.id
    spent = []
    for value in range(300, 900, 50):
        begun = time.monotonic()
        slider.evaluate(f"e => {{ e.value = {value}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }}")
        limit = float(page.locator("#limit-latency_ms").input_value())
        expected = atlas.lookup(latency_ms=limit).subnet.id if limit >= min(atlas._limits["latency_ms"]) else None
        if expected:
            until(page, "id => document.querySelector('[data-subnet]')?.textContent === id", expected)
            spent.append(time.monotonic() - begun)
    print(f"slider to answer: median {1000 * sorted(spent)[len(spent) // 2]:.0f} ms, worst {1000 * max(spent):.0f} ms")

    # Keys move along the front of the axis that is shown, and choose.
    page.get_by_role("radio", name="File size (MiB)").check(force=True)
    chart = page.locator("#chart")
    chart.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert "MiB" in chart.get_attribute("aria-valuetext")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Chosen point")
    page.wait_for_timeout(300)
    page.screenshot(path=pictures / "run-size-light.png", full_page=True)
    redraw = page.evaluate(
        """async () => { const c = document.getElementById('chart').chart, t = performance.now();
        c.redraw(false, true); await null; const drawn = performance.now() - t;
        await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);
        return [drawn, performance.now() - t]; }"""
    )
    hover = page.evaluate(
        """() => { const over = document.querySelector('.u-over'), b = over.getBoundingClientRect();
        const t = performance.now();
        for (let i = 0; i < 50; i++) over.dispatchEvent(new MouseEvent('mousemove',
          {clientX: b.left + 10 * i, clientY: b.top + 5 * i, bubbles: true})); return (performance.now() - t) / 50; }"""
    )
    print(f"redraw {redraw[0]:.0f} ms, on the screen after {redraw[1]:.0f} ms; a move of the mouse {hover:.1f} ms")
    assert redraw[0] < 500

    # Another device over it; dark; narrow.
    page.emulate_media(color_scheme="dark")
    page.goto(f"/runs/{RUN}?search={SEARCH}&beside={OTHER}&latency_ms=1")
    until(page, DRAWN)
    settle(page)
    page.screenshot(path=pictures / "run-beside-dark.png", full_page=True)
    assert tab.wrong == []
    assert tab.hosts == {address.removeprefix("http://")}
    tab.context.close()


def test_every_page_in_light_and_dark_wide_and_narrow(parts: Parts, address: str, browser: Any, pictures: Path) -> None:
    fill(parts, profile=os.environ.get("FN3HW_SHOWN", "mlp-1-thread.json"))
    token = tokens.create(parts.database, "me", "admin")
    shown = {**PAGES, "run": f"/runs/{RUN}?search={SEARCH}&beside={OTHER}&latency_ms=3"}
    for width, scheme in ((1280, "light"), (360, "dark"), (1280, "dark"), (360, "light")):
        tab = Tab(browser, address, viewport={"width": width, "height": 800}, color_scheme=scheme)
        tab.page.goto("/login")
        tab.page.screenshot(path=pictures / f"login-{width}-{scheme}.png")
        assert tab.overflow() == []
        tab.log_in(token)
        for name, path in shown.items():
            tab.page.goto(path)
            settle(tab.page)
            tab.page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)
            assert tab.overflow() == [], (name, width)
        wrong = [text for text in tab.wrong if "404" not in text]  # the page of an error is one
        assert wrong == []
        assert tab.hosts == {address.removeprefix("http://")}
        tab.context.close()


def test_a_job_is_followed_to_its_end(parts: Parts, address: str, browser: Any) -> None:
    shown = fill(parts)
    tab = Tab(browser, address)
    tab.log_in(tokens.create(parts.database, "me", "read"))
    tab.page.goto(f"/jobs/{shown.jobs['profile']}")
    assert "13 of 30" in tab.page.inner_text("#now")

    def change(**values: Any) -> None:
        with parts.database.session() as session:
            job = session.get(Job, shown.jobs["profile"])
            assert job is not None
            for name, value in values.items():
                setattr(job, name, value)

    with parts.database.session() as session:
        progress = session.get(Job, shown.jobs["profile"]).progress  # type: ignore[union-attr]
    change(progress={**(progress or {}), "done": 24}, log="a new line\n")
    tab.page.wait_for_selector("text=24 of 30")
    tab.page.wait_for_selector("text=a new line")
    change(state="failed", error={"code": "noisy", "message": "Too noisy.", "hint": "Be quiet.", "exit_status": 5})
    tab.page.wait_for_selector("text=Be quiet.")
    assert tab.page.inner_text("#said") == "The job is failed. Too noisy. Be quiet."
    assert tab.wrong == []
    tab.context.close()


def test_without_scripts_links_and_forms_do(parts: Parts, address: str, browser: Any, pictures: Path) -> None:
    shown: Shown = fill(parts)
    tab = Tab(browser, address, java_script_enabled=False, viewport={"width": 1000, "height": 800})
    tab.log_in(tokens.create(parts.database, "me", "submit"))
    page = tab.page
    page.goto(f"/runs/{RUN}")
    page.get_by_role("spinbutton", name="Latency (ms), at most").fill("0.04")
    page.get_by_role("button", name="Look up").click()
    assert page.locator("[data-subnet]").inner_text() == shown.atlas.lookup(latency_ms=0.04).subnet.id
    page.screenshot(path=pictures / "run-without-scripts.png", full_page=True)
    page.get_by_role("button", name="Export").first.click()
    assert "/jobs/export-" in page.url
    page.goto(f"/profiles/{PROFILE}")
    page.get_by_role("link", name="Show the costs as a table").click()
    assert page.get_by_role("table").count() == 1
    page.goto("/jobs")
    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Filter").click()
    assert "state=failed" in page.url
    tab.context.close()


def test_methods_of_a_comparison_are_shown_and_hidden(parts: Parts, address: str, browser: Any) -> None:
    shown = fill(parts)
    tab = Tab(browser, address)
    tab.log_in(tokens.create(parts.database, "me", "read"))
    tab.page.goto(f"/comparisons/{shown.jobs['compare']}")
    until(tab.page, "() => document.getElementById('at').chart")
    lines = (
        "() => ['over', 'at'].map(id => document.getElementById(id).chart.series.slice(1).filter(s => s.show).length)"
    )
    assert tab.page.evaluate(lines) == [12, 12]
    tab.page.get_by_role("checkbox", name="random").uncheck()
    assert tab.page.evaluate(lines) == [9, 9]
    tab.page.emulate_media(color_scheme="dark")
    tab.page.wait_for_timeout(100)
    assert tab.page.evaluate(lines) == [9, 9]
    assert tab.wrong == []
    tab.context.close()
