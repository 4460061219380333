"""Fields of a configuration: allowed ranges, checks, and reading from JSON.

A configuration is a tree of frozen dataclasses. The type of a field states its range, for example
`Share`; `check_fields` enforces it when the value is made. Unknown names and values outside their
range raise `InvalidConfig`; nothing is clipped or ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from segvigen_model.errors import InvalidConfig

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values of a number.

    Attributes:
        low, high: ends.
        is_open: whether the ends themselves are excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False

    def contains(self, value: float) -> bool:
        """Whether a value lies inside; never for NaN or infinity."""
        if not math.isfinite(value):
            return False
        return self.low < value < self.high if self.is_open else self.low <= value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "finite"
        less = "<" if self.is_open else "<="
        low = "" if math.isinf(self.low) else f"{self.low:g} {less} "
        high = "" if math.isinf(self.high) else f" {less} {self.high:g}"
        return f"{low}value{high}"


Count = Annotated[int, Range(1)]
Number = Annotated[int, Range(0)]
Real = Annotated[float, Range()]
Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, is_open=True)]
Gain = Annotated[float, Range(1)]
Share = Annotated[float, Range(0, 1)]
Probability = Annotated[float, Range(0, 1, is_open=True)]  # has finite logits
Interval = tuple[Probability, Probability]  # rising


def check_fields(config: Any) -> None:
    """Check every field of a new configuration, and store floats as float, lists as tuple.

    Args:
        config: a frozen dataclass; call this in its `__post_init__`.

    Raises:
        InvalidConfig: a value has the wrong type or lies outside its range.
    """
    kind = type(config)
    for name, hint in _list_hints(kind).items():
        place = f"{kind.__name__}.{name}"
        object.__setattr__(config, name, _check_value(getattr(config, name), hint, place))


def require(is_met: bool, message: str) -> None:
    """Raise `InvalidConfig` with a message unless a condition between fields is met."""
    if not is_met:
        raise InvalidConfig(message)


def override_settings(config: Config, data: Mapping[str, Any], path: str) -> Config:
    """Change a configuration by nested JSON objects; absent settings keep their values.

    Args:
        config: to start from, mostly the defaults.
        data: value or nested object by name.
        path: where `data` stands, for messages, for example "segmenter".

    Raises:
        InvalidConfig: unknown name, wrong type, or a value outside its range.
    """
    if not isinstance(data, Mapping):
        raise InvalidConfig(f"{path} is {data!r}; it must be an object of settings")
    known = dict(_list_items(config))
    values = {}
    for name, value in data.items():
        if name not in known:
            raise InvalidConfig(f"{path}.{name} is no setting; {path} has {', '.join(known)}")
        is_nested = is_dataclass(known[name])
        at = f"{path}.{name}"
        values[name] = override_settings(known[name], value, at) if is_nested else value
    try:
        changed: Config = replace(config, **values)  # type: ignore[type-var]
    except InvalidConfig as err:
        raise InvalidConfig(f"{path}: {err}") from err
    return changed


def find_changed_settings(config: Any, default: Any) -> dict[str, Any]:
    """The settings that differ from those of another configuration of the same kind, nested.

    Lists, not tuples, so that a trip through JSON changes nothing.
    """
    changed: dict[str, Any] = {}
    for (name, value), (_, usual) in zip(_list_items(config), _list_items(default), strict=True):
        if value == usual:
            continue
        if is_dataclass(value):
            changed[name] = find_changed_settings(value, usual)
        else:
            changed[name] = list(value) if isinstance(value, tuple) else value
    return changed


def _list_items(config: Any) -> list[tuple[str, Any]]:
    return [(each.name, getattr(config, each.name)) for each in fields(config)]


def _list_hints(kind: type) -> dict[str, Any]:
    """Type of every field, with its range."""
    return get_type_hints(kind, include_extras=True)


def _check_value(value: Any, hint: Any, place: str) -> Any:
    """A value of the type and in the range of a field."""
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)
        return _check_number(value, kind, limits, place)
    if get_origin(hint) is tuple:
        return _check_tuple(value, get_args(hint), place)
    if not isinstance(value, hint):
        raise InvalidConfig(f"{place} is {value!r}; it must be a {hint.__name__}")
    return value


def _check_number(value: Any, kind: type, limits: Range, place: str) -> float:
    allowed, word = ((int,), "a whole number") if kind is int else ((int, float), "a number")
    is_number = isinstance(value, allowed) and not isinstance(value, bool)
    if not is_number or not limits.contains(value):
        raise InvalidConfig(f"{place} is {value!r}; it must be {word}, {limits}")
    number: float = kind(value)
    return number


def _check_tuple(value: Any, hints: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    is_any_length = hints[-1] is Ellipsis
    is_list = isinstance(value, (tuple, list)) and len(value) > 0
    if not is_list or not (is_any_length or len(value) == len(hints)):
        wanted = "one number or more" if is_any_length else f"{len(hints)} numbers"
        raise InvalidConfig(f"{place} is {value!r}; it must be a list of {wanted}")
    items = tuple(_check_value(each, hints[0], place) for each in value)
    if not is_any_length and list(items) != sorted(set(items)):
        raise InvalidConfig(f"{place} is {value!r}; its numbers must rise")
    return items
