"""The radiance field: tensor factors in device arenas, basis, decoder and occupancy."""

import copy
import dataclasses
import math
import numbers
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernels import density
from kernels import rank_rows as row_kernels
from kernels.types import Values
from kernels.vm import Lattice
from tslim.config import FieldConfig, Precision
from tslim.decoder.decoder import Decoder
from tslim.device import buffers, memory
from tslim.errors import ConfigError, short
from tslim.field import basis, empty_space
from tslim.field.factors import Factors, capacity_for, grid_for
from tslim.field.occupancy import Occupancy
from tslim.model import model_file, ordering, rank_rows
from tslim.model.state import N_FEATURES, SCALES_WIDTH, FieldState, separate_ranks_of
from tslim.scene.domain import Colour, Domain, InDomain


class _Storage:
    """What a field and its slimmed views share."""

    def __init__(self, density: Factors, appearance: Factors) -> None:
        self.density = density
        self.appearance = appearance
        weakref.finalize(self, _release, density, appearance)


class Field(InDomain):
    """A radiance field over a box, with ``max_rank`` ranks of which the first ``rank`` are in use.

    Its box, grid, voxels and densities are in field coordinates: the world's where ``space`` is "box", else those of
    ``kernels.space``.

    Args:
        box: (2, 3) corners: minimum, maximum; as ``Scene.box``: of the field in the world ("box") or in NDC ("ndc"), or
            of the cube in the world that is not contracted ("contracted": the field's own box is then [-2, 2]³).
        config: what the field is made of.
        max_rank: overrides ``config.max_rank``.
        grid: side of the grid; the box gets about grid³ voxels (``FieldConfig.voxel_depth``: of which shape).
        max_grid: side up to which the grid can grow without new memory.
        seed: of the initial values.
        near, far: distances along a ray between which it is sampled, in world units; in "ndc" near is the distance of
            the near plane from the world's origin, and far limits nothing.
        space: "box", "ndc" or "contracted" (``tslim.data.geometry`` says what they are).
        background: colour behind the field, or None for the caller's choice.

    Raises:
        ConfigError: an impossible box, space, rank or grid.
    """

    def __init__(
        self,
        box: np.ndarray,
        config: FieldConfig | None = None,
        *,
        max_rank: int | None = None,
        grid: int = 128,
        max_grid: int | None = None,
        seed: int = 0,
        near: float = 0.0,
        far: float = 1e10,
        space: str = "box",
        background: Colour | None = (1.0, 1.0, 1.0),
    ) -> None:
        config = config or FieldConfig()
        if max_rank is not None:
            config = dataclasses.replace(config, max_rank=max_rank)
        domain = Domain.of(box, near=near, far=far, space=space, background=background)
        self._begin(domain, config, grid, max_grid or grid, seed)

    @classmethod
    def in_domain(cls, domain: Domain, config: FieldConfig, *, grid: int, max_grid: int, seed: int = 0) -> "Field":
        """A new field in a scene's domain. Arguments and errors otherwise as for ``Field``."""
        field = cls.__new__(cls)
        field._begin(domain, config, grid, max_grid, seed)
        return field

    def _begin(self, domain: Domain, config: FieldConfig, grid: int, max_grid: int, seed: int) -> None:
        if not 1 <= config.max_rank <= 256:
            raise ConfigError(f"max_rank {config.max_rank}: a field has 1 to 256 ranks")
        if grid < 4:
            raise ConfigError(f"grid {grid}: a grid has at least 4 texels a side")
        shape = grid_for(domain.box, grid, config.voxel_depth)
        self._make(config, domain, shape, max(grid, max_grid), np.random.default_rng(seed))
        self._initialise(np.random.default_rng([seed, 1]))

    def _make(
        self, config: FieldConfig, domain: Domain, grid: tuple[int, int, int], max_grid: int, rng: np.random.Generator
    ) -> None:
        self.config = config
        self.domain = domain
        self.rank = self.max_rank = config.max_rank
        self.metadata: dict[str, Any] = {}
        self.separate_ranks: tuple[int, int] | None = None
        """Ranks of density and of appearance where they differ (see ``FieldState.separate_ranks``)."""
        self._brackets: tuple[tuple[int, ...], tuple] | None = None
        """What ``interpolate_rows`` was last told, and what it hands to its kernel."""
        capacity = capacity_for(max_grid, config.voxel_depth)
        self._storage = _Storage(Factors(self.max_rank, grid, capacity), Factors(3 * self.max_rank, grid, capacity))
        self.basis = buffers.array(self.appearance.chunks * 3 * buffers.CHUNK * N_FEATURES)
        self.rank_scales = buffers.array(self.max_rank * SCALES_WIDTH)
        self.decoder = Decoder(config, rng)
        self.occupancy: Occupancy | None = None
        buffers.write(self.rank_scales, _neutral_rank_scales(self.max_rank))

    def _initialise(self, rng: np.random.Generator) -> None:
        """Factors 0.1 N(0, 1), basis uniform within ±1/sqrt(9 R) as torch's ``nn.Linear``."""
        scale = self.config.init_scale
        for factors in (self.density, self.appearance):
            shapes = factors._shapes()
            k = factors.components
            factors.put(
                [scale * rng.standard_normal((k, *plane), dtype=np.float32) for plane, _ in shapes],
                [scale * rng.standard_normal((k, length), dtype=np.float32) for _, length in shapes],
            )
        bound = (9 * self.max_rank) ** -0.5
        basis.to_device(rng.uniform(-bound, bound, (3, 3 * self.max_rank, N_FEATURES)), self.basis)

    # -- what it is made of ------------------------------------------------------------------------------------------

    @property
    def density(self) -> Factors:
        """Planes and lines of density."""
        return self._storage.density

    @property
    def appearance(self) -> Factors:
        """Planes and lines of appearance."""
        return self._storage.appearance

    @property
    def grid(self) -> tuple[int, int, int]:
        """Texels along x, y, z."""
        return self.density.grid

    @property
    def texels_per_unit(self) -> np.ndarray:
        """(3,) texel spacings per unit of the field; texels sit on the box's corners."""
        return (np.asarray(self.grid, np.float32) - 1) / (self.box[1] - self.box[0])

    @property
    def voxel(self) -> float:
        """Mean side of a voxel, in units of the field."""
        return float(np.mean(1 / self.texels_per_unit))

    def lattice(self, factors: Factors) -> Values:
        """The kernel argument ``kernels.vm.Lattice``: where the texels of density or appearance lie."""
        return Lattice(
            box_min=self.box[0], texels_per_unit=self.texels_per_unit, layout=factors.layout,
            contracted=int(self.space == "contracted"),
        )  # fmt: skip

    @property
    def activation(self) -> Values:
        """The kernel argument ``kernels.density.Activation``."""
        return density.Activation(
            shift=self.config.density_shift, use_softplus=int(self.config.density_activation == "softplus")
        )

    @property
    def nbytes(self) -> int:
        """Bytes of device memory held."""
        return self.density.nbytes + self.appearance.nbytes + self.decoder.nbytes

    @staticmethod
    def predicted_bytes(config: FieldConfig, side: int) -> int:
        """Device memory that the factors of a field of this grid side will take."""
        chunks = -(-config.max_rank // buffers.CHUNK) + -(-3 * config.max_rank // buffers.CHUNK)
        return 4 * buffers.CHUNK * chunks * capacity_for(side, config.voxel_depth)

    def __repr__(self) -> str:
        ranks = f"{self.rank} rank{'s' if self.rank > 1 else ''}"
        if self.rank < self.max_rank:
            ranks = f"{self.rank} of {self.max_rank} ranks"
        grid = "×".join(map(str, self.grid))
        scene = f" of {self.metadata['scene']}" if "scene" in self.metadata else ""
        return f"<Field{scene}: {ranks}, grid {grid}, space {self.space}, decoder {self.config.decoder}>"

    # -- choosing a size ---------------------------------------------------------------------------------------------

    def slim(self, rank: int | None = None, *, max_mb: float | None = None) -> "Field":
        """A view with fewer ranks: shares all memory, changes nothing, costs nothing.

        Args:
            rank: ranks to keep.
            max_mb: or the size in MB (10^6 bytes) that the written file may have.

        Raises:
            ConfigError: a rank outside 1..rank, or no rank fits.
        """
        if max_mb is not None and rank is None:
            rank = model_file.rank_that_fits(self.state(), max_mb)
        elif rank is None or max_mb is not None:
            raise ConfigError("slim needs either a rank or max_mb")
        view, rank = copy.copy(self), self.rank_or_all(rank)
        view.rank = rank
        view.metadata = dict(self.metadata)
        return view

    def rank_or_all(self, rank: int | None) -> int:
        """A rank that was asked for, all ranks if None. Raises ``ConfigError`` for one that the field does not have."""
        rank = self.rank if rank is None else rank
        if not isinstance(rank, numbers.Integral) or not 1 <= rank <= self.rank:
            raise ConfigError(f"rank {short(rank)}: this field has ranks 1 to {self.rank}")
        return int(rank)

    def reorder(self) -> None:
        """Puts all ranks in order, so that the field can be slimmed: training at full rank alone leaves them in none.

        See ``ordering.reordered`` for what changes at full rank, and what is raised. Views share what is changed.
        """
        whole = copy.copy(self)
        whole.rank = self.max_rank
        state = ordering.reordered(whole.state())
        self._put(state)
        self.metadata |= state.metadata

    # -- host copies -------------------------------------------------------------------------------------------------

    def state(self) -> FieldState:
        """Host copy of the first ``rank`` ranks."""
        density, appearance = self.density.get(self.rank), self.appearance.get(3 * self.rank)
        rank_scales = buffers.read(self.rank_scales).reshape(-1, SCALES_WIDTH)[: self.rank]
        return FieldState(
            config=dataclasses.replace(self.config, max_rank=self.rank),
            domain=self.domain,
            grid=self.grid,
            density_planes=density[0],
            density_lines=density[1],
            appearance_planes=appearance[0],
            appearance_lines=appearance[1],
            basis=basis.to_host(self.basis, 3 * self.rank),
            rank_scales=rank_scales if self.config.rank_scales else None,
            decoder=self.decoder.state(),
            occupancy=self.occupancy.to_cells() if self.occupancy else None,
            occupancy_box=self.occupancy.box if self.occupancy else None,
            metadata=copy.deepcopy(self.metadata),
            separate_ranks=separate_ranks_of(self.separate_ranks, self.rank),
        )

    @classmethod
    def from_state(cls, state: FieldState, *, max_grid: int | None = None) -> "Field":
        """A field with the given values. Raises ``OutOfMemoryError`` if there is no room for it."""
        side = math.ceil(math.prod(state.grid) ** (1 / 3))
        memory.require({"field": cls.predicted_bytes(state.config, max(side, max_grid or 0))}, "a lower rank")
        field = cls.__new__(cls)
        field._make(
            state.config, state.domain, state.grid, max(side, max_grid or 0), np.random.default_rng(0)
        )  # fmt: skip
        field._put(state)
        field.decoder.load_state(state.decoder)
        if state.occupancy is not None:
            box = field.box if state.occupancy_box is None else state.occupancy_box
            field.occupancy = Occupancy.from_cells(state.occupancy, box)
        field.metadata = copy.deepcopy(state.metadata)
        field.separate_ranks = state.separate_ranks
        return field

    def __deepcopy__(self, memo: dict[int, Any]) -> "Field":
        """A field of its own with the ranks in use, the grid and the values of this one."""
        return Field.from_state(self.state())

    def _put(self, state: FieldState) -> None:
        """Takes on planes, lines, basis, and scales and shifts per rank of a state of the same grid and rank."""
        self.density.put(state.density_planes, state.density_lines)
        self.appearance.put(state.appearance_planes, state.appearance_lines)
        basis.to_device(state.basis, self.basis)
        if state.rank_scales is not None:
            buffers.write(self.rank_scales, np.asarray(state.rank_scales, np.float32).ravel())

    def save(self, path: str | Path, *, precision: Precision = "float16", rounding: float | None = None) -> Path:
        """Writes the first ``rank`` ranks as a model file.

        Args:
            precision: "float16", "float32" or "compact".
            rounding: how coarse a compact file is (see ``model_file.convert``, which also says what is raised).
        """
        return model_file.write(model_file.convert(self.state(), precision, rounding), path)

    # -- evaluating and reshaping ------------------------------------------------------------------------------------

    def density_at(self, points: np.ndarray, rank: int | np.ndarray | None = None) -> np.ndarray:
        """Density (n,) at points (n, 3) in field coordinates, at one rank or one for each point; 0 outside the box."""
        from tslim.field.query import density_at

        return density_at(self, points, rank)

    def query(
        self, points: np.ndarray, directions: np.ndarray, *, rank: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What there is at points of the world, whatever space the field lies in.

        Args:
            points: (..., 3) in world units.
            directions: (..., 3), or one (3,) for all points: where somebody who sees them looks; normalised here.
            rank: ranks to use, 1 to the field's; all if None.

        Returns:
            ``rgb`` (..., 3), sRGB in [0, 1]; and ``density`` (...), such that of the light that goes a short way s
            along the direction the part 1 - exp(-density s) is stopped. It is 0 outside the field's box. In spaces
            other than a box it depends on the direction, as lengths do there. What was measured to be empty is not
            left out, as it is when views are rendered.

        Raises:
            ConfigError: shapes that do not fit, a direction without length, or a rank that the field does not have.
        """
        from tslim.field.query import query

        return query(self, points, directions, rank)

    def refresh_occupancy(self, ranks: list[int], delta: float, threshold: float, *, within: bool = True) -> float:
        """Measures empty space anew and returns the share of cells that are occupied.

        Args:
            ranks: a cell counts as occupied if it is at any of these ranks, which are in rising order.
            delta: length of the step whose alpha 1 - exp(-sigma delta) is compared, in units of the field. As in the
                public code there is no distance scale in it.
            threshold: alpha above which a lattice vertex is live.
            within: what was empty before stays empty.
        """
        self.occupancy = empty_space.measured(self, ranks, delta, threshold, self.occupancy if within else None)
        return self.occupancy.share()

    def prepare(self, scratch: tuple[Factors, Factors]) -> None:
        """Loads the kernels that the first measuring of empty space and the first growth would have to wait for.

        ``scratch``: what ``grow`` and ``shrink`` will be given.
        """
        empty_space.prepare(self)
        for factors, other in zip((self.density, self.appearance), scratch, strict=True):
            factors.prepare(other)

    def grow(self, side: int, scratch: "tuple[Factors, Factors] | None" = None) -> None:
        """Resamples the factors to a finer grid of about side³ voxels (``scratch``: see ``Factors.resample``)."""
        grid = grid_for(self.box, side, self.config.voxel_depth)
        scale = (np.asarray(self.grid, np.float32) - 1) / (np.asarray(grid, np.float32) - 1)
        self._resample(grid, scale, np.zeros(3), scratch)

    def shrink(self, box: np.ndarray, scratch: "tuple[Factors, Factors] | None" = None) -> None:
        """Crops the field to the texels that enclose ``box``; values at the remaining texels do not change."""
        per_unit = self.texels_per_unit
        first = np.floor((box[0] - self.box[0]) * per_unit + 1e-4).astype(int)
        last = np.ceil((box[1] - self.box[0]) * per_unit - 1e-4).astype(int)
        first = np.clip(first, 0, np.asarray(self.grid) - 4)
        last = np.clip(last, first + 3, np.asarray(self.grid) - 1)
        grid = tuple(int(n) for n in last - first + 1)
        low = self.box[0]
        self.domain = self.domain.with_box(np.stack([low + first / per_unit, low + last / per_unit]))
        self._resample(grid, np.ones(3), first, scratch)

    def interpolate_rows(self, rendered: Sequence[int]) -> None:
        """Sets the scale and shift of every rank that is not among ``rendered`` by interpolating between the nearest
        that are.

        To be called after each change of the rendered ranks' rows: the other ranks' are not learned, and would be left
        behind. Ranks below the first and above the last rendered one take its row, and start from there once they are
        rendered. Notes the ranks in the metadata. Raises ``ConfigError`` if none of them is a rank of the field.
        """
        if self._brackets is None or self._brackets[0] != tuple(rendered):
            below, above, share = rank_rows.brackets(self.max_rank, rendered)
            self._brackets = tuple(rendered), (buffers.upload(below), buffers.upload(above), buffers.upload(share))
        self.metadata[rank_rows.RENDERED] = list(rendered)
        if self.config.rank_scales:
            row_kernels.interpolate_rows(self.max_rank, *self._brackets[1], self.rank_scales)

    def _resample(self, grid, scale: np.ndarray, shift: np.ndarray, scratch) -> None:
        for i, factors in enumerate((self.density, self.appearance)):
            factors.resample(grid, scale, shift, scratch[i] if scratch else None)


def _neutral_rank_scales(max_rank: int) -> np.ndarray:
    """Scales 1 and shifts 0 for every rank."""
    row = np.zeros(SCALES_WIDTH, np.float32)
    row[0] = 1
    row[2 : 2 + N_FEATURES] = 1
    return np.tile(row, max_rank)


def _release(density: Factors, appearance: Factors) -> None:
    density.release()
    appearance.release()
