"""Reads and writes ``.th`` files, as the public code of TensoRF and SlimmeRF saves them, without trusting them.

A ``.th`` file is a zip of one pickle, which says what there is, and of plain numbers. Before PyTorch unpickles anything
(``torch.load(weights_only=True)``, the numbers mapped from the file), the zip must hold its parts as they are, in no
more bytes than the file has, and the pickle must name nothing but what such a checkpoint is made of.
"""

import pickletools
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tslim import files
from tslim.errors import MissingPackageError, ModelFileError
from tslim.optional import need

TORCH = (2, 7)
"""the version since which unpickling can be told what stands in for numpy's names"""
ZIP_MAGIC = b"PK\x03\x04"
MOST_PICKLE = 2**26
"""bytes: an alpha mask lies inside the pickle, a bit a vertex, in two bytes a byte"""
_TENSORS = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size",
    "torch.nn.parameter.Parameter", "torch.device", "torch.FloatStorage", "torch.HalfStorage", "torch.DoubleStorage",
    "torch.BFloat16Storage", "torch.ByteStorage", "torch.BoolStorage", "torch.LongStorage", "torch.IntStorage",
    "_codecs.encode",
}  # fmt: skip


class _Dtype:
    """Stands in for ``numpy.dtype`` while unpickling: its name is looked at, nothing is made of it."""

    def __init__(self, name: str, align: object = None, copy: object = None) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for ``numpy.ndarray`` while unpickling: takes bytes that are there, and no shape on trust."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, _, data = state
        if dtype.name != "u1" or not isinstance(data, bytes) or tuple(shape) != (len(data),):
            raise ModelFileError("it holds an array that is not packed bits")
        self.values = np.frombuffer(data, np.uint8)


def _empty_array(*of: object) -> _Array:
    return _Array()


def _number(dtype: _Dtype, data: bytes) -> float:
    """Stands in for numpy's scalars."""
    if dtype.name not in ("f4", "f8", "i4", "i8"):
        raise ModelFileError(f"it holds a number of the kind {dtype.name!r}")
    return np.frombuffer(data, f"<{dtype.name}", 1)[0].item()


_STAND_INS: dict[str, Any] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a ``.th`` file holds, as it lies there: nothing is checked yet but that it is there."""

    kwargs: dict[str, Any]
    """what the public code makes its model with; tensors are numpy arrays"""
    arrays: dict[str, np.ndarray]
    """parameters by name; only what is looked at is read from the disk"""
    mask: tuple[np.ndarray, tuple[int, ...], np.ndarray] | None
    """bits, shape of the vertices, box of the alpha mask"""


def is_th(path: str | Path) -> bool:
    """Whether a file is a zip, as ``.th`` files are and model files are not."""
    try:
        with open(path, "rb") as source:
            return source.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except OSError:
        return False


def read(path: str | Path) -> Checkpoint:
    """What a ``.th`` file holds.

    Raises:
        ModelFileError: not such a file, damaged, or one that does more than hold numbers.
        MissingPackageError: PyTorch is not installed, or too old.
    """
    torch = need("torch", "reading a .th checkpoint")
    if tuple(map(int, torch.__version__.split(".")[:2])) < TORCH:
        found = f"found {torch.__version__}: pip install --upgrade torch"
        raise MissingPackageError(f"reading a .th checkpoint needs torch {'.'.join(map(str, TORCH))} or later, {found}")
    try:
        _require_plain(path)
        stand_ins = [(value, name) for name, value in _STAND_INS.items()]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return _checkpoint(found)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such model file: {path}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{path} is no checkpoint of TensoRF: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever unpickling nonsense comes to
        what = str(error).split("\n")[0][:160] or type(error).__name__
        raise ModelFileError(f"{path} is damaged, or no checkpoint of TensoRF: {what}") from error


def write(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Writes a ``.th`` file that the public code reads. Raises ``RunFolderError`` and ``MissingPackageError``."""
    torch = need("torch", "writing a .th checkpoint")

    def tensor(value: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    content: dict[str, Any] = {
        "kwargs": {name: tensor(value) for name, value in checkpoint.kwargs.items()},
        "state_dict": {name: tensor(value) for name, value in checkpoint.arrays.items()},
    }
    if checkpoint.mask is not None:
        bits, shape, box = checkpoint.mask
        # The bits as a tensor: numpy unpacks them just as well, and no pickle of numpy's has to be trusted.
        content |= {"alphaMask.mask": tensor(bits), "alphaMask.shape": shape, "alphaMask.aabb": tensor(box)}
    with files.replacing(path) as temporary:
        torch.save(content, temporary)
    return Path(path)


def _require_plain(path: str | Path) -> None:
    """Raises ``ModelFileError`` unless the zip can be unpacked without growing and its pickle is harmless."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ModelFileError("its parts are compressed")
            if sum(part.file_size for part in parts) > Path(path).stat().st_size:
                raise ModelFileError("its parts claim more bytes than it has")
            pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > MOST_PICKLE:
                raise ModelFileError("it has no pickle that says what it holds")
            names = _imported_names(archive.read(pickles[0]))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"it is damaged: {error}") from error
    strange = sorted(names - _TENSORS - set(_STAND_INS))
    if strange:
        raise ModelFileError(f"it names {strange[0]}, which is neither a number nor a tensor; nothing of it was run")


def _imported_names(data: bytes) -> set[str]:
    """What a pickle would import."""
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST"):
            raise ModelFileError(f"its pickle uses {opcode.name}, which torch.save never does")
        if opcode.name == "GLOBAL":
            found.add(str(argument).replace(" ", "."))
    return found


def _checkpoint(found: Any) -> Checkpoint:
    if not isinstance(found, dict):
        raise ModelFileError(f"it holds a {type(found).__name__}")
    kwargs, arrays = found.get("kwargs"), found.get("state_dict")
    if not isinstance(kwargs, dict) or not isinstance(arrays, dict):
        raise ModelFileError("it has no kwargs and state_dict")
    mask = None
    if "alphaMask.aabb" in found:
        bits, shape = _plain(found.get("alphaMask.mask")), found.get("alphaMask.shape")
        box = _plain(found["alphaMask.aabb"])
        if not isinstance(bits, np.ndarray) or not isinstance(box, np.ndarray) or not isinstance(shape, tuple):
            raise ModelFileError("its alpha mask is in parts that make none")
        mask = bits, tuple(shape), box
    return Checkpoint(
        {str(name): _plain(value) for name, value in kwargs.items()},
        {str(name): plain for name, value in arrays.items() if isinstance(plain := _plain(value), np.ndarray)},
        mask,
    )


def _plain(value: Any) -> Any:
    """Tensors and stand-ins as numpy arrays, sharing their memory where they can. Raises ``ModelFileError`` for tensors
    of no plain numbers, and for those that pretend to be larger than what is stored of them."""
    if isinstance(value, _Array):
        return value.values
    torch = need("torch", "reading a .th checkpoint")
    if not isinstance(value, torch.Tensor):
        return value
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise ModelFileError(f"it holds a tensor of {value.dtype}, {value.layout}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ModelFileError(f"a tensor claims {value.numel()} numbers and has fewer")
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).numpy()
