"""Linear layers in 8-bit integers, for x86 processors: nearly the same outputs in less time. Needs torch with oneDNN."""

from __future__ import annotations

import platform

import torch
from torch import nn

from ragkit.errors import InputError

# processors without VNNI add two products in 16 bits: 2 * 127 * 127 fits, 2 * 255 * 127 does not
_STEPS = 127


class Int8Linear(nn.Module):
    """Multiplies as `nn.Linear` does, with each row of the weight and each row of the input as integers of a scale of its own.

    So neither what else is in a batch nor padding has a part in how a token is rounded. Weights that come from int8 rows, as
    those of ragkit's own format do, are kept exactly; of an input's row there are 128 values between its least and its greatest.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Reads weight and bias once: what is done to `linear` later has no effect."""
        super().__init__()
        weight = linear.weight.detach().float()
        self._scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        rows = torch.round(weight / self._scale[:, None])
        self._sums = rows.sum(1) * self._scale
        # what rounding lost, as far as inputs are alike; the rest of a row is around zero, not above its least value
        self._lost = weight.sum(1) - self._sums
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        # public, as in nn.Linear: the T5 family asks for the type of its weights
        self.weight = torch.ops.onednn.qlinear_prepack(rows.to(torch.int8), None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., inputs] float32 to [..., outputs] float32. Rows that are not finite give rows that are not."""
        x = inputs.reshape(-1, inputs.shape[-1])
        least = x.amin(1, keepdim=True)
        step = (x.amax(1, keepdim=True) - least).clamp_(min=1e-12).div_(_STEPS)
        # half a step more, for the conversion cuts off; up to 127 the two 8-bit types are the same, and to int8 it is vectorised
        integers = x.sub(least - step / 2).mul_(1 / step).to(torch.int8).view(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            integers, 1.0, 0, self.weight, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        # x is least + step * integers
        outputs = torch.addcmul(self._bias, products, step).addcmul_(least, self._sums)
        outputs.addcmul_(x.mean(1, keepdim=True), self._lost)
        return outputs.view(*inputs.shape[:-1], -1)


def to_int8(module: nn.Module) -> None:
    """Replace every `nn.Linear` below `module`, which must be on the CPU, by an `Int8Linear`. It cannot be trained after that."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)


def check_int8(device: str) -> None:
    """Raises `InputError` where `to_int8` does not work: on a GPU, on another processor, with a torch without oneDNN."""
    if not device.startswith("cpu"):
        raise InputError(f"dtype: int8 is for the CPU, not for {device!r}; pass device='cpu', or bfloat16 there")
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if platform.machine().lower() not in ("x86_64", "amd64") or not onednn:
        raise InputError("dtype: int8 needs an x86 processor and a torch that was built with oneDNN; pass float32")
