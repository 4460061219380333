"""Whole models on disk: a folder with `model.safetensors` and `config.json`, nothing executable.

Weights may be stored in half precision; they compute in float32 unless asked otherwise. A file
that does not fit says which tensors and what to do. `sha256` names the weights file. A folder may
hold a patch network of its own, `patches.safetensors`; without one the shipped one serves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segvigen_model.conditioning import Task, ViewConfig
from segvigen_model.dit import FlowConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.image_tokens import ImageTokenizer
from segvigen_model.patch_network import PATCHES_FILE
from segvigen_model.patch_network import WEIGHTS_FILE as SHIPPED_PATCHES
from segvigen_model.presets import PRESETS, ModelConfig, Trust
from segvigen_model.sampler import SamplerOptions
from segvigen_model.segmentation_flow import SegmentationConfig, SegmentationFlow
from segvigen_model.vae.decoder import Decoder, DecoderConfig
from segvigen_model.vae.encoder import Encoder, EncoderConfig

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = "segvigen-checkpoint-1"
MAX_NAMED = 4  # tensors named in an error
PARTS = ("shape_encoder", "shape_decoder", "tex_encoder", "tex_decoder", "dit")


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """Mean and spread of latents; the flow works on (latent - mean) / std.

    Attributes:
        shape_mean, shape_std, tex_mean, tex_std: (C,) float32.
    """

    shape_mean: Tensor
    shape_std: Tensor
    tex_mean: Tensor
    tex_std: Tensor

    def normalize_shape(self, slat: Tensor) -> Tensor:
        """(T, C) shape latents -> normalised."""
        return (slat - self.shape_mean) / self.shape_std

    def normalize_tex(self, slat: Tensor) -> Tensor:
        """(T, C) texture latents -> normalised."""
        return (slat - self.tex_mean) / self.tex_std

    def denormalize_tex(self, slat: Tensor) -> Tensor:
        """(T, C) normalised texture latents -> latents."""
        return slat * self.tex_std + self.tex_mean

    def to(self, device: torch.device | str) -> Normalization:
        """Move to a device."""
        return Normalization(
            self.shape_mean.to(device),
            self.shape_std.to(device),
            self.tex_mean.to(device),
            self.tex_std.to(device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A whole model.

    Attributes:
        shape_encoder, shape_decoder, tex_encoder, tex_decoder: autoencoders.
        dit: the segmentation flow.
        config: sizes.
        normalization: of latents.
        sha256: of the weights file; of the weights in memory when never saved.
        card: what is known of its making: data, licences, steps, seed...; JSON-able.
        flows: released checkpoints know one task each; empty = `dit` does them all.
        sampler: how the released weights sample; None = masks in one step.
        image_tokenizer: makes image tokens for a flow without own view encoder, when present.
        compute_device: where to compute when weights rest elsewhere (see placement.py).
        patch_weights: file of the patch network that reads geometry beside the flow.
    """

    shape_encoder: Encoder
    shape_decoder: Decoder
    tex_encoder: Encoder
    tex_decoder: Decoder
    dit: SegmentationFlow
    config: ModelConfig
    normalization: Normalization
    sha256: str
    card: Mapping[str, Any] = field(default_factory=dict)
    flows: Mapping[Task, SegmentationFlow] = field(default_factory=dict)
    sampler: SamplerOptions | None = None
    image_tokenizer: ImageTokenizer | None = None
    compute_device: torch.device | None = None
    patch_weights: Path = SHIPPED_PATCHES

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return self.compute_device or self.dit.flow_model.out_layer.weight.device

    def flow_for(self, task: Task) -> SegmentationFlow:
        """Return the flow that knows a task."""
        if self.flows and task not in self.flows:
            known = ", ".join(each.name.lower() for each in self.flows)
            raise CheckpointMismatch(
                f"these released weights are for {known}, not {task.name.lower()}; "
                "put all SegviGen .ckpt files into one folder and load that folder"
            )
        return self.flows.get(task, self.dit)

    def modules(self) -> dict[str, nn.Module]:
        """Return the five networks by name."""
        return {name: getattr(self, name) for name in PARTS}

    def state(self) -> dict[str, Tensor]:
        """Return all weights, keys prefixed by the network's name."""
        return {
            f"{part}.{name}": value
            for part, module in self.modules().items()
            for name, value in module.state_dict().items()
        }


