"""A gain per photograph: exposure and white balance, learned with the field."""

import numpy as np

from kernels import gains
from tslim.device import buffers
from tslim.field.parameters import Parameter
from tslim.rendering.batch import Batch


class ImageGains:
    """What each photograph makes of the field's colours: three log gains an image, whose mean is zero.

    They multiply what the field shows before it is compared (``kernels.gains``), so that the field keeps one colour
    where photographs have several. ``weight`` times the mean square of the log gains is added to the loss.
    """

    def __init__(self, n_images: int, weight: float) -> None:
        self.n_images = n_images
        self.weight = weight
        self.values, self.gradients = (buffers.array(3 * n_images) for _ in range(2))
        self.parameter = Parameter("gains", "gains", self.values, self.gradients)
        """what an optimizer moves"""

    def apply(self, batch: Batch) -> None:
        """Turns the pixels of a batch, as the field shows them, into what their photographs show."""
        gains.apply_gains(batch.n_rays, batch.n_pixels, batch.image, self.values, batch.pixel)

    def backward(self, batch: Batch) -> None:
        """Turns ``grad_pixel`` of pixels after ``apply`` into that of pixels before, and adds to ``gradients``."""
        gains.gains_backward(
            batch.n_rays, batch.n_pixels, batch.image, self.values, batch.pixel, batch.grad_pixel, self.gradients
        )
        gains.pull_to_zero(3 * self.n_images, self.weight / (3 * self.n_images), self.values, self.gradients)

    def after_step(self) -> None:
        """After each step: takes the mean of the gains out, since what all images have in common is the field's."""
        gains.take_out_mean(self.n_images, 3, self.values)

    def host(self) -> np.ndarray:
        """(n_images, 3) gains, 1 where a photograph shows the field's colours as they are."""
        return np.exp(buffers.read(self.values).reshape(-1, 3))
