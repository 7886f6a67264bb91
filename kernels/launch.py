"""How kernels of ours are launched: ``kernel`` and ``vector_kernel`` stand where others write ``ti.kernel``.

Taichi 1.7 looks at every argument of a call twice, through several layers: some 5 µs each, up to 0.2 ms for a kernel of
ours, of which a training step launches twenty. Here the second call and all that follow it hand numbers, vectors,
records and arrays straight to the compiled code; nothing is remembered of them. Whatever is not exactly what the kernel
declares goes the way of Taichi, which has the error messages, and so does everything that autodiff records.

What is used of Taichi here is not its public interface (requirements.txt keeps to 1.7). Each time that Taichi starts, a
small kernel is launched both ways first: if the two differ, or a part is missing, all launches go Taichi's way.
"""

import taichi as ti
from taichi.lang import impl
from taichi.lang.matrix import MatrixType
from taichi.types.ndarray_type import NdarrayType

from kernels.types import Record, Values, f32_1d, ivec3, record, vec3

_CPU = (ti.x64, ti.arm64)
_ARRAYS = {"f32": "<f4", "i32": "<i4", "u32": "<u4"}
"""As numpy calls them."""
_PUT_NUMBER = {"f32": "float", "i32": "int", "u32": "uint"}
"""As the methods of Taichi's launch context call them."""


def kernel(function):
    """``ti.kernel`` with quicker calls. Template arguments must be plain values."""
    return _Launcher(ti.kernel(function), whole_vectors=False).function


def vector_kernel(function):
    """A ``kernel`` that the CPU computes with whole vectors (see ``kernels.vectors``)."""
    return _Launcher(ti.kernel(function), whole_vectors=True).function


class _UnusualError(Exception):
    """An argument that is Taichi's business."""


class _Launcher:
    """One kernel and what it was compiled to, for ``runtime``, which Taichi replaces when it starts anew."""

    def __init__(self, taichi_kernel, whole_vectors: bool) -> None:
        self.taichi_kernel, self.whole_vectors = taichi_kernel, whole_vectors
        self.runtime = None
        self.templates: list[int] = []
        """Places of the template arguments."""
        self.puts: list = []
        """For each argument a function that hands it to a launch."""
        self.ready: dict[tuple, tuple] = {}
        """Values of the template arguments → compiled code, and Taichi's kernel that it belongs to."""
        self.function = self._function()

    def _function(self):
        ready = self.ready

        def launch(*args):
            if not ready or len(args) != len(self.puts):
                self.launch_slowly(args)
                return
            runtime = impl.get_runtime()
            key = tuple([args[i] for i in self.templates])
            if runtime is not self.runtime or key not in ready or runtime.target_tape or runtime.fwd_mode_manager:
                self.launch_slowly(args)
                return
            code, compiled = ready[key]
            context = compiled.make_launch_context()
            try:
                for put, value in zip(self.puts, args, strict=True):
                    put(context, value)
            except _UnusualError:
                self.launch_slowly(args)
            else:
                runtime.prog.launch_kernel(code, context)

        launch.__module__, launch.__name__ = self.taichi_kernel.__module__, self.taichi_kernel.__name__
        launch.__doc__ = self.taichi_kernel.__doc__
        return launch

    def launch_slowly(self, args: tuple) -> None:
        """Launches Taichi's way, and has the next call with the same template arguments go the quick way."""
        config = ti.cfg
        before = config.real_matrix_scalarize
        passed = [arg.as_struct() if isinstance(arg, Values) else arg for arg in args]
        try:
            config.real_matrix_scalarize = before and not (self.whole_vectors and config.arch in _CPU)
            self.taichi_kernel(*passed)
            if _is_trusted():
                self.make_ready(passed)
        finally:
            config.real_matrix_scalarize = before

    def make_ready(self, args: list) -> None:
        """Looks up what Taichi has compiled for these arguments."""
        runtime, primal = impl.get_runtime(), self.taichi_kernel._primal
        if runtime is not self.runtime:
            self.ready.clear()
            self.runtime = runtime
            annotations = [argument.annotation for argument in primal.arguments]
            self.templates = [i for i, annotation in enumerate(annotations) if isinstance(annotation, ti.template)]
            before = [sum(t < i for t in self.templates) for i in range(len(annotations))]
            self.puts = [_put(i - before[i], annotation) for i, annotation in enumerate(annotations)]
        key = tuple(args[i] for i in self.templates)
        if key not in self.ready and not runtime.target_tape and not runtime.fwd_mode_manager:
            compiled = primal.compiled_kernels[primal.ensure_compiled(*args)]
            program = runtime.prog
            self.ready[key] = program.compile_kernel(program.config(), program.get_device_caps(), compiled), compiled


def _put(at: int, annotation):
    """A function (context, value) that makes value the argument ``at`` of a launch, or raises ``_UnusualError``."""
    if isinstance(annotation, ti.template):
        return lambda context, value: None
    if isinstance(annotation, NdarrayType):
        return _put_array((at,), annotation)
    if isinstance(annotation, Record):
        return _put_record(at, annotation)
    if isinstance(annotation, MatrixType):
        return _put_vector(at, annotation)
    return _put_number((at,), annotation)


