"""What every vision model of the zoo promises: one forward over a batch of images."""

from __future__ import annotations

from torch import Tensor, nn


class VisionModel(nn.Module):
    """A network over images [B, 3, `image_size`, `image_size`]."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def example_inputs(self, phase: str, batch: int, prompt: int) -> dict[str, Tensor]:
        """Keyword arguments of `forward` for the `phase` 'forward' or 'train'; images have no `prompt`."""
        if phase not in ("forward", "train"):
            raise ValueError(f"phase {phase!r}: a vision model has 'forward' and 'train'")
        parameter = next(self.parameters())
        return {"images": parameter.new_zeros(batch, 3, self.image_size, self.image_size)}
