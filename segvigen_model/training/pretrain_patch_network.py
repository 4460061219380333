r"""Train the patch network over days and machines, in the background, from one resumable state.

    python -m segvigen_model.training.pretrain_patch_network --data FOLDER [FOLDER ...] \
        --unseen FOLDER --out RUN --minutes 30 --width 256

The same command continues the run. A call ends, and may be killed at any time, without a trace in
the result: the state is saved every `--save-every` steps and each step depends on nothing but the
state, the seed and the data. The learning rate stays constant after a warm-up, so the run has no
planned end; `--cooldown N` lets it fall to 0 over N steps (do that in a copy of the run folder,
and the run itself can go on). The best moving average by the mean of validation and unseen scores
is kept in RUN/patches.safetensors. Scores are stored with CPU seconds: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segvigen_model.errors import SegvigenError
from segvigen_model.interactive.patch_network import PatchNetwork, save_patch_network
from segvigen_model.training.optimizers import KINDS, compute_rate_factor, make_optimizers
from segvigen_model.training.patch_data import PatchExample
from segvigen_model.training.run_state import Progress, load_state, save_state
from segvigen_model.training.runs import Average, draw_curves, set_rate
from segvigen_model.training.train_patch_network import (
    Examples,
    compute_example_gradient,
    set_gradients,
    set_normalization,
    validate,
)

NUM_JUDGED = 80  # examples of each kind
STATE_FILE, LOG_FILE, WEIGHTS = "state.safetensors", "log.jsonl", "patches.safetensors"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """How to train.

    Attributes:
        width, heads, depth, pair_width: of the network.
        optimizer: of `optimizers.KINDS`.
        rate: learning rate after the warm-up.
        warmup: steps.
        batch: objects a step.
        num_questions: of an object in one step.
        decay: of the moving average.
        seed: of everything.
        save_every, judge_every: steps; the second is a multiple of the first.
        cooldown: steps over which the rate falls to 0; 0 = it stays.
    """

    width: int = 256
    heads: int = 4
    depth: tuple[int, int] = (6, 3)
    pair_width: int = 32
    optimizer: str = "muon"
    rate: float = 1e-3
    warmup: int = 200
    batch: int = 4
    num_questions: int = 8
    decay: float = 0.998
    seed: int = 0
    save_every: int = 50
    judge_every: int = 500
    cooldown: int = 0

    @property
    def sizes(self) -> str:
        """What a state of this run must agree with."""
        return (
            f"width {self.width}, heads {self.heads}, depth {self.depth[0]}+{self.depth[1]}, "
            f"pair width {self.pair_width}, {self.optimizer}"
        )


@dataclass(slots=True)
class PretrainRun:
    """A run in memory: network, optimizers, moving average, data, progress, curves."""

    folder: Path
    options: PretrainOptions
    network: PatchNetwork
    optimizers: list[torch.optim.Optimizer]
    average: Average
    progress: Progress
    train: Examples
    judged: dict[str, list[PatchExample]]
    history: list[dict[str, float]] = field(default_factory=list)


def open_run(
    folder: Path, data: Sequence[Path], unseen: Sequence[Path], options: PretrainOptions
) -> PretrainRun:
    """Begin a run or restore it from its folder.

    Args:
        folder: of the run.
        data: folders of `train-*.npz` and `validation-*.npz` shards.
        unseen: folders of shards of sources that are never trained on (their `validation-*.npz`).
        options: how to train.

    Raises:
        SegvigenError: there is no training data, or the state is of another kind of run.
    """
    if options.judge_every % options.save_every:
        raise SegvigenError(
            f"judge_every {options.judge_every} is no multiple of save_every {options.save_every}"
        )
    train = Examples(data, "train")
    if not train.rows:
        folders = ", ".join(map(str, data))
        raise SegvigenError(f"no train-*.npz in {folders}; make them with patch_data")
    torch.manual_seed(options.seed)
    network = PatchNetwork(options.width, options.heads, options.depth, options.pair_width)
    if not (folder / STATE_FILE).exists():
        set_normalization(network, _spread_examples(train.rows))
    optimizers = make_optimizers(network, options.optimizer, options.rate)
    average = Average(network, options.decay)
    progress = load_state(folder / STATE_FILE, network, average, optimizers, options.sizes)
    judged = {
        "validation": _spread_examples(Examples(data, "validation").rows),
        "unseen": _spread_examples(Examples(unseen, "validation").rows),
        "train": _spread_examples(train.rows),
    }
    run = PretrainRun(folder, options, network, optimizers, average, progress, train, judged)
    run.history = _read_history(folder / LOG_FILE, progress.step)
    return run


def train_run(run: PretrainRun, *, minutes: float, max_step: int | None = None) -> None:
    """Take steps until time is up, `max_step` is reached or the cooldown is over.

    Ends only where the state has just been saved, at a multiple of `save_every` steps.
    """
    options, progress = run.options, run.progress
    if options.cooldown and progress.cooldown_step < 0:
        progress.cooldown_step = progress.step
    start, cpu = time.monotonic(), time.process_time()
    bar = tqdm(initial=progress.step, desc="patches", mininterval=60)
    run.network.train()
    while not _is_over(run, (time.monotonic() - start) / 60 >= minutes, max_step):
        losses = [_take_step(run) for _ in range(options.save_every)]
        bar.update(options.save_every)
        progress.cpu_s, cpu = progress.cpu_s + time.process_time() - cpu, time.process_time()
        _report(run, loss=float(np.mean(losses)), objects=len(run.train.rows))
        run.train.refresh()
        if progress.step % options.judge_every == 0:
            score_run(run)
            cpu = time.process_time()  # judging is no training
        path = run.folder / STATE_FILE
        save_state(path, progress, run.network, run.average, run.optimizers)
    bar.close()


def _is_over(run: PretrainRun, is_late: bool, max_step: int | None) -> bool:
    progress, options = run.progress, run.options
    is_cool = options.cooldown > 0 and progress.step - progress.cooldown_step >= options.cooldown
    return is_late or is_cool or (max_step is not None and progress.step >= max_step)


def _take_step(run: PretrainRun) -> float:
    """One optimizer step; returns the mean loss of its batch."""
    options, step, rows = run.options, run.progress.step, run.train.rows
    factor = compute_rate_factor(
        step,
        warmup=options.warmup,
        cooldown_step=run.progress.cooldown_step,
        cooldown_steps=options.cooldown,
    )
    chosen = np.random.default_rng([options.seed, step]).choice(len(rows), options.batch)
    results = [
        compute_example_gradient(
            run.network, rows[index], [options.seed, step, number], options.num_questions
        )
        for number, index in enumerate(chosen)
    ]
    set_gradients(run.network, [gradient for _, gradient in results])
    for optimizer in run.optimizers:
        set_rate(optimizer, options.rate * factor)
        optimizer.step()
    run.progress.step += 1
    run.average.update(run.network, run.progress.step)
    return float(np.mean([loss for loss, _ in results]))


def score_run(run: PretrainRun) -> dict[str, float]:
    """Score the moving average on every kind of example; keep it when it is the best so far."""
    run.average.swap(run.network)
    run.network.eval()
    scores: dict[str, float] = {}
    for kind, examples in run.judged.items():
        if examples:
            table = validate(run.network, examples)
            scores |= {f"{kind} {name}": value for name, value in table.items()}
            scores[kind] = float(np.mean(list(table.values())))
    score = float(np.mean([scores[kind] for kind in ("validation", "unseen") if kind in scores]))
    if score > run.progress.best:
        run.progress.best = score
        run.folder.mkdir(parents=True, exist_ok=True)
        save_patch_network(run.network, run.folder / WEIGHTS)
    run.average.swap(run.network)
    run.network.train()
    _report(run, **scores)
    return scores


def _report(run: PretrainRun, **values: float) -> None:
    """Add a row to the log; the log is written whole, so a resumed run repeats no row."""
    row = {"step": float(run.progress.step), "cpu_s": round(run.progress.cpu_s, 1), **values}
    run.history.append({name: round(value, 5) for name, value in row.items()})
    run.folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(each) + "\n" for each in run.history)
    partial = run.folder / f"{LOG_FILE}.partial"
    partial.write_text(text)
    partial.rename(run.folder / LOG_FILE)
    shown = [{k: v for k, v in each.items() if "@" not in k} for each in run.history]
    draw_curves(shown, run.folder / "curves.png")


def _read_history(path: Path, step: int) -> list[dict[str, float]]:
    """Rows of the log up to a step."""
    if not path.exists():
        return []
    rows: list[dict[str, float]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["step"] <= step]


def _spread_examples(rows: list[PatchExample]) -> list[PatchExample]:
    """At most NUM_JUDGED of them, evenly spread."""
    if len(rows) <= NUM_JUDGED:
        return list(rows)
    return [rows[index] for index in np.linspace(0, len(rows) - 1, NUM_JUDGED).astype(int)]


def _make_options(args: Mapping[str, Any]) -> PretrainOptions:
    known = {name: args[name] for name in PretrainOptions.__dataclass_fields__ if name in args}
    encoder, decoder = known.pop("depth")
    return PretrainOptions(depth=(encoder, decoder), **known)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    default = PretrainOptions()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="never trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall time of this call")
    parser.add_argument("--max-step", type=int, help="last step of this call")
    parser.add_argument("--optimizer", choices=KINDS, default=default.optimizer)
    parser.add_argument("--depth", type=int, nargs=2, default=default.depth)
    for name in ("width", "heads", "pair_width", "warmup", "batch", "num_questions", "seed"):
        parser.add_argument(_make_flag(name), type=int, default=getattr(default, name))
    for name in ("save_every", "judge_every", "cooldown"):
        parser.add_argument(
            _make_flag(name), type=int, default=getattr(default, name), help="steps"
        )
    for name in ("rate", "decay"):
        parser.add_argument(_make_flag(name), type=float, default=getattr(default, name))
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = open_run(args.out, args.data, args.unseen, _make_options(vars(args)))
    log.info(
        "step=%d cpu_s=%.0f objects=%d", run.progress.step, run.progress.cpu_s, len(run.train.rows)
    )
    train_run(run, minutes=args.minutes, max_step=args.max_step)
    log.info(
        "step=%d cpu_s=%.0f best=%.4f", run.progress.step, run.progress.cpu_s, run.progress.best
    )


def _make_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


if __name__ == "__main__":
    main()
