"""The review page in a real browser: real keys, real mouse, and what the pull makes of them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest

from segvigen_model.datasets.procedural import make_asset
from segvigen_model.types import Proposal, RefinementState
from tasks.catalogue import AssetState
from tasks.live.preview import Preview, make_preview_results
from tasks.review.scripted_reviewer import find_wrong_spots

pytestmark = pytest.mark.e2e


def take_picture(review, name):
    """Record a screenshot for docs/review.md when SEGVIGEN_SCREENSHOTS names a folder."""
    folder = os.environ.get("SEGVIGEN_SCREENSHOTS")
    if folder:
        review.page.wait_for_timeout(800)
        review.page.screenshot(path=str(Path(folder) / f"review-{name}.png"))


def find_parts_in_view(review, labels):
    """Part -> (pixel, face, point) where most of its surface is seen around, largest first."""
    pixels, faces, points = review.find_visible()
    parts = np.where(faces >= 0, labels[faces], -1)
    spots = {}
    for part, count in zip(*np.unique(parts[parts >= 0], return_counts=True), strict=True):
        labels_in_view, others = np.flatnonzero(parts == part), pixels[parts != part]
        gaps = np.linalg.norm(pixels[labels_in_view][:, None] - others[None], axis=-1).min(axis=1)
        best = labels_in_view[gaps.argmax()]
        spots[int(part)] = (int(count), pixels[best], int(faces[best]), points[best])
    ordered = sorted(spots.items(), key=lambda item: -item[1][0])
    return {part: spot[1:] for part, spot in ordered}


def make_suggestion(review, shown, gone, target):
    """What the refine service answers when one part shall come to another."""
    refined = np.where(shown == gone, target, shown).astype(np.int32)
    same = {part: part for part in range(shown.max() + 1) if part != gone}
    sure = np.ones(refined.max() + 1, np.float32)
    state = RefinementState(id_map=same)
    proposal = Proposal(refined, np.zeros(1, np.int32), sure, 0.5, refinement=state)
    return make_preview_results(review.buffers, Preview(shown.astype(np.int32), proposal, target))


def suggest(review, results):
    """Put a suggestion where the editor puts the service's; wait until the model shows it."""
    review.page.evaluate("results => Htx.annotationStore.selected.setSuggestions(results)", results)
    review.frame.wait_for_function(
        "() => document.getElementById('state').textContent.startsWith('Suggested')"
    )


