"""Real Label Studio, real S3 and a real browser around assets whose proposal is made by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from infra.local import LabelStudioEndpoint, S3Endpoint
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_to_glb
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import AssetMesh, FloatArray, IntArray, PartTable, Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ProposalRow
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.labelling.loading import load_asset_mesh
from tasks.rendering.pixel_buffers import Buffers, buffers_from_bytes
from tasks.review.project import ReviewProject, open_project
from tasks.review.pull import Reply, pull_annotations
from tasks.review.push import push_assets
from tasks.settings import Settings, load_settings
from tasks.stages.runner import StageResult
from tasks.storage import keys
from tasks.storage.store import Store
from tasks.workspace import Workspace

WORKER = "tester"
CHROMIUM = Path(os.environ.get("SEGVIGEN_CHROMIUM", "/usr/bin/chromium"))
# WebGL without a graphics card.
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
PATIENCE_MS = 180_000
LOAD_MS = 60_000  # then a page is asked for once more


@dataclass
class ReviewEnvironment:
    """A store in a bucket folder of its own, a fresh catalogue, a fresh project."""

    workspace: Workspace
    project: ReviewProject
    truth: dict[str, IntArray] = field(default_factory=dict)

    @property
    def raw(self) -> Store:
        return self.workspace.raw

    @property
    def store(self) -> Store:
        return self.workspace.store

    @property
    def catalogue(self) -> Catalogue:
        return self.workspace.catalogue

    @property
    def settings(self) -> Settings:
        return self.workspace.settings

    def add_proposed(
        self, category: str, seed: int, change: Callable[[IntArray], IntArray] | None = None
    ) -> AssetRow:
        """An asset whose proposal is its true labels, changed by `change`."""
        made = make_asset(category, seed)
        shown = made.face_labels if change is None else change(made.face_labels.copy())
        asset = self.ingest_mesh(made.mesh, f"{category}-{seed}.glb")
        self.truth[asset.asset_id] = made.face_labels
        return self.propose(asset, shown, 0)

    def ingest_mesh(self, mesh: AssetMesh, name: str) -> AssetRow:
        """An encoded asset."""
        self.raw.put(name, mesh_to_glb(mesh))
        known = {asset.asset_id for asset in self.catalogue.list_assets()}
        for info in scan_raw(self.workspace):
            ingest_object(self.workspace, info)
        (asset,) = [a for a in self.catalogue.list_assets() if a.asset_id not in known]
        return self.catalogue.move(asset.asset_id, AssetState.ENCODED)

    def propose(
        self, asset: AssetRow, face_labels: IntArray, round_: int, names: Sequence[str] = ()
    ) -> AssetRow:
        """Record hand-made labels as a round's proposal; unnamed parts when `names` is empty."""
        labels = np.unique(face_labels, return_inverse=True)[1].astype(np.int32)
        num_parts = int(labels.max()) + 1
        plain = PartTable.plain(num_parts)
        proposal = Proposal(
            labels,
            np.zeros(1, np.int32),
            np.ones(num_parts, np.float32),
            0.5,
            parts=replace(plain, names=tuple(names) or plain.names),
        )
        key = keys.make_proposal_key(asset.asset_id, round_, "hand")
        blob = self.store.put(key, proposal_to_bytes(proposal))
        self.catalogue.add_proposal(
            ProposalRow(asset.asset_id, round_, key, blob.sha256, num_parts, 0.5, "hand")
        )
        return self.catalogue.move(asset.asset_id, AssetState.PROPOSED, round=round_)

    def push(self) -> list[StageResult]:
        """Claim what is proposed and push it."""
        claimed = self.catalogue.claim([AssetState.PROPOSED], 50, WORKER)
        ids = [asset.asset_id for asset in claimed]
        results = push_assets(self.workspace, self.project, ids)
        self.catalogue.release(ids, WORKER)
        return results

    def pull(self) -> list[Reply]:
        """Pull once."""
        return pull_annotations(self.workspace, self.project)

    def list_task_ids(self, asset: AssetRow) -> list[int]:
        """Ids of the tasks for the asset's round."""
        key = keys.make_review_key(asset.asset_id, asset.round)
        found = self.project.client.find_tasks(self.project.project_id, [key])
        return [task.task_id for task in found]

    def get_state(self, asset: AssetRow) -> AssetState:
        """Where the asset stands now."""
        return self.catalogue.get_asset(asset.asset_id).state

    def count_faces(self, asset: AssetRow) -> int:
        """Faces of the stored mesh."""
        return load_asset_mesh(self.store, asset).num_faces


