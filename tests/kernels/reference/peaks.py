"""Greedy peak picking as a person would do it."""

from __future__ import annotations

import numpy as np


def find_peaks(response, radius, *, threshold=-np.inf, upper_threshold=np.inf, border=0):
    height, width = response.shape
    radii = np.broadcast_to(radius, response.shape)
    found = []
    for y in range(border, height - border):
        for x in range(border, width - border):
            key = (response[y, x], -y, -x)
            others = [
                (response[v, u], -v, -u)
                for v in range(max(0, y - 1), min(height, y + 2))
                for u in range(max(0, x - 1), min(width, x + 2))
                if (v, u) != (y, x)
            ]
            if response[y, x] > threshold and all(key > other for other in others):
                found.append((y, x))
    found.sort(key=lambda p: (-response[p], p))
    kept = []
    for y, x in found:
        if all((y - v) ** 2 + (x - u) ** 2 >= float(radii[v, u]) ** 2 for v, u in kept):
            kept.append((y, x))
    kept = [p for p in kept if response[p] <= upper_threshold]
    y, x = np.array([p[0] for p in kept], int), np.array([p[1] for p in kept], int)
    return y, x, response[y, x]
