"""Reading a configuration: YAML, overrides, and errors that name the place and the nearest valid key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ValidationError

from recsys.config.experiment import ExperimentConfig
from recsys.errors import ConfigError


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no stubs
    """Safe YAML in which `2024-01-01` stays the text it is written as, as our times want it."""

    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Return the validated experiment of a YAML file, with `key.sub=value` overrides applied."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; configurations live in configs/")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, found {type(raw).__name__}")
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], source: str = "configuration") -> ExperimentConfig:
    """Validate a plain mapping; `ConfigError` lists every problem with its place."""
    try:
        return ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(problem, raw) for problem in error.errors()]
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
    try:
        node[leaf] = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error


def _explain(problem: Any, raw: dict[str, Any]) -> str:
    """Turn one pydantic problem into `  place: what is wrong` with the nearest valid key."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(ExperimentConfig, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"  {place}: unknown key{hint} Allowed here: {', '.join(sorted(valid))}."
    shown = problem.get("input")
    value = "" if isinstance(shown, dict) else f" (got {shown!r})"
    return f"  {place}: {problem['msg']}{value}"


def _valid_keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the field names allowed at a place, walking unions by their `kind` tag."""
    if not loc:
        return list(model.model_fields)
    head, *rest = loc
    if head not in model.model_fields:
        return []
    candidates = _sections(model.model_fields[head].annotation)
    for candidate in candidates:
        tail = list(rest)
        if typing.get_origin(model.model_fields[head].annotation) is dict:
            tail = tail[1:]  # the user's own name of the entry
        tags = candidate.model_fields.get("kind")
        if tail and tags is not None and len(candidates) > 1:  # a union: the tag is in the place
            if tail[0] != tags.default:
                continue
            tail = tail[1:]
        return _valid_keys(candidate, tuple(tail))
    return []


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return every Section inside an annotation: unions, Annotated and dict values unwrapped."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is dict:
        return _sections(args[1])
    if origin is Annotated:
        return _sections(args[0])
    if origin in (typing.Union, types.UnionType):
        return [section for arg in args for section in _sections(arg)]
    return []
