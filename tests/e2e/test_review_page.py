"""The review page in a real browser: real keys, real mouse, and what the pull makes of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks import keys
from tasks.assets import load_asset_mesh
from tasks.catalogue import AssetState
from tasks.review.buffers import buffers_from_bytes
from tasks.review.scripted import wrong_spots

playwright_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.e2e
CHROMIUM = Path(os.environ.get("SEGVIGEN_CHROMIUM", "/usr/bin/chromium"))
# WebGL without a graphics card.
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
PATIENCE_MS = 120_000


@pytest.fixture
def page(label_studio) -> Iterator:
    """A logged-in browser page."""
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}; install chromium or set SEGVIGEN_CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1880, "height": 1040})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{label_studio.url}/user/login/")
        page.fill("input[name=email]", label_studio.username)
        page.fill("input[name=password]", label_studio.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        yield page
        browser.close()


def open_task(page, world, task_id):
    """Open a task; returns the sheet's box on the screen and the viewer's frame."""
    url = world.desk.client.url
    page.goto(f"{url}/projects/{world.desk.project_id}/data?task={task_id}")
    page.wait_for_function(
        "() => window.Htx && Htx.annotationStore.selected"
        " && document.querySelector('object')?.contentDocument?.querySelector('#state')"
        "?.textContent.startsWith('Click on the model')"
    )
    return settled_box(page)


def settled_box(page):
    """Where the sheet is drawn, once the editor has stopped laying it out."""
    script = """() => { const i = document.querySelector('img[alt=image]');
      if (!i || !i.naturalWidth) return null;
      const b = i.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }"""
    same, last = 0, None
    for _ in range(PATIENCE_MS // 250):
        page.wait_for_timeout(250)
        box = page.evaluate(script)
        same = same + 1 if box is not None and box == last and box[2] > 100 else 0
        last = box
        if same >= 6:
            return dict(zip(("x", "y", "width", "height"), box, strict=True))
    raise AssertionError(f"the sheet was not drawn: {last}")


def test_keys_and_clicks_on_sheet_and_model_reach_the_right_faces(desk_world, page):
    world = desk_world
    asset = world.proposed("robot", 3, lambda labels: np.where(labels == 1, 0, labels))
    world.push()
    (task_id,) = world.tasks_of(asset)
    buffers = buffers_from_bytes(world.store.get(keys.review_buffers(asset.asset_id, 0)))
    spot = wrong_spots(buffers, world.truth[asset.asset_id], 1)[0]
    assert spot.label == "new part"
    box = open_task(page, world, task_id)

    page.keyboard.press("n")
    width, height = buffers.size
    column, row = spot.column + 0.5, spot.row + 0.5
    page.mouse.click(
        box["x"] + column / width * box["width"], box["y"] + row / height * box["height"]
    )
    page.wait_for_function("() => Htx.annotationStore.selected.regions.length === 1")

    # The same on the model: choose a part by its key, click the middle of the canvas.
    stage = page.query_selector("object").bounding_box()
    (frame,) = (frame for frame in page.frames if frame.parent_frame is not None)
    inner = frame.evaluate(
        "() => { const b = canvas.getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; }"
    )
    middle = (stage["x"] + inner[0], stage["y"] + inner[1])
    frame.evaluate("() => window.focus()")
    page.keyboard.press("2")
    page.mouse.click(*middle)
    page.wait_for_function("() => Htx.annotationStore.selected.regions.length === 2")
    told = frame.inner_text("#state")
    assert told.endswith('-> "part 2"'), told

    page.evaluate("() => window.focus()")
    page.keyboard.press("f")
    folder = os.environ.get("SEGVIGEN_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(folder) / "review-page.png"))
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function("() => Htx.annotationStore.selected.pk")

    (reply,) = world.pull()
    assert (reply.verdict, reply.num_clicks, reply.state) == ("refine", 2, AssetState.REFINING)
    on_sheet, on_model = world.catalogue.reviews.clicks(asset.asset_id, 0)
    assert abs(on_sheet.pixel_x - column) < 1.5 and abs(on_sheet.pixel_y - row) < 1.5
    assert on_sheet.kind == "new_part"
    truth = world.truth[asset.asset_id]
    assert truth[on_sheet.face] == truth[buffers.face[spot.row, spot.column]]

    assert (on_model.source, on_model.kind, on_model.part) == ("viewer", "belongs", 2)
    assert told.startswith(f"face {on_model.face},")
    triangle = load_asset_mesh(world.store, asset).triangles[on_model.face]
    edges = triangle[1:] - triangle[0]
    normal = np.cross(*edges)
    normal /= np.linalg.norm(normal)
    xyz = np.array([on_model.x, on_model.y, on_model.z])
    size = 1 / buffers.frame.scale
    assert abs((xyz - triangle[0]) @ normal) < 1e-3 * size


def test_accept_by_key(desk_world, page):
    world = desk_world
    asset = world.proposed("stool", 5)
    world.push()
    open_task(page, world, world.tasks_of(asset)[0])
    page.keyboard.press("a")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function("() => Htx.annotationStore.selected.pk")
    (reply,) = world.pull()
    assert (reply.verdict, reply.state) == ("accept", AssetState.ACCEPTED)