def build(preset: str, *, seed: int = 0, device: str = "cpu") -> Bundle:
    """Make a model with random weights.

    Args:
        preset: a key of `PRESETS`.
        seed: of the random weights.
        device: where to put it.
    """
    if preset not in PRESETS:
        raise CheckpointMismatch(f"no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    bundle = from_config(PRESETS[preset], seed=seed, device=device)
    return replace(bundle, sha256=_digest(bundle.state()))


def from_config(config: ModelConfig, *, seed: int = 0, device: str = "cpu") -> Bundle:
    """Make a model of any size with random weights and an empty `sha256`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bundle = Bundle(
            shape_encoder=Encoder(config.shape_encoder),
            shape_decoder=Decoder(config.shape_decoder),
            tex_encoder=Encoder(config.tex_encoder),
            tex_decoder=Decoder(config.tex_decoder),
            dit=SegmentationFlow(config.flow),
            config=config,
            normalization=_unit_normalization(config.latent_channels),
            sha256="",
        )
    return _ready(bundle, device)


def load(path_or_name: str | Path = "default", device: str = "cpu") -> Bundle:
    """Load a checkpoint.

    Args:
        path_or_name: a folder, the name of one shipped with the package, a released SegviGen
            `.ckpt` with the TRELLIS.2 folder beside it, or a folder of several such.
        device: where to put the weights.

    Raises:
        CheckpointMismatch: absent, damaged, or not fitting; the message says what to do.
    """
    if Path(path_or_name).suffix == ".ckpt" or any(Path(path_or_name).glob("*.ckpt")):
        from segvigen_model.official_checkpoint import load_released

        return load_released(Path(path_or_name), device=device)
    folder = folder_of(path_or_name)
    header = _read_header(folder)
    weights = folder / WEIGHTS_FILE
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as err:
        raise CheckpointMismatch(f"cannot read {weights}: {err}; fetch the file again") from err
    bundle = from_config(config_from_json(header["model"]))
    for part, module in bundle.modules().items():
        load_weights(module, _under(state, f"{part}."), f"{weights.name}:{part}")
    extra = [key for key in state if key.split(".")[0] not in PARTS]
    if extra:
        raise CheckpointMismatch(f"{weights} holds unknown tensors: {_few(extra)}")
    return _ready(
        replace(
            bundle,
            normalization=normalization_of(header["normalization"], bundle.config.latent_channels),
            sha256=file_sha256(weights),
            card=header.get("card", {}),
            patch_weights=patch_weights_of(folder),
        ),
        device,
    )


def patch_weights_of(folder: Path) -> Path:
    """File of the patch network that serves a checkpoint: its own, or the shipped one."""
    own = folder / PATCHES_FILE
    return own if own.is_file() else SHIPPED_PATCHES


def save(bundle: Bundle, folder: str | Path, *, is_half: bool = True) -> Bundle:
    """Write a checkpoint.

    Args:
        bundle: the model; its `card` and a patch network of its own are stored too.
        folder: made when absent; files in it are replaced.
        is_half: store weights in float16.

    Returns:
        The same model with the file's sha256.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if is_half else torch.float32
    state = {key: value.detach().to("cpu", dtype) for key, value in bundle.state().items()}
    partial = target / f"{WEIGHTS_FILE}.part"
    save_file({key: value.contiguous() for key, value in state.items()}, partial)
    partial.replace(target / WEIGHTS_FILE)
    sha256 = file_sha256(target / WEIGHTS_FILE)
    header = {
        "format": FORMAT,
        "model": asdict(bundle.config),
        "normalization": {
            name: getattr(bundle.normalization, name).tolist()
            for name in ("shape_mean", "shape_std", "tex_mean", "tex_std")
        },
        "sha256": sha256,
        "card": dict(bundle.card),
    }
    (target / CONFIG_FILE).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    own = target / PATCHES_FILE
    if bundle.patch_weights == SHIPPED_PATCHES:
        own.unlink(missing_ok=True)
    elif bundle.patch_weights != own:
        shutil.copyfile(bundle.patch_weights, own)
    return replace(bundle, sha256=sha256, patch_weights=patch_weights_of(target))


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str, *, is_assigned: bool = False
) -> None:
    """Load a state dict strictly, naming what does not fit.

    Args:
        module: where to.
        state: names -> tensors.
        source: what to call the file in an error.
        is_assigned: take the tensors themselves instead of copying their values.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    extra = sorted(set(state) - set(wanted))
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    found = [("missing", missing), ("unknown", extra), ("wrong shape", wrong)]
    problems = [f"{len(names)} {what}: {_few(names)}" for what, names in found if names]
    if problems:
        raise CheckpointMismatch(
            f"{source} does not fit the model ({'; '.join(problems)}); "
            "use the config that was saved with these weights"
        )
    module.load_state_dict(dict(state), assign=is_assigned)


def config_from_json(data: Mapping[str, Any]) -> ModelConfig:
    """Rebuild sizes from `asdict(config)` after a trip through JSON."""
    try:
        flow = dict(data["flow"])
        view = flow.pop("view", None)
        flow["flow"] = FlowConfig(**flow["flow"])
        return ModelConfig(
            name=str(data["name"]),
            grid=int(data["grid"]),
            shape_encoder=EncoderConfig(**_tupled(data["shape_encoder"])),
            shape_decoder=DecoderConfig(**_tupled(data["shape_decoder"])),
            tex_encoder=EncoderConfig(**_tupled(data["tex_encoder"])),
            tex_decoder=DecoderConfig(**_tupled(data["tex_decoder"])),
            flow=SegmentationConfig(**flow, view=None if view is None else ViewConfig(**view)),
            trust=Trust(**data.get("trust", {})),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointMismatch(f"the model's sizes in {CONFIG_FILE} are wrong: {err!r}") from err


def normalization_of(values: Mapping[str, Any], channels: int | None = None) -> Normalization:
    """Make a normalisation of lists `shape_mean`, `shape_std`, `tex_mean`, `tex_std`.

    Args:
        values: one number per latent channel in each.
        channels: how many there must be, when known.
    """
    names = ("shape_mean", "shape_std", "tex_mean", "tex_std")
    try:
        tensors = {name: torch.tensor(values[name], dtype=torch.float32) for name in names}
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointMismatch(f"the latents' normalisation is incomplete: {err!r}") from err
    for name, tensor in tensors.items():
        if channels is not None and tensor.shape != (channels,):
            raise CheckpointMismatch(
                f"the normalisation's {name} has shape {tuple(tensor.shape)} for latents of "
                f"{channels} channels; take the file that came with the weights"
            )
    return Normalization(**tensors)


def _tupled(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def folder_of(path_or_name: str | Path) -> Path:
    """Folder of a checkpoint that is not a released one, by path or shipped name."""
    for folder in (Path(path_or_name), WEIGHTS_FOLDER / str(path_or_name)):
        if (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
            return folder
    shipped = sorted(each.parent.name for each in WEIGHTS_FOLDER.glob(f"*/{CONFIG_FILE}"))
    raise CheckpointMismatch(
        f"no checkpoint at {str(path_or_name)!r}: give a folder with {CONFIG_FILE} and "
        f"{WEIGHTS_FILE}, a SegviGen .ckpt or a folder of them with TRELLIS.2 in or beside it, "
        f"or a shipped name ({', '.join(shipped) or 'none is installed'})"
    )


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as err:
        raise CheckpointMismatch(f"{folder / CONFIG_FILE} is no JSON: {err}") from err
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise CheckpointMismatch(f"{folder / CONFIG_FILE} has format {found!r}, not {FORMAT!r}")
    for key in ("model", "normalization"):
        if key not in header:
            raise CheckpointMismatch(f"{folder / CONFIG_FILE} lacks {key!r}; save it again")
    return header


def _unit_normalization(channels: int) -> Normalization:
    zero, one = torch.zeros(channels), torch.ones(channels)
    return Normalization(zero, one, zero, one)


def _ready(bundle: Bundle, device: str) -> Bundle:
    for module in bundle.modules().values():
        module.to(device).eval()
    return replace(bundle, normalization=bundle.normalization.to(device))


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
