"""Which space a scene belongs in, and where it lies there: guessed from what the data set says, held against the data.

``tslim.data.geometry`` says what the spaces are. A data set may name a box (``bbox.txt``, ``aabb_scale``); else an
object that is cut out lies in a box, and photographs of everything around in a contracted space, or in NDC where the
cameras stand close together and look one way. What is guessed is compared with cameras, sparse points and pixels, and
corrected or warned of where they say otherwise. ``--space`` is asked first.
"""

from dataclasses import dataclass, replace

import numpy as np

from tslim.data import geometry, look
from tslim.data.look import Look
from tslim.data.options import LoadOptions
from tslim.errors import SceneError
from tslim.scene.cameras import Cameras
from tslim.scene.domain import SPACES
from tslim.scene.scene import Scene

NEAR_QUANTILE = 0.002
"""Share of the sparse points that may lie in front of the near plane: some are always wrong."""
NEAR_PLANE = 0.75
"""The near plane lies at this share of the nearest depth, as for LLFF captures."""
_CLOSE_TOGETHER = 0.35
"""Cameras suit NDC where they are apart by less than this times the distance of the nearest points."""
_BESIDE = 0.02
"""Share of the opaque pixels that may look past the box that is usual for such data."""


_ALL = 0.98
"""Share of transparent pixels that is no picture of anything."""


@dataclass(frozen=True, eq=False)
class Region:
    """What a data set says, or what is usual for its format, about where its subject is."""

    box: np.ndarray | None = None
    """(2, 3) float64, world units"""
    source: str = ""
    """what names the box, for messages"""
    usual: bool = False
    """the box is a habit of the format, for objects, and not written down"""
    limits: tuple[float, float] | None = None
    """near and far that go with a usual box, where the cameras stand as usual: outside it, between these distances"""
    open: bool = False
    """said to reach beyond any box"""
    bounds: tuple[float, float] | None = None
    """least and largest depth that was seen, world units"""


def placed(scene: Scene, region: Region, masked: bool, options: LoadOptions) -> Scene:
    """The scene with its space, box, ray limits and background.

    ``masked``: transparency comes from masks, not from the pictures. ``options.space`` goes before every guess. Raises
    ``SceneError`` for a space that is impossible.
    """
    seen = Look(0.0, False, None) if masked else look.looked_at(scene.train)
    if options.space is not None:
        return _in_space(_with_background(scene, options.space, region, seen, options), options.space, region, seen)
    if not seen.cut_out and seen.transparent > 0:
        scene = scene.with_warnings(
            f"{100 * seen.transparent:.2g} % of the pixels are transparent: they are taken for a border without "
            "picture and left out, not for the background of an object (--space box)"
        )
    space = _guessed_space(scene, region, seen)
    return _with_warnings(
        _in_space(_with_background(scene, space, region, seen, options), space, region, seen), region, seen
    )


def in_space(scene: Scene, space: str) -> Scene:
    """The scene in ``space`` ("box", "ndc" or "contracted"; see ``tslim.data.geometry``); itself if it is so already.

    Raises ``SceneError`` in one line where that is impossible: ``ndc`` needs cameras that all look one way, and sparse
    points to find the near plane from.
    """
    if space == scene.space:
        return scene
    region = Region(bounds=(scene.near / NEAR_PLANE, scene.far)) if scene.space == "ndc" else Region()
    return _in_space(scene, space, region, Look(0.0, False, None))


def _with_background(scene: Scene, space: str, region: Region, seen: Look, options: LoadOptions) -> Scene:
    """What is behind an object: what the user wants, or the plain colour that is in the pictures."""
    colour = options.background if seen.cut_out else None
    if space == "box" and not seen.cut_out:
        colour = seen.plain
        if colour is None and region.box is not None and not region.usual:
            colour = options.background
    return scene.placed(background=colour)


def _guessed_space(scene: Scene, region: Region, seen: Look) -> str:
    if region.box is not None and (seen.cut_out or seen.plain is not None or not region.usual):
        return "box"
    if seen.cut_out and (not region.open or look.hull_box(scene.train) is not None):
        return "box"
    return "ndc" if _suits_ndc(scene, region) else "contracted"


