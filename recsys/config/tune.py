"""What `recsys tune` searches: the space of every model, and the budget that all models share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from recsys.config.problems import explain, guess
from recsys.config.section import Count, Section

Model = TypeVar("Model", bound=Section)

MOST_COMBINATIONS: Final = 4096
"""So many combinations of choices (and of the ends of ranges) are tried on a model's rules at entry."""


class Range(Section):
    """The values of one setting; exactly one of the four."""

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    """Evenly over the logarithm: for learning rates and the like."""
    integers: tuple[int, int] | None = None
    """Both ends included."""
    choice: list[Any] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> Range:
        given = {name: value for name, value in self if value is not None}
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"exactly one of {names} (got {', '.join(given) or 'none'})")
        [(name, value)] = given.items()
        if name != "choice" and value[0] >= value[1]:
            raise ValueError(f"{name}: {value[0]} must be below {value[1]}")
        if name == "log_uniform" and value[0] <= 0:
            raise ValueError(f"log_uniform: {value[0]} has no logarithm; it must be above 0")
        return self

    @property
    def edges(self) -> list[Any]:
        """The values that must be allowed so that all are: every choice, or both ends."""
        return list(self.choice or self.uniform or self.log_uniform or self.integers or ())

    def holds(self, value: Any) -> bool:
        """Tell whether a value may be drawn."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.edges
        return isinstance(value, int | float) and bool(low <= value <= high)


class TuneConfig(Section):
    """A search on validation; every model gets the same trials, the same epochs, the same rule."""

    space: dict[str, dict[str, Range]] = Field(min_length=1)
    """Model -> setting of that model, dotted (`training.lr`) -> its values."""
    models: list[str] | None = Field(None, min_length=1)
    """The models to search, by default all of `space`."""
    trials: Count = 20
    """Trials of each model."""
    epochs: Count = 30
    """Epochs that a trial is planned for, instead of `training.epochs`."""
    stop: Literal["asha", "median", "off"] = "asha"
    """Which trials end early: those not among the best at rungs `grace`, `grace * reduction`, ...
    (`asha`), those below the median of the others' means (`median`), or none. A trial's own
    `training.patience` holds as well."""
    grace: Count = 3
    """Epochs before a trial may be stopped."""
    reduction: float = Field(3.0, gt=1)
    """One in so many goes on at a rung of `asha`."""

    @property
    def chosen(self) -> list[str]:
        """Names of the models to search."""
        return self.models or list(self.space)


def apply_settings(model: Model, settings: Mapping[str, Any]) -> Model:
    """Return a model's section with dotted settings replaced, validated anew."""
    raw = model.model_dump(mode="json")
    for key, value in settings.items():
        node = raw
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return type(model).model_validate(raw)


def setting_of(model: Section, key: str) -> Any:
    """Return the value of a dotted setting."""
    value: Any = model
    for name in key.split("."):
        value = getattr(value, name)
    return value


def check_tune(tune: TuneConfig, models: Mapping[str, Any]) -> Iterator[str]:
    """Yield `place: what is wrong` for all that does not fit the configured models."""
    for name in {**dict.fromkeys(tune.space), **dict.fromkeys(tune.chosen)}:
        if name not in models:
            place = "tune.space" if name in tune.space else "tune.models"
            hint = guess(name, list(models))
            yield f"{place}: no model {name!r}{hint} The configuration has {', '.join(models)}"
        elif not hasattr(models[name], "training"):
            yield (
                f"tune.space.{name}: kind {models[name].kind} is counted in one pass and has no epochs "
                "to search over; only learned models can be tuned"
            )
        elif getattr(models[name], "task", None) == "reconstruct":
            yield (
                f"tune.space.{name}: task is reconstruct, which learns nothing that validation could rank; "
                "search with task: continue or both"
            )
        elif not tune.space.get(name):
            yield f"tune.models: {name!r} has no settings in tune.space"
        else:
            yield from _check_space(name, models[name], tune.space[name])


def _check_space(name: str, model: Section, space: Mapping[str, Range]) -> Iterator[str]:
    place = f"tune.space.{name}"
    unknown = [text for key in space if (text := _unknown(f"{place}.{key}", model, key))]
    yield from unknown
    if unknown:
        return
    edges = [[(key, value) for value in values.edges] for key, values in space.items()]
    said: set[str] = set()
    for combination in itertools.islice(itertools.product(*edges), MOST_COMBINATIONS):
        settings = dict(combination)
        try:
            apply_settings(model, settings)
        except ValidationError as error:
            for line in explain(type(model), error):
                if line not in said:
                    said.add(line)
                    shown = ", ".join(f"{key}={value}" for key, value in settings.items())
                    yield f"{place}: {line.strip()} (with {shown})"


def _unknown(place: str, model: Section, key: str) -> str | None:
    """Return what is wrong with the name of a setting, or None."""
    section: Any = model
    for word in key.split("."):
        if not isinstance(section, Section):
            return f"{place}: there are no settings inside {section!r}"
        allowed = sorted(type(section).model_fields)
        if word not in allowed:
            return f"{place}: unknown key{guess(word, allowed)} Allowed here: {', '.join(allowed)}."
        section = getattr(section, word)
    if isinstance(section, Section) or key in ("kind", "training.epochs"):
        fixed = "set by tune.epochs" if key == "training.epochs" else "no single value"
        return f"{place}: cannot be searched, it is {fixed}"
    return None
