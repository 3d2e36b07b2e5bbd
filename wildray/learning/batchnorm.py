"""Batch normalisation over all workers, on any device.

In: a network. Out: the same network, whose batch normalisations share their statistics between workers, so that a
batch split over W workers trains exactly as on one. torch's SyncBatchNorm raises on CPU tensors; leaving each worker
its own statistics would make the result depend on ``scale.workers`` and let contrastive methods tell views apart by
their worker. Costs one small exchange per layer and direction.

Shapes: B samples on this worker, C channels, W workers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wildray.learning.gathering import gathered


class SharedBatchNorm(nn.Module):
    """Takes the place, the parameters and the state-dict keys of a batch normalisation.

    Args:
        norm: What it stands for; a ``BatchNormAct2d``'s activation and dropout are kept.
        num_workers: W.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm, *, num_workers: int) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum, self.num_workers = norm.eps, norm.momentum, num_workers
        extra = [norm.get_submodule(name) for name in ("drop", "act")] if isinstance(norm, BatchNormAct2d) else []
        self.after = nn.Sequential(*extra)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape, normalised with the statistics of all workers' samples (equal B)."""
        if not self.training:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return self._after(out)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # float64 stays, bfloat16 is widened
        own_var, own_mean = torch.var_mean(wide, dims, correction=0)
        # both at once, and combined as Chan et al. 1979 do: squares of large means would cancel
        mean_wc, var_wc = gathered(torch.stack([own_mean, own_var]).unsqueeze(0)).unbind(1)
        mean = mean_wc.mean(0)
        var = (var_wc + (mean_wc - mean).square()).mean(0)
        centred = wide - mean.view(shape)
        self._track(mean.detach(), var.detach(), num=x.numel() // x.shape[1] * self.num_workers)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return self._after(out.to(x.dtype))

    def _after(self, x: Tensor) -> Tensor:
        out = self.after(x)
        assert isinstance(out, Tensor)
        return out

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, *, num: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * num / max(1, num - 1), share)


def share_batchnorm(network: nn.Module, *, num_workers: int) -> nn.Module:
    """Replace every batch normalisation; with one worker the network is returned as it is.

    Args:
        network: Changed in place.
        num_workers: W; every worker must have equally many samples.
    """
    if num_workers == 1:
        return network
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, SharedBatchNorm(child, num_workers=num_workers))
        else:
            share_batchnorm(child, num_workers=num_workers)
    return network
