"""The 3D page by itself in a browser, and inside an editor that has changed: what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segvigen_model.datasets.procedural import make_asset
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.viewer_html import render_viewer

playwright_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.e2e
CHROMIUM = Path(os.environ.get("SEGVIGEN_CHROMIUM", "/usr/bin/chromium"))
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
EDITOR = """() => { window.taken = []; window.Htx = { annotationStore: { selected: {
  regions: [], suggestions: new Map(),
  names: new Map([["click", {}], ["verbs", { regions: [], addText() {} }]]),
  appendResults() { throw new TypeError("changed"); },
} } } }"""


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}; install chromium or set SEGVIGEN_CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file_url(tmp_path_factory):
    made = make_asset("mug", 1)
    sheet = render_sheet(made.mesh, made.face_labels, width=384)
    target = tmp_path_factory.mktemp("viewer") / "viewer.html"
    target.write_bytes(render_viewer(made.mesh, made.face_labels, sheet.buffers, title="a mug"))
    return target.as_uri()


@pytest.fixture
def viewer(browser, file_url):
    page = browser.new_page(viewport={"width": 600, "height": 700})
    page.goto(file_url)
    page.wait_for_selector("#state:not(:empty)")
    yield page
    page.close()


def click_model(page, **options):
    box = page.query_selector("#canvas").bounding_box()
    middle = {"x": box["width"] / 2, "y": box["height"] / 2}
    page.click("#canvas", position=middle, **options)


def test_without_an_editor_it_shows_and_reports_it(viewer):
    alone = "View only: the editor cannot be reached from here. The sheet works."
    assert viewer.inner_text("#state") == alone
    assert viewer.inner_text("#title") == "a mug"
    click_model(viewer)
    assert viewer.inner_text("#state").endswith("View only: click on the sheet to correct.")
    viewer.check('li[data-part="0"] input')
    viewer.check('li[data-part="1"] input')
    viewer.click("#merge")
    assert viewer.inner_text("#state") == alone
    assert viewer.get_attribute("#state", "class") == "warning"


def test_an_editor_that_refuses_is_reported_each_time(viewer):
    viewer.evaluate(EDITOR)
    viewer.wait_for_function("() => state.textContent.startsWith('Click on the model')")
    click_model(viewer)
    assert "First choose a label" in viewer.inner_text("#state")
    viewer.keyboard.press("n")
    click_model(viewer, modifiers=["Alt"])
    assert 'choose a part, not "new part"' in viewer.inner_text("#state")
    viewer.keyboard.press("0")
    click_model(viewer)
    reported = "The editor refused the point (TypeError); click on the sheet instead."
    assert viewer.inner_text("#state") == reported
    for key, words in (("M", "Merge needs two parts: "), ("S", "Split needs a part: ")):
        viewer.keyboard.press(key)
        assert viewer.inner_text("#state").startswith(words)
    viewer.check('li[data-part="0"] input')
    viewer.keyboard.press("N")
    assert viewer.inner_text("#state") == "Write the name first, then press Enter."
    viewer.keyboard.type("handle")
    viewer.keyboard.press("Enter")
    assert viewer.inner_text("#state") == 'The editor did not take "name 0 handle".'
    viewer.evaluate("() => Htx.annotationStore.selected.names.delete('verbs')")
    viewer.click("#split")
    assert "no field for commands; write what you mean into the note" in viewer.inner_text("#state")
    viewer.click("#undo")
    assert viewer.inner_text("#state").startswith("Nothing of this page is left to undo")


def test_keys_list_parts_and_help(viewer):
    viewer.keyboard.press("?")
    assert viewer.is_visible("#help") and "does not belong" in viewer.inner_text("#help")
    viewer.keyboard.press("Escape")
    assert not viewer.is_visible("#help")
    viewer.keyboard.press("1")
    assert viewer.get_attribute("li.chosen", "data-part") == "1"
    shares = [float(text.split()[0]) for text in viewer.locator(".share").all_inner_texts()]
    assert abs(sum(shares) - 100) < 1


def test_a_browser_without_webgl_is_reported(browser, file_url):
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(file_url)
    page.wait_for_selector("#state:not(:empty)")
    assert page.inner_text("#state") == "This browser has no WebGL; the sheet works without it."
    page.close()
