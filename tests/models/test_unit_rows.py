"""Rows of length 1: values and gradients are those of PyTorch's own, whichever rows have a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.models.unit_rows import SMALLEST, unit_rows

V, D = 300, 24


def gradients(table: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient by the table through ours, and through PyTorch's."""
    table = table.clone().requires_grad_()
    return tuple(torch.autograd.grad(f(table), table, grad)[0] for f in (unit_rows, F.normalize))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("read", [0, 1, 40, V])
def test_values_and_gradients_are_pytorchs(dtype: torch.dtype, read: int) -> None:
    draw = torch.Generator().manual_seed(read)
    table = torch.randn(V, D, dtype=dtype, generator=draw)
    table[0] = 0  # PAD
    table[1] *= 0.01 * SMALLEST
    grad = torch.zeros(V, D, dtype=dtype)
    rows = torch.cat([torch.arange(min(read, 2)), torch.randperm(V, generator=draw)[:read]])
    grad[rows] = torch.randn(len(rows), D, dtype=dtype, generator=draw)
    table.requires_grad_()
    assert torch.equal(unit_rows(table), F.normalize(table, dim=1))
    ours, theirs = gradients(table.detach(), grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert not ours[(grad == 0).all(1)].any()


def test_the_gradient_is_the_functions() -> None:
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unit_rows(x)[[0, 3, 3]], table)


def test_a_gradient_that_is_no_number_stays_one() -> None:
    grad = torch.zeros(V, D)
    grad[7, 3] = torch.nan
    ours, theirs = gradients(torch.ones(V, D), grad)
    assert ours[7].isnan().all() and theirs[7].isnan().all()
    assert ours.isnan().sum() == D


def test_what_needs_no_gradient_has_none() -> None:
    table = torch.randn(V, D, requires_grad=True)
    with torch.no_grad():
        rows = unit_rows(table)
    assert not rows.requires_grad and not unit_rows(table.detach()).requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(V))
    assert unit_rows(torch.zeros(0, D)).shape == (0, D)
