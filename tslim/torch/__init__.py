"""The renderer as a function of PyTorch, for losses and optimisers of its users.

::

    module = tslim.torch.FieldModule(field)                         # its parameters are the field's own memory
    rgb, depth, opacity = tslim.torch.render(module, origins, directions, rank=8)
    my_loss(rgb, depth, opacity).backward()                         # gradients of parameters, origins, directions

A ``Field`` itself may stand for the module where only rays are to learn. Importing this needs PyTorch.
"""

from tslim import optional

optional.need("torch", "tslim.torch")

from tslim.torch.field_module import FieldModule  # noqa: E402
from tslim.torch.function import render  # noqa: E402

__all__ = ["FieldModule", "render"]
