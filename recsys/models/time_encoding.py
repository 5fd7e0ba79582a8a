"""Times as vectors: the calendar (UTC), the gap since the event before, how far two events lie apart.

Source: UniRec (CIKM 2024, arXiv 2406.18470) for the calendar's Mercer encoding and the table of hours;
gaps and distances on a logarithmic scale are ours. Shapes: R rows, L places, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config.unirec import CalendarFeature

DAY: Final = 86_400
HOUR: Final = 3_600
HOURS_A_YEAR: Final = 8_760
LOG_STEPS: Final = 2
"""Vectors for a doubling of the time on a logarithmic scale."""
LOG_BUCKETS: Final = 32 * LOG_STEPS
"""Up to 2^32 seconds, 136 years."""
MAX_YEARS: Final = 64
VALUES: Final[dict[CalendarFeature, int]] = {
    "year": MAX_YEARS,
    "month": 12,
    "day": 31,
    "weekday": 7,
    "day_of_year": 366,
    "week": 53,
    "hour": 23,
}
"""Greatest value of each feature; the smallest is 1, of the hour 0."""


def calendar_of(times: Tensor) -> dict[CalendarFeature, Tensor]:
    """Return year, month 1-12, day 1-31, weekday 1-7 (Monday first), day of the year 1-366, ISO week
    1-53 and hour 0-23 in UTC of int64 seconds since 1970.
    """
    days = times // DAY
    era_day = days + 719_468  # counted from 0000-03-01, so that a leap day ends its year
    era = era_day // 146_097
    day_of_era = era_day - era * 146_097
    year_of_era = (
        day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    from_march = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * from_march + 2) // 153  # months since March
    month = torch.where(shifted < 10, shifted + 3, shifted - 9)
    year = year_of_era + era * 400 + (month <= 2)
    day_of_year = days - _first_day(year) + 1
    weekday = (days + 3) % 7 + 1
    return {
        "year": year,
        "month": month,
        "day": from_march - (153 * shifted + 2) // 5 + 1,
        "weekday": weekday,
        "day_of_year": day_of_year,
        "week": _iso_week(year, day_of_year, weekday),
        "hour": times % DAY // HOUR,
    }


def _first_day(year: Tensor) -> Tensor:
    """Return the day of January 1, counted from 1970-01-01."""
    before = year - 1
    return 365 * before + before // 4 - before // 100 + before // 400 - 719_162


def _iso_week(year: Tensor, day_of_year: Tensor, weekday: Tensor) -> Tensor:
    week = (day_of_year - weekday + 10) // 7
    of_the_next = week > _weeks_in(year)
    week = torch.where(week < 1, _weeks_in(year - 1), week)
    return torch.where(of_the_next, 1, week)


def _weeks_in(year: Tensor) -> Tensor:
    """Return 53 for years that end on a Thursday or whose year before ended on a Wednesday, else 52."""

    def last_weekday(of: Tensor) -> Tensor:
        return (of + of // 4 - of // 100 + of // 400) % 7

    return 52 + ((last_weekday(year) == 4) | (last_weekday(year - 1) == 3)).long()


class CalendarEncoding(nn.Module):
    """A vector for the calendar of a moment, by a Mercer encoding of each feature.

    Of a feature's value x, output k = 1..16 is, with harmonics j = 1..3 and learned exponents p_k:

        enc_k(x) = sum_j [ a_kj sin(x w_kj) + b_kj cos(x w_kj) ] + c_k,    w_kj = j 10^(-p_k)

    The encodings of all features side by side are mapped to D. A feature has few values, so they are
    encoded once a step and looked up, which is the same. Years count from the first training year, 1,
    and stay between it and the last.
    """

    OUTPUTS: Final = 16
    HARMONICS: Final = 3

    first_year: Tensor
    last_year: Tensor

    def __init__(self, features: Sequence[CalendarFeature], width: int) -> None:
        super().__init__()
        self.features = tuple(features)
        count = len(self.features)
        exponents = torch.linspace(0, 8, self.OUTPUTS).repeat(count, 1)
        self.exponents = nn.Parameter(exponents)  # [F, K]
        self.sines = nn.Parameter(torch.empty(count, self.OUTPUTS, self.HARMONICS))
        self.cosines = nn.Parameter(torch.empty(count, self.OUTPUTS, self.HARMONICS))
        self.offsets = nn.Parameter(torch.zeros(count, self.OUTPUTS))
        self.out = nn.Linear(count * self.OUTPUTS, width)
        self.register_buffer("first_year", torch.tensor(1970))
        self.register_buffer("last_year", torch.tensor(1970 + MAX_YEARS - 1))
        self.init_weights()

    def init_weights(self) -> None:
        """Draw (a, b) as Glorot does for [K, 2 x harmonics], the map from N(0, 0.01^2)."""
        limit = (6.0 / (self.OUTPUTS + 2 * self.HARMONICS)) ** 0.5
        nn.init.uniform_(self.sines, -limit, limit)
        nn.init.uniform_(self.cosines, -limit, limit)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, times: Tensor) -> Tensor:
        """Return the vectors of int64 seconds [R, L], float [R, L, D]."""
        found = calendar_of(times)
        table: list[Tensor] = []
        rows: list[Tensor] = []
        begin = 0
        for place, name in enumerate(self.features):
            values = torch.arange(VALUES[name] + 1, device=times.device)
            part = self.encode(values.to(self.exponents.dtype), place)  # [values, K]
            columns = slice(place * self.OUTPUTS, (place + 1) * self.OUTPUTS)
            table.append(part @ self.out.weight[:, columns].T)  # [values, D]
            rows.append(self._value(name, found) + begin)
            begin += len(values)
        bags = torch.stack(rows, dim=-1).flatten(0, 1)  # [R L, F]
        summed = F.embedding_bag(bags, torch.cat(table), mode="sum")  # [R L, D]
        return (summed + self.out.bias).view(*times.shape, self.out.out_features)  # [R, L, D]

    def encode(self, values: Tensor, place: int) -> Tensor:
        """Return the Mercer encoding of values [N] of the feature at `place`, float [N, K]."""
        harmonics = torch.arange(1, self.HARMONICS + 1, device=values.device)
        waves = 10.0 ** -self.exponents[place, :, None] * harmonics  # [K, J]
        angles = values[:, None, None] * waves  # [N, K, J]
        summed = self.sines[place] * angles.sin() + self.cosines[place] * angles.cos()
        return summed.sum(-1) + self.offsets[place]

    def _value(self, name: CalendarFeature, found: dict[CalendarFeature, Tensor]) -> Tensor:
        value = found[name]
        if name == "year":
            last = (self.last_year - self.first_year + 1).clamp(1, MAX_YEARS)
            return (value - self.first_year + 1).clamp(min=1).minimum(last)
        return value

    def set_years(self, first_time: int, last_time: int, *, keep_first: bool = False) -> None:
        """Count years from that of `first_time`; those after `last_time`'s are taken for it.

        `keep_first`: from the year that the weights were learned with.
        """
        years = calendar_of(torch.tensor([first_time, last_time]))["year"]
        if not keep_first:
            self.first_year.copy_(years[0])
        self.last_year.copy_(years[1])


def previous_times(times: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(time of the event before in its sequence, whether there is one)`, both [R, L].

    The first event of a sequence has its own time, so its gap is 0. Places left out of a sequence
    (segment 0) are stepped over.
    """
    where, there = _previous_places(segments)
    return torch.where(there, times.gather(1, where), times), there


