"""What is said of a request that breaks a rule: the place, the value, what is allowed, what to do.

The validator's own words and names stay inside: every kind of its errors is put in words here, or
was raised with them (`serving.rules.refusal`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from serving.rules import ALLOWED, ALLOWED_INSIDE, REFUSAL
from serving.schemas import DESCRIBED, EVENT, ID, Described, Event
from serving.write_schemas import NewEvent

SHOWN = 80
"""Characters shown of a value."""
HEADER = "with the header content-type: application/json"

NESTED: dict[str | int, type[BaseModel]] = {
    "history": Event,
    DESCRIBED: Described,
    "events": NewEvent,
}
"""Lists whose places are objects of their own; `DESCRIBED` are those of the history that are texts."""

OBJECTS = ("attributes", "at_most")
"""Keys whose values are objects of keys of the client's own."""

Problem = dict[str, str | None]
Place = tuple[str | int, ...]


def problems_of(error: RequestValidationError, asked: type[BaseModel]) -> list[Problem]:
    """Return the problems of a body that should be a valid `asked`, as in `serving.schemas.Problem`."""
    return [_problem(found, error.body, asked) for found in error.errors()]


def unreadable(cause: BaseException | None) -> Problem:
    """Return the problem of a body that could not be read as JSON at all, from what was raised."""
    allowed, got = "JSON text in UTF-8", None
    problem, fix = "could not be read", f"send a JSON object {HEADER}"
    if isinstance(cause, UnicodeDecodeError):
        problem, fix = f"is not UTF-8 at byte {cause.start}", "encode the body as UTF-8"
        got = repr(cause.object[cause.start : cause.start + 8])
    elif isinstance(cause, RecursionError):
        problem, fix = (
            "is nested too deeply",
            "send lists and objects as the documentation has them",
        )
    elif isinstance(cause, ValueError):
        problem, fix = "has a number of too many digits", "send numbers within their limits"
    return _say("body", problem, got, allowed, fix)


def _problem(found: Mapping[str, Any], body: Any, asked: type[BaseModel]) -> Problem:
    """Put one error of the validator in words."""
    place, kind, got = _place(found["loc"]), str(found["type"]), shown(found.get("input"))
    where, context = ".".join(map(str, place)), found.get("ctx", {})
    if kind == REFUSAL:
        return _say(where, context["problem"], got, context["allowed"], context["fix"])
    if kind == "json_invalid":
        return _no_json(int(place[-1]), str(body), str(context.get("error", "")))
    if len(place) == 1 and kind == "string_unicode":
        allowed = f"the keys {', '.join(asked.model_fields)}"
        return _say(where, "has a key with half a character", got, allowed, "leave it out")
    if len(place) == 1:
        return _no_object(kind, got, asked)
    if place[1] in OBJECTS:
        fix = f"send such an object, or leave {place[1]} out"
        return _say(where[: 2 * SHOWN], "is not allowed", got, ALLOWED[str(place[1])], fix)
    if place[1] == "history" and place[3:4] == ("text",):
        fix = "send such an object, or take this one out of the list"
        return _say(where[: 2 * SHOWN], "is not allowed", got, ALLOWED["text"], fix)
    name = next(str(part) for part in reversed(place) if isinstance(part, str))
    if kind == "extra_forbidden":
        which = DESCRIBED if found["loc"][3:4] == (DESCRIBED,) else place[1]
        inside = NESTED.get(which, asked) if len(place) > 2 else asked
        return _unknown_key(where, name, got, inside)
    if kind == "missing":
        return _say(where, "is missing", None, ALLOWED[name], f"add {name}")
    if isinstance(place[-1], int):
        fix = "send such a value, or take this one out of the list"
        return _say(where, _wrong(kind, context), got, ALLOWED_INSIDE[name], fix)
    field = asked.model_fields.get(name)
    leave = "" if field is None or field.is_required() else f", or leave {name} out"
    return _say(where, _wrong(kind, context), got, ALLOWED[name], f"send such a value{leave}")


def _wrong(kind: str, context: Mapping[str, Any]) -> str:
    """Say what is wrong with a value by the kind of the validator's error."""
    match kind:
        case "greater_than_equal":
            return f"is less than {context['ge']}"
        case "less_than_equal":
            return f"is more than {context['le']}"
        case "too_long":
            return f"holds {context['actual_length']} values, more than {context['max_length']}"
        case "too_short":
            return f"holds {context['actual_length']} values, fewer than {context['min_length']}"
        case "int_type" | "int_from_float" | "int_parsing_size":
            return "is no whole number"
        case "literal_error":
            return "is none of the words that are known"
        case "list_type":
            return "is no list"
        case "bool_type":
            return "is neither true nor false"
        case _:
            return "is not allowed"


def _no_json(at: int, body: str, why: str) -> Problem:
    why = f" ({why[:1].lower()}{why[1:]})" if why else ""
    got = shown(body[at : at + SHOWN]) if at < len(body) else "the end of the body"
    problem = f"is no JSON from character {at} on{why}"
    return _say("body", problem, got, "a JSON object", f"send a valid JSON object {HEADER}")


def _no_object(kind: str, got: str, asked: type[BaseModel]) -> Problem:
    """Say that the body is missing, or is something else than an object."""
    keys = ", ".join(asked.model_fields)
    missing = kind == "missing"
    problem = "is missing" if missing else "is no JSON object"
    fix = f"send a JSON object {HEADER}"
    return _say("body", problem, None if missing else got, f"an object with the keys {keys}", fix)


def _unknown_key(where: str, name: str, got: str, model: type[BaseModel]) -> Problem:
    near = difflib.get_close_matches(name.lower(), model.model_fields, n=1)
    fix = f"did you mean {near[0]!r}? Otherwise leave it out" if near else "leave it out"
    allowed = f"the keys {', '.join(model.model_fields)}"
    return _say(where[: 2 * SHOWN], "is a key that is not known", got, allowed, fix)


def _place(location: tuple[str | int, ...]) -> Place:
    """Return where an error is, without the validator's name for the kind of a history's item."""
    return tuple(
        part
        for at, part in enumerate(location)
        if not (at == 3 and part in (ID, EVENT, DESCRIBED) and location[1] == "history")
    )


def shown(value: object) -> str:
    """Return the beginning of a value as JSON in ASCII, at most `SHOWN` characters."""
    if isinstance(value, bytes):
        text = ascii(value[:SHOWN].decode("latin-1"))
    else:
        try:
            text = json.dumps(value, default=repr)
        except RecursionError:
            return "a value that is nested too deeply to be shown"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _say(place: str, problem: str, got: str | None, allowed: str, fix: str) -> Problem:
    return {"place": place, "problem": problem, "got": got, "allowed": allowed, "fix": fix}
