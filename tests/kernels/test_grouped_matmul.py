import pytest
import torch

from hwsim.kernels.grouped_matmul import grouped_matmul, grouped_matmul_backward, reference


def example(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten rows over four experts, of which the third gets none."""
    expert_of_row = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3, 3])
    return torch.randn(10, 16, dtype=dtype), torch.randn(4, 24, 16, dtype=dtype), expert_of_row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_row_by_row(dtype: torch.dtype) -> None:
    x, weight, expert_of_row = example(dtype)
    torch.testing.assert_close(grouped_matmul(x, weight, expert_of_row), reference(x, weight, expert_of_row))


def test_gradients_equal_row_by_row() -> None:
    x, weight, expert_of_row = example()
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    seed = torch.randn(10, 24)
    fast = torch.autograd.grad(grouped_matmul(x, weight, expert_of_row), inputs, seed)
    slow = torch.autograd.grad(reference(x, weight, expert_of_row), inputs, seed)
    torch.testing.assert_close(fast, slow)
    assert fast[1][2].abs().max() == 0  # the expert without rows


def test_op_is_sound() -> None:
    torch.library.opcheck(grouped_matmul, example())
    grad = torch.randn(10, 24)
    torch.library.opcheck(grouped_matmul_backward, (grad, *example()))


def test_traces_without_data() -> None:
    x, weight, expert_of_row = (tensor.to("meta") for tensor in example())
    assert grouped_matmul(x, weight, expert_of_row).shape == (10, 24)
