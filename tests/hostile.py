"""Hostile inputs by the thousand: files of a reader are damaged, and it must read or refuse them, in bounded memory and
time, each reader in a process of its own."""

import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import damage
from tslim.data import image_file
from tslim.errors import TslimError

INPUTS = 10_000
"""that a reader gets in the slow tests"""
SECONDS = 10.0
"""Of processor time for one input; typical are some milliseconds, 6 s a TIFF of 1 kB that claims 33 million pixels."""

FUZZ = """
import importlib, resource, sys
sys.path.insert(0, "tests")
from tests import hostile
module, reader, memory, folder, inputs, seed = sys.argv[1:]
readers = importlib.import_module(module).READERS
resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
for name in [reader] if reader else readers:
    hostile.fuzz(name, readers[name], folder + "/" + name, int(inputs), int(seed))
"""


@dataclass(frozen=True)
class Reader:
    """What reads files, and how they are damaged."""

    write: Callable[[Path], object]
    """whole files into a folder"""
    read: Callable[[Path], object]
    """the folder; may raise ``TslimError``"""
    change: Callable[[bytes, random.Random], bytes]
    """damages one file"""


def run(module: str, reader: str, folder: Path, *, memory: int, inputs: int = INPUTS, seed: int = 1) -> None:
    """Gives a reader of a module's ``READERS`` so many inputs in a process with so much address space, all of them
    where none is named; prints what they came to."""
    done = damage.python(FUZZ, module, reader, memory, folder, inputs, seed, cwd=damage.ROOT, timeout=3600)
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)


def fuzz(name: str, reader: Reader, folder: str, inputs: int, seed: int) -> None:
    """Damages the files of a reader, one to three at a time, and reads them; prints the slowest and how many passed."""
    rng, base = random.Random(seed), Path(folder)
    base.mkdir(parents=True)
    reader.write(base)
    files = sorted(path for path in base.rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    reader.read(base)
    texts = [path for path in files if path.suffix not in image_file.ENDINGS] or files
    slowest, passed = 0.0, 0
    for turn in range(inputs):
        # Photographs are the picture readers' business, and most of a scene's files.
        changed = {
            path: reader.change(whole[path], rng)
            for path in rng.sample(texts, min(len(texts), rng.choice([1, 1, 1, 3])))
        }
        if texts is not files and rng.random() < 0.1:
            path = rng.choice(files)
            changed[path] = reader.change(whole[path], rng)
        for path, data in changed.items():
            path.write_bytes(data)
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # they would reach the user
                reader.read(base)
            passed += 1
        except TslimError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        except BaseException:
            shown = {path.name: data[:3000] for path, data in changed.items()}
            sys.stderr.write(f"input {turn}: {shown!r}\n")
            raise
        slowest = max(slowest, time.process_time() - began)
        assert slowest < SECONDS, (turn, slowest)
        for path in changed:
            path.write_bytes(whole[path])
    print(f"{name}: {inputs} inputs, {passed} read, the slowest in {slowest:.2f} s")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed as chance and malice would: cut, flipped, doubled, overwritten with extreme numbers."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(max(len(data), 1))
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 4] = rng.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x80" + b"\x00" * 3])
        elif kind == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 64)]
        else:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


ODD = [None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, float("nan"), float("inf"), "", "x", "\x1b[2J", [], [[]], {},
       {"a": 1}, [0, 0, 0], [-1] * 3, [2**20] * 3, [[0] * 3] * 2, "box", "compact"]  # fmt: skip


def twisted(value, rng: random.Random):
    """Plain data with one value somewhere replaced by an odd one, or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: twisted(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], twisted(value[at], rng), *value[at + 1 :]]
    return rng.choice(ODD)


WORDS = ["nan", "inf", "-inf", "1e400", "-1", "0", "1e38", "1e-300", "", "#", "\n", "0x10", "1_000", "--",
         "1" * 5000, "9" * 25, "4294967295", "18446744073709551615", "../x.png", "\x00", "é"]  # fmt: skip


def changed_text(data: bytes, rng: random.Random) -> bytes | None:
    """Of json a value changed, of other text a few words; None of what is neither."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if text.startswith("{"):
        return json.dumps(twisted(json.loads(text), rng)).encode()
    if not text:
        return None
    words = text.split(" ")
    for _ in range(rng.choice([1, 1, 3])):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words).encode()
