"""A self-test of about a minute: every kernel against its float64 formula, and the ceilings of the machine.

``cryopipe doctor`` prints it. The inputs are chosen so that a closed formula gives the answer without a second
implementation: on a Fourier cube that is linear in k, for example, trilinear interpolation is exact. The full
comparison is in ``tests/kernels``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.kernels import ctf_score as ctf_score_module
from cryopipe.kernels import orbits, peaks, poses, rings, slices
from cryopipe.kernels.ctf_values import ctf_values
from cryopipe.kernels.devices import gpu_unavailable_reason

#: box, padding and radius of the small test problem
BOX, PADDING, RADIUS = 48, 2, 20


@dataclass(frozen=True)
class Row:
    """One line of the self-test.

    Attributes
    ----------
    name : str
        What was checked or measured.
    device : str
        ``cpu`` or ``gpu``.
    passed : bool
        Whether the error is within the tolerance (measurements always pass).
    seconds : float
        Wall time, compilation included.
    detail : str
        Error and tolerance, or the measured figure with its unit.
    value : float
        The error, or the figure.
    """

    name: str
    device: str
    passed: bool
    seconds: float
    detail: str
    value: float


def run() -> list[Row]:
    """Check every kernel on the CPU and, where one can run, on the GPU; measure the ceilings of both."""
    rows = [*check_kernels("cpu"), *measure_ceilings("cpu")]
    if gpu_unavailable_reason() is None:
        rows += [*check_kernels("gpu"), *measure_ceilings("gpu")]
    return rows


def device_facts() -> list[str]:
    """Return lines about the GPU: name, memory, driver and CUDA versions; or the one reason why there is none."""
    reason = gpu_unavailable_reason()
    if reason is not None:
        return [f"GPU: none usable ({reason}); everything runs on the CPU"]
    import cupy

    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    lines = [f"CuPy {cupy.__version__}, CUDA runtime {_version(runtime)}, driver supports CUDA {_version(driver)}"]
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        facts = cupy.cuda.runtime.getDeviceProperties(index)
        with cupy.cuda.Device(index) as device:
            free, total = device.mem_info
        lines.append(
            f"GPU {index}: {facts['name'].decode()}, {total / 2**30:.1f} GiB ({free / 2**30:.1f} free), "
            f"compute capability {facts['major']}.{facts['minor']}, {facts['multiProcessorCount']} multiprocessors"
        )
    return lines


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def check_kernels(device: str) -> Iterator[Row]:
    """Yield one row a kernel: its largest error against the formula, relative to the size of the answer."""
    move = mover(device)
    checks: list[tuple[str, Callable[[Callable[[Any], Any]], float], float]] = [
        ("slices: extraction", _extraction_error, 1e-5),
        ("slices: insertion (adjoint)", _adjoint_error, 1e-5),
        ("orbits: sums over a group", _orbit_error, 1e-5),
        ("orbits: rotated copies", _rotation_error, 1e-5),
        ("poses: normal equations", _normal_equations_error, 1e-4),
        ("poses: scores", _score_error, 1e-5),
        ("rings: radial sums", _ring_error, 1e-10),
        ("rings: equiphase averages", _equiphase_error, 1e-10),
        ("ctf_values", _ctf_values_error, 1e-5),
        ("ctf_score", _ctf_score_error, 1e-5),
        ("peaks", _peaks_error, 0.0),
    ]
    for name, check, tolerance in checks:
        start = time.perf_counter()
        error = check(move)
        seconds = time.perf_counter() - start
        yield Row(name, device, error <= tolerance, seconds, f"error {error:.1e}, limit {tolerance:.0e}", error)


def mover(device: str) -> Callable[[Any], Any]:
    """Return the function that moves an array to the device."""
    if device == "cpu":
        return np.asarray
    import cupy

    return cupy.asarray


def _host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


@dataclass(frozen=True)
class _Scene:
    """A half cube V(q) = 1 + i g.q (Hermitian, linear), random poses and images."""

    slope: np.ndarray
    cube: np.ndarray
    kx: np.ndarray
    ky: np.ndarray
    rotations: np.ndarray
    images: np.ndarray
    ctf: np.ndarray
    shifts: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """Padded 3D frequencies [n, K, 3] of the samples."""
        in_plane = self.rotations[:, :2].astype(np.float64)
        return PADDING * (self.kx[:, None] * in_plane[:, None, 0] + self.ky[:, None] * in_plane[:, None, 1])

    @property
    def slices(self) -> np.ndarray:
        """The exact slices [n, K]."""
        return 1 + 1j * self.positions @ self.slope


def _scene() -> _Scene:
    rng = np.random.default_rng(1)
    n, padded = 4, PADDING * RADIUS + 1
    ky, kx = (a.ravel() for a in np.mgrid[-RADIUS : RADIUS + 1, 0 : RADIUS + 1])
    inside = (kx**2 + ky**2 <= RADIUS**2) & ((kx > 0) | (ky > 0))
    kx, ky = kx[inside].astype(np.int32), ky[inside].astype(np.int32)
    kx.flags.writeable = ky.flags.writeable = False  # as in the steps: what they have compiled is what is checked
    slope = np.array([0.021, -0.034, 0.017])
    q = np.arange(-padded, padded + 1)
    cube = 1 + 1j * (slope[2] * q[:, None, None] + slope[1] * q[:, None] + slope[0] * q[padded:])
    matrices = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    matrices *= np.sign(np.linalg.det(matrices))[:, None, None]
    return _Scene(
        slope=slope,
        cube=cube.astype(np.complex64),
        kx=kx,
        ky=ky,
        rotations=matrices.astype(np.float32),
        images=(rng.standard_normal((n, kx.size)) + 1j * rng.standard_normal((n, kx.size))).astype(np.complex64),
        ctf=rng.uniform(-1, 1, (n, kx.size)).astype(np.float32),
        shifts=rng.uniform(-3, 3, (n, 2)),
    )


def _extraction_error(move: Callable[[Any], Any]) -> float:
    s = _scene()
    got = slices.extract_slices(move(s.cube), move(s.rotations), move(s.kx), move(s.ky), padding=PADDING)
    return float(np.abs(_host(got) - s.slices).max() / np.abs(s.slices).max())


def _adjoint_error(move: Callable[[Any], Any]) -> float:
    """<P V, S> from the formula against <V, P^T S> from insertion, and the sum of the weights."""
    s = _scene()
    numerator, weight = move(np.zeros_like(s.cube)), move(np.zeros(s.cube.shape, np.float32))
    weights = np.abs(s.ctf)
    slices.insert_slices(
        numerator, weight, move(s.rotations), move(s.images), move(weights), move(s.kx), move(s.ky), padding=PADDING
    )
    count = np.full(s.cube.shape, 2.0)
    count[:, :, 0] = 1
    left = 2 * np.sum((np.conj(s.slices) * s.images).real)
    right = np.sum(count * (np.conj(s.cube) * _host(numerator)).real)
    adjoint = abs(left - right) / (np.linalg.norm(s.slices) * np.linalg.norm(s.images))
    total = abs((count * _host(weight)).sum() / (2 * weights.sum(dtype=np.float64)) - 1)
    return float(max(adjoint, total))


def _orbit_error(move: Callable[[Any], Any]) -> float:
    """Sum over the 2-fold axis on z: 1 + i g.q and its image add up to 2 + 2 i g_z q_z."""
    s = _scene()
    padded = s.cube.shape[2] - 1
    numerator, weight = move(s.cube.copy()), move(np.ones(s.cube.shape, np.float32))
    orbits.sum_over_orbits(numerator, weight, np.array([np.eye(3), np.diag([-1, -1, 1])], dtype=np.int64))
    expected = 2 + 2j * s.slope[2] * np.arange(-padded, padded + 1)[:, None, None]
    error = np.abs(_host(numerator) - expected).max() / np.abs(expected).max()
    return float(max(error, np.abs(_host(weight) / 2 - 1).max()))


def _rotation_error(move: Callable[[Any], Any]) -> float:
    """Compare rotated copies of 1 + i g.q with 1 + i g.(c q): interpolation is exact."""
    s = _scene()
    padded = s.cube.shape[2] - 1
    total, mass = move(np.zeros_like(s.cube)), move(np.zeros(s.cube.shape, np.float32))
    orbits.add_rotated(move(s.cube), move(np.ones(s.cube.shape, np.float32)), move(s.rotations), total, mass)
    q = np.arange(-padded, padded + 1)
    turned = s.slope @ s.rotations.sum(axis=0, dtype=np.float64)
    expected = len(s.rotations) + 1j * (turned[2] * q[:, None, None] + turned[1] * q[:, None] + turned[0] * q[padded:])
    inside = q[:, None, None] ** 2 + q[:, None] ** 2 + q[padded:] ** 2 < (padded - 1) ** 2
    error = np.abs(_host(total) - np.where(inside, expected, 0)).max() / np.abs(expected).max()
    return float(max(error, np.abs(_host(mass) / len(s.rotations) - inside).max()))


def _normal_equations_error(move: Callable[[Any], Any]) -> float:
    """Compare with the Jacobian written out: dY = i g.dq, q moved by the rotation vector to first order."""
    s = _scene()
    a = PADDING * s.rotations.astype(np.float64)
    along = 1j * a @ s.slope  # derivative of Y along the padded rows of A, [n, 3]
    phase = np.exp(2j * np.pi / BOX * (s.shifts[:, :1] * s.kx + s.shifts[:, 1:] * s.ky))
    model = s.ctf * s.slices * phase
    tilt = s.ctf * phase * along[:, 2, None]
    turn = s.ctf * phase * (s.ky * along[:, 0, None] - s.kx * along[:, 1, None])
    move_x, move_y = (2j * np.pi / BOX * k * model for k in (s.kx, s.ky))
    jacobian = np.stack([-s.ky * tilt, s.kx * tilt, turn, move_x, move_y], axis=-1)
    residual = s.images - model
    hessian = np.einsum("nki,nkj->nij", jacobian.conj(), jacobian).real
    gradient = -np.einsum("nki,nk->ni", jacobian.conj(), residual).real
    value = 0.5 * (np.abs(residual) ** 2).sum(axis=1)
    got = poses.normal_equations(
        move(s.cube), move(s.images), move(s.ctf), move(np.ones(s.kx.size, np.float32)), move(s.rotations),
        move(s.shifts), move(s.kx), move(s.ky), box=BOX, padding=PADDING,
    )  # fmt: skip
    size = np.sqrt(np.einsum("nii->ni", hessian))
    errors = (
        np.abs(_host(got[0]) - hessian) / (size[:, :, None] * size[:, None]),
        np.abs(_host(got[1]) - gradient) / (size * np.sqrt(2 * value)[:, None]),
        np.abs(_host(got[2]) / value - 1),
    )
    return float(max(e.max() for e in errors))


def _score_error(move: Callable[[Any], Any]) -> float:
    s = _scene()
    phase = np.exp(2j * np.pi / BOX * (s.shifts[:, :1] * s.kx + s.shifts[:, 1:] * s.ky))
    expected = -0.5 * (np.abs(s.images - s.ctf * s.slices * phase) ** 2).sum(axis=1)
    got = poses.score_poses(
        move(s.cube), move(s.images), move(s.ctf), move(np.ones(s.kx.size, np.float32)), move(s.rotations[:, None]),
        move(s.shifts[:, None]), move(s.kx), move(s.ky), box=BOX, padding=PADDING,
    )  # fmt: skip
    return float(np.abs(_host(got)[:, 0] / expected - 1).max())


def _ring_error(move: Callable[[Any], Any]) -> float:
    rng = np.random.default_rng(2)
    values, ring = rng.standard_normal(100_000).astype(np.float32), rng.integers(0, 128, 100_000)
    expected = np.bincount(ring, weights=values.astype(np.float64), minlength=128)
    return float(np.abs(_host(rings.ring_sums(move(values), move(ring), 128)) - expected).max())


def _equiphase_error(move: Callable[[Any], Any]) -> float:
    """Check that splitting a value between two rings keeps its sum and its centre."""
    position = np.random.default_rng(3).uniform(0, 126, 100_000).astype(np.float32)
    mean, weight = (
        _host(a) for a in rings.equiphase_average(move(np.ones(position.size, np.float32)), move(position), 128)
    )
    centre = (weight * np.arange(128)).sum() / position.sum(dtype=np.float64)
    return float(max(np.abs(mean[weight > 0] - 1).max(), abs(centre - 1), abs(weight.sum() / position.size - 1)))


def _ctf_values_error(move: Callable[[Any], Any]) -> float:
    rng = np.random.default_rng(7)
    kx, ky = rng.uniform(-0.25, 0.25, (2, 20_000))
    coefficients = np.array([[0.1, 900.0, 30.0, -20.0, -160.0], [0.0, 300.0, -5.0, 9.0, -160.0]])
    scale, b_factor = np.array([1.0, 0.5]), np.array([0.0, 30.0])
    k2 = kx**2 + ky**2
    terms = np.stack([np.ones_like(k2), k2, kx**2 - ky**2, 2 * kx * ky, k2**2])
    expected = scale[:, None] * np.exp(-b_factor[:, None] * k2 / 4) * np.sin(coefficients @ terms)
    return float(np.abs(_host(ctf_values(coefficients, scale, b_factor, move(kx), move(ky))) - expected).max())


def _ctf_score_error(move: Callable[[Any], Any]) -> float:
    rng = np.random.default_rng(4)
    k, angle = rng.uniform(1 / 30, 1 / 4, 20_000), rng.uniform(0, np.pi, 20_000)
    k2, cos2, sin2 = (a.astype(np.float32) for a in (k**2, np.cos(2 * angle), np.sin(2 * angle)))
    amplitude = rng.random(20_000).astype(np.float32)
    u, v, astigmatism = rng.uniform(12_000, 20_000, 64), rng.uniform(5000, 12_000, 64), rng.uniform(0, 180, 64)
    wavelength, cs_mm, contrast = 0.0196875, 2.7, 0.07
    twice = 2 * np.radians(astigmatism[:, None])
    defocus = (u + v)[:, None] / 2 + (u - v)[:, None] / 2 * (np.cos(twice) * cos2 + np.sin(twice) * sin2)
    chi = np.pi * wavelength * k2 * (defocus - 0.5 * wavelength**2 * cs_mm * 1e7 * k2.astype(np.float64))
    ctf = np.abs(np.sin(chi + np.arcsin(contrast)))
    expected = (amplitude * ctf).sum(axis=1) / np.sqrt((amplitude.astype(np.float64) ** 2).sum() * (ctf**2).sum(axis=1))
    got = ctf_score_module.ctf_score(
        move(amplitude), move(k2), move(cos2), move(sin2), move(np.stack([u, v, astigmatism], axis=1)),
        wavelength_A=wavelength, cs_mm=cs_mm, amplitude_contrast=contrast,
    )  # fmt: skip
    return float(np.abs(_host(got) - expected).max())


def _peaks_error(move: Callable[[Any], Any]) -> float:
    """Count misses: impulses of known order must come back, the lower one of each close pair must not."""
    response = np.zeros((200, 220), np.float32)
    y, x = (a.ravel() for a in np.mgrid[10:190:20, 10:210:20])
    height = 1 + np.random.default_rng(5).permutation(y.size).astype(np.float32)
    response[y, x] = height
    response[y + 4, x] = 0.5
    got_y, got_x, _ = peaks.find_peaks(move(response), 8.0, threshold=0.1)
    order = np.argsort(-height)
    got = list(zip(_host(got_y).tolist(), _host(got_x).tolist(), strict=True))
    expected = list(zip(y[order].tolist(), x[order].tolist(), strict=True))
    return float(sum(a != b for a, b in zip(got, expected, strict=False)) + abs(len(got) - len(expected)))


def measure_ceilings(device: str) -> Iterator[Row]:
    """Yield the speeds of a float32 matrix product and of a memory copy (read + write), best of five."""
    start = time.perf_counter()
    gflops = sgemm_gflops(device)
    yield Row("float32 matrix product", device, True, time.perf_counter() - start, f"{gflops:.0f} GFLOP/s", gflops)
    start = time.perf_counter()
    speed = copy_gbytes(device)
    yield Row("memory copy", device, True, time.perf_counter() - start, f"{speed:.1f} GB/s", speed)


def sgemm_gflops(device: str) -> float:
    """Return GFLOP/s of a float32 matrix product (2048 on a CPU, 8192 on a GPU; plain float32, no TF32)."""
    side = 2048 if device == "cpu" else 8192
    move = mover(device)
    a = move(np.random.default_rng(6).standard_normal((side, side), dtype=np.float32))
    return 2 * side**3 / best_seconds(lambda: a @ a, device) / 1e9


def copy_gbytes(device: str) -> float:
    """Return GB/s of a copy of 256 MB (CPU, one thread) or 4 GB (GPU), counting bytes read and written."""
    count = 2**26 if device == "cpu" else 2**30
    move = mover(device)
    source, target = move(np.zeros(1, np.float32)).repeat(count), move(np.zeros(1, np.float32)).repeat(count)

    def copy() -> None:
        target[...] = source

    return 2 * source.nbytes / best_seconds(copy, device) / 1e9


def best_seconds(call: Callable[[], object], device: str, repeat: int = 5) -> float:
    """Return the shortest wall time of ``repeat`` calls after one to warm up; a GPU is waited for."""
    if device == "gpu":
        import cupy

        wait: Callable[[], object] = cupy.cuda.runtime.deviceSynchronize
    else:
        wait = time.perf_counter
    times = []
    for _ in range(repeat + 1):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times[1:])
