"""Tune a checkpoint's patch network on a labelled folder, and judge it before anybody uses it.

    python -m segvigen_model.training.finetune --data FOLDER --out RUN --minutes 20

The labels of a checkpoint like the shipped one rest on its patch network, so that is what learns
from what people accepted. Shapes made in code are mixed in, so that it does not forget. The best
weights by validation are kept, those it began with among them. RUN/checkpoint is then a checkpoint
like any other, and RUN/verdict.json says whether it is better on the folder's held-out objects
and no worse on shapes made in code. Run again after a kill: what is done is not done again.

Departs from paper: SegviGen is not tuned after it is trained.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from segvigen_model.checkpoints import native
from segvigen_model.datasets.labelled_folder import choose_rows
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.tables import render_comparison
from segvigen_model.interactive.patch_network import PATCHES_FILE, read_patch_network
from segvigen_model.training.export import write_with_patch_network
from segvigen_model.training.patch_data import (
    OBJECTS_PER_FILE,
    PACK_SHARE,
    ExampleOptions,
    make_file,
)
from segvigen_model.training.promotion import PromotionVerdict, judge_promotion
from segvigen_model.training.runs import Run
from segvigen_model.training.train_patch_network import FitOptions, fit_network

DRAWS_OF_AN_OBJECT = 4  # each turned, stretched, fused or cut anew
NUM_DRAWS = (120, 4000)  # least and most, a share of them made in code
NUM_VALIDATION_DRAWS = 80
COUNTS = (256, 512)  # patches of an object
NUM_CROPS = 1
RATE, DECAY, BATCH = 3e-4, 0.995, 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How to tune.

    Attributes:
        start: checkpoint to begin with, a folder or a shipped name.
        minutes: wall time of training; examples and the judgement come on top.
        steps: of the schedule; whichever is further, steps or minutes.
        surface: "as-is" or "fused", what the held-out objects are judged on.
        limit: held-out objects at most.
        seed: of everything.
        threads: CPU cores.
        device: of training.
    """

    start: str = "default"
    minutes: float = 20.0
    steps: int = 100_000
    surface: str = "as-is"
    limit: int = 24
    seed: int = 0
    threads: int = os.cpu_count() or 1
    device: str = "cpu"


def finetune(
    data: Path, out: Path, options: TuneOptions, metadata: Mapping[str, Any]
) -> PromotionVerdict:
    """Tune, write the checkpoint, judge it.

    Args:
        data: labelled folder; rows may name their `split`.
        out: run folder.
        options: how.
        metadata: of the data, for the checkpoint's card.
    """
    weights = tune_network(data, out, options)
    how = {**asdict(options), "data": dict(metadata)}
    write_with_patch_network(options.start, weights, out / "checkpoint", how)
    verdict = judge_promotion(
        data,
        out / "regression",
        (options.start, out / "checkpoint"),
        surface=options.surface,
        limit=options.limit,
        seed=options.seed,
        workers=options.threads,
    )
    (out / "verdict.json").write_text(json.dumps(verdict.as_json(), indent=1) + "\n")
    return verdict


def tune_network(data: Path, out: Path, options: TuneOptions) -> Path:
    """Train from the start's patch network; returns the file of the best weights.

    Raises:
        SegvigenError: the folder has nothing to train on.
    """
    rows = {split: len(choose_rows(data, split, None)) for split in ("train", "validation")}
    if not rows["train"]:
        raise SegvigenError(
            f"{data} has no object to train on: all rows are held out or for validation; "
            "label more assets"
        )
    start = native.resolve_checkpoint_folder(options.start)
    network = read_patch_network(native.find_patch_weights(start))
    _make_examples(data, out / "examples", rows, options)
    fitting = FitOptions(
        minutes=options.minutes,
        total_steps=options.steps,
        batch=BATCH,
        rate=RATE,
        decay=DECAY,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        validate_every=max(1, min(100, options.steps // 4)),
        validates_start=True,
    )
    torch.manual_seed(options.seed)
    run = Run(out / "run")
    log.info("tuned=%s", fit_network(network, run, [out / "examples"], fitting))
    return run.folder / PATCHES_FILE


def _make_examples(data: Path, out: Path, rows: Mapping[str, int], options: TuneOptions) -> None:
    """Cut varied objects of the folder and shapes made in code into patches, once."""
    config = native.read_config(native.resolve_checkpoint_folder(options.start)).segmenter
    out.mkdir(parents=True, exist_ok=True)
    draws = min(max(DRAWS_OF_AN_OBJECT * rows["train"], NUM_DRAWS[0]), NUM_DRAWS[1])
    wanted = {"train": draws, "validation": NUM_VALIDATION_DRAWS}
    pool = ProcessPoolExecutor(options.threads, mp_context=get_context("spawn"))
    jobs = []
    with pool:
        for split, count in wanted.items():
            share = PACK_SHARE if rows[split] else 0.0
            for start in range(0, count, OBJECTS_PER_FILE):
                path = out / f"{split}-{start // OBJECTS_PER_FILE:05d}.npz"
                if not path.exists():
                    indices = range(start, min(start + OBJECTS_PER_FILE, count))
                    how = ExampleOptions(
                        options.seed, data, split, COUNTS, share, NUM_CROPS, config
                    )
                    jobs.append(pool.submit(make_file, path, indices, how))
        for job in jobs:
            job.result()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    defaults = TuneOptions()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labelled folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--start", default=defaults.start, help="checkpoint to begin with")
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--surface", default=defaults.surface, choices=("as-is", "fused"))
    parser.add_argument("--limit", type=int, default=defaults.limit, help="objects judged on")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--device", default=defaults.device)
    args = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data, out = args.pop("data"), args.pop("out")
    verdict = finetune(data, out, TuneOptions(**args), {"folder": data.name})
    for name, found in (("held-out objects", verdict.own), ("made in code", verdict.regression)):
        log.info("\n%s", render_comparison(name, found))
    log.info("%s", verdict.reason)


if __name__ == "__main__":
    main()
