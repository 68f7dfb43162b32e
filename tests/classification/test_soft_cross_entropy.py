import pytest
import torch
import torch.nn.functional as F

from classification.soft_cross_entropy import soft_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_those_of_torch(dtype):
    torch.manual_seed(0)
    logits = (torch.randn(2, 20, 3, 4) * 3).to(dtype).requires_grad_()
    indices = torch.rand(2, 3, 4, 20).argsort(dim=-1)[..., :5]
    weights = torch.rand(2, 3, 4, 5).softmax(dim=-1)
    pixel_weights = torch.rand(2, 3, 4)
    target = torch.zeros(2, 3, 4, 20).scatter(-1, indices, weights).movedim(-1, 1)

    found = soft_cross_entropy(logits, indices, weights)
    (of_mine,) = torch.autograd.grad((pixel_weights * found).mean(), logits)
    expected = F.cross_entropy(logits.float(), target, reduction="none")
    (of_torch,) = torch.autograd.grad((pixel_weights * expected).mean(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_mine, of_torch)
    assert found.dtype == torch.float32
