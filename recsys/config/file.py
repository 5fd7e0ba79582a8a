"""Reading a configuration: YAML, overrides, and errors that name the file."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from recsys.config.experiment import ExperimentConfig
from recsys.config.pretrain import PretrainConfig
from recsys.config.problems import explain
from recsys.config.section import Section
from recsys.config.study import StudyConfig
from recsys.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no stubs
    """Safe YAML in which `2024-01-01` and `on` stay the texts they are written as.

    Our times want the one and our choices `auto | on | off` the other; a field that is true or false
    takes on, off, yes and no from text as well.
    """

    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if not tag.endswith(":timestamp") and not (tag.endswith(":bool") and first in "yYnNoO")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Return the validated experiment of a YAML file, with `key.sub=value` overrides applied."""
    return parse_config(_read(path, overrides), str(path))


def load_pretrain_config(path: Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Return the validated pre-training of a YAML file, with `key.sub=value` overrides applied."""
    return parse_pretrain_config(_read(path, overrides), str(path))


def load_study_config(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Return the validated study of a YAML file, with `key.sub=value` overrides applied."""
    return parse_study_config(_read(path, overrides), str(path))


def is_study(path: Path) -> bool:
    """Tell whether a YAML file is of a study: it names sets, and neither data nor models with settings."""
    raw = _read(path, ())
    return "sets" in raw and "data" not in raw


def _read(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the mapping of a YAML file with the overrides applied."""
    if not path.is_file():
        raise ConfigError(_why_no_file(path))
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, found {type(raw).__name__}")
    for override in overrides:
        _apply_override(raw, override)
    return raw


def parse_config(raw: dict[str, Any], source: str = "configuration") -> ExperimentConfig:
    """Validate a plain mapping; `ConfigError` lists every problem with its place."""
    return _validated(ExperimentConfig, raw, source)


def parse_pretrain_config(raw: dict[str, Any], source: str = "configuration") -> PretrainConfig:
    """Validate a plain mapping; `ConfigError` lists every problem with its place."""
    return _validated(PretrainConfig, raw, source)


def parse_study_config(raw: dict[str, Any], source: str = "configuration") -> StudyConfig:
    """Validate a plain mapping; `ConfigError` lists every problem with its place."""
    return _validated(StudyConfig, raw, source)


def _validated(section: type[AnySection], raw: dict[str, Any], source: str) -> AnySection:
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        lines = explain(section, error)
        raise ConfigError("\n".join([f"{source} is not valid:", *lines])) from None


def dump_config(config: BaseModel) -> str:
    """Return a section as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value")
    node = raw
    *parents, leaf = key.split(".")
    for i, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            place = ".".join(parents[: i + 1])
            raise ConfigError(f"override {override!r}: {place} is a value, not a section")
        node = child
    node[leaf] = _value(text)


def _value(text: str) -> Any:
    """Return the value of an override: YAML, or the text itself where it is none, as in `%Y-%m`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def _why_no_file(path: Path) -> str:
    """Return why a path is no configuration, and the ones that lie where it was looked for."""
    if path.is_dir():
        folder, what = path, f"{path} is a directory; name a YAML file in it"
    else:
        folder, what = path.parent, f"{path} does not exist (looked from {Path.cwd()})"
    there = sorted(p.name for p in folder.glob("*.y*ml"))[:20]
    return f"{what}; {folder} holds {', '.join(there)}" if there else what
