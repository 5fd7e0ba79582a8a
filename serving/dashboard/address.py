"""Filters live in the address: what a reader chose can be sent to somebody else as a link.

The address says everything that differs between two views, defaults included, so that a link still
shows the same when another report has become the newest. Choices outlive a change of page, for which
the browser is given a new address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

KEPT: Final = "kept choices"
WRITTEN: Final = "address as written"
PAGE: Final = "page"
EVERYWHERE: Final = (PAGE, "dataset", "split", "metric", "k")
"""Filters that all pages share; the others belong to one."""


def follow_address() -> None:
    """Take the filters from the address where it is not the one that was written last.

    So it is after a step back in the browser, or when somebody edited it.
    """
    import streamlit as st

    now = st.query_params.to_dict()
    written = st.session_state.get(WRITTEN, now)
    if now == written:
        return
    for name in {*now, *written}:
        st.session_state.pop(name, None)
    st.session_state[KEPT] = dict(now)


def remember_address() -> None:
    """Note the address as it is now, so that a change from outside can be told from our own."""
    import streamlit as st

    st.session_state[WRITTEN] = st.query_params.to_dict()


def chosen(name: str) -> str | None:
    """Return the value of a filter: that of the address, or the one chosen on another page."""
    import streamlit as st

    value = st.query_params.get(name)
    if value is None:
        value = st.session_state.get(KEPT, {}).get(name)
    return None if value is None else str(value)


def keep(name: str, value: str | None) -> None:
    """Write a filter into the address; None takes it out."""
    import streamlit as st

    st.session_state.setdefault(KEPT, {})[name] = value
    if value is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != value:
        st.query_params[name] = value
    remember_address()


def pick(
    label: str,
    name: str,
    options: Sequence[str],
    default: str | None = None,
    *,
    show: Callable[[str], str] = str,
    place: Any = None,
    flat: bool = False,
) -> str:
    """Show a choice of one, bound to the address, and return it.

    Args:
        label: of the widget.
        name: in the address.
        options: at least one; a value in the address that is none of them is not used.
        default: without a value in the address; the first by default.
        show: how an option is written.
        place: the container, the page by default.
        flat: all options side by side, for few short ones.
    """
    import streamlit as st

    first = default if default in options else options[0]
    if st.session_state.get(name) not in options:
        asked = chosen(name)
        st.session_state[name] = asked if asked in options else first
    where = place or st
    if flat:
        value = where.segmented_control(label, options, key=name, format_func=show, required=True)
    else:
        value = where.selectbox(label, options, key=name, format_func=show)
    value = value or first
    keep(name, value)
    return str(value)


def pick_some(
    label: str,
    name: str,
    options: Sequence[str],
    default: Sequence[str],
    *,
    most: int,
    show: Callable[[str], str] = str,
) -> list[str]:
    """Show a choice of several, bound to the address as one comma-separated value, and return them."""
    import streamlit as st

    if name not in st.session_state or not set(st.session_state[name]) <= set(options):
        asked = (chosen(name) or "").split(",")
        known = [value for value in dict.fromkeys(asked) if value in options]
        st.session_state[name] = (known or list(default))[:most]
    values = st.multiselect(
        label, options, key=name, format_func=show, max_selections=most, placeholder="choose runs"
    )
    keep(name, ",".join(values) or None)
    return [str(value) for value in values]


def switch(label: str, name: str, *, place: Any = None) -> bool:
    """Show a switch that is off by default, bound to the address, and return whether it is on."""
    import streamlit as st

    if name not in st.session_state:
        st.session_state[name] = chosen(name) == "1"
    value = bool((place or st).toggle(label, key=name))
    keep(name, "1" if value else None)
    return value
