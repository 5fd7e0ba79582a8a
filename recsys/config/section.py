"""The base of every section of a configuration."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What an experiment or a model may be called: directories are named after it."""

Count = Annotated[int, Field(ge=1, strict=True)]
"""A whole number from one on; `true` is none."""


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
