"""Cross-entropy with sparse target distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def soft_cross_entropy(logits: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of every pixel (Zhang et al. 2016, equation 2, without class weights), in fp32 also under autocast.

    The backward pass computes softmax(logits) - target directly, in a quarter of the time of autograd on a CPU. It is
    not differentiable twice.

    logits: [N, Q, h, w]. indices: int64 [N, h, w, K], distinct bins of each pixel. weights: [N, h, w, K], their
    probabilities. Returns float32 [N, h, w].
    """
    return _SoftCrossEntropy.apply(logits, indices, weights)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits.movedim(1, -1), dim=-1, dtype=torch.float32)
        losses = -(weights * log_p.gather(-1, indices)).sum(dim=-1)
        ctx.save_for_backward(log_p.exp_().scatter_add_(-1, indices, -weights))
        ctx.dtype = logits.dtype
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        return (difference * grad[..., None]).to(ctx.dtype).movedim(-1, 1), None, None
