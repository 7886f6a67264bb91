"""The process in which pycolmap runs, since it aborts on some damaged files: ``python -m tslim.poses.worker JOB``.

JOB is a json object; see ``Job``. What it does is told line by line on standard output, as json.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What to do, and with which settings."""

    stage: str
    """features, matching or mapping"""
    database: str
    images: str
    models: str
    names: tuple[str, ...]
    camera_model: str
    one_camera: bool
    matching: str
    """exhaustive or sequential"""
    overlap: int
    """sequential: neighbours that each picture is compared with"""
    max_size: int
    """pixels along the longer side in which features are looked for"""
    seed: int

    def to_json(self) -> str:
        """The argument that the worker's command line takes."""
        return json.dumps(asdict(self))


def say(**record) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def run(job: Job) -> None:
    """One stage of structure from motion. Features and matches that are in the database already are kept."""
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    cpu = pycolmap.Device.cpu
    pycolmap.set_random_seed(job.seed)
    if job.stage == "features":
        reader = pycolmap.ImageReaderOptions(camera_model=job.camera_model)
        extraction = pycolmap.FeatureExtractionOptions(max_image_size=job.max_size)
        mode = pycolmap.CameraMode.SINGLE if job.one_camera else pycolmap.CameraMode.AUTO
        pycolmap.extract_features(
            job.database, job.images, list(job.names), camera_mode=mode, reader_options=reader,
            extraction_options=extraction, device=cpu,
        )  # fmt: skip
    elif job.stage == "matching":
        if job.matching == "sequential":
            pairing = pycolmap.SequentialPairingOptions(overlap=job.overlap, quadratic_overlap=True)
            pycolmap.match_sequential(job.database, pairing_options=pairing, device=cpu)
        else:
            pycolmap.match_exhaustive(job.database, device=cpu)
    else:
        Path(job.models).mkdir(parents=True, exist_ok=True)
        options = pycolmap.IncrementalPipelineOptions(random_seed=job.seed)
        found = pycolmap.incremental_mapping(
            job.database, job.images, job.models, options=options,
            initial_image_pair_callback=lambda: say(registered=2), next_image_callback=lambda: say(registered=1),
        )  # fmt: skip
        for number, model in found.items():
            say(
                model=number,
                names=[model.image(i).name for i in model.reg_image_ids()],
                points=model.num_points3D(),
                error=model.compute_mean_reprojection_error(),
            )


def main() -> int:
    """Runs the job of the command line."""
    record = json.loads(sys.argv[1])
    run(Job(**{**record, "names": tuple(record["names"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
