"""The page in a real browser: it moves as records come, and asks nobody but its own server."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Look

pytestmark = pytest.mark.slow

WEB = Path(str(files("k2") / "web"))
SECONDS = 30_000


def until(page: Page, what: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `what()`; the browser goes on meanwhile."""
    for _ in range(int(seconds * 20)):
        if what():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def test_candles_move_as_records_arrive(look: Look, live: str, tmp_path: Path) -> None:
    page = look(live).page
    expect(page.locator("#price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)
    expect(page.locator("#tape tr").nth(10)).to_be_visible(timeout=SECONDS)
    before = {
        "price": page.locator("#price").inner_text(),
        "volume": page.locator("#legend [data-value=Vol]").inner_text(),
        "trade": page.locator("#tape tr").first.inner_text(),
        "chart": page.locator("#chart").screenshot(),
        "rows": page.locator("[data-state=rows]").inner_text(),
    }
    until(page, lambda: page.locator("#price").inner_text() != before["price"])
    until(page, lambda: page.locator("#legend [data-value=Vol]").inner_text() != before["volume"])
    until(page, lambda: page.locator("#tape tr").first.inner_text() != before["trade"])
    until(page, lambda: page.locator("#chart").screenshot() != before["chart"])
    until(page, lambda: page.locator("[data-state=rows]").inner_text() != before["rows"])
    page.screenshot(path=tmp_path / "page.png")


def test_the_strip_tells_the_state(look: Look, live: str) -> None:
    page = look(live).page
    for name in ("rate", "lag", "freshness", "rows", "snapshot"):
        expect(page.locator(f"[data-state={name}]")).to_have_text(
            re.compile(r"\d"), timeout=SECONDS
        )
    expect(page.locator("#audit")).to_have_text("ok", timeout=SECONDS)
    expect(page.locator("#connection")).to_have_text("connected")


def test_the_list_has_prices_and_volume_and_can_be_searched(look: Look, live: str) -> None:
    page = look(live).page
    expect(page.locator("#list li")).to_have_count(12, timeout=SECONDS)
    first = page.locator("#list li").first
    expect(first.locator(".price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)
    expect(first.locator(".change")).to_have_text(re.compile(r"%"))
    assert first.locator("path").get_attribute("d")
    page.keyboard.press("/")
    page.keyboard.type("eth")
    expect(page.locator("#list li:visible")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#symbol")).to_have_text(re.compile("ETH"))
    assert "ETH" in page.url
    page.reload()
    expect(page.locator("#symbol")).to_have_text(re.compile("ETH"), timeout=SECONDS)


def test_keyboard_alone_is_enough(look: Look, live: str) -> None:
    page = look(live).page
    expect(page.locator("#list li")).to_have_count(12, timeout=SECONDS)
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    second = page.locator("#list li").nth(1)
    expect(page.locator("#symbol")).to_have_text(
        str(second.locator(".name").evaluate("e => e.firstChild.data"))
    )
    page.locator("#intervals button", has_text="5s").press("Enter")
    expect(page.locator("#intervals [aria-pressed=true]")).to_have_text("5s")


def test_a_hidden_tab_asks_nothing(look: Look, live: str) -> None:
    watched = look(live)
    page = watched.page
    expect(page.locator("#price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)

    def hide(hidden: str) -> None:
        page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{configurable: true, value: {hidden}}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    hide("true")
    page.wait_for_timeout(1_000)
    watched.asked.clear()
    page.wait_for_timeout(2_000)
    assert watched.asked == []
    hide("false")
    until(page, lambda: len(watched.asked) > 3)


def test_four_hundred_pixels_are_enough(look: Look, live: str, tmp_path: Path) -> None:
    page = look(live, width=400, height=800).page
    expect(page.locator("#price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    expect(page.locator("#symbols")).to_be_hidden()
    expect(page.locator("#chart canvas").first).to_be_visible()
    page.screenshot(path=tmp_path / "phone.png")
    page.locator("#picker").click()
    expect(page.locator("#symbols")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    expect(page.locator("#list li")).to_have_count(12, timeout=SECONDS)
    page.locator("#list button").nth(2).click()
    expect(page.locator("#symbols")).to_be_hidden()


def test_older_bars_come_as_one_scrolls(look: Look, past: str) -> None:
    watched = look(past)
    page = watched.page
    expect(page.locator("#price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)
    page.locator("#intervals button", has_text="1s").click()
    expect(page.locator("#intervals [aria-pressed=true]")).to_have_text("1s")
    box = page.locator("#chart").bounding_box()
    assert box is not None

    def ends() -> list[str]:
        asked = [parse_qs(urlsplit(url).query) for url in watched.asked if "/v1/bars/1s" in url]
        return sorted({query["end_time"][0] for query in asked if "end_time" in query})

    def scrolled() -> bool:
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 120, box["y"] + 100, steps=4)
        page.mouse.up()
        return len(ends()) >= 2

    until(page, scrolled)


def test_a_market_that_has_closed_is_shown_as_it_was(look: Look, past: str) -> None:
    page = look(past).page
    expect(page.locator("#price")).to_have_text(re.compile(r"\d"), timeout=SECONDS)
    expect(page.locator("#day")).to_have_text("2026-01-05", timeout=SECONDS)
    expect(page.locator("#change")).to_have_text(re.compile("%"), timeout=SECONDS)
    expect(page.locator("#list .change").first).to_have_text(re.compile("%"))


def test_gaps_are_told_and_bars_that_lack_trades_are_pale(
    look: Look, gappy: str, tmp_path: Path
) -> None:
    page = look(gappy).page
    told = page.locator("#gaps summary")
    expect(told).to_have_text(re.compile(r"\d+ gaps?: \d+ trades missing"), timeout=SECONDS)
    expect(page.locator("#gaps table")).to_be_hidden()
    told.click()
    first = page.locator("#gaps tbody tr").first
    expect(first).to_have_text(re.compile(r"2026-01-05 .*rejected"))
    page.screenshot(path=tmp_path / "gaps.png")
    symbol = page.locator("#symbol").inner_text()
    bars = page.evaluate(
        "async (symbol) => (await (await fetch(`/v1/bars/1m?symbol=${symbol}`)).json()).data",
        symbol,
    )
    assert {bar["complete"] for bar in bars} == {True, False}


def test_a_symbol_without_gaps_tells_of_none(look: Look, past: str) -> None:
    watched = look(past)
    until(watched.page, lambda: any("/v1/gaps" in url for url in watched.asked))
    watched.page.wait_for_timeout(300)
    expect(watched.page.locator("#gaps")).to_be_hidden()


def test_the_reference_is_drawn_whole(look: Look, past: str) -> None:
    page = look(past, "/docs").page
    expect(page.locator(".operation").first).to_be_visible(timeout=SECONDS)
    assert page.locator(".operation[id^=get], .operation[id^=post]").count() == 41
    trial = page.locator("[id='get/v1/symbols']")
    trial.locator("button").click()
    expect(trial.locator("pre")).to_have_text(re.compile('"success": true'), timeout=SECONDS)


def test_files_of_the_page_name_no_other_host() -> None:
    allowed = {"https://www.tradingview.com/", "http://www.w3.org/2000/svg"}
    for path in WEB.rglob("*"):
        if path.is_file() and "vendor" not in path.parts:
            found = set(re.findall(r"https?://[^\s\"'<)]+", path.read_text("utf-8")))
            assert found <= allowed, path


def test_the_chart_library_comes_with_its_licence_and_notice() -> None:
    notice = (WEB / "vendor" / "NOTICE").read_text("utf-8")
    assert "TradingView Lightweight Charts" in notice
    assert "Apache License" in (WEB / "vendor" / "LICENSE").read_text("utf-8")
    shown = (WEB / "index.html").read_text("utf-8")
    assert "TradingView Lightweight Charts" in shown
    assert 'href="https://www.tradingview.com/"' in shown
