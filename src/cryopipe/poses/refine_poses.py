"""Continuous refinement of every image's pose to the maximum of its likelihood, by Levenberg-Marquardt.

The parameters are 3 angles and 2 shifts and, on request, a scale, the mean defocus and a grey offset. The kernel gives
the Gauss-Newton Hessian H and gradient g of minus the log-likelihood at each image's pose. A step solves
``(H + λ diag H) d = -g`` and is shortened to the longest step allowed in any of its parameters. It is kept only if it
lowers the objective. Otherwise λ grows tenfold. Every image has its own λ and stops on its own.

From a start within about half a resolution element over the particle's radius (5° at 12 Å for 125 Å) this finds the
maximum. For larger errors, start from several candidates (`refine_candidates`) or raise the radius in stages. The inverse
of H is the Cramér-Rao covariance of all parameters together. It includes, for example, the effect of an unknown defocus
on the error of the shift.

The defocus is first scanned over its whole range at the given pose, because the likelihood has a maximum for every ring
of the CTF. Then it is refined with the pose. Images may be phase-flipped, see `cryopipe.poses.ctf`.

A grey offset is a constant that was added to an image before its soft circular mask. It adds the mask's transform, which
is real and confined to the lowest shells, to the spectrum. It stays at the place of the mask when the particle is
shifted. Without a mask it would be at the zero frequency alone, which the half plane leaves out.

References: Marquardt 1963, doi:10.1137/0111030; Grigorieff 2007, doi:10.1016/j.jsb.2006.05.004 (continuous pose
refinement); Zivanov et al. 2018, doi:10.7554/eLife.42166 (defocus of single particles).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module
from cryopipe.kernels._memory import in_batches
from cryopipe.kernels.devices import Resources, over_devices, to_device
from cryopipe.poses.batch import End, pose_problem, refine_batch
from cryopipe.poses.model import ImageModel, PosePrior, Steps, offset_spectrum
from cryopipe.poses.refinement import PoseRefinement
from cryopipe.poses.start import joined, rules_of, start_of
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap

#: bytes of a batch on the CPU. On a GPU, the fraction of its free memory
_BATCH_BYTES = 128 << 20
_GPU_SHARE = 0.5
#: bytes per Fourier pixel of an image, for spectrum and CTF, a contiguous copy of both, and the active rows of both
_BYTES_A_PIXEL = 36

#: defaults: only the pose is refined, without priors, with the usual steps, on the device of the arrays
POSE_ALONE = ImageModel()
NO_PRIOR = PosePrior()
STEPS = Steps()
HERE = Resources()


def refine_poses(
    images: ParticleSpectra,
    noise: NoiseModel,
    reference: ReferenceMap,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    *,
    model: ImageModel = POSE_ALONE,
    prior: PosePrior = NO_PRIOR,
    steps: Steps = STEPS,
    resources: Resources = HERE,
) -> PoseRefinement:
    """Refine poses from their start values.

    Parameters
    ----------
    images : ParticleSpectra
        n images, cropped to the radius of the refinement.
    noise : NoiseModel
        Noise variances of the images.
    reference : ReferenceMap
        The map, on the device of the images.
    rotations : ndarray [n, 3, 3]
        Start poses A.
    shifts_px : ndarray [n, 2]
        Start shifts (x, y).
    model : ImageModel
        Parameters that are refined beside the pose: scale, defocus, grey offset.
    prior : PosePrior
        Priors of the poses.
    steps : Steps
        Longest steps, and when the refinement of an image stops.
    resources : Resources
        GPUs that share the images. Images and map are then in host memory. The CPU threads are Numba's.

    Returns
    -------
    PoseRefinement
        The result of an image does not depend on other images, on the number of threads or on the number of devices.

    Raises
    ------
    InputError
        Shapes do not fit. Start values, images or CTFs are not finite. Pixel sizes differ by more than 0.1 %. A defocus
        is zero or does not belong to the images' CTFs.
    """
    start = start_of(len(images), rotations, shifts_px, model, prior)
    rules = rules_of(model, prior, steps)
    reference.check(images)
    variance = noise.inverse_variance(images)
    defocus, devices = model.defocus, resources.devices
    spectrum = None if model.offset is None else offset_spectrum(images, model.offset.mask_diameter_A)
    on_gpu = devices is not None or array_module(images.values, images.ctf, reference.cube) is not np
    moved: dict[int, Any] = {}

    def refined(rows: np.ndarray, device: int | None = None) -> End:
        part: Any = slice(int(rows[0]), int(rows[-1]) + 1)
        own, cube = images.subset(part), reference.cube
        if device is not None:
            if device not in moved:
                moved[device] = to_device(cube)
            own, cube = own.to_gpu(), moved[device]
        weight = variance[0] if noise.group is None else variance[np.asarray(noise.group)[part]]
        parameters = None if defocus is None else defocus.parameters.subset(part)
        problem = pose_problem(
            own, weight, cube, parameters=parameters, offset_spectrum=spectrum, padding=reference.padding
        )
        return refine_batch(problem, rules, start.rows(part), scan=defocus is not None and defocus.scan)

    block = images_a_batch(len(images.pixels), gpu=on_gpu)
    every = np.arange(len(images))
    if devices is None:
        ends = in_batches(refined, every, block, what="image", halve=on_gpu)
    else:
        ends = over_devices(lambda device, part: refined(every[part], device), len(every), block, devices)
    return joined(ends, rules, start)


def images_a_batch(n_pixels: int, *, gpu: bool) -> int:
    """Return how many images are refined together. A Fourier pixel takes 36 bytes of 128 MB or half a GPU's free memory."""
    budget = float(_BATCH_BYTES)
    if gpu:
        import cupy

        budget = _GPU_SHARE * cupy.cuda.runtime.memGetInfo()[0]
    return max(1, int(budget // (_BYTES_A_PIXEL * max(n_pixels, 1))))