def _suits_ndc(scene: Scene, region: Region) -> bool:
    """Whether the cameras look one way, from close together or in parallel (as mapping flights do), and something says
    where their view begins."""
    every = Cameras.concatenate([scene.train.cameras, scene.test.cameras])
    poses = every.poses.astype(np.float64)
    if not geometry.faces_forward(poses):
        return False
    if region.bounds is not None:
        return (
            geometry.ndc_box(replace(every, poses=geometry.recentred(poses)), NEAR_PLANE * region.bounds[0]) is not None
        )
    seen = geometry.visible_distances(every, scene.points)
    if not len(seen) or region.open:
        return False
    origins = poses[:, :, 3]
    apart = float(np.quantile(np.linalg.norm(origins - np.median(origins, 0), axis=1), 0.9))
    if apart >= _CLOSE_TOGETHER * float(np.quantile(seen, 0.02)) and geometry.converge(every):
        return False
    found = _near_plane(scene, region)
    return found is not None and geometry.ndc_box(found[0], found[2]) is not None


def _in_space(scene: Scene, space: str, region: Region, seen: Look) -> Scene:
    if space not in SPACES:
        raise SceneError(f"space {space}: expected {', '.join(SPACES)}")
    if space == "ndc":
        return _forward_facing(scene, region)
    cameras = scene.train.cameras
    if space == "box":
        return _in_box(scene, region, seen)
    box, near, far = geometry.surroundings(cameras, scene.points)
    if region.bounds is not None:
        near, far = NEAR_PLANE * region.bounds[0], max(far, region.bounds[1])
    return scene.placed(space=space, box=box, near=near, far=far)


def _in_box(scene: Scene, region: Region, seen: Look) -> Scene:
    """In the box that the data set means, or in one around what the cameras look at."""
    cameras, box, warnings = scene.train.cameras, region.box, []
    if box is not None and region.usual:
        inside = ((cameras.origins > box[0]) & (cameras.origins < box[1])).all(1)
        if inside.any():
            name, more = scene.train.names[int(np.argmax(inside))], int(inside.sum()) - 1
            what = f"the camera of {name}" + (f" (and {more} more)" if more else "") + " lies inside"
        else:
            beside = look.opaque_beside(scene.train, box) if seen.cut_out else 0.0
            what = f"{100 * beside:.0f} % of the opaque pixels look past" if beside > _BESIDE else ""
        if what:
            warnings.append(
                f"{what} {region.source}: the box is found from the photographs instead (--space contracted takes "
                "everything around)"
            )
            box = None
    if box is None:
        hull = look.hull_box(scene.train) if seen.cut_out else None
        box = geometry.object_box(cameras) if hull is None else hull
        near, far = geometry.limits_of_box(cameras, box)
    else:
        near, far, limits_note = _limits(cameras, box, region)
        warnings += limits_note
    return scene.placed(space="box", box=box, near=near, far=far).with_warnings(*warnings)


def _limits(cameras: Cameras, box: np.ndarray, region: Region) -> tuple[float, float, list[str]]:
    if region.limits is None:
        return *geometry.limits_of_box(cameras, box), []
    near, far = region.limits
    half_diagonal = 0.5 * float(np.linalg.norm(np.ptp(box, axis=0)))
    distance = np.linalg.norm(cameras.origins - box.mean(0), axis=1)
    if near + 1 <= distance.min() and distance.max() <= far - 1:
        return near, far, []
    near, far = max(float(distance.min() - half_diagonal), 0.05), float(distance.max() + half_diagonal)
    return (
        near,
        far,
        [
            f"cameras stand {distance.min():.3g} to {distance.max():.3g} from the origin, not about 4 as in "
            f"NeRF-synthetic: near and far are set to {near:.3g} and {far:.3g}"
        ],
    )


