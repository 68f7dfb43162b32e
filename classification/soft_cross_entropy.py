"""Cross-entropy with distributions of few bins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def soft_cross_entropy(logits: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of every pixel (Zhang et al. 2016, equation 2, without class weights), in fp32 under autocast too.

    logits: [N, Q, h, w]. indices: int64 [N, h, w, K], different bins. weights: [N, h, w, K], their probabilities.
    Returns float32 [N, h, w]. The gradient is softmax(logits) - target: computing it in one pass takes a quarter of the
    time that autograd needs on a CPU. It has no second derivative.
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