def test_every_kind_of_answer_by_mouse_and_keys_reaches_the_pull(review_env, open_page):
    environment = review_env
    asset = environment.add_proposed("robot", 3, lambda labels: np.where(labels == 1, 0, labels))
    shown = np.unique(
        np.where(environment.truth[asset.asset_id] == 1, 0, environment.truth[asset.asset_id]),
        return_inverse=True,
    )[1]
    environment.push()
    review = open_page(asset)
    page, frame, size = review.page, review.frame, 1 / review.buffers.frame.scale
    take_picture(review, "page")

    # A part's key, then the sheet.
    spot = find_wrong_spots(review.buffers, environment.truth[asset.asset_id], 1)[0]
    assert spot.label == "new part"
    page.keyboard.press("n")
    hit_sheet = review.click_sheet(spot.column + 0.5, spot.row + 0.5)
    review.wait_for_regions(1)
    take_picture(review, "sheet-click")

    # A part's key over the model, then the model; then Alt-click.
    spots = find_parts_in_view(review, shown)
    body, *others = spots
    page.mouse.move(*spots[body][0])
    page.keyboard.press("2")
    page.mouse.click(*spots[body][0])
    review.wait_for_regions(2)
    assert review.read_status() == f'face {spots[body][1]}, part {body} -> "part 2"'
    page.keyboard.press("Escape")
    # A suggestion that nobody answers leaves plain points alone.
    suggest(review, make_suggestion(review, shown, others[0], body))
    take_picture(review, "preview")
    page.evaluate("() => Htx.annotationStore.selected.rejectAllSuggestions()")
    review.wait_for_regions(2)

    page.keyboard.press(str(body))
    page.keyboard.down("Alt")
    page.mouse.click(*spots[others[0]][0])
    page.keyboard.up("Alt")
    review.wait_for_regions(3)
    assert review.read_status().endswith(f'-> not "part {body}"')
    take_picture(review, "model-clicks")

    # A point too many is undone.
    page.mouse.click(*spots[others[1]][0])
    review.wait_for_regions(4)
    page.keyboard.press("U")
    review.wait_for_regions(2 + 1)

    # Looking at it: pulled apart, with its edges, one part alone, and all again.
    for key, button in (("E", None), ("W", "wire"), ("O", "original")):
        page.keyboard.press(key)
        if button:
            assert frame.get_attribute(f"#{button}", "aria-pressed") == "true"
    take_picture(review, "explode")
    for key in "OWE":
        page.keyboard.press(key)
    frame.click(f'li[data-part="{body}"] button[title="this part alone"]')
    assert frame.evaluate("() => document.querySelectorAll('li.hidden').length") == shown.max()
    frame.click("#all")
    assert frame.query_selector("li.hidden") is None

    # Merge two parts chosen on the model; the model shows them as one.
    page.keyboard.down("Control")
    for part in others[:2]:
        page.mouse.click(*spots[part][0])
    page.keyboard.up("Control")
    take_picture(review, "merge")
    page.keyboard.press("M")
    frame.wait_for_selector("#commands li")
    assert review.read_lines() == [f"merge {others[0]} {others[1]}"]
    assert f"\u2192 {others[0]}" in frame.evaluate(f"() => viewer.title({others[1]})")

    # Name a part ticked in the list; split another, take that back, split it into two.
    frame.click(f'li[data-part="{body}"] input[type="checkbox"]')
    frame.fill("#words", "  upper   body ")
    frame.click("#name")
    frame.click(f'li[data-part="{others[2]}"] input[type="checkbox"]')
    frame.click("#split")
    frame.wait_for_selector("#commands li:nth-child(3)")
    frame.click("#commands li:nth-child(3) button")
    frame.wait_for_selector("#commands li:nth-child(3)", state="detached")
    frame.click(f'li[data-part="{others[2]}"] input[type="checkbox"]')
    frame.fill("#pieces", "2")
    frame.click("#split")
    take_picture(review, "verbs")

    # A line typed by hand into the editor's own field counts the same.
    field = page.get_by_placeholder("merge 1 2")
    field.fill(f"Name part {others[3]}: antenna")
    field.press("Enter")
    frame.wait_for_selector("#commands li:nth-child(4)")
    assert "antenna" in frame.evaluate(f"() => viewer.title({others[3]})")

    # Beside the viewer the verdict's key works again.
    page.mouse.move(review.box["x"] + 5, review.box["y"] + 5)
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("f")
    take_picture(review, "verdict")
    stored = review.submit()

    lines = [
        f"merge {others[0]} {others[1]}",
        f"name {body} upper body",
        f"split {others[2]} into 2",
        f"Name part {others[3]}: antenna",
    ]
    (message,) = [one for one in stored["result"] if one["from_name"] == "verbs"]
    assert message["value"]["text"] == lines
    points = [one for one in stored["result"] if one["from_name"] == "click"]
    assert [one["value"]["keypointlabels"] for one in points] == [
        ["new part"],
        ["part 2"],
        [f"part {body}"],
    ]
    assert points[2]["is_positive"] is False
    assert json.loads(points[2]["meta"]["text"][0])["is_positive"] is False

    (reply,) = environment.pull()
    assert (reply.verdict, reply.num_clicks, reply.state) == ("refine", 3, AssetState.REFINING)
    on_sheet, *on_model = environment.catalogue.reviews.list_clicks(asset.asset_id, 0)
    assert on_sheet.kind == "new_part"
    assert abs(on_sheet.pixel_x - hit_sheet[0]) < 1 and abs(on_sheet.pixel_y - hit_sheet[1]) < 1
    column, row = int(hit_sheet[0]), int(hit_sheet[1])
    assert on_sheet.face == review.buffers.face[row, column]

    reported = [(click.source, click.kind, click.part, click.is_positive) for click in on_model]
    assert reported == [("viewer", "belongs", 2, True), ("viewer", "belongs", body, False)]
    views = list(review.buffers.meta["views"])
    for click, part in zip(on_model, (body, others[0]), strict=True):
        _, face, point = spots[part]
        assert click.face == face
        xyz = np.array([click.x, click.y, click.z])
        assert np.linalg.norm(xyz - point) < 1e-3 * size
        # Its dot stands where the sheet shows this very point.
        place = review.buffers.project(xyz, views.index(click.view))
        assert np.abs(np.subtract(place, (click.pixel_x, click.pixel_y))).max() < 1
        column, row = int(click.pixel_x), int(click.pixel_y)
        assert shown[review.buffers.face[row, column]] == part

    commands = environment.catalogue.reviews.list_edit_commands(asset.asset_id, 0)
    assert [
        (str(command.kind), tuple(command.parts), command.text, command.count)
        for command in commands
    ] == [
        ("merge", (others[0], others[1]), "", None),
        ("name", (body,), "upper body", None),
        ("split", (others[2],), "", 2),
        ("name", (others[3],), "antenna", None),
    ]


