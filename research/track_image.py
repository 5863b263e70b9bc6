"""The path of an image over a sensor, from recordings of known images.

The events of a pixel, counted with their signs and weighted by their thresholds, add up to the change of the logarithm
of its light since the beginning. Where the image must be at a time for the light to be that, is found for all
recordings together by Gauss-Newton steps, from one time to the next.
"""

import dataclasses

import numpy as np

from stbp.camera.camera import Camera
from stbp.camera.film import reference
from stbp.camera.model import pixels, simulate

KNOT_MS = 5.0
"""Time between two places that are found."""
_NUDGE = 0.1
"""Pixels between two images whose difference is the gradient."""
_STEPS = 3


def brightness(camera: Camera, images: np.ndarray, x: float, y: float) -> np.ndarray:
    """The logarithm of the light on every pixel, float32 `[N, W, H]`, where images `[N, h, w]` stand at (x, y)."""
    model = pixels(camera, *images.shape[1:])
    W, H = model.on.shape
    place = np.array([[x, y]], np.float32)
    across = reference.weights(model.table_x, model.offset_x, place[:, 0], W)[0]
    down = reference.weights(model.table_y, model.offset_y, place[:, 1], H)[0]
    seen = across @ (images.astype(np.float32) / 255).swapaxes(1, 2) @ down.T
    return np.log(np.maximum(np.float32(model.base) + np.float32(model.gain) * seen, np.float32(model.floor)))


def changes(events: dict[str, np.ndarray], camera: Camera, times: np.ndarray) -> np.ndarray:
    """What the events say of the change of every pixel's signal until each of the times (ms): `[times, N, W, H]`."""
    N, W, H = len(events["length"]), camera.width, camera.height
    bin_ = np.searchsorted(1000 * times, events["t"], side="left")
    recording = np.repeat(np.arange(N), events["length"])
    place = ((bin_ * N + recording) * W + events["x"]) * H + events["y"]
    step = np.where(events["p"] == 1, camera.threshold_on, -camera.threshold_off)
    total = np.bincount(place, weights=step, minlength=(len(times) + 1) * N * W * H)[: len(times) * N * W * H]
    return total.astype(np.float32).reshape(len(times), N, W, H).cumsum(0)


def track(events: dict[str, np.ndarray], images: np.ndarray, camera: Camera) -> np.ndarray:
    """The path `[K, 3]` (ms, x, y), every `KNOT_MS`, of the images that were recorded; the camera's own tells the
    start.

    Args:
        events: of N recordings, as `simulate` gives them.
        images: uint8 `[N, h, w]`.
        camera: taken as it is, but of its path only the beginning is used, where the search begins.
    """
    times = np.arange(0, camera.duration_ms + KNOT_MS / 2, KNOT_MS)
    change = changes(events, camera, times)
    path = np.empty((len(times), 2))
    start = np.array(camera.path[0][1:])
    for _ in range(_STEPS):
        rest = brightness(camera, images, *start)
        at = start
        grams, pulls = np.zeros((2, 2)), np.zeros(2)
        for k in range(len(times)):
            for _ in range(_STEPS):
                light, slope = gradient(camera, images, *at)
                wrong = (change[k] - (light - rest)).ravel()
                at = at + np.linalg.solve(slope @ slope.T, slope @ wrong)
            path[k] = at
        own = gradient(camera, images, *start)[1]
        for k in range(len(times)):  # where the start must be for all later pictures to fit
            wrong = (change[k] - (brightness(camera, images, *path[k]) - rest)).ravel()
            grams += own @ own.T
            pulls += own @ wrong
        start = start - np.linalg.solve(grams, pulls)
    return np.column_stack([times, path])


def gradient(camera: Camera, images: np.ndarray, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness at a place, and its derivatives along x and y: `[2, N * W * H]`."""
    light = brightness(camera, images, x, y)
    moved = brightness(camera, images, x + _NUDGE, y), brightness(camera, images, x, y + _NUDGE)
    back = brightness(camera, images, x - _NUDGE, y), brightness(camera, images, x, y - _NUDGE)
    return light, np.stack([(a - b).ravel() for a, b in zip(moved, back, strict=True)]) / (2 * _NUDGE)


def with_path(camera: Camera, path: np.ndarray) -> Camera:
    """The camera on a path `[K, 3]`, in steps of a thousandth of a pixel."""
    knots = tuple((float(t), round(float(x), 3), round(float(y), 3)) for t, x, y in path)
    return dataclasses.replace(camera, path=knots)


def tracked(events: dict[str, np.ndarray], images: np.ndarray, camera: Camera, rounds: int = 3) -> Camera:
    """The camera on the path of the recordings.

    What the events say lags behind the light, and is rounded down to thresholds. So recordings simulated along the
    path that was found are tracked in the same way, and what is found too late there is taken off, `rounds` times.
    """
    seen = track(events, images, camera)
    path = seen.copy()
    for _ in range(rounds):
        camera = with_path(camera, path)
        still = dataclasses.replace(camera, jitter_px=0.0, jitter_ms=0.0)
        path[:, 1:] += seen[:, 1:] - track(simulate(images, still), images, camera)[:, 1:]
    return with_path(camera, path)
