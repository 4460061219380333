"""A smart click in a real browser: the preview comes, and the clicks survive, accepted or not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest

from infra.local import start_refine, stop_service
from tasks.catalogue import AssetState
from tasks.review.buffers import buffers_from_bytes
from tasks.review.desk import open_desk
from tasks.settings import load_settings

pytestmark = pytest.mark.e2e
PATIENCE_MS = 120_000
STORE = "Htx.annotationStore.selected"


@pytest.fixture
def live_world(desk_world, tmp_path, monkeypatch):
    """The desk with a running refine service of the default checkpoint."""
    secret = uuid4().hex
    monkeypatch.setenv("SEGVIGEN_REVIEW_LIVE_PASSWORD", secret)
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", f"sqlite:///{tmp_path}/catalogue.db")
    env = {name: text for name, text in os.environ.items() if name.startswith("SEGVIGEN_")}
    url = start_refine(tmp_path, env)
    try:
        for _ in range(1200):
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                break
            time.sleep(0.1)
        title = {"project_title": desk_world.settings.review.project_title, "live_url": url}
        review = {**title, "sheet_pixels": desk_world.settings.review.sheet_pixels}
        settings = load_settings(None, {"review": review})
        desk_world.desk = open_desk(settings.review, settings.store)
        yield desk_world
    finally:
        stop_service(tmp_path, "refine")


def sheet_box(page) -> dict:
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


def open_robot(page, world, seed: int) -> tuple:
    """Push a robot whose two first parts are one, and open it with the smart point tool.

    Returns:
        The asset, the sheet's buffers, and the sheet's box on the page.
    """
    asset = world.proposed("robot", seed, lambda labels: np.where(labels == 1, 0, labels))
    world.push()
    (task_id,) = world.tasks_of(asset)
    task = world.catalogue.reviews.task(asset.asset_id, 0)
    buffers = buffers_from_bytes(world.store.get(task.buffers_key))
    url = world.desk.client.url
    page.goto(f"{url}/projects/{world.desk.project_id}/data?task={task_id}")
    page.wait_for_function(f"() => window.Htx && {STORE}")
    page.get_by_text("Auto-Annotation").wait_for()
    page.evaluate("() => Htx.setAutoAnnotation(true)")
    sheet_box(page)
    box = sheet_box(page)
    page.locator(".lsf-toolbar__group .lsf-tool_smart, .lsf-tool_smart").first.click()
    return asset, buffers, box


def press(page, box, buffers, part: int, nth: int = 2) -> tuple[float, float]:
    """Click on a pixel that shows a part; returns its place on the sheet."""
    rows, columns = np.nonzero(buffers.part == part)
    at = len(rows) // nth
    width, height = buffers.size
    column, row = columns[at] + 0.5, rows[at] + 0.5
    page.mouse.click(
        box["x"] + column / width * box["width"], box["y"] + row / height * box["height"]
    )
    return column, row


def shot(page, name: str) -> None:
    """A picture for people, where asked for."""
    folder = os.environ.get("SEGVIGEN_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(700)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def finish(page) -> None:
    """Say refine, and submit."""
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_function(f"() => {STORE}.pk")


def suggested(page) -> list[str]:
    """Types of the suggestions shown."""
    return page.evaluate(f"() => [...{STORE}.suggestions.values()].map(s => s.type)")


@pytest.mark.parametrize("is_accepted", [False, True])
def test_preview_and_clicks_survive_submit(live_world, browser_page, is_accepted):
    world, page = live_world, browser_page
    asset, buffers, box = open_robot(page, world, 3)
    page.keyboard.press("1")
    column, row = press(page, box, buffers, 0)
    page.wait_for_function(f"() => {STORE}.suggestions.size === 2")
    assert set(suggested(page)) == {"brushregion", "keypointregion"}
    meta = page.evaluate(
        f"() => [...{STORE}.suggestions.values()].find(s => s.type === 'brushregion').meta.preview"
    )
    assert meta["num_faces"] == world.num_faces(asset) and meta["parts"]
    shot(page, f"live-preview-{is_accepted}")
    if is_accepted:
        page.evaluate(f"() => {STORE}.acceptAllSuggestions()")
        page.wait_for_function(f"() => {STORE}.suggestions.size === 0")
    finish(page)
    (reply,) = world.pull()
    assert (reply.verdict, reply.num_clicks, reply.state) == ("refine", 1, AssetState.REFINING)
    (click,) = world.catalogue.reviews.clicks(asset.asset_id, 0)
    assert abs(click.pixel_x - column) < 1.5 and abs(click.pixel_y - row) < 1.5
    assert (click.kind, click.part, click.is_positive) == ("belongs", 1, True)
    (stored,) = world.catalogue.reviews.annotations(asset.asset_id, 0)
    has_mask = any(result["from_name"] == "preview" for result in stored.raw["result"])
    assert has_mask is is_accepted


def test_an_accepted_alt_click_stays_negative(live_world, browser_page):
    world, page = live_world, browser_page
    asset, buffers, box = open_robot(page, world, 4)
    page.keyboard.press("0")
    page.keyboard.down("Alt")
    press(page, box, buffers, 0)
    page.keyboard.up("Alt")
    page.wait_for_function(f"() => {STORE}.suggestions.size > 0")
    shot(page, "live-preview-alt")
    page.evaluate(f"() => {STORE}.acceptAllSuggestions()")
    finish(page)
    world.pull()
    clicks = world.catalogue.reviews.clicks(asset.asset_id, 0)
    assert [(click.kind, click.part, click.is_positive) for click in clicks] == [
        ("belongs", 0, False)
    ]
