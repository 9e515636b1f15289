"""Laws of the FlowNet: sizes of the paper, scales upsampled by nearest neighbour, shift covariance, gradients."""

from __future__ import annotations

import torch

from evhands.models.cost import count
from evhands.models.flow import FlowConfig, FlowNet

TINY = FlowConfig(base_channels=4, levels=3, residual_blocks=1)


def _voxels(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 32, 32, generator=torch.Generator().manual_seed(0))


def test_sizes_of_the_paper():
    with torch.device("meta"):
        parameters, macs = count(FlowNet(FlowConfig()), torch.zeros(1, 5, 128, 128))
    assert round(parameters / 1e6, 2) == 14.13
    assert round(macs / 1e9, 2) == 3.29


def test_flow_is_bounded_and_coarse_scales_are_constant_on_their_cells():
    torch.manual_seed(0)
    with torch.no_grad():
        flows = FlowNet(TINY).eval()(_voxels())
    assert flows.shape == (2, 3, 2, 32, 32)
    assert flows.abs().max() <= 1
    for level, cell in enumerate((4, 2)):
        cells = flows[:, level].unflatten(-1, (-1, cell)).unflatten(-3, (-1, cell))
        torch.testing.assert_close(cells, cells[..., :1, :, :1].expand_as(cells))


def test_windows_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    net, voxels = FlowNet(TINY).eval(), _voxels()
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([net(voxels[:1]), net(voxels[1:])]), net(voxels))


def test_every_parameter_gets_a_finite_gradient():
    torch.manual_seed(0)
    net = FlowNet(TINY)
    net(_voxels()).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
