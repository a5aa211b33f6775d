"""Moving every image's pose continuously to its likelihood's maximum: Levenberg-Marquardt.

The parameters are 3 angles and 2 shifts and, where asked for, a scale, the mean defocus and a grey offset.
The kernel gives the Gauss-Newton Hessian H and gradient g of minus the log-likelihood at each image's pose. A step
solves ``(H + λ diag H) d = -g``, is cut to the longest step allowed in any of its parameters, and is kept only where it
lowers the objective (else λ grows tenfold); every image has its own λ and stops on its own. From a start within about
half a resolution element over the particle's radius (5° at 12 Å for 125 Å) this finds the maximum; beyond that start
from several candidates (`refine_candidates`) or raise the radius in stages. The inverse of H is the
Cramér-Rao covariance of all parameters together: what an unknown defocus costs the shift is in it.

The defocus is first scanned over its whole range at the given pose (the likelihood has a maximum for every ring of the
CTF), then refined with the pose. Images may be phase-flipped, see `cryopipe.poses.ctf`.

A grey offset is a constant that was added to an image before its soft circular mask: it adds the mask's transform, real
and at the lowest shells, to the spectrum, and stays where the mask is when the particle is shifted. Without a mask it
would sit at the zero frequency alone, which the half plane leaves out.

References: Marquardt 1963, doi:10.1137/0111030; Grigorieff 2007, doi:10.1016/j.jsb.2006.05.004 (continuous pose
refinement); Zivanov et al. 2018, doi:10.7554/eLife.42166 (defocus of single particles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels._memory import in_batches
from cryopipe.kernels.pose_steps import StepRules
from cryopipe.poses.batch import End, pose_problem, refine_batch
from cryopipe.poses.candidates import Candidates, angular_nyquist_deg
from cryopipe.poses.model import DefocusModel, PoseRefinement, offset_spectrum
from cryopipe.poses.start import check_options, joined, start_of
from cryopipe.projection.particle_spectra import ParticleSpectra, inverse_variance_of
from cryopipe.search.devices import over_devices, to_device

#: bytes of a batch on the CPU; on a GPU, the share of its free memory
_BATCH_BYTES = 128 << 20
_GPU_SHARE = 0.5
#: bytes a Fourier pixel of an image: spectrum and CTF, the contiguous copy of both, and the rows still active of both
_BYTES_A_PIXEL = 36
#: evaluations after which candidates are compared
_ROUGH = 4
#: in nats: below it float32 sums decide
_LEAST_TOLERANCE = 1e-4
SCALE_BOUNDS = (0.2, 5.0)


def refine_poses(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    cube: Any,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    *,
    iterations: int = 12,
    max_step_deg: float = 4.0,
    max_step_px: float = 2.0,
    tolerance: float = 0.01,
    shift_sigma_px: float = np.inf,
    shift_centre_px: np.ndarray | None = None,
    rotation_sigma_deg: float = np.inf,
    rotation_centre: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    with_scale: bool = False,
    scale_sigma: float = np.inf,
    defocus: DefocusModel | None = None,
    offset_mask_A: float | None = None,
    offset: np.ndarray | None = None,
    noise_group: np.ndarray | None = None,
    padding: int = 2,
    map_pixel_size_A: float | None = None,
    devices: Sequence[int] | None = None,
) -> PoseRefinement:
    """Refine poses from where they are.

    Parameters
    ----------
    images : ParticleSpectra
        n images, cropped to the radius that is to be used.
    sigma2 : ndarray [radius + 1] or [g, radius + 1]
        Noise variance of real and imaginary part each, by shell.
    cube : complex64 [2R+1, 2R+1, R+1]
        `cryopipe.projection.references.reference_cube` of the map; on the side of the images.
    rotations : ndarray [n, 3, 3]
        Start poses A.
    shifts_px : ndarray [n, 2]
        Start shifts (x, y).
    iterations : int
        Most evaluations of the normal equations.
    max_step_deg, max_step_px : float
        Longest single step.
    tolerance : float
        In nats. An image is done when its next step promises, or its last step brought, a gain in log-likelihood below
        this; 0.01 is a step of a seventh of the pose's own standard error. A step that fails although it promised less
        than ten times as much ends it too: the interpolated reference has kinks that no smaller step resolves.
    shift_sigma_px : float
        Gaussian prior on each shift component about ``shift_centre_px`` (zero by default).
    shift_centre_px : ndarray [n, 2], optional
    rotation_sigma_deg : float
        Gaussian prior on the rotation away from ``rotation_centre`` (the start poses by default), per axis.
    rotation_centre : ndarray [n, 3, 3], optional
    scale : ndarray [n], optional
        Factor of the model, one by default.
    with_scale : bool
        Refine the scale as well (kept within 0.2 to 5).
    scale_sigma : float
        Gaussian prior on the scale about one.
    defocus : DefocusModel, optional
        Refine the mean defocus as well; the images' CTFs are then those of its parameters.
    offset_mask_A : float, optional
        Refine a grey offset as well: diameter of the soft mask (Å) that the images were multiplied by when loaded.
    offset : ndarray [n], optional
        Offset to begin with, zero by default.
    noise_group : ndarray int [n], optional
        Row of ``sigma2`` of each image.
    padding : int
        Of the cube.
    map_pixel_size_A : float, optional
        Pixel size of the map, to be compared with the images'.
    devices : sequence of int, optional
        CUDA devices to spread the images over; images and cube are then NumPy arrays.

    Returns
    -------
    PoseRefinement
        No image's result depends on another's, on the number of threads or on the number of devices.

    Raises
    ------
    InputError
        Shapes do not fit; start values, images or CTFs are not finite; pixel sizes differ by more than 0.1 %; a defocus
        is zero or does not belong to the images' CTFs.
    """
    start = start_of(len(images), rotations, shifts_px, shift_centre_px, rotation_centre, scale, defocus, offset)
    check_options(images, iterations, padding, map_pixel_size_A, cube, {
        "shift_sigma_px": shift_sigma_px, "rotation_sigma_deg": rotation_sigma_deg, "scale_sigma": scale_sigma,
        "max_step_deg": max_step_deg, "max_step_px": max_step_px, "tolerance": tolerance,
        **({} if defocus is None else {"defocus sigma_A": defocus.sigma_A, "defocus range_A": defocus.range_A,
                                       "defocus max_step_A": defocus.max_step_A}),
    })  # fmt: skip
    variance = inverse_variance_of(images, sigma2, noise_group)
    reach = np.inf if defocus is None else defocus.range_A
    rules = StepRules(
        with_scale,
        defocus is not None,
        offset_mask_A is not None,
        iterations,
        tolerance,
        np.array(
            [np.radians(max_step_deg), max_step_px, 0.5, np.inf if defocus is None else defocus.max_step_A, np.inf]
        ),
        np.array(
            [
                np.radians(rotation_sigma_deg),
                shift_sigma_px,
                scale_sigma,
                np.inf if defocus is None else defocus.sigma_A,
                np.inf,
            ]
        )
        ** -2.0,
        np.array([-np.inf, -np.inf, SCALE_BOUNDS[0], -reach, -np.inf]),
        np.array([np.inf, np.inf, SCALE_BOUNDS[1], reach, np.inf]),
    )
    spectrum = None if offset_mask_A is None else offset_spectrum(images, offset_mask_A)
    on_gpu = devices is not None or array_module(images.values, images.ctf, cube) is not np
    moved: dict[int, Any] = {}

    def refined(rows: np.ndarray, device: int | None = None) -> End:
        part: Any = slice(int(rows[0]), int(rows[-1]) + 1)
        own, reference = images.subset(part), cube
        if device is not None:
            if device not in moved:
                moved[device] = to_device(cube)
            own, reference = own.to_gpu(), moved[device]
        weight = variance[0] if noise_group is None else variance[np.asarray(noise_group)[part]]
        parameters = None if defocus is None else defocus.parameters.subset(part)
        problem = pose_problem(own, weight, reference, parameters=parameters, offset_spectrum=spectrum, padding=padding)
        return refine_batch(problem, rules, start.rows(part), scan=defocus is not None and defocus.scan)

    block = images_a_batch(len(images.pixels), gpu=on_gpu)
    every = np.arange(len(images))
    if devices is None:
        ends = in_batches(refined, every, block, what="image", halve=on_gpu)
    else:
        ends = over_devices(lambda device, part: refined(every[part], device), len(every), block, devices)
    return joined(ends, rules, start)


def refine_candidates(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    cube: Any,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    *,
    operators: np.ndarray | None = None,
    same_deg: float = 1.0,
    keep_nats: float = 12.0,
    radii: Sequence[int] = (),
    diameter_A: float | None = None,
    **options: Any,
) -> tuple[PoseRefinement, np.ndarray, np.ndarray]:
    """Refine m start poses of every image, at a rising radius where asked for, and keep the best of each.

    At every radius the candidates move for four evaluations; those that then lie ``keep_nats`` below the best, and those
    that have met a better one, are left behind. At the images' own radius the survivors are followed to their end.

    Parameters
    ----------
    images, sigma2, cube
        As for `refine_poses`.
    rotations : ndarray [n, m, 3, 3]
        Candidates.
    shifts_px : ndarray [n, m, 2]
        Their shifts.
    operators : ndarray [g, 3, 3], optional
        Symmetry, for telling whether two candidates ended in the same pose.
    same_deg : float
        Candidates that end nearer than this to the best (modulo symmetry) are the same answer.
    keep_nats : float
        Candidates that lie further below the best are not followed.
    radii : sequence of int
        Rising radii before the images' own, such as `marching_radii` gives.
    diameter_A : float, optional
        Particle diameter. The poses are then followed until a further step would be shorter than a quarter of the
        angular Nyquist, resolution / diameter in radians, at the images' radius.
    **options
        Of `refine_poses`; arrays have a row an image.

    Returns
    -------
    refined : PoseRefinement
        The best of each image.
    chosen : int64 [n]
        Which candidate it came from.
    confidence : float64 [n]
        Its likelihood over the sum over distinct answers: near 1 where the pose is unambiguous.
    """
    starts, start_shifts = np.asarray(rotations, np.float64), np.asarray(shifts_px, np.float64)
    if starts.ndim != 4 or starts.shape[:1] != (len(images),) or start_shifts.shape != (*starts.shape[:2], 2):
        raise InputError(
            f"{len(images)} images with candidates {starts.shape}, shifts {start_shifts.shape}: [n, m, 3, 3] and [n, m, 2] "
            "are needed"
        )
    field = Candidates(starts, start_shifts)
    wanted = int(options.pop("iterations", 12))

    def moved_at(radius: int, iterations: int, tolerance: float) -> Callable[..., PoseRefinement]:
        inside = images.crop(radius)

        def move(rows: np.ndarray, poses: np.ndarray, shifts: np.ndarray, **own: Any) -> PoseRefinement:
            some = inside if len(rows) == len(images) else inside.subset(rows)
            own |= {"iterations": iterations, "tolerance": tolerance}
            return refine_poses(some, sigma2, cube, poses, shifts, **own)

        return move

    tolerance, last = float(options.pop("tolerance", 0.01)), images.pixels.radius
    for radius in sorted({r for r in radii if r < last}):
        field.climb(field.alive, moved_at(radius, min(_ROUGH, wanted), tolerance), options)
        field.thin(operators, same_deg, keep_nats)
    field.climb(field.alive, moved_at(last, min(_ROUGH, wanted), tolerance), options)
    contends = field.contenders(keep_nats) & ~field.state["converged"]
    if wanted > _ROUGH:
        field.climb(contends, moved_at(last, wanted - _ROUGH, tolerance), options)
    if diameter_A is not None:
        _follow(field, moved_at, options, tolerance, images, diameter_A)
    refined, chosen = field.best()
    return refined, chosen, field.confidence(operators, same_deg)


def _follow(
    field: Candidates,
    moved_at: Callable[..., Callable[..., PoseRefinement]],
    options: dict[str, Any],
    tolerance: float,
    images: ParticleSpectra,
    diameter_A: float,
) -> None:
    """Follow the best candidates until a step that is left cannot exceed a quarter of the angular Nyquist.

    A step that promises less than the tolerance t is shorter than sqrt(2 t) standard errors; so t must be small enough.
    """
    radius = images.pixels.radius
    quarter = 0.25 * angular_nyquist_deg(
        diameter_A=diameter_A, box=images.box, pixel_size_A=images.pixel_size_A, radius=radius
    )
    best, chosen = field.best()
    left = np.sqrt(2 * tolerance) * best.angle_sd_deg()
    coarse = np.flatnonzero((left > quarter) & np.isfinite(left))
    if len(coarse) == 0:
        return
    which = np.zeros(field.alive.shape, bool)
    which[coarse, chosen[coarse]] = True
    finer = tolerance * float((quarter / left[coarse].max()) ** 2)
    field.climb(which, moved_at(radius, 2 * _ROUGH, max(finer, _LEAST_TOLERANCE)), options)


def images_a_batch(n_pixels: int, *, gpu: bool) -> int:
    """Return how many images are refined together: 36 bytes a Fourier pixel, within 128 MB or half a GPU's free memory."""
    budget = float(_BATCH_BYTES)
    if gpu:
        import cupy

        budget = _GPU_SHARE * cupy.cuda.runtime.memGetInfo()[0]
    return max(1, int(budget // (_BYTES_A_PIXEL * max(n_pixels, 1))))
