"""How kernels of ours are launched: ``kernel`` and ``vector_kernel`` stand where others write ``ti.kernel``.

Taichi 1.7 looks at every argument of a call twice, through several layers: some 5 µs each, up to 0.2 ms for a kernel of
ours, of which a training step launches twenty. Here the second call and all that follow it on the CPU hand numbers,
vectors and numpy arrays straight to the compiled code; nothing is remembered of them. Whatever is not exactly what the
kernel declares goes the way of Taichi, which has the error messages, and so does everything on a GPU and everything
that autodiff records. What is used of Taichi here is not its public interface: requirements.txt keeps to 1.7.
"""

import taichi as ti
from taichi.lang import impl
from taichi.lang.matrix import MatrixType
from taichi.types.ndarray_type import NdarrayType

_CPU = (ti.x64, ti.arm64)
_ARRAYS = {"f32": "<f4", "i32": "<i4", "u32": "<u4"}
"""As numpy calls them."""
_PUT_NUMBER = {"f32": "float", "i32": "int", "u32": "uint"}
"""As the methods of Taichi's launch context call them."""


def kernel(function):
    """``ti.kernel`` with quicker calls. Template arguments must be plain values."""
    return _launcher(ti.kernel(function), whole_vectors=False)


def vector_kernel(function):
    """A ``kernel`` that the CPU computes with whole vectors (see ``kernels.vectors``)."""
    return _launcher(ti.kernel(function), whole_vectors=True)


class _UnusualError(Exception):
    """An argument that is Taichi's business."""


def _launcher(taichi_kernel, whole_vectors: bool):
    primal = taichi_kernel._primal
    annotations = [argument.annotation for argument in primal.arguments]
    templates = [i for i, annotation in enumerate(annotations) if isinstance(annotation, ti.template)]
    puts = [_put(i - sum(t < i for t in templates), annotation) for i, annotation in enumerate(annotations)]
    ready = {}  # values of the template arguments → compiled code, and Taichi's kernel that it belongs to
    owner = None  # what Taichi replaces when it starts anew

    def launch(*args):
        nonlocal owner
        runtime = impl.get_runtime()
        if runtime is not owner:
            ready.clear()
            owner = runtime
        recorded = runtime.target_tape or runtime.fwd_mode_manager
        key = tuple(args[i] for i in templates) if len(args) == len(puts) else None
        if key in ready and not recorded:
            code, compiled = ready[key]
            context = compiled.make_launch_context()
            try:
                for put, value in zip(puts, args, strict=True):
                    put(context, value)
            except _UnusualError:
                pass
            else:
                runtime.prog.launch_kernel(code, context)
                return
        config = ti.cfg
        on_cpu, before = config.arch in _CPU, config.real_matrix_scalarize
        try:
            config.real_matrix_scalarize = before and not (whole_vectors and on_cpu)
            taichi_kernel(*args)
            if on_cpu and key not in ready and not recorded:
                compiled = primal.compiled_kernels[primal.ensure_compiled(*args)]
                program = runtime.prog
                ready[key] = program.compile_kernel(program.config(), program.get_device_caps(), compiled), compiled
        finally:
            config.real_matrix_scalarize = before

    launch.__module__, launch.__name__ = taichi_kernel.__module__, taichi_kernel.__name__
    launch.__doc__ = taichi_kernel.__doc__
    return launch


def _put(at: int, annotation):
    """A function (context, value) that makes value the argument ``at`` of a launch, or raises ``_UnusualError``."""
    if isinstance(annotation, ti.template):
        return lambda context, value: None
    if isinstance(annotation, NdarrayType):
        return _put_array((at,), annotation)
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
    kind = _ARRAYS[str(annotation.dtype.dtype if of_vectors else annotation.dtype)]
    dimensions = annotation.ndim

    def put(context, value):
        array = getattr(value, "__array_interface__", None)
        if array is None or array["typestr"] != kind or array["strides"] is not None:
            raise _UnusualError
        shape = array["shape"]
        if len(shape) != dimensions + len(element) or shape[dimensions:] != element:
            raise _UnusualError
        context.set_arg_external_array_with_shape(place, array["data"][0], value.nbytes, shape[:dimensions], 0)

    return put


def _numbers(dtype) -> tuple[type, ...]:
    """Python's types that may stand for a number of Taichi's."""
    return (float, int) if str(dtype) == "f32" else (int,)
