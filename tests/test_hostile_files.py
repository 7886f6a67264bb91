"""Hostile models, checkpoints, configs, logs, tables and sweeps by the ten thousand: read, or refused by tslim's own
errors, in bounded memory and time, each reader in a process of its own."""

import dataclasses
import functools
import importlib.util
import io
import json
import random
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tslim
from tests import hostile
from tests.test_model_file import make_state, with_header
from tests.test_sweeps import FILE
from tslim import config
from tslim.commands.export import measured
from tslim.measuring import eval_json, evaluate
from tslim.model import model_file
from tslim.sweeps import single
from tslim.sweeps.plan import read_plan
from tslim.training import checkpoint
from tslim.training.run_folder import RunFolder
from tslim.training.trainer import Trainer

MEMORY = 4 << 30
"""Bytes of address space; PyTorch and Taichi take more than half."""
OLD = Path(__file__).parent / "data" / "model_files"


# -- models ----------------------------------------------------------------------------------------------------------


def model(make: Callable[[], bytes]) -> hostile.Reader:
    def read(base: Path) -> None:
        path = base / "m.slim"
        header = model_file.read_header(path)
        state = model_file.read(path)
        assert 1 <= state.rank <= header.rank or header.version < 4
        assert all(np.isfinite(a).all() for a in (*state.density_planes, *state.appearance_lines, state.basis))

    return hostile.Reader(lambda base: (base / "m.slim").write_bytes(make()), read, changed_model)


