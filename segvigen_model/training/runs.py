"""What every training run shares: a folder that it resumes from, averages, log, curves.

A run folder holds `state.safetensors` (weights, moving average, optimiser), `state.json` (step,
best score), `log.jsonl` (one line a report) and `curves.png`. No pickle anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MODEL_FOLDER = "model"  # of a run: the trained model as a checkpoint
PLOT_SIZE = (900, 500)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
INKS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


class Average:
    """Exponential moving average of a module's parameters, warm-started.

    Args:
        module: what is trained.
        decay: limit of the decay; early steps use less so that the start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone().float() for k, v in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's present parameters."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.named_parameters():
            self.values[name].lerp_(value.float(), 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's parameters with the average; call twice to undo."""
        for name, value in module.named_parameters():
            held = value.detach().clone()
            value.copy_(self.values[name])
            self.values[name].copy_(held)


@dataclass(slots=True)
class Run:
    """A training run in a folder.

    Attributes:
        folder: created on first save.
        step: finished optimiser steps.
        best: best validation score so far, higher is better.
        history: reports, each with "step".
    """

    folder: Path
    step: int = 0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)

    def report(self, **values: float) -> None:
        """Append one line of numbers to the log and redraw the curves."""
        row = {"step": float(self.step), **{k: float(v) for k, v in values.items()}}
        self.history.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
        draw_curves(self.history, self.folder / "curves.png")

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> None:
        """Write the whole state; an interrupted write leaves the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.values.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": state[k] for k in MOMENTS}
        partial = self.folder / "state.partial"
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, partial)
        partial.rename(self.folder / "state.safetensors")
        meta = {"step": self.step, "best": self.best}
        (self.folder / "state.json").write_text(json.dumps(meta))

    def resume(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average,
        rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    ) -> bool:
        """Continue from the folder; False when there is nothing to continue.

        Args:
            module, optimizer, average: get the stored state.
            rename: replaces earlier names of the module's tensors.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            return False
        tensors = rename(load_file(path))
        module.load_state_dict(select_prefix(tensors, "model."))
        average.values = select_prefix(tensors, "average.")
        load_moments(optimizer, select_prefix(tensors, "optimizer."))
        meta = json.loads((self.folder / "state.json").read_text())
        self.step, self.best = int(meta["step"]), float(meta["best"])
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        self.history = [row for row in map(json.loads, lines) if row["step"] <= self.step]
        return True


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def load_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put Adam's moments back."""
    table = optimizer.state_dict()
    indices = {int(name.split(".")[0]) for name in tensors}
    table["state"] = {i: {k: tensors[f"{i}.{k}"] for k in MOMENTS} for i in indices}
    optimizer.load_state_dict(table)


def compute_warm_cosine(step: int, total: int, *, warmup: int = 100, floor: float = 0.05) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * share)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def draw_curves(history: Iterable[Mapping[str, float]], path: Path) -> None:
    """Draw every reported number over steps, each scaled to its own range, with a legend."""
    rows = list(history)
    names = sorted({k for row in rows for k in row} - {"step"})
    canvas = Image.new("RGB", PLOT_SIZE, "white")
    pen = ImageDraw.Draw(canvas)
    last = max((row["step"] for row in rows), default=1.0) or 1.0
    for number, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if name in row]
        values = [v for _, v in points]
        low, span = min(values), (max(values) - min(values)) or 1.0
        ink = INKS[number % len(INKS)]
        line = [(40 + 620 * s / last, 460 - 420 * (v - low) / span) for s, v in points]
        if len(line) > 1:
            pen.line(line, fill=ink, width=2)
        text = f"{name}: {values[-1]:.4g} ({low:.4g}..{max(values):.4g})"
        pen.text((670, 20 + 18 * number), text, fill=ink)
    pen.rectangle((40, 40, 660, 460), outline="#999999")
    pen.text((40, 470), f"steps 0..{last:.0f}", fill="black")
    canvas.save(path)
