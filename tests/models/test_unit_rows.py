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
    assert torch.equal(ours, theirs)


def test_only_rows_with_a_gradient_are_gone_back_through() -> None:
    """A row that is NaN and is not read would have a NaN of PyTorch's, which divides all of them."""
    table = torch.ones(V, D)
    table[5] = torch.nan
    grad = torch.zeros(V, D)
    grad[3] = 1.0
    ours, theirs = gradients(table, grad)
    assert torch.equal(ours[3], theirs[3])
    assert theirs[5].isnan().all() and not ours[5].any()
    elsewhere = torch.ones(V, D, device="meta", requires_grad=True)
    assert type(unit_rows(elsewhere).grad_fn) is type(F.normalize(elsewhere, dim=1).grad_fn)


def test_the_gradient_is_the_functions() -> None:
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unit_rows(x)[[0, 3, 3]], table)


def test_a_gradient_that_is_no_number_stays_one() -> None:
    grad = torch.zeros(V, D)
    grad[7, 3] = torch.nan
    ours, theirs = gradients(torch.ones(V, D), grad)
    assert ours[7].isnan().all() and theirs[7].isnan().all()
    assert ours.isnan().sum() == D


def test_compiled_it_is_one_graph_of_pytorchs() -> None:
    compiled = torch.compile(unit_rows, backend="aot_eager", fullgraph=True)
    table, grad = torch.randn(V, D, requires_grad=True), torch.randn(V, D)
    found = [torch.autograd.grad(f(table), table, grad)[0] for f in (compiled, F.normalize)]
    torch.testing.assert_close(*found)


def test_what_needs_no_gradient_has_none() -> None:
    table = torch.randn(V, D, requires_grad=True)
    with torch.no_grad():
        rows = unit_rows(table)
    assert not rows.requires_grad and not unit_rows(table.detach()).requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(V))
    nothing = torch.zeros(0, D, requires_grad=True)
    unit_rows(nothing).sum().backward()
    assert nothing.grad is not None and nothing.grad.shape == (0, D)
