"""The kernel of the moving camera against its reference, and what the reference must do by itself."""

import ctypes
import dataclasses
import math

import numpy as np
import pytest
import torch

from stbp.camera.camera import Camera, presets
from stbp.camera.film import op, reference
from stbp.camera.model import pixels, positions, simulate
from stbp.ops import dispatch, native
from tests.isas import isa as isa

CAMERAS = {
    "n-mnist": presets()["n-mnist"],
    "noisy": Camera(noise=0.08, dead_on_ms=0.2, dead_off_ms=3.3, jitter_px=1.0, jitter_ms=5.0),
    "no noise": Camera(noise=0.0, mismatch=0.0, background_on_hz=0.0, background_off_hz=0.0, tau_ms=0.0),
    "light": Camera(ink=False, floor=0.01, blur_px=0.0, threshold_on=0.1, threshold_off=0.15),
    "odd": Camera(
        height=13, width=19, scale_x=0.7, scale_y=1.9, step_ms=0.37, duration_ms=20.0, path=((2.0, 9.0, 6.0),)
    ),
    "off the sensor": Camera(path=((0.0, -900.0, 15.0), (200.0, 14.0, 15.0)), duration_ms=250.0),
}


def images(n: int, height: int = 28, width: int = 28) -> np.ndarray:
    random = np.random.default_rng(n)
    found = random.integers(0, 256, (n, height, width), np.uint8)
    found[random.random(found.shape) < 0.7] = 0
    return found


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("shape", [(28, 28), (5, 33)])
def test_the_kernel_gives_the_reference_bit_for_bit(name, shape, isa):
    shown = images(3, *shape)
    with dispatch.watch() as seen:
        got = simulate(shown, CAMERAS[name], 7, [5, 2**32 - 1, 0])
    assert bool(seen) == (isa != "off")
    with dispatch.reference_only():
        want = simulate(shown, CAMERAS[name], 7, [5, 2**32 - 1, 0])
    for column in want:
        np.testing.assert_array_equal(got[column], want[column], column)
        assert got[column].dtype == want[column].dtype


def test_a_recording_depends_on_seed_and_sample_alone():
    shown, camera = images(5), presets()["n-mnist"]
    together = simulate(shown, camera, 3, [10, 11, 12, 13, 14])
    torch.set_num_threads(2)
    alone = simulate(shown[3:4], camera, 3, [13])
    begin = together["length"][:3].sum()
    part = slice(begin, begin + together["length"][3])
    assert all(np.array_equal(together[name][part], alone[name]) for name in "txyp")
    others = simulate(shown[3:4], camera, 4, [13]), simulate(shown[3:4], camera, 3, [14])
    assert all(not np.array_equal(alone["t"], other["t"]) for other in others)


def test_the_arguments_are_laid_out_as_in_cpp():
    if native.kernels() is None:
        pytest.skip(f"no kernels to test: {native.why_not()}")
    library = native.kernels()
    assert library is not None
    library.stbp_saccade_size.restype = ctypes.c_int64
    assert library.stbp_saccade_size() == ctypes.sizeof(op._Model)


def test_the_logarithm():
    x = np.concatenate([np.geomspace(1e-6, 1e3, 10_001), [1.0]]).astype(np.float32)
    np.testing.assert_allclose(reference.log(x), np.log(x.astype(np.float64)), rtol=2e-7, atol=2e-7)


def test_light_adds_up_to_the_ink():
    camera = dataclasses.replace(presets()["n-mnist"], scale_x=1.0, scale_y=1.0)
    shown = np.full((28, 28), 255, np.uint8)
    light = np.exp(reference.brightness(pixels(camera, 28, 28), shown, np.array([[16.5, 16.5]], np.float32))[0])
    assert light[16, 17] == pytest.approx(camera.floor, rel=0.02)  # all ink
    assert light[0, 0] == pytest.approx(1 + camera.floor, rel=1e-3)  # all screen
    assert (1 + camera.floor - light).sum() == pytest.approx(28 * 28, rel=1e-3)