def _previous_places(segments: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(column of the event before in its sequence, whether there is one)`, both [R, L]."""
    columns = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    newest = torch.where(segments > 0, columns, -1).cummax(dim=1).values
    before = F.pad(newest[:, :-1], (1, 0), value=-1)
    where = before.clamp(min=0)
    return where, (before >= 0) & (segments > 0) & (segments.gather(1, where) == segments)


def basket_starts(segments: Tensor, baskets: Tensor) -> Tensor:
    """Return the column of the first event of each place's basket, int64 [R, L]."""
    where, there = _previous_places(segments)
    begins = (segments > 0) & ~(there & (baskets.gather(1, where) == baskets))
    columns = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    return torch.where(begins, columns, 0).cummax(dim=1).values


class GapEncoding(nn.Module):
    """A vector for the time since the event before.

    `hours`: the row of the table is clip(h(t) - h(before), 0, 8760) with h(t) = floor(t / 3600); the
    first event has gap 0. `log`: floor(2 log2(1 + seconds)), and a row of its own for the first event.
    Where baskets are sets, all events of one have the gap since the basket before.

    With `reference` the first event's gap is 8760 hours, as the published code has it, whose padding
    lies in 1970.
    """

    def __init__(self, scale: str, width: int, *, reference: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.reference = reference
        size = HOURS_A_YEAR + 1 if scale == "hours" else LOG_BUCKETS + 1
        self.table = nn.Embedding(size, width)

    def forward(self, times: Tensor, segments: Tensor, baskets: Tensor | None = None) -> Tensor:
        """Return float [R, L, D] for int64 seconds, segments and (if they are sets) baskets [R, L]."""
        rows = self.rows(times, segments)
        if baskets is not None:
            rows = rows.gather(1, basket_starts(segments, baskets))
        out: Tensor = self.table(rows)
        return out

    def rows(self, times: Tensor, segments: Tensor) -> Tensor:
        """Return which row of the table each place has, int64 [R, L]."""
        before, there = previous_times(times, segments)
        if self.scale == "log":
            return torch.where(there, log_bucket(times - before) + 1, 0)
        hours = (times // HOUR - before // HOUR).clamp(0, HOURS_A_YEAR)
        return torch.where(there, hours, HOURS_A_YEAR) if self.reference else hours


def log_bucket(seconds: Tensor) -> Tensor:
    """Return floor(2 log2(1 + seconds)), at most 63, int64; negative seconds count as 0."""
    scaled = LOG_STEPS * torch.log2(1.0 + seconds.clamp(min=0).float())
    return scaled.long().clamp(max=LOG_BUCKETS - 1)


class UniformityEncoding(nn.Module):
    """A vector for how regular the gaps of a sequence were up to an event, whatever their scale.

    With s the standard deviation (ddof 0) of log2(1 + seconds) over the gaps so far, the row of the
    table is 1 + floor(4 s), at most 32, and 0 for fewer than two gaps. From s^2 a thousandth is taken
    first, so that gaps which differ by rounding count as equal. Where baskets are sets, only gaps before
    a basket count, and all its events have the same row.
    """

    STEPS: Final = 4
    ROWS: Final = 33
    UNITS: Final = 1024
    """Logarithms are rounded to so many parts of 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(self.ROWS, width)

    def forward(self, times: Tensor, segments: Tensor, baskets: Tensor | None = None) -> Tensor:
        """Return float [R, L, D] for int64 seconds, segments and (if they are sets) baskets [R, L]."""
        out: Tensor = self.table(self.rows(times, segments, baskets))
        return out

    def rows(self, times: Tensor, segments: Tensor, baskets: Tensor | None = None) -> Tensor:
        """Return which row of the table each place has, int64 [R, L]."""
        if baskets is None:
            return self._rows(times, segments, segments > 0)
        starts = basket_starts(segments, baskets)
        begins = starts == torch.arange(times.shape[1], device=times.device)
        return self._rows(times, segments, begins).gather(1, starts)

    def _rows(self, times: Tensor, segments: Tensor, counted: Tensor) -> Tensor:
        before, there = previous_times(times, segments)
        logs = torch.log2(1.0 + (times - before).clamp(min=0).float())
        # Whole numbers add up exactly, whatever comes before in the row.
        gap = there & counted
        gaps = (self.UNITS * logs).round().long() * gap
        sums = torch.stack([gap.long(), gaps, gaps.square()]).cumsum(-1)  # [3, R, L]
        columns = torch.arange(times.shape[1], device=times.device).expand_as(times)
        first = torch.where((segments > 0) & ~there, columns, 0).cummax(dim=1).values
        count, total, squares = sums - sums.gather(2, first.expand_as(sums))  # of this sequence
        scale = (self.UNITS * count.clamp(min=1)).float().square()
        variance = (count * squares - total.square()).float() / scale
        found = 1 + (self.STEPS * (variance - 1e-3).clamp(min=0).sqrt()).long()
        few = (count < 2) | (segments == 0)
        return torch.where(few, 0, found.clamp(max=self.ROWS - 1))


class TimeBias(nn.Module):
    """A learned number for every head and logarithmic distance in time, added to attention scores."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(LOG_BUCKETS, heads)
        nn.init.zeros_(self.table.weight)

    def forward(self, times: Tensor, mask: Tensor) -> Tensor:
        """Return the additive mask float [R, H, L, L]: -inf where bool [R, 1, L, L] forbids."""
        apart = log_bucket((times[:, :, None] - times[:, None, :]).abs())  # [R, L, L]
        bias = self.table(apart).permute(0, 3, 1, 2)  # [R, H, L, L]
        out: Tensor = bias.masked_fill(~mask, -torch.inf)
        return out
