"""Presets: a data set by its name becomes a full data configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.config import DataConfig
from recsys.data.catalogue import Preset, find_preset
from recsys.data.conversions.tables import RawFiles
from recsys.data.download import converted, files_in, raw_files
from recsys.data.formats import find_files
from recsys.errors import DataError


def apply_preset(data: DataConfig) -> DataConfig:
    """Return the configuration with its preset's fields filled in and `preset` taken out.

    Explicit fields win; mappings and sections (`columns`, `on_problem`, ...) are merged key by key.
    `data.events` beside a preset name the raw files (or their directory) instead of the preset's
    own places; they are converted as the preset's would be. Without a preset the same object comes
    back, so applying twice is applying once.
    """
    if data.preset is None:
        return data
    preset = find_preset(data.preset)
    ready = converted(preset, _chosen_files(data, preset))
    given = data.model_dump(exclude_unset=True, exclude={"preset", "events", "items"})
    fields = _merge(preset.fields, given)
    fields["events"] = [str(path) for path in ready.events]
    fields["items"] = [str(path) for path in ready.items]
    return DataConfig.model_validate(fields)


def _chosen_files(data: DataConfig, preset: Preset) -> RawFiles:
    """Return the raw files that the user names, items beside them unless named too."""
    if not data.events:
        found = raw_files(preset)
    elif len(data.events) == 1 and Path(data.events[0]).is_dir():
        inside = files_in(preset, Path(data.events[0]))
        if inside is None:
            raise DataError(
                f"data.events: {data.events[0]} holds no {' or '.join(preset.events)}, "
                f"which preset {preset.name!r} reads"
            )
        found = inside
    else:
        events = tuple(find_files(data.events, "data.events"))
        beside = files_in(preset, events[0].parent)
        found = RawFiles(events, beside.items if beside is not None else ())
    if "items" in data.model_fields_set:
        found = RawFiles(found.events, tuple(find_files(data.items, "data.items")))
    return found


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        out[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return out