def test_thresholds_are_crossed_where_the_signal_does():
    """A ramp of the signal, no noise: events at multiples of the threshold, finer than a step, dead time added."""
    camera = Camera(
        height=1, width=3, path=((0.0, -30.0, 0.0), (100.0, 30.0, 0.0)), duration_ms=100.0, blur_px=12.0, tau_ms=0.0,
        noise=0.0, mismatch=0.0, background_on_hz=0.0, background_off_hz=0.0, jitter_px=0.0, jitter_ms=0.0,
        dead_on_ms=2.0, dead_off_ms=2.0, threshold_on=0.05, threshold_off=0.05,
    )  # fmt: skip
    shown = np.full((1, 1, 1), 255, np.uint8)
    found = simulate(np.repeat(np.repeat(shown, 40, 1), 9, 2), camera)
    model = pixels(camera, 40, 9)
    fine = np.linspace(0, 100, 100_001)
    x = np.interp(fine, [0, 100], [-30, 30]).astype(np.float32)
    at = np.stack([x, np.zeros_like(x)], 1)
    signal = reference.brightness(model, np.full((40, 9), 255, np.uint8), at)[:, 1, 0].astype(float)
    expected, level, free = [], signal[0], 0
    for n in range(len(fine)):
        if n < free:
            continue
        if n == free:
            level = signal[n]
        if abs(signal[n] - level) > 0.05:
            expected.append((fine[n], int(signal[n] > level)))
            free = n + 2000
    middle = found["x"] == 1
    assert len(expected) > 5
    assert found["p"][middle].tolist() == [p for _, p in expected]
    np.testing.assert_allclose(found["t"][middle] / 1000, [t for t, _ in expected], atol=0.15)
    assert len(set(found["t"][middle] % 1000)) > 4  # not on the steps


def test_background_is_poisson_of_the_given_rates():
    camera = Camera(noise=0.0, background_on_hz=2.0, background_off_hz=0.5)
    found = simulate(np.zeros((200, 4, 4), np.uint8), camera)
    seconds = 34 * 34 * 0.31
    recording = np.repeat(np.arange(200), found["length"])
    for p, rate in ((1, 2.0), (0, 0.5)):
        counts = np.bincount(recording[found["p"] == p], minlength=200)
        assert counts.mean() == pytest.approx(rate * seconds, abs=4 * math.sqrt(rate * seconds / 200))
        assert counts.var() == pytest.approx(rate * seconds, rel=0.5)
    assert set(zip(found["x"], found["y"], strict=True)) == {(x, y) for x in range(34) for y in range(34)}
    assert found["t"].max() < 310_000


def test_the_camera_in_the_units_of_the_pixels():
    camera = Camera(
        threshold_on=0.2, threshold_off=0.3, mismatch=0.05, dead_on_ms=2.0, dead_off_ms=3.0, step_ms=0.5, tau_ms=1.0,
        noise=0.03, background_on_hz=2.0, background_off_hz=1.0, floor=0.1,
    )  # fmt: skip
    model = pixels(camera, 28, 28)
    for pattern, threshold in ((model.on, 0.2), (model.off, 0.3)):
        assert np.log(pattern / threshold).mean() == pytest.approx(0, abs=0.005)
        assert np.log(pattern / threshold).std() == pytest.approx(0.05, rel=0.1)
    assert abs(np.corrcoef(model.on.ravel(), model.off.ravel())[0, 1]) < 0.15
    assert (model.dead_on, model.dead_off) == (4.0, 6.0)
    assert model.alpha == pytest.approx(1 - math.exp(-0.5))
    assert model.noise * reference.SPREAD == pytest.approx(0.03)
    for counts, mean in ((model.counts_on, 2.0), (model.counts_off, 1.0)):  # the median's place in the table
        assert np.searchsorted(counts, 1 << 31) == pytest.approx(mean * 34 * 34 * camera.duration_ms / 1000, rel=0.01)


def test_the_image_is_seen_where_the_path_says():
    camera = dataclasses.replace(presets()["n-mnist"], scale_x=1.0, scale_y=1.0)
    shown = np.zeros((28, 28), np.uint8)
    shown[9:19, 12:16] = 255  # around the image's centre, upright
    light = np.exp(reference.brightness(pixels(camera, 28, 28), shown, np.array([[15.25, 18.5]], np.float32))[0])
    ink = 1 + camera.floor - light
    x, y = (np.arange(34) @ ink.sum(axis) / ink.sum() for axis in (1, 0))
    assert (x, y) == (pytest.approx(15.25, abs=0.01), pytest.approx(18.5, abs=0.01))
    wide, tall = (np.count_nonzero(ink.sum(axis) > 2) for axis in (1, 0))
    assert wide < 7 < 9 < tall


def test_recordings_differ_in_position_and_time_by_the_jitter():
    straight = Camera(path=((0.0, 0.0, 0.0), (300.0, 300.0, 0.0)), duration_ms=300.0, jitter_px=0.0, jitter_ms=4.0)
    late = np.arange(301)[100:200] - positions(straight, np.arange(2000), 1)[:, 100:200, 0]
    assert np.ptp(late, 1).max() < 1e-3  # one delay for all of a recording
    assert late[:, 0].std() == pytest.approx(4.0, rel=0.06)
    assert late[:, 0].mean() == pytest.approx(0, abs=0.4)
    moved = positions(dataclasses.replace(straight, jitter_px=0.5, jitter_ms=0.0), np.arange(2000), 1)[:, 100]
    assert moved.std(0) == pytest.approx([0.5, 0.5], rel=0.06)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.08
