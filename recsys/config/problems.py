"""What is wrong with a configuration, said for people: the place, the value, what is allowed."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Place:
    """Where a problem is, as the file says it: without pydantic's names for the parts of a union.

    Attributes:
        keys: the keys on the way, list numbers among them.
        section: the innermost section on the way, the one in which the last key was looked up.
        annotation: what may stand at the place, None where that is unknown.
        kind: the `kind` that made it this section, None where there was no choice.
    """

    keys: tuple[str | int, ...]
    section: type[BaseModel]
    annotation: Any
    kind: str | None = None


def explain(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Return a line `  place: what is wrong` for every problem of a mapping that is no `model`.

    What is said of the kinds of value that one place may have (a word or a number) shares a line.
    """
    said: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for problem in error.errors():
        place = find(model, problem["loc"])
        keys = [*place.keys, "kind"] if problem["type"].startswith("union_tag") else place.keys
        text = ".".join(map(str, keys))
        said.setdefault(text, []).append(_words(problem, place))
        values[text] = _value(problem)
    lines = []
    for text, words in said.items():
        whole = "; or: ".join(dict.fromkeys(words))
        # A check of the whole file names the places itself, one a line.
        lines += (
            [f"  {text}: {whole}{values[text]}"]
            if text
            else [f"  {line}" for line in whole.splitlines()]
        )
    return lines


def guess(word: str, allowed: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest allowed word, a full stop where none is near."""
    near = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "."


def find(model: type[BaseModel], loc: Sequence[str | int]) -> Place:
    """Return the place of pydantic's `loc`, walking from `model` along its annotations."""
    keys: list[str | int] = []
    section, annotation = model, typing.cast(Any, model)
    kind, tag = None, None
    rest = [part for part in loc if part != "[key]"]
    while rest and annotation is not None:
        head, *rest = rest
        annotation = _without_none(annotation)
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, types.UnionType):
            # The tag of a section, or a name of a plain value's type; neither is in the file.
            tag, annotation = str(head), _by_kind(annotation).get(str(head))
            continue
        keys.append(head)
        if _is_section(annotation):
            section, kind, tag = annotation, tag, None
            field = section.model_fields.get(str(head))
            annotation = None if field is None else field.annotation
        else:
            inside = typing.get_args(annotation)
            annotation = inside[-1 if origin is dict else 0] if inside else None
    return Place(tuple(keys), section, annotation, kind)


def _words(problem: Any, place: Place) -> str:
    """Return what is wrong at a place."""
    match problem["type"]:
        case "extra_forbidden":
            allowed = sorted(place.section.model_fields)
            where = "here" if place.kind is None else f"for kind {place.kind}"
            hint = guess(str(place.keys[-1]), allowed)
            return f"unknown key{hint} Allowed {where}: {', '.join(allowed)}."
        case "union_tag_not_found":
            return f"missing; add one of {', '.join(_by_kind(place.annotation))}"
        case "union_tag_invalid":
            kinds, tag = list(_by_kind(place.annotation)), problem["ctx"]["tag"]
            return f"{tag!r} is not known{guess(tag, kinds)} Allowed here: {', '.join(kinds)}."
        case "value_error":
            return str(problem["ctx"]["error"])
    return str(problem["msg"])


def _value(problem: Any) -> str:
    """Return the value that was found, for a plain one whose message does not name it."""
    named = isinstance(problem["input"], dict) or problem["type"] == "extra_forbidden"
    return "" if named else f" (got {problem['input']!r})"


def _without_none(annotation: Any) -> Any:
    """Return an annotation without `Annotated`, and without a `| None` beside a single type."""
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return _without_none(kinds[0])
    return annotation


def _by_kind(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the sections of a union by their `kind`; empty for a union of plain values."""
    sections = [part for part in typing.get_args(_without_none(annotation)) if _is_section(part)]
    return {str(section.model_fields["kind"].default): section for section in sections}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
