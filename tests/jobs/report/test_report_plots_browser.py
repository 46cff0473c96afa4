"""The plots of the page in a real browser: keys, names for screen readers, both themes, one class at a time."""

from __future__ import annotations

import pytest
from support.report_pages import rows_with_images
from support.tables import export, write_labels

from jobs.report import run
from jobs.report.options import ReportConfig


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    output = write_labels(folder / "out", [rows_with_images(folder / "lake", 8)])
    run(ReportConfig(output, str(folder / "page.html"), ground_truth=str(export(output, folder / "truth.json"))))
    return folder / "page.html"


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_every_plot_is_drawn_and_has_a_name_and_a_description(opened):
    plots = opened.execute_script(
        """const all = [...document.querySelectorAll('#quality .plot svg')];
           return all.filter(s => s.closest('.plot').offsetParent).map(s => [
             s.getBoundingClientRect().width, s.getBoundingClientRect().height, s.getAttribute('role'),
             document.getElementById(s.getAttribute('aria-labelledby')).textContent,
             document.getElementById(s.getAttribute('aria-describedby')).textContent])"""
    )
    assert len(plots) == 5
    for width, height, role, title, description in plots:
        assert width > 200
        assert height > 150
        assert role == "img"
        assert title
        assert description
    repeated = """const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
                  return ids.filter((id, i) => ids.indexOf(id) !== i)"""
    assert opened.execute_script(repeated) == []


def test_plots_and_their_tables_are_reached_by_keys(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.querySelector('#plot-all svg').focus()")
    active = "return document.activeElement.tagName.toLowerCase()"
    assert opened.execute_script(active) == "svg"
    ActionChains(opened).send_keys(Keys.TAB).perform()
    assert opened.execute_script(active) == "summary"
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    assert opened.execute_script("return document.querySelector('#plot-all details').open")
    assert opened.execute_script("return document.querySelectorAll('#plot-all tbody tr').length") == 11


def test_a_class_is_chosen(opened):
    from selenium.webdriver.support.select import Select

    shown = "return [...document.querySelectorAll('#class-plots > *')].filter(f => f.offsetParent).map(f => f.id)"
    chooser = Select(opened.find_element("id", "quality-class"))
    assert opened.execute_script(shown) == ["plot-class-0"]
    chooser.select_by_index(1)
    assert opened.execute_script(shown) == ["plot-class-1"]
    title = opened.execute_script("return document.querySelector('#plot-class-1 strong').textContent")
    assert title.endswith(chooser.first_selected_option.text)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_text_of_plots_has_the_colour_of_the_theme(opened, theme):
    from selenium.webdriver.support.select import Select

    Select(opened.find_element("id", "theme")).select_by_value(theme)
    text, body = opened.execute_script(
        """const t = [...document.querySelectorAll('#plot-all svg text')].find(t => t.textContent === 'recall');
           return [getComputedStyle(t).fill, getComputedStyle(document.body).color]"""
    )
    assert text == body
