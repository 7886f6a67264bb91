"""A field as a module of torch: its parameters are what it is made of."""

import copy
from typing import Any

import torch

from tslim.device import backend
from tslim.errors import ConfigError, short
from tslim.field.field import Field
from tslim.rendering.pipeline import MarchConfig
from tslim.torch import pieces


class FieldModule(torch.nn.Module):
    """Makes a field's arrays parameters of torch's: on the CPU the same memory, nothing is copied.

    What an optimiser changes in place is at once what ``field`` renders, measures and saves. On a GPU the parameters
    are tensors of their own, which ``tslim.torch.render`` hands over whenever they have changed.

    Parameters, with components in chunks of 16 along the last axis, component 16 c + lane; those at and above the
    rank that is rendered get a gradient of zero:

    ==========================  ==========================================================================
    ``density_planes.m``        (chunks, G_v, G_u, 16) for mode m = 0, 1, 2; component k belongs to rank k + 1
    ``density_lines.m``         (chunks, G_w, 16)
    ``appearance_planes.m``     as of density; components 3 r - 3, 3 r - 2 and 3 r - 1 belong to rank r
    ``appearance_lines.m``
    ``basis``                   (chunks of appearance, 3 modes, 16, 27)
    ``rank_scales``             (max_rank, 56) scale and shift of each rank, if the field learns them
    ``decoder.w1`` …            as ``Field.decoder.state()``; none with spherical harmonics
    ==========================  ==========================================================================

    Args:
        field: what to train. It must keep its grid as long as the module is used.
        config: sampling; by default as the field was trained.
        device: where the parameters are on a GPU; torch's "cuda" if Taichi runs on that, else the host.

    Raises:
        ConfigError: what is no field.
        BackendError: the device computes wrong gradients.
    """

    def __init__(
        self, field: Field, *, config: MarchConfig | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(field, Field):
            raise ConfigError(f"cannot make a module of {short(field)}: expected a Field")
        backend.current().require_gradients()
        self.field = field
        self.config = config
        if device is None:
            device = "cuda" if backend.current().arch == "cuda" and torch.cuda.is_available() else "cpu"
        shares = backend.current().is_cpu
        self._pieces = pieces.of_field(field)
        self._handed_over: dict[str, tuple[int, int]] = {}
        """Of each parameter the memory and the version that the field has."""
        for name, piece in self._pieces.items():
            values = piece.view() if shares else piece.fetch(torch.device(device))
            self._add(name, torch.nn.Parameter(values))
        for name, parameter in self.named_parameters():
            self._handed_over[name] = (parameter.data_ptr(), parameter._version)

    def _add(self, name: str, parameter: torch.nn.Parameter) -> None:
        group, _, part = name.partition(".")
        if not part:
            self.register_parameter(group, parameter)
        elif part.isdigit():
            if part == "0":
                self.add_module(group, torch.nn.ParameterList())
            getattr(self, group).append(parameter)
        else:
            if not hasattr(self, group):
                self.add_module(group, torch.nn.ParameterDict())
            getattr(self, group)[part] = parameter

    def in_order(self) -> list[torch.nn.Parameter]:
        """The parameters in the order of ``pieces.of_field``."""
        named = dict(self.named_parameters())
        return [named[name] for name in self._pieces]

    def hand_over(self) -> None:
        """Gives the field what it does not have yet. ``tslim.torch.render`` calls it.

        Raises:
            ConfigError: the field has got another grid since the module was made.
        """
        found = pieces.of_field(self.field)
        if any(piece.place != self._pieces[name].place for name, piece in found.items()):
            raise ConfigError("the field has another grid than when its FieldModule was made: make another module")
        shares = backend.current().is_cpu
        for name, parameter in self.named_parameters():
            state = (parameter.data_ptr(), parameter._version)
            if state[0] == self._handed_over[name][0] if shares else state == self._handed_over[name]:
                continue
            self._pieces[name].load(parameter)
            if not shares:
                self._handed_over[name] = state

    def __deepcopy__(self, memo: dict[int, Any]) -> "FieldModule":
        """A module of a field of its own with the same values."""
        self.hand_over()
        other = FieldModule(copy.deepcopy(self.field), config=self.config, device=self.basis.device)
        for ours, theirs in zip(self.in_order(), other.in_order(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        return other.train(self.training)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuses to be pickled, which a shallow copy would be, too."""
        raise ConfigError("a FieldModule is not pickled: save its field or its state_dict; copy.deepcopy copies it")

    def forward(
        self,
        origins: torch.Tensor,
        directions: torch.Tensor,
        *,
        rank: "int | torch.Tensor | None" = None,
        background: tuple[float, float, float] | None = None,
        jitter: tuple[int, int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``tslim.torch.render`` of this field."""
        from tslim.torch.function import render

        return render(self, origins, directions, rank=rank, background=background, jitter=jitter)

    def extra_repr(self) -> str:
        """What torch prints of it first."""
        return repr(self.field)