def _near_plane(scene: Scene, region: Region) -> tuple[Cameras, np.ndarray | None, float, float] | None:
    """(recentred cameras of train and test, recentred points, near, far); None without a near plane."""
    every = Cameras.concatenate([scene.train.cameras, scene.test.cameras])
    poses = every.poses.astype(np.float64)
    world_to_mean = np.linalg.inv(geometry.mean_frame(poses))
    moved, points = replace(every, poses=geometry.recentred(poses)), None
    if scene.points is not None and len(scene.points):
        points = scene.points.astype(np.float64) @ world_to_mean[:3, :3].T + world_to_mean[:3, 3]
    if region.bounds is not None:
        return moved, points, NEAR_PLANE * region.bounds[0], region.bounds[1]
    depth = np.zeros(0) if points is None else -points[:, 2]
    depth = depth[depth > 0]
    if not len(depth):
        return None
    near = NEAR_PLANE * float(np.quantile(depth, NEAR_QUANTILE))
    return moved, points, near, max(float(np.quantile(depth, 1 - NEAR_QUANTILE)), 2 * near)


def _forward_facing(scene: Scene, region: Region) -> Scene:
    every = Cameras.concatenate([scene.train.cameras, scene.test.cameras])
    if not geometry.faces_forward(every.poses.astype(np.float64)):
        raise SceneError(
            f"{scene.source}: space ndc is for cameras that all look one way, and these do not; contracted takes them"
        )
    if region.bounds is None and (scene.points is None or not len(scene.points)):
        raise SceneError(
            f"{scene.source}: space ndc needs sparse points to find its near plane from; there are none; contracted "
            "needs none"
        )
    found = _near_plane(scene, region)
    if found is None:
        raise SceneError(f"{scene.source}: space ndc needs points in front of the cameras, and all lie behind")
    moved, points, near, far = found
    box = geometry.ndc_box(moved, near)
    if box is None:
        raise SceneError(
            f"{scene.source}: space ndc is impossible: not every ray reaches the near plane at {near:.3g}; contracted "
            "takes them"
        )
    n = len(scene.train)
    return replace(
        scene.placed(space="ndc", box=box, near=near, far=far),
        train=replace(scene.train, cameras=moved[:n]),
        test=replace(scene.test, cameras=moved[n:]),
        points=None if points is None else points.astype(np.float32),
    )


def _with_warnings(scene: Scene, region: Region, seen: Look) -> Scene:
    """The scene, with warnings where points, cameras and pixels do not agree with the space."""
    cameras, warnings = scene.train.cameras, []
    if seen.transparent > _ALL:
        warnings.append(
            f"{100 * seen.transparent:.0f} % of the pixels are transparent: if there is more to see, take the "
            "alpha channel out of the pictures"
        )
    points = scene.points if scene.points is not None and len(scene.points) else None
    if scene.space != "ndc" and points is not None:
        inside = float(((points > scene.box[0]) & (points < scene.box[1])).all(1).mean())
        if scene.space == "box" and inside < 0.5:
            warnings.append(
                f"{100 * inside:.0f} % of the sparse points lie in the box{_source_text(region)}: "
                "--space contracted takes all"
            )
        elif scene.space == "contracted" and inside < 0.1:
            warnings.append(f"only {100 * inside:.0f} % of the sparse points lie in the cube that gets most texels")
    if scene.space == "box" and region.box is not None and not region.usual and seen.plain is None:
        beside = look.opaque_beside(scene.train, scene.box)
        if beside > 0.05:
            warnings.append(
                f"{100 * beside:.0f} % of the opaque pixels look past the box{_source_text(region)} and will stay "
                "without colour: --space contracted takes everything around"
            )
    if scene.space == "contracted" and points is None and region.bounds is None:
        if geometry.faces_forward(cameras.poses.astype(np.float64)) and not geometry.converge(cameras):
            middle = 0.5 * float(np.linalg.norm(np.median(cameras.origins, 0) - scene.box.mean(0)))
            warnings.append(
                "the cameras look one way along parallel axes, and no sparse points say how far they see: some "
                f"{2 * middle:.3g} are guessed from the overlap of neighbours; points would be better"
            )
    return scene.with_warnings(*warnings)


def _source_text(region: Region) -> str:
    return f" of {region.source}" if region.source else ""
