"""One iteration of two half sets: each advances by itself, then they exchange what the gold standard allows.

A gold-standard method is a strategy that uses this. It decides what each iteration does
(`cryopipe.iteration.half_set_state.Task`) and when to stop. Source: Scheres & Chen 2012 (doi:10.1038/nmeth.2115).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.context import Context
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.exchange import Shared, compare, masked_reference, next_reference
from cryopipe.iteration.half_set import advance, reconstruct
from cryopipe.iteration.half_set_state import HalfSet, HalfSetOptions, Task
from cryopipe.iteration.halves import Halves
from cryopipe.kernels.devices import Resources
from cryopipe.projection.working_box import resize_map, working_box

#: Factor by which an iteration reconstructs beyond the present resolution.
REACH = 1.3
REACH_SHELLS = 8


@dataclass(frozen=True)
class ExchangeOptions:
    """What the halves share and how their references are masked.

    Attributes
    ----------
    particle_diameter_A : float
    join_resolution_A : float
        Shells coarser than this are averaged between the halves.
    mask : dict
        Options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`.
    mask_start_resolution_A : float
        The dynamic mask is used once the map is better than this.
    """

    particle_diameter_A: float
    join_resolution_A: float
    mask: dict[str, float]
    mask_start_resolution_A: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Both half sets between two iterations.

    Attributes
    ----------
    states : pair of HalfSet
    references : pair of array float32 [z, y, x]
        References of the next iteration, in a working box.
    own_nats : float
        What a particle's own part in its reference adds to the log-likelihood of its pose (`own_part_nats`).
    """

    states: tuple[HalfSet, HalfSet]
    references: tuple[NDArray[np.float32], NDArray[np.float32]]
    own_nats: float

    @property
    def ctf_change_A(self) -> NDArray[np.float64]:
        """Changes of the CTFs of all particles, first half first, [n, 3]."""
        return np.concatenate([state.ctf_change_A for state in self.states])


def start_pair(
    halves: Halves, initial: NDArray[np.float32], *, radius: int, lowpass_A: float, diameter_A: float
) -> Pair:
    """Return the state before the first iteration: both halves have the low-passed initial map and no poses.

    Parameters
    ----------
    halves : Halves
    initial : array float32 [z, y, x]
        Initial map with the box and the pixel size of the images.
    radius : int
        Outermost shell that the first poses are determined from.
    lowpass_A : float
        Low-pass filter of the initial map.
    diameter_A : float
        Of the particle, for the mask.
    """
    store = halves.store
    box = working_box(reach(radius, store.radius), largest=store.box)
    small = resize_map(low_pass(initial, store.pixel_size_A, lowpass_A), box)
    start = masked_reference(
        small, pixel_size_A=store.side_A / box, diameter_A=diameter_A, mask_options=None, threads=1
    )
    return Pair((HalfSet.start(halves.first.store), HalfSet.start(halves.second.store)), (start, start), 0.0)


def reach(radius: int, largest: int) -> int:
    """Return the outermost shell to reconstruct when poses use shells up to ``radius``."""
    return min(max(int(np.ceil(REACH * radius)), radius + REACH_SHELLS), largest)


def advance_pair(
    pair: Pair,
    halves: Halves,
    task: Task,
    options: HalfSetOptions,
    exchange_options: ExchangeOptions,
    context: Context,
    *,
    name: str,
    resolution_A: float,
    exchange: Any = compare,
) -> tuple[Pair, Shared]:
    """Advance both halves by one iteration and make their next references.

    Parameters
    ----------
    pair, halves : Pair, Halves
        State and particles; not modified.
    task, options, exchange_options : Task, HalfSetOptions, ExchangeOptions
        What the iteration does, how each half is refined, and what they share.
    context : Context
        Random numbers, threads, devices.
    name, resolution_A : str, float
        Name of the iteration, which seeds its random numbers, and resolution of the iteration before.
    exchange : callable
        :func:`cryopipe.iteration.exchange.compare`, or a stand-in that tests what passes between the halves.
    """
    resources = Resources(threads=context.threads, devices=context.gpus or None)
    states, sums = [], []
    for number, half in enumerate(halves):
        reference = resize_map(pair.references[number], task.box)
        rng = context.rng(f"{name} half {number + 1}")
        state, accumulated = advance(pair.states[number], half, reference, task, options, rng, resources)
        states.append(state)
        sums.append(accumulated)
    pixel_size_A = halves.store.side_A / task.box
    mask = exchange_options.mask if resolution_A < exchange_options.mask_start_resolution_A else None
    maps = [to_numpy(half.solve(threads=context.threads)) for half in sums]
    shared: Shared = exchange(
        (maps[0], maps[1]),
        radius=task.reconstruct_radius,
        join_radius=round(halves.store.side_A / exchange_options.join_resolution_A),
        pixel_size_A=pixel_size_A,
        diameter_A=exchange_options.particle_diameter_A,
        mask_options=mask,
        rng=context.rng(f"{name} phases"),
        threads=context.threads,
    )
    first, second = (
        masked_reference(
            next_reference(own, half, shared, threads=context.threads),
            pixel_size_A=pixel_size_A,
            diameter_A=exchange_options.particle_diameter_A,
            mask_options=mask,
            threads=context.threads,
        )
        for own, half in zip(maps, sums, strict=True)
    )
    fewest = min(len(half) for half in halves)
    own = own_part_nats(shared, first, operators=len(symmetry_operators(options.search.symmetry)), particles=fewest)
    return Pair((states[0], states[1]), (first, second), own), shared


def own_part_nats(shared: Shared, reference: NDArray[np.float32], *, operators: int, particles: int) -> float:
    """Return what a particle's own part in its half's reference adds to the log-likelihood of its pose, in the mean.

    A map is a linear fit of its images, and an image's share in the fit, its leverage, adds up over its pixels to the map's
    degrees of freedom over the number of images. Of the noise in a pixel that share is in the reference at the image's own
    pose, where it correlates with itself: a gain of 2 h for the leverage h of a complex pixel with unit noise in both parts.
    The degrees of freedom are the independent Fourier voxels times the mask's share of the box over the order of the point
    group, each times its Wiener factor, which for half maps is their FSC; joined shells hold half as much of the image.

    Parameters
    ----------
    shared : Shared
        The FSC between the halves and where they are joined.
    reference : array float32 [z, y, x]
        Masked: zero outside the mask.
    operators : int
        Rotations of the point group.
    particles : int
        Of the half.
    """
    shell = np.arange(len(shared.fsc))
    factor = np.where((shell > 0) & (shell <= shared.shell), np.clip(shared.fsc, 0, 1), 0.0)
    factor[: shared.join_radius + 1] /= 2
    voxels = 2 * np.pi * shell**2  # of half a shell: the other half are Friedel mates
    inside = float(np.mean(reference != 0))
    return float(2 * inside * np.sum(voxels * factor) / operators / particles)


def final_halves(
    pair: Pair, halves: Halves, *, symmetry: str, threads: int, gpu: bool = False
) -> list[NDArray[np.float32]]:
    """Reconstruct both halves from all frequencies of the full box, unfiltered and unmasked.

    Parameters
    ----------
    pair : Pair
    halves : Halves
    symmetry : str
        Point group.
    threads : int
        CPU threads.
    gpu : bool
        Reconstruct on the GPU.
    """
    maps = []
    for state, half in zip(pair.states, halves, strict=True):
        sums = reconstruct(state, half, half.store.radius, symmetry=symmetry, gpu=gpu)
        maps.append(to_numpy(sums.solve(threads=threads)))
    return maps
