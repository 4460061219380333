"""The whole state of a long training run in one small file, identical after a restart.

The file holds weights, moving average, optimizer moments, step, CPU seconds and best score. Large
tensors are stored in reduced precision (4 to 5 bytes a parameter in all). `save_state` also rounds
the live tensors to what it stored. So a run that was stopped and resumed takes the same steps, bit
for bit, as a run that went on. No pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.training.runs import Average

FORMAT = "patch-run-1"
MIN_REDUCED = 4096  # elements; smaller tensors keep single precision
BLOCK = 128  # elements that share one scale
LOG_STEPS = 8  # codes per factor of two: a second moment is off by 4.4 % at most
_MOMENTS = {"exp_avg": "linear", "momentum_buffer": "linear", "exp_avg_sq": "log"}

Arrays = dict[str, Tensor]


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: finished optimizer steps.
        cpu_s: CPU seconds used so far, of all calls.
        best: best score so far, higher is better.
        cooldown_step: step at which the learning rate began to fall; -1 = it has not.
        sizes: what the network and the optimizers are, to refuse a state of another kind.
    """

    step: int = 0
    cpu_s: float = 0.0
    best: float = -1.0
    cooldown_step: int = -1
    sizes: str = ""


def encode_linear(values: Tensor) -> Arrays:
    """int8 codes with one scale per BLOCK elements; the error is at most 1/254 of the largest."""
    blocks = _split_blocks(values)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    return {"linear": (blocks / scales).round().to(torch.int8), "scales": scales[:, 0]}


def encode_log(values: Tensor) -> Arrays:
    """uint8 codes of non-negative values by their logarithm; 0 stays 0."""
    blocks = _split_blocks(values)
    peaks = blocks.amax(dim=1, keepdim=True).clamp_min(1e-38)
    codes = 255 + (LOG_STEPS * (blocks / peaks).clamp_min(1e-38).log2()).round()
    codes = torch.where(blocks > 0, codes.clamp(1, 255), 0.0)
    return {"log": codes.to(torch.uint8), "scales": peaks[:, 0]}


def decode_values(arrays: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Values of one encoded tensor, float32."""
    if "plain" in arrays:
        return arrays["plain"].float().reshape(shape)
    scales = arrays["scales"][:, None]
    if "linear" in arrays:
        blocks = arrays["linear"].float() * scales
    else:
        codes = arrays["log"].float()
        blocks = torch.where(codes > 0, ((codes - 255) / LOG_STEPS).exp2() * scales, 0.0)
    return blocks.flatten()[: torch.Size(shape).numel()].reshape(shape)


def save_state(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: Average,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write the state and round the live tensors to it; an interrupted write leaves the old file.

    Args:
        path: the file; its folder is made.
        progress: where the run stands.
        network: weights and buffers.
        average: moving average of the weights, stored as its difference from them.
        optimizers: AdamW or Muon.
    """
    stored: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, value in network.state_dict().items():
            kind = torch.float16 if value.numel() >= MIN_REDUCED else torch.float32
            _store_tensor(stored, f"weights/{name}", {"plain": value.to(kind)}, value)
        weights = dict(network.named_parameters())
        for name, value in average.values.items():
            gap = value - weights[name]
            _store_tensor(stored, f"average/{name}", _encode(gap, "linear"), gap)
            value.copy_(weights[name] + gap)
        for number, optimizer in enumerate(optimizers):
            for index, moments in _get_moments(optimizer).items():
                for name, value in moments.items():
                    encoded = _encode(value, _MOMENTS.get(name, "plain"))
                    _store_tensor(stored, f"optimizer{number}/{index}/{name}", encoded, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress))}
    save_file({k: v.cpu().contiguous() for k, v in stored.items()}, partial, metadata=metadata)
    partial.rename(path)


def load_state(
    path: Path,
    network: nn.Module,
    average: Average,
    optimizers: Sequence[torch.optim.Optimizer],
    sizes: str,
) -> Progress:
    """Restore what `save_state` wrote; a run without a file begins anew.

    Args:
        path: the file.
        network, average, optimizers: of the same kinds and sizes as when saved; filled in place.
        sizes: what they are, as given to `Progress`.

    Raises:
        CheckpointMismatch: the file is damaged or belongs to another kind of run.
    """
    if not path.exists():
        return Progress(sizes=sizes)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise CheckpointMismatch(
                f"{path} has the format {metadata.get('format')!r}, not {FORMAT!r}; begin a run "
                "in another folder"
            )
        progress = Progress(**json.loads(metadata["progress"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as err:
        raise CheckpointMismatch(f"{path} is no run state: {err}; restore a copy of it") from err
    if progress.sizes != sizes:
        raise CheckpointMismatch(
            f"{path} belongs to a run of {progress.sizes}, not {sizes}; give the same options or "
            "another folder"
        )
    _restore(tensors, network, average, optimizers)
    return progress


@torch.no_grad()
def _restore(
    tensors: Mapping[str, Tensor],
    network: nn.Module,
    average: Average,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    table: dict[str, Arrays] = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        table.setdefault(name, {})[kind] = value
    for name, value in network.state_dict().items():
        value.copy_(decode_values(table[f"weights/{name}"], value.shape))
    weights = dict(network.named_parameters())
    for name, value in average.values.items():
        value.copy_(
            weights[name] + decode_values(table[f"average/{name}"], value.shape).to(value.device)
        )
    for number, optimizer in enumerate(optimizers):
        shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name in (key for key in table if key.startswith(f"optimizer{number}/")):
            _, index, moment = name.split("/")
            shape = () if moment == "step" else shapes[int(index)]
            state.setdefault(int(index), {})[moment] = decode_values(table[name], shape)
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _get_moments(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    table: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return table


def _encode(value: Tensor, kind: str) -> Arrays:
    if kind == "plain" or value.numel() < MIN_REDUCED:
        return {"plain": value.float()}
    return encode_linear(value) if kind == "linear" else encode_log(value)


def _store_tensor(stored: dict[str, Tensor], name: str, arrays: Arrays, live: Tensor) -> None:
    """Add one encoded tensor and round the live one to it."""
    stored.update({f"{name}/{kind}": array for kind, array in arrays.items()})
    live.copy_(decode_values(arrays, live.shape))


def _split_blocks(values: Tensor) -> Tensor:
    flat = values.float().flatten()
    return nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
