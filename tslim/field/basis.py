"""The basis, from appearance products to features: rows in chunks on the device, (3, 3R, 27) on the host."""

import numpy as np

from kernels.vectors import CHUNK
from tslim.device import buffers
from tslim.model.state import N_FEATURES


def device_rows(components: int) -> np.ndarray:
    """(3, components) number of the device's row that belongs to each mode and component."""
    k = np.arange(components)
    return (k // CHUNK * 3 + np.arange(3)[:, None]) * CHUNK + k % CHUNK


def to_device(values: np.ndarray, device_array) -> None:
    """Writes ``values`` (3, K, 27); rows of further components become 0."""
    rows = np.zeros((device_array.shape[0] // N_FEATURES, N_FEATURES), np.float32)
    rows[device_rows(values.shape[1])] = values
    buffers.write(device_array, rows.ravel())


def to_host(device_array, components: int) -> np.ndarray:
    """(3, components, 27) of the first components: of a basis, or of its gradient."""
    return buffers.read(device_array).reshape(-1, N_FEATURES)[device_rows(components)]