def _put_number(place: tuple, dtype):
    types = _numbers(dtype)
    method = f"set_arg_{_PUT_NUMBER[str(dtype)]}"

    def put(context, value):
        if type(value) not in types:
            raise _UnusualError
        getattr(context, method)(place, value)

    return put


def _put_record(at: int, annotation: Record):
    puts = [(f"set_struct_arg_{_PUT_NUMBER[str(dtype)]}", (at, *place)) for place, dtype in annotation.leaves]

    def put(context, value):
        if type(value) is not Values or value.record is not annotation:
            raise _UnusualError
        for (method, place), number in zip(puts, value.numbers, strict=True):
            getattr(context, method)(place, number)

    return put


def _put_vector(at: int, annotation):
    types, places = _numbers(annotation.dtype), [(at, i) for i in range(annotation.n)]
    method = f"set_struct_arg_{_PUT_NUMBER[str(annotation.dtype)]}"

    def put(context, value):
        if len(value) != len(places):
            raise _UnusualError
        put_one = getattr(context, method)
        for place, number in zip(places, value, strict=True):
            if type(number) not in types:
                raise _UnusualError
            put_one(place, number)

    return put


def _put_array(place: tuple, annotation):
    """Arrays in the order of C, of the type and number of dimensions that the kernel names."""
    of_vectors = isinstance(annotation.dtype, MatrixType)
    element = annotation.dtype.get_shape() if of_vectors else ()
    dtype = annotation.dtype.dtype if of_vectors else annotation.dtype
    kind, dimensions = _ARRAYS[str(dtype)], annotation.ndim

    def put(context, value):
        array = getattr(value, "__array_interface__", None)
        if array is None:
            put_device_array(context, value)
            return
        if array["typestr"] != kind or array["strides"] is not None:
            raise _UnusualError
        shape = array["shape"]
        if len(shape) != dimensions + len(element) or shape[dimensions:] != element:
            raise _UnusualError
        context.set_arg_external_array_with_shape(place, array["data"][0], value.nbytes, shape[:dimensions], 0)

    def put_device_array(context, value):
        if not isinstance(value, ti.Ndarray) or value.grad is not None:
            raise _UnusualError
        if value.dtype != dtype or value.element_shape != element or len(value.shape) != dimensions:
            raise _UnusualError
        context.set_arg_ndarray(place, value.arr)

    return put


def _numbers(dtype) -> tuple[type, ...]:
    """Python's types that may stand for a number of Taichi's."""
    return (float, int) if str(dtype) == "f32" else (int,)


# -- whether what is used of Taichi is there, and does what it should -------------------------------------------------


@record
class _Inner:
    offset: vec3
    key: ti.u32


@record
class _Outer:
    scale: ti.f32
    inner: _Inner
    cell: ivec3


@ti.kernel
def _probe(n: ti.i32, twice: ti.template(), values: _Outer, offset: vec3, scale: ti.f32, out: f32_1d):
    """Writes n numbers in which each number of the arguments counts for another amount."""
    for i in range(n):
        inner = values.inner
        total = values.scale + 2.0 * inner.offset[0] + 3.0 * inner.offset[1] + 5.0 * inner.offset[2] + scale
        total += 7.0 * ti.cast(inner.key, ti.f32) + 11.0 * offset[0] + 13.0 * offset[1] + 17.0 * offset[2]
        for a in ti.static(range(3)):
            total += (19.0 + 4.0 * a) * ti.cast(values.cell[a], ti.f32)
        out[i] += ti.select(twice, 2.0, 1.0) * total + ti.cast(i, ti.f32)


_verdict: tuple = (None, False)
"""Taichi's runtime, and whether launches there may go the quick way."""


def _is_trusted() -> bool:
    """Whether what is used of Taichi is there and does what its own launch does; asked once for each start of it."""
    global _verdict
    runtime = impl.get_runtime()
    if _verdict[0] is not runtime:
        _verdict = runtime, False
        try:
            _verdict = runtime, _probes_agree()
        except (AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            pass
    return _verdict[1]


def _probes_agree() -> bool:
    n, launcher = 5, _Launcher(_probe, whole_vectors=False)
    values = _Outer(scale=0.5, inner=_Inner(offset=(1.5, -2.0, 0.25), key=7), cell=(4, -5, 6))
    vectors = (0.75, 8.0, -9.0), -3.0
    slow, quick = ti.ndarray(ti.f32, n), ti.ndarray(ti.f32, n)
    on_host = quick.to_numpy()
    arguments = n, True, values.as_struct(), *vectors
    launcher.taichi_kernel(*arguments, slow)
    launcher.make_ready([*arguments, slow])
    launcher.launch_slowly = None
    for out in (quick, on_host):
        launcher.function(n, True, values, *vectors, out)
    wanted = slow.to_numpy().tolist()
    return any(wanted) and quick.to_numpy().tolist() == wanted == on_host.tolist()
