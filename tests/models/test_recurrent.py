"""Laws of the recurrent cells: chunked = whole, and the gates at their limits."""

from __future__ import annotations

import pytest
import torch

from evhands.models.recurrent import ConvGRU, recurrent_cell, run_sequence


def _sequence(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 6, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_chunked_equals_whole(name, cut):
    torch.manual_seed(1)
    cell, x = recurrent_cell(name, 3, 4), _sequence()
    whole, last = run_sequence(cell, x, None)
    first, state = run_sequence(cell, x[:, :cut], None)
    second, state = run_sequence(cell, x[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_state_given_is_not_written_into_and_the_past_does_not_see_the_future(name):
    torch.manual_seed(1)
    cell, x = recurrent_cell(name, 3, 4), _sequence()
    _, state = run_sequence(cell, x, None)
    before = [part.clone() for part in state]
    run_sequence(cell, _sequence(2), state)
    torch.testing.assert_close(list(state), before)
    changed = torch.cat([x[:, :4], _sequence(3)[:, 4:]], dim=1)
    torch.testing.assert_close(run_sequence(cell, changed, None)[0][:, :4], run_sequence(cell, x, None)[0][:, :4])


def test_closed_update_gate_of_the_gru_keeps_the_state():
    cell = ConvGRU(3, 4)
    torch.nn.init.zeros_(cell.update.weight)
    torch.nn.init.constant_(cell.update.bias, -100.0)
    state = (torch.randn(2, 4, 2, 2),)
    torch.testing.assert_close(run_sequence(cell, _sequence(), state)[1], state)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_outputs_stay_within_one_and_gradients_are_finite(name):
    torch.manual_seed(1)
    cell, x = recurrent_cell(name, 3, 4), (100 * _sequence()).requires_grad_()
    outputs, _ = run_sequence(cell, x, None)
    assert outputs.abs().max() <= 1
    outputs.square().sum().backward()
    assert torch.isfinite(x.grad).all()
