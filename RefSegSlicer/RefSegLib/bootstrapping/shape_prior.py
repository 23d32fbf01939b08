"""What a structure looks like in words of geometry: an ellipse prior, read from JSON, from which masks are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from RefSegLib.errors import BadInput

Fraction = Annotated[float, Field(ge=0, le=2)]
WAVES = 6  # of the border: Fourier terms 2 to 7; term 0 is the size and term 1 the place
FINEST = 4  # pixels across the smallest ellipse; below that a mask has no shape
KEPT = 0.9  # of an ellipse must lie in the image
TRIES = 50  # draws for one ellipse that lies in the image


class EllipsePrior(BaseModel):
    """Ranges from which ellipses are drawn evenly, all of the image as it is given to the command.

    size: the longer axis as a fraction of the image's width; aspect: shorter by longer axis; center_x, center_y: of the
    width and the height, from the left and the top; angle: of the longer axis against the horizontal, degrees;
    roughness: standard deviation of the border's radius as a fraction of the radius; source: where the numbers are
    from, for those who read the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[Fraction, Fraction]
    aspect: tuple[Fraction, Fraction]
    center_x: tuple[Fraction, Fraction]
    center_y: tuple[Fraction, Fraction]
    angle: tuple[float, float] = (-90.0, 90.0)
    roughness: tuple[Fraction, Fraction] = (0.0, 0.03)
    source: str = ""

    @model_validator(mode="after")
    def _possible(self) -> EllipsePrior:
        for name in ("size", "aspect", "center_x", "center_y", "angle", "roughness"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} runs from {low:g} to {high:g}; write the smaller number first")
        if self.size[0] <= 0 or self.aspect[0] <= 0 or self.aspect[1] > 1:
            raise ValueError("size and aspect must be above 0, and aspect (shorter by longer axis) at most 1")
        if self.roughness[1] > 0.3:
            raise ValueError("a roughness above 0.3 is no ellipse any more")
        return self


def read_prior(file: Path | str) -> EllipsePrior:
    """An ellipse prior from a JSON file. Raises BadInput, naming the file and the number, if it cannot be one."""
    file = Path(file)
    try:
        return EllipsePrior.model_validate_json(file.read_text())
    except OSError as error:
        raise BadInput(f"The prior '{file}' could not be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"The prior '{file}' is no text file. A prior is written in JSON.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(f"The prior '{file}' cannot be used{f' ({place})' if place else ''}: {first['msg']}.") from error


def draw_ellipses(
    prior: EllipsePrior, shape: tuple[int, int], count: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """`count` masks (count, j, i) float32 in 0..1 on a frame of `shape`, borders within a pixel soft.

    Each ellipse lies in the image by nine tenths or is drawn anew. Raises BadInput, in a sentence, where that cannot be
    or the ellipses are too small for the frame.
    """
    height, width = shape
    smallest = prior.size[0] * prior.aspect[0] * width
    if smallest < FINEST:
        raise BadInput(
            f"The smallest ellipse of the prior is {smallest:.1f} pixels across on a frame of {width} x {height}, and "
            f"{FINEST} are needed. Raise --size, or the lower end of size or aspect."
        )
    masks = np.empty((count, height, width), np.float32)
    rejected = 0
    for number in range(count):
        for _ in range(TRIES):
            mask, inside = _ellipse(prior, shape, generator)
            if inside >= KEPT:
                break
            rejected += 1
        else:
            raise BadInput(
                f"The prior does not fit the image: ellipses with a longer axis of {prior.size[0]:g} to "
                f"{prior.size[1]:g} of the width around ({prior.center_x[0]:g}-{prior.center_x[1]:g}, "
                f"{prior.center_y[0]:g}-{prior.center_y[1]:g}) lie outside a frame of {width} x {height}. "
                "Lower size, or move center_x and center_y."
            )
        masks[number] = mask
    return masks


def _ellipse(
    prior: EllipsePrior, shape: tuple[int, int], generator: np.random.Generator
) -> tuple[npt.NDArray[np.float32], float]:
    """One mask and how much of the ellipse lies in the image."""
    height, width = shape
    longer = generator.uniform(*prior.size) * width / 2
    shorter = longer * generator.uniform(*prior.aspect)
    x, y = generator.uniform(*prior.center_x) * width, generator.uniform(*prior.center_y) * height
    angle = np.deg2rad(generator.uniform(*prior.angle))
    rows, columns = np.meshgrid(np.arange(height) + 0.5 - y, np.arange(width) + 0.5 - x, indexing="ij")
    along = (columns * np.cos(angle) - rows * np.sin(angle)) / longer
    across = (columns * np.sin(angle) + rows * np.cos(angle)) / shorter
    turn = np.arctan2(across, along)
    border = np.ones(shape)
    waves = np.arange(2, 2 + WAVES)
    heights = generator.normal(size=(2, WAVES)) / waves  # smooth: high waves are low
    heights *= generator.uniform(*prior.roughness) / np.sqrt((1 / waves**2).sum())
    for wave, (sine, cosine) in zip(waves, heights.T, strict=True):
        border += sine * np.sin(wave * turn) + cosine * np.cos(wave * turn)
    radius = np.hypot(along, across)
    distance = (border - radius) * np.sqrt(longer * shorter)  # pixels to the border, nearly
    mask = np.clip(distance + 0.5, 0, 1).astype(np.float32)
    return mask, float(mask.sum() / (np.pi * longer * shorter))