HOSTILE = "</script><script>top.hacked=1</script><img src=x onerror=top.hacked=1>"


def test_names_are_only_text_and_a_suggestion_shows_on_the_model(review_env, open_page):
    environment = review_env
    made = make_asset("lamp", 2)
    materials = tuple(replace(material, name=HOSTILE) for material in made.mesh.materials)
    asset = environment.ingest_mesh(
        replace(made.mesh, materials=materials), '"><img src=x onerror=.glb'
    )
    names = [HOSTILE, "{{constructor}}"] + [""] * (int(made.face_labels.max()) - 1)
    environment.propose(asset, made.face_labels, 0, names=names)
    environment.push()
    review = open_page(environment.catalogue.get_asset(asset.asset_id))
    page, frame = review.page, review.frame
    assert frame.inner_text('li[data-part="0"] .name') == f"part 0 {HOSTILE}"
    command = page.get_by_placeholder("merge 1 2")
    command.fill(f"name 1 {HOSTILE}")
    command.press("Enter")
    frame.wait_for_selector("#commands li")
    assert frame.inner_text('li[data-part="1"] .name') == f"part 1 {HOSTILE}"
    assert frame.evaluate("() => document.querySelectorAll('img, script').length") == 2
    assert page.evaluate("() => window.hacked") is None
    # Nothing that a script could add later runs either: the page's policy forbids it.
    frame.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'top.hacked = 1';"
        " document.body.append(s); }"
    )
    assert page.evaluate("() => window.hacked") is None

    shown = np.unique(made.face_labels, return_inverse=True)[1]
    results = make_suggestion(review, shown, 1, 0)
    suggest(review, results)
    assert review.read_status().startswith(f"Suggested: {int((shown == 1).sum())} faces come to")
    broken = json.loads(json.dumps(results))
    broken[0].update(id="other", meta={"preview": {"version": 1, "num_faces": 3, "parts": 7}})
    page.evaluate("results => Htx.annotationStore.selected.setSuggestions(results)", broken)
    page.wait_for_timeout(700)
    assert frame.evaluate("() => viewer.camera().eye.length") == 3  # still alive


def test_a_range_of_the_viewer_is_no_whole_page(review_env, open_page):
    """A browser that resumes a broken-off load asks for one byte first (partial_content.py)."""
    asset = review_env.add_proposed("stool", 7)
    review_env.push()
    page = open_page(asset).page
    address = urljoin(page.url, page.get_attribute("object[type='text/html']", "data"))
    whole = page.request.get(address)
    assert (whole.status, b"3D viewer" in whole.body()) == (200, True)
    part = page.request.get(address, headers={"Range": "bytes=9-9"})
    assert (part.status, part.body()) == (206, whole.body()[9:10])


def test_accept_by_key(review_env, open_page):
    environment = review_env
    asset = environment.add_proposed("stool", 5)
    environment.push()
    review = open_page(asset)
    review.page.keyboard.press("a")
    review.submit()
    (reply,) = environment.pull()
    assert (reply.verdict, reply.state) == ("accept", AssetState.ACCEPTED)
