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
from tasks.labelling.loading import load_proposal
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.project import open_project
from tasks.settings import load_settings

pytestmark = pytest.mark.e2e
STORE = "Htx.annotationStore.selected"


@pytest.fixture
def live_env(review_env, tmp_path, monkeypatch):
    """The desk with a running refine service of the default checkpoint."""
    secret = uuid4().hex
    monkeypatch.setenv("SEGVIGEN_REVIEW_LIVE_PASSWORD", secret)
    monkeypatch.setenv("SEGVIGEN_LIVE_IS_OPEN", "true")
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", f"sqlite:///{tmp_path}/catalogue.db")
    env = {name: text for name, text in os.environ.items() if name.startswith("SEGVIGEN_")}
    url = start_refine(tmp_path, env)
    try:
        for _ in range(1200):
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                break
            time.sleep(0.1)
        title = {"project_title": review_env.settings.review.project_title, "live_url": url}
        review = {**title, "sheet_pixels": review_env.settings.review.sheet_pixels}
        settings = load_settings(None, {"review": review})
        review_env.project = open_project(settings.review, settings.store)
        yield review_env
    finally:
        stop_service(tmp_path, "refine")


def open_robot(visitor, environment, seed: int) -> tuple:
    """Push a robot whose two first parts are one, and open it with the smart point tool.

    Returns:
        The asset, the sheet's buffers, and the sheet's box on the page.
    """
    asset = environment.add_proposed("robot", seed, lambda labels: np.where(labels == 1, 0, labels))
    environment.push()
    (task_id,) = environment.list_task_ids(asset)
    task = environment.catalogue.reviews.get_task(asset.asset_id, 0)
    buffers = buffers_from_bytes(environment.store.get(task.buffers_key))
    visitor.open(environment.project.project_id, task_id, f"window.Htx && {STORE}")
    page = visitor.page
    page.get_by_text("Auto-Annotation").wait_for()
    page.evaluate("() => Htx.setAutoAnnotation(true)")
    box = visitor.wait_for_box()
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


def take_screenshot(page, name: str) -> None:
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


def read_suggestion(page) -> list[str]:
    """Types of the suggestions shown."""
    return page.evaluate(f"() => [...{STORE}.suggestions.values()].map(s => s.type)")


def smart_tools(page) -> dict[str, bool]:
    """The smart tools by name, and whether each is in hand; their one button goes through all."""
    return page.evaluate(
        f"() => Object.fromEntries({STORE}.names.get('sheet').getToolsManager().allTools()"
        ".filter(tool => tool.dynamic).map(tool => [tool.toolName, tool.selected]))"
    )


@pytest.mark.parametrize("is_accepted", [False, True])
def test_preview_and_clicks_survive_submit(live_env, visitor, is_accepted):
    environment, page = live_env, visitor.page
    asset, buffers, box = open_robot(visitor, environment, 3)
    page.locator(".lsf-tool_smart").first.click()  # once too often: it is still the point
    assert smart_tools(page) == {"KeyPointTool": True}
    page.keyboard.press("1")
    column, row = press(page, box, buffers, 0)
    page.wait_for_function(f"() => {STORE}.suggestions.size === 2")
    assert set(read_suggestion(page)) == {"brushregion", "keypointregion"}
    meta = page.evaluate(
        f"() => [...{STORE}.suggestions.values()].find(s => s.type === 'brushregion').meta.preview"
    )
    assert meta["num_faces"] == environment.count_faces(asset) and meta["parts"]
    take_screenshot(page, f"live-preview-{is_accepted}")
    if is_accepted:
        page.evaluate(f"() => {STORE}.acceptAllSuggestions()")
        page.wait_for_function(f"() => {STORE}.suggestions.size === 0")
    finish(page)
    (reply,) = environment.pull()
    assert (reply.verdict, reply.num_clicks, reply.state) == ("refine", 1, AssetState.REFINING)
    (click,) = environment.catalogue.reviews.list_clicks(asset.asset_id, 0)
    assert abs(click.pixel_x - column) < 1.5 and abs(click.pixel_y - row) < 1.5
    assert (click.kind, click.part, click.is_positive) == ("belongs", 1, True)
    (stored,) = environment.catalogue.reviews.list_annotations(asset.asset_id, 0)
    has_mask = any(result["from_name"] == "preview" for result in stored.raw["result"])
    assert has_mask is is_accepted


def test_an_accepted_alt_click_stays_negative(live_env, visitor):
    environment, page = live_env, visitor.page
    asset, buffers, box = open_robot(visitor, environment, 4)
    page.keyboard.press("0")
    page.keyboard.down("Alt")
    press(page, box, buffers, 0)
    page.keyboard.up("Alt")
    page.wait_for_function(f"() => {STORE}.suggestions.size > 0")
    take_screenshot(page, "live-preview-alt")
    page.evaluate(f"() => {STORE}.acceptAllSuggestions()")
    finish(page)
    environment.pull()
    clicks = environment.catalogue.reviews.list_clicks(asset.asset_id, 0)
    assert [(click.kind, click.part, click.is_positive) for click in clicks] == [
        ("belongs", 0, False)
    ]


def test_an_earlier_merge_is_in_the_preview(live_env, visitor):
    environment, page = live_env, visitor.page
    asset, buffers, _ = open_robot(visitor, environment, 5)
    last = int(buffers.part.max())
    field = page.get_by_placeholder("merge 1 2")
    field.fill(f"merge {last} {last - 1}")
    with page.expect_response(lambda r: "/drafts" in r.url and r.request.method != "GET"):
        field.press("Enter")
    page.evaluate("() => document.activeElement.blur()")
    box = visitor.wait_for_box()
    page.keyboard.press("1")
    press(page, box, buffers, 0)
    page.wait_for_function(f"() => {STORE}.suggestions.size === 2")
    take_screenshot(page, "live-preview-merge")
    meta = page.evaluate(
        f"() => [...{STORE}.suggestions.values()].find(s => s.type === 'brushregion').meta.preview"
    )
    held = load_proposal(environment.store, environment.catalogue.get_proposal(asset.asset_id, 0))
    num_merged = int((held.face_labels == last - 1).sum())
    assert sum(meta["parts"][str(last)][1::2]) == num_merged > 0
    finish(page)
    environment.pull()
    (command,) = environment.catalogue.reviews.list_edit_commands(asset.asset_id, 0)
    assert (command.kind, command.parts) == ("merge", (last, last - 1))
