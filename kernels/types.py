"""The types that kernels name: vectors, flat arrays, and *records*, which are structs of numbers.

A kernel takes arrays one by one, and the numbers that belong together in a record::

    @record
    class Lattice:
        box_min: vec3
        grid: ivec3

        @ti.func
        def ...

    lattice = Lattice(box_min=(-1, -1, -1), grid=(128, 128, 128))  # once, on the host
    some_kernel(n, lattice, ...)                                     # as often as wanted

Records may hold numbers, vectors and other records, and have ``ti.func`` methods. What the host makes of one is a
``Values``: checked when it is made, never changed, and launched without another look (``kernels.launch``).

Triples (xyz, rgb) lie side by side in flat arrays; ``load3`` and ``store3`` read and write them.
"""

import taichi as ti
from taichi.lang import impl, struct
from taichi.lang.matrix import MatrixType

vec2 = ti.types.vector(2, ti.f32)
vec3 = ti.types.vector(3, ti.f32)
vec4 = ti.types.vector(4, ti.f32)
ivec3 = ti.types.vector(3, ti.i32)
f32_1d = ti.types.ndarray(dtype=ti.f32, ndim=1)
f32_2d = ti.types.ndarray(dtype=ti.f32, ndim=2)
i32_1d = ti.types.ndarray(dtype=ti.i32, ndim=1)
u32_1d = ti.types.ndarray(dtype=ti.u32, ndim=1)


@ti.func
def load3(a: ti.template(), i: ti.i32) -> vec3:
    """Triple i of a flat array."""
    return vec3(a[3 * i], a[3 * i + 1], a[3 * i + 2])


@ti.func
def store3(a: ti.template(), i: ti.i32, value: vec3):
    """Overwrites triple i of a flat array."""
    for axis in ti.static(range(3)):
        a[3 * i + axis] = value[axis]


class Record(struct.StructType):
    """The type of a record: what a kernel's parameter is annotated with, and what makes ``Values`` on the host."""

    def __init__(self, name: str, members: dict) -> None:
        super().__init__(**members)
        self.name = name
        self.__module__ = struct.__name__  # kernels are warned when they call what is not Taichi's

    def __call__(self, *args, **members):
        """``Values`` on the host, a struct inside a kernel; members in their order or by their names."""
        members = dict(zip(self.members, args, strict=False)) | members
        return super().__call__(**members) if impl.inside_kernel() else Values(self, members)

    def from_taichi_object(self, func_ret, ret_index=()):
        """Members of a kernel's argument.

        Taichi copies them into variables in front of the kernel's loop, which makes of each a global number that every
        turn of the loop loads anew, and of the copying a task of its own. Here they stay arguments where they are used.
        """
        before = struct.Struct
        struct.Struct = getattr(struct, "_IntermediateStruct", before)
        try:
            made = super().from_taichi_object(func_ret, ret_index)
        finally:
            struct.Struct = before
        return made

    @property
    def leaves(self) -> list[tuple[tuple[int, ...], object]]:
        """Place and type of each number, vectors and inner records taken apart."""
        found = []
        for at, kind in enumerate(self.members.values()):
            if isinstance(kind, Record):
                found += [((at, *place), number) for place, number in kind.leaves]
            elif isinstance(kind, MatrixType):
                found += [((at, i), kind.dtype) for i in range(kind.n)]
            else:
                found.append(((at,), kind))
        return found


class Values:
    """The values of a record on the host. Members are read by name; ``replace`` makes a record that differs in some."""

    __slots__ = ("_members", "_struct", "numbers", "record")

    def __init__(self, record: Record, members: dict) -> None:
        if members.keys() != record.members.keys():
            raise TypeError(f"{record.name} is made of {', '.join(record.members)}, not of {', '.join(members)}")
        self.record = record
        self._struct = None
        self._members = {
            name: _checked(members[name], kind, f"{record.name}.{name}") for name, kind in record.members.items()
        }
        numbers = []
        for value in self._members.values():
            numbers += value.numbers if isinstance(value, Values) else value if isinstance(value, tuple) else (value,)
        self.numbers = tuple(numbers)
        """All numbers, in the order of ``Record.leaves``."""

    def __getattr__(self, name: str):
        try:
            return self._members[name]
        except KeyError:
            raise AttributeError(f"{self.record.name} has no {name}") from None

    def replace(self, **members) -> "Values":
        """The same record but for these members."""
        return Values(self.record, self._members | members)

    def as_struct(self):
        """As Taichi launches it by itself."""
        if self._struct is None:
            members = {n: v.as_struct() if isinstance(v, Values) else v for n, v in self._members.items()}
            self._struct = super(Record, self.record).__call__(**members)
        return self._struct

    def __repr__(self) -> str:
        return f"{self.record.name}({', '.join(f'{n}={v!r}' for n, v in self._members.items())})"


def _checked(value, kind, name: str):
    """The value as a Python number, a tuple of them or ``Values``. Raises ``TypeError`` if it is not of the kind."""
    if isinstance(kind, Record):
        if not isinstance(value, Values) or value.record is not kind:
            raise TypeError(f"{name}: a {kind.name}, not {value!r}")
        return value
    try:
        if isinstance(kind, MatrixType):
            number = float if kind.dtype == ti.f32 else _whole
            numbers = tuple(map(number, value))
            if len(numbers) == kind.n:
                return numbers
        else:
            return float(value) if kind == ti.f32 else _whole(value)
    except TypeError:
        pass
    raise TypeError(f"{name}: {kind.to_string()}, not {value!r}") from None


def _whole(value) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError
    return value.__index__()


def record(made_of: type) -> Record:
    """Makes a record of a class of annotated members and ``ti.func`` methods."""
    plain = ti.dataclass(made_of)
    return Record(made_of.__name__, {**plain.members, "__struct_methods": plain.methods})
