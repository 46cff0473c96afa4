"""The report page in a real browser: filters, slider, switches, keys, large view. No text of the lake runs as code."""

from __future__ import annotations

import json
import os

import pytest
from support.report_pages import HOSTILE, rows_with_images
from support.tables import failed_row, write_labels

from jobs.report import run
from jobs.report.options import ReportConfig


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Ten images, one with a hostile name, and one that failed; scores and classes are the rows' own."""
    names = [f"photo-{i}.jpg" for i in range(9)] + [HOSTILE.replace("/", "")]
    rows = rows_with_images(tmp_path_factory.mktemp("lake"), 10, names)
    rows[0]["instances"][0]["category"] = rows[0]["instances"][0]["category"] + HOSTILE
    rows[0]["instances"][0]["label"] = 7
    return [*rows, failed_row("s3://lake/" + HOSTILE)]


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("page")
    target = folder / "report.html"
    run(ReportConfig(write_labels(folder / "out", [rows]), str(target), samples=100, review=4))
    return target


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    browser.execute_script("window.scrollTo(0, 0)")
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []
    assert browser.execute_script("return window.hacked") is None


def css(browser, selector: str) -> list:
    return browser.find_elements("css selector", selector)


def until(browser, condition):
    """What `condition` gives once it is true; images are drawn when the browser finds the time."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 60, poll_frequency=0.1).until(lambda _: condition())


def count(browser) -> str:
    return css(browser, "#count")[0].text


def choose(browser, control: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(css(browser, f"#{control}")[0]).select_by_value(value)


def set_score(browser, value: float) -> None:
    """What dragging does: the value, then the event that the browser sends."""
    browser.execute_script(
        "const s = document.getElementById('score'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input', {bubbles: true}))",
        value,
    )


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_the_page_opens_with_the_whole_sample(opened, rows):
    instances = sum(len(row["instances"]) for row in rows)
    assert count(opened) == f"11 of 11 images, {instances} instances"
    assert len(css(opened, ".card")) == 11
    assert "Label report" in opened.title


def test_class_status_and_set_filter_the_images(opened, rows):
    choose(opened, "class", "1")
    wanted = [row for row in rows if any(i["label"] == 1 for i in row["instances"])]
    assert count(opened).startswith(f"{len(wanted)} of 11 images")
    assert len(css(opened, ".card")) == len(wanted)
    choose(opened, "class", "")
    choose(opened, "status", "undecodable")
    assert count(opened) == "1 of 11 images, 0 instances"
    assert HOSTILE in css(opened, ".card button")[0].get_attribute("aria-label")
    choose(opened, "class", "1")
    assert css(opened, "#nothing")[0].is_displayed()
    css(opened, "#reset")[0].click()
    assert count(opened).startswith("11 of 11")
    css(opened, "input[value=review] + span")[0].click()
    assert count(opened).startswith("4 of 11 images")


def test_the_slider_hides_low_scores(opened, rows):
    scores = sorted(i["score"] for row in rows for i in row["instances"])
    middle = round(scores[len(scores) // 2], 2)
    set_score(opened, middle)
    left = sum(score >= middle for score in scores)
    assert count(opened) == f"11 of 11 images, {left} instances"
    assert css(opened, "#score-value")[0].text == f"{middle:.2f}"
    until(opened, lambda: len(css(opened, ".card .drawing > *")) >= 11)
    drawn = opened.execute_script(
        "return [...document.querySelectorAll('g.instance')].filter(g => g.style.display !== 'none').length"
    )
    assert drawn == left
    # with a class chosen, images whose instances of it are all hidden go
    choose(opened, "class", "0")
    wanted = [r for r in rows if any(i["label"] == 0 and i["score"] >= middle for i in r["instances"])]
    assert count(opened).startswith(f"{len(wanted)} of 11")


def test_layers_are_switched_by_box_and_by_key(opened):
    mask = until(opened, lambda: css(opened, "path.mask"))[0]
    box = css(opened, "rect.box")[0]

    def visible() -> tuple[bool, bool]:
        return tuple(
            opened.execute_script("return getComputedStyle(arguments[0]).display", e) != "none" for e in (mask, box)
        )

    assert visible() == (True, False)
    css(opened, "#masks")[0].click()
    assert visible() == (False, False)
    css(opened, "h1")[0].click()
    press(opened, "m", "b")
    assert visible() == (True, True)


def test_the_large_view_by_keyboard_alone(opened, rows):
    from selenium.webdriver.common.keys import Keys

    first, second = (card.get_attribute("aria-label") for card in css(opened, ".card button")[:2])
    opened.execute_script("document.querySelector('.card button').focus()")
    press(opened, Keys.ARROW_RIGHT)
    active = "return document.activeElement.getAttribute('aria-label')"
    assert opened.execute_script(active) == second
    press(opened, Keys.ARROW_LEFT, Keys.ENTER)
    assert opened.execute_script("return document.getElementById('viewer').open")
    title = css(opened, "#viewer-title")[0].text
    assert title
    assert first.startswith(title)
    press(opened, Keys.ARROW_RIGHT)
    assert second.startswith(css(opened, "#viewer-title")[0].text)
    press(opened, Keys.ESCAPE)
    assert not opened.execute_script("return document.getElementById('viewer').open")
    # the page moves the focus in an event that comes after the closing
    until(opened, lambda: opened.execute_script(active) == second)


def test_one_instance_is_switched_off_in_both_views(opened, rows):
    set_score(opened, 0)
    until(opened, lambda: css(opened, ".card svg"))
    images = [c for c in css(opened, ".card button") if "<svg" in c.get_attribute("innerHTML")]
    images[0].click()
    boxes = css(opened, "#instances tbody input")
    boxes[0].click()
    hidden = "return [...document.querySelectorAll(arguments[0])].map(g => g.style.display)"
    assert opened.execute_script(hidden, "#stage g[data-index='0']") == ["none"]
    css(opened, "#close")[0].click()
    assert opened.execute_script(hidden, ".card g[data-index='0']").count("none") == 1


def test_every_control_has_a_name_and_every_image_a_description(opened):
    unnamed = opened.execute_script(
        """return [...document.querySelectorAll('input, select, button')].filter(e => e.offsetParent !== null
           && !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    assert all(c.get_attribute("aria-label") for c in css(opened, ".card button"))
    assert css(opened, "[aria-live=polite]")
    for level, texts in {"h1": 1, "h2": 4}.items():
        assert len([e for e in css(opened, f"main {level}, header {level}") if e.is_displayed()]) >= texts


def test_classes_are_sorted_and_lead_to_their_images(opened):
    column = "return [...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[0].dataset.sort)"
    by_count = opened.execute_script(column)
    opened.execute_script("document.querySelector('#classes thead button').click()")
    assert opened.execute_script(column) == sorted(by_count, key=str.casefold)
    opened.execute_script("document.querySelector('#classes [data-class=\"1\"]').click()")
    assert opened.execute_script("return document.getElementById('class').value") == "1"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_keeps_its_contrast_in_both_themes(opened, theme):
    choose(opened, "theme", theme)
    worst = opened.execute_script(
        """const probe = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
        const rgb = c => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = c; probe.fillRect(0, 0, 1, 1);
          return [...probe.getImageData(0, 0, 1, 1).data]; };
        const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const light = c => rgb(c).slice(0, 3).map(v => linear(v / 255))
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
          if (rgb(c)[3] > 250) return c; } return 'white'; };
        return [...document.querySelectorAll('main p, main td, main th, main dt, main dd, .caption, a, label, h2')]
          .filter(e => e.offsetParent !== null && e.textContent.trim()).map(e => {
            const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), e.outerHTML.slice(0, 80)]; }).sort((x, y) => x[0] - y[0])[0]"""
    )
    assert worst[0] >= 4.5, worst


def test_500_images_stay_under_30_mb_and_are_ready_in_two_seconds(browser, tmp_path):
    """The time is the page's own, the best of a few: from the start of navigation until every control works."""
    rows = rows_with_images(tmp_path / "lake", 500)
    page = tmp_path / "report.html"
    run(ReportConfig(write_labels(tmp_path / "out", [rows]), str(page), samples=500, review=0))
    # photographs compress worse than drawings: make the page as heavy as its budget allows
    text = page.read_text()
    [start], [end] = ([text.index(mark)] for mark in ('id="data">', "</script>\n<script>"))
    data = json.loads(text[start + len('id="data">') : end])
    padding = "A" * (20_000_000 * 4 // 3 // 500)
    for card in data["cards"]:
        card["reserve"] = padding[: max(0, len(padding) - len(card["image"]))]
    heavy = text[:start] + 'id="data">' + json.dumps(data) + text[end:]
    assert len(heavy) < 30_000_000
    page.write_text(heavy)
    ready = []
    while len(ready) < 5 and min(ready, default=2000) >= 2000:
        browser.get(page.as_uri())
        assert count(browser).startswith("500 of 500")
        ready.append(int(browser.execute_script("return document.documentElement.dataset.ready")))
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    print(f"ready after {min(ready)} ms")
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip(f"this machine is too busy for its times to mean anything ({min(ready)} ms)")
    assert min(ready) < 2000