def changed_model(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed; or header, decoder, occupancy or a rank behind right checksums, which reaches further."""
    kind = rng.random()
    if kind < 0.4:
        return with_header(data, lambda header: lie(header, rng))
    if kind < 0.8:
        return with_part(data, rng)
    return hostile.damaged(data, rng)


def lie(header: dict, rng: random.Random) -> None:
    changed = hostile.twisted(dict(header), rng)
    header.clear()
    header.update(changed if isinstance(changed, dict) else {"config": changed})


def with_part(data: bytes, rng: random.Random) -> bytes:
    """The decoder with the occupancy, or a rank, damaged behind a checksum that fits."""
    header = header_of(data)
    starts = [header.fixed_bytes, *header.ends]
    chosen = rng.randrange(len(starts))
    if chosen == header.rank:
        shared = hostile.damaged(data[header.shared_at : header.fixed_bytes], rng)
        made = data[: header.shared_at] + shared + data[header.fixed_bytes :]

        def tell(text: dict) -> None:
            text["shared_crc32"] = zlib.crc32(shared)
            if "shared_bytes" in text:
                text["shared_bytes"] = len(shared)

        return with_header(made, tell)
    block = data[starts[chosen] + 4 : starts[chosen + 1]]
    told = 4 if header.precision == "compact" else 0
    body = hostile.damaged(block[told:], rng)
    block = struct.pack("<I", len(body))[:told] + body
    return data[: starts[chosen]] + struct.pack("<I", zlib.crc32(block)) + block + data[starts[chosen + 1] :]


@functools.cache
def header_of(data: bytes) -> model_file.ModelHeader:
    """The header of a model in memory, with where its ranks end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.slim"
        path.write_bytes(data)
        return model_file.read_header(path)


def written(precision: str, **changes) -> Callable[[], bytes]:
    def make() -> bytes:
        told = {"march": {"step_ratio": 0.5}, "path": {"path": "orbit"}, "steps": 3}
        state = model_file.convert(make_state(metadata=told, **changes), precision)
        return b"".join(model_file.blocks(state))

    return make


# -- checkpoints -----------------------------------------------------------------------------------------------------


def settings() -> config.TrainConfig:
    small = dataclasses.replace(config.with_steps(tslim.presets.tiny(), 8), batch_rays=64, grid_start=4, grid_end=6)
    return dataclasses.replace(small, field=dataclasses.replace(small.field, max_rank=2), report_every=2)


_trainer: list[Trainer] = []


def write_checkpoint(base: Path) -> None:
    tslim.init("cpu")
    scene = tslim.builtin_scene(size=8, train=2, test=1)
    trainer = Trainer(Trainer.new_field(scene, settings()), scene, settings())
    for event in trainer.run():
        if isinstance(event, tslim.Stepped) and event.step == 5:
            break
    trainer.save_checkpoint(base / "c.npz")
    _trainer[:] = [trainer]


def read_checkpoint(base: Path) -> None:
    arrays, plain = checkpoint.load(base / "c.npz")
    _trainer[0].load_state(arrays, plain)


def changed_checkpoint(data: bytes, rng: random.Random) -> bytes:
    return changed_zip(data, rng, "record.json") if rng.random() < 0.7 else hostile.damaged(data, rng)


def changed_zip(data: bytes, rng: random.Random, often: str) -> bytes:
    """A zip with a part damaged, behind checksums that fit; half of the times that which is named so."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    named = next(i for i, (name, _) in enumerate(parts) if name.endswith(often))
    chosen = named if rng.random() < 0.5 else rng.randrange(len(parts))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for i, (name, part) in enumerate(parts):
            archive.writestr(zipfile.ZipInfo(name), changed_part(part, rng) if i == chosen else part)
    return made.getvalue()


def changed_part(part: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.7 and part.startswith(b"{"):
        return json.dumps(hostile.twisted(json.loads(part), rng)).encode()
    if rng.random() < 0.5 and part.startswith(b"\x93NUMPY"):  # what an array says of itself
        return hostile.damaged(part[:128], rng) + part[128:]
    return hostile.damaged(part, rng)


# -- run folders -----------------------------------------------------------------------------------------------------

ROW = {"step": 1, "rank": 1, "loss": 0.1, "psnr": 10.0, "seconds": 1.0, "psnr_by_rank": {"1": 9.0},
       "grew": [{"step": 1, "rank": 2, "cause": "x"}]}  # fmt: skip


def write_run(base: Path) -> None:
    run = RunFolder(base)
    run.config.write_text(
        json.dumps({"scene": {"path": None, "downscale": 5}, "train": config.to_dict(config.TrainConfig())})
    )
    run.metrics.write_text(json.dumps(ROW) + "\n")


def read_run(base: Path) -> None:
    run = RunFolder(base)
    for row in run.history():
        assert isinstance(row["psnr"], int | float) and all(
            float(v) < 1e300 for v in row.get("psnr_by_rank", {}).values()
        )
    run.train_settings()


def changed_json(data: bytes, rng: random.Random) -> bytes:
    text = json.dumps(hostile.twisted(json.loads(data), rng)).encode()
    return text if rng.random() < 0.7 else hostile.damaged(text, rng)


def write_evaluation(base: Path) -> None:
    path = model_file.write(make_state(rank=2), base.parent / "m.slim")
    header = model_file.read_header(path)
    rows = [evaluate.SweepRow(r, header.bytes_at(r), 20.0 + r, 0.9, 5.0, None if r == 2 else 1) for r in (2, 1)]
    eval_json.write(base / "eval.json", rows, 3, of="abc")


def read_evaluation(base: Path) -> None:
    header = model_file.read_header(base.parent / "m.slim")
    assert all(isinstance(v, float | int) for v in measured(header, base.parent / "m.slim", RunFolder(base)).values())
    rows, views = eval_json.read(base / "eval.json")
    assert views > 0 and all(str(row) for row in rows)
    eval_json.merged_with_file(base / "eval.json", rows, views, "abc")


# -- sweeps ----------------------------------------------------------------------------------------------------------

SWEEP = re.sub(r"([][{},])", r" \1 ", FILE)
"""Each sign a word of its own, as ``hostile.changed_text`` changes words"""


def write_sweep(base: Path) -> None:
    (base / "sweep.toml").write_text(SWEEP)
    plan = read_plan(base / "sweep.toml")
    run = plan.runs[0]
    record = {"command": run.command(plan.folder(run), resume=False), "minutes": 1.5, "peak_mb": 500.0, "max_rank": 4}
    plan.folder(run).mkdir(parents=True)
    (plan.folder(run) / single.RECORD).write_text(json.dumps(record))
    rows = [evaluate.SweepRow(r, 1000 * r, 20.0, 0.9, 5.0) for r in (4, 1)]
    eval_json.write(RunFolder(plan.folder(run)).evaluation, rows, 3)
    assert single.is_done(plan, run)


def read_sweep(base: Path) -> None:
    plan = read_plan(base / "sweep.toml")
    assert all("/" not in run.name and run.name not in ("", ".", "..") for run in plan.runs)
    assert len({run.name for run in plan.runs}) == len(plan.runs)
    for run in plan.runs[:20]:
        single.result(plan, run)


def changed_sweep(data: bytes, rng: random.Random) -> bytes:
    return hostile.changed_text(data, rng) if rng.random() < 0.7 else hostile.damaged(data, rng)


# -- checkpoints of TensoRF ------------------------------------------------------------------------------------------


def write_th(base: Path) -> None:
    from tests import tensorf_twin

    tensorf_twin.write(base / "x.th", gridSize=[4, 5, 4], density_n_comp=[2, 1, 1], appearance_n_comp=[3] * 3)


def read_th(base: Path) -> None:
    state = model_file.read(base / "x.th")
    assert all(np.isfinite(a).all() for a in (*state.density_planes, *state.appearance_lines, state.basis))


def changed_th(data: bytes, rng: random.Random) -> bytes:
    return changed_zip(data, rng, "data.pkl") if rng.random() < 0.7 else hostile.damaged(data, rng)


READERS = {
    "models": model(written("float16")),
    "models in single precision without cells": model(written("float32", occupancy=None, rank_scales=False)),
    "compact models": model(written("compact")),
    "models of version 1": model((OLD / "v1-half.slim").read_bytes),
    "models of version 2": model((OLD / "v2-appearance.slim").read_bytes),
    "models of version 3": model((OLD / "v3-compact.slim").read_bytes),
    "models of version 4": model((OLD / "v4-compact.slim").read_bytes),
    "checkpoints": hostile.Reader(write_checkpoint, read_checkpoint, changed_checkpoint),
    "configs and logs": hostile.Reader(write_run, read_run, changed_json),
    "evaluations": hostile.Reader(write_evaluation, read_evaluation, changed_json),
    "sweeps": hostile.Reader(write_sweep, read_sweep, changed_sweep),
    "checkpoints of TensoRF": hostile.Reader(write_th, read_th, changed_th),
}
if not importlib.util.find_spec("torch"):
    del READERS["checkpoints of TensoRF"]


def test_every_reader_of_files_refuses_or_reads_whatever_it_is_given(tmp_path):
    """As the slow one, with a few inputs each."""
    for name, reader in READERS.items():
        if not name.startswith("checkpoints"):  # in those, damage of every kind is done elsewhere
            hostile.fuzz(name, reader, str(tmp_path / name), 40, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_files_refuses_or_reads_whatever_it_is_given(tmp_path, reader):
    hostile.run("tests.test_hostile_files", reader, tmp_path, memory=MEMORY)