@pytest.fixture
def review_env(
    s3_server: S3Endpoint,
    label_studio: LabelStudioEndpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ReviewEnvironment]:
    monkeypatch.chdir(tmp_path)
    for name, value in {**s3_server.make_environment(), **label_studio.make_environment()}.items():
        monkeypatch.setenv(name, value)
    folder = uuid4().hex  # a kept home holds the folders of earlier sessions
    monkeypatch.setenv("SEGVIGEN_STORE_ROOT_URL", f"s3://{s3_server.store_bucket}/{folder}")
    monkeypatch.setenv("SEGVIGEN_STORE_RAW_URL", f"s3://{s3_server.raw_bucket}/{folder}")
    title = f"test {folder[:8]}"
    pixels = 1536 if "SEGVIGEN_SCREENSHOTS" in os.environ else 768
    settings = load_settings(None, {"review": {"project_title": title, "sheet_pixels": pixels}})
    project = open_project(settings.review, settings.store)
    opened = Workspace.from_settings(settings)
    catalogue = Catalogue(f"sqlite:///{tmp_path}/catalogue.db")
    yield ReviewEnvironment(replace(opened, catalogue=catalogue, worker=WORKER), project)
    project.client.request("DELETE", f"/api/projects/{project.project_id}/")


@dataclass
class ReviewPage:
    """One task open in a real browser: what a person sees of it and does there."""

    page: Any
    environment: ReviewEnvironment
    buffers: Buffers
    mesh: AssetMesh
    box: Mapping[str, float]

    @property
    def frame(self) -> Any:
        """The 3D viewer's document."""
        return next(frame for frame in self.page.frames if frame.parent_frame is not None)

    def click_sheet(self, column: float, row: float) -> tuple[float, float]:
        """Click a sheet pixel; returns the point really hit, because a mouse has whole pixels."""
        x = round(self.box["x"] + column / self.buffers.size[0] * self.box["width"])
        y = round(self.box["y"] + row / self.buffers.size[1] * self.box["height"])
        self.page.mouse.click(x, y)
        return (
            (x - self.box["x"]) / self.box["width"] * self.buffers.size[0],
            (y - self.box["y"]) / self.box["height"] * self.buffers.size[1],
        )

    def measure_canvas(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the 3D view on the screen."""
        stage = self.page.query_selector("object").bounding_box()
        inner = self.frame.evaluate(
            "() => { const b = document.getElementById('canvas').getBoundingClientRect();"
            " return [b.x, b.y, b.width, b.height]; }"
        )
        return stage["x"] + inner[0], stage["y"] + inner[1], inner[2], inner[3]

    def compute_rays(self, pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Eye (3,) and directions (N, 3), mesh frame, of the 3D view's screen pixels (N, 2)."""
        pose = self.frame.evaluate("() => viewer.camera()")
        left, top, width, height = self.measure_canvas()
        across = (pixels[:, 0] - left) / width * 2 - 1
        up = 1 - (pixels[:, 1] - top) / height * 2
        slope = pose["slope"]
        directions = (
            np.outer(across * slope * width / height, pose["right"])
            + np.outer(up * slope, pose["up"])
            - np.array(pose["back"])
        )
        frame = self.buffers.frame
        return np.array(pose["eye"]) / frame.scale + frame.center, directions

    def find_visible(self, step: int = 6) -> tuple[FloatArray, IntArray, FloatArray]:
        """What a grid of screen pixels shows: pixels (N, 2), faces (N,) or -1, points (N, 3)."""
        left, top, width, height = self.measure_canvas()
        columns = np.arange(np.ceil(left) + 2, left + width - 2, step)
        rows = np.arange(np.ceil(top) + 2, top + height - 2, step)
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        eye, directions = self.compute_rays(pixels)
        faces, points = find_first_hits(eye, directions, self.mesh.triangles)
        return pixels, faces, points

    def read_status(self) -> str:
        """The viewer's line of words."""
        return str(self.frame.inner_text("#state"))

    def read_lines(self) -> list[str]:
        """Command lines in the editor's own field."""
        return list(
            self.page.evaluate(
                "() => Htx.annotationStore.selected.names.get('verbs').regions.map(r => r._value)"
            )
        )

    def wait_for_regions(self, count: int) -> None:
        """Until the annotation has so many points."""
        self.page.wait_for_function(
            "count => Htx.annotationStore.selected.regions.length === count", arg=count
        )

    def submit(self) -> dict[str, Any]:
        """Press Submit; returns the annotation as Label Studio stored it."""
        self.page.get_by_role("button", name="Submit").click()
        self.page.wait_for_function("() => Htx.annotationStore.selected.pk")
        number = self.page.evaluate("() => Htx.annotationStore.selected.pk")
        return dict(self.environment.project.client.request("GET", f"/api/annotations/{number}/"))


def find_first_hits(
    eye: FloatArray, directions: FloatArray, triangles: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Nearest face (N,) and point (N, 3) of rays from one eye, by plain linear algebra."""
    faces = np.full(len(directions), -1)
    points = np.zeros((len(directions), 3))
    origin = triangles[:, 0]
    u, v = triangles[:, 1] - origin, triangles[:, 2] - origin
    for index, direction in enumerate(directions):
        p = np.cross(direction, v)
        det = np.einsum("fk,fk->f", u, p)
        det = np.where(np.abs(det) < 1e-14, np.nan, det)
        s = eye - origin
        q = np.cross(s, u)
        a, b = np.einsum("fk,fk->f", s, p) / det, q @ direction / det
        depth = np.einsum("fk,fk->f", v, q) / det
        is_hit = (a >= 0) & (b >= 0) & (a + b <= 1) & (depth > 0)
        if is_hit.any():
            faces[index] = int(np.where(is_hit, depth, np.inf).argmin())
            points[index] = eye + depth[faces[index]] * direction
    return faces, points


@pytest.fixture(scope="module")  # its event loop must be gone before other modules' flows run
def browser_page(label_studio: LabelStudioEndpoint) -> Iterator[Any]:
    """A logged-in browser page; starting one costs more than a test."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}; install chromium or set SEGVIGEN_CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1880, "height": 1040})
        page.set_default_timeout(PATIENCE_MS)
        _listen(page)
        page.goto(f"{label_studio.url}/user/login/")
        page.fill("input[name=email]", label_studio.username)
        page.fill("input[name=password]", label_studio.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        yield page
        browser.close()


def _listen(page: Any) -> None:
    """Print what goes wrong in the browser: pytest shows it beside a failed test."""
    clock = time.monotonic()

    def report(text: str) -> None:
        print(f"browser +{time.monotonic() - clock:.1f}s: {text}")

    page.on("console", lambda line: line.type == "error" and report(line.text))
    page.on("pageerror", lambda error: report(f"uncaught {error}"))
    page.on("requestfailed", lambda request: report(f"{request.failure} {request.url}"))
    page.on("response", lambda reply: reply.status >= 400 and report(f"{reply.status} {reply.url}"))


@dataclass(frozen=True)
class Visitor:
    """Opens tasks in the browser."""

    page: Any
    url: str

    def open(self, project: int, task_id: int, is_ready: str) -> dict[str, float]:
        """Open a task, wait until a condition in JavaScript holds; returns where the sheet is.

        A page that does not come is asked for once more, as a person would do.
        """
        from playwright.sync_api import TimeoutError as LateError

        for patience in (LOAD_MS, PATIENCE_MS):
            self.page.goto(f"{self.url}/projects/{project}/data?task={task_id}")
            try:
                self.page.wait_for_function(f"() => {is_ready}", timeout=patience)
                break
            except LateError:
                shown = self.page.evaluate("() => document.body.innerText").split("\n")
                errors = [frame.inner_text("body")[:300] for frame in self.page.frames[1:]]
                print(f"browser: {self.page.url} showed {shown[:40]}, its frames {errors}")
        else:
            raise AssertionError(f"task {task_id} did not come: {is_ready}")
        return self.wait_for_box()

    def wait_for_box(self) -> dict[str, float]:
        """Where the sheet is drawn, once the editor has stopped laying it out."""
        script = """() => { const i = document.querySelector('img[alt=image]');
          if (!i || !i.naturalWidth) return null;
          const b = i.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }"""
        same, last = 0, None
        for _ in range(PATIENCE_MS // 250):
            self.page.wait_for_timeout(250)
            box = self.page.evaluate(script)
            same = same + 1 if box is not None and box == last and box[2] > 100 else 0
            last = box
            if same >= 6:
                return dict(zip(("x", "y", "width", "height"), box, strict=True))
        raise AssertionError(f"the sheet was not drawn: {last}")


@pytest.fixture
def visitor(browser_page: Any, label_studio: LabelStudioEndpoint) -> Visitor:
    return Visitor(browser_page, label_studio.url)


@pytest.fixture
def open_page(review_env: ReviewEnvironment, visitor: Visitor) -> Callable[[AssetRow], ReviewPage]:
    """Opens the task of a pushed asset and waits until sheet and viewer stand still."""

    def open_asset(asset: AssetRow) -> ReviewPage:
        (task_id,) = review_env.list_task_ids(asset)
        row = review_env.catalogue.reviews.get_task(asset.asset_id, asset.round)
        box = visitor.open(
            review_env.project.project_id,
            task_id,
            "window.Htx && Htx.annotationStore.selected"
            " && document.querySelector('object')?.contentDocument?.querySelector('#state')"
            "?.textContent.startsWith('Click on the model')",
        )
        buffers = buffers_from_bytes(review_env.store.get(row.buffers_key))
        mesh = load_asset_mesh(review_env.store, asset)
        return ReviewPage(visitor.page, review_env, buffers, mesh, box)

    return open_asset
