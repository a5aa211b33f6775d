// Correlation of an amplitude spectrum with |CTF| of many candidates; one block a candidate, grid (candidate, spectrum).
// Phases are in half turns, the period of |sin|; definitions: cryopipe/kernels/ctf_score.py.
#include "common.cuh"

extern "C" __global__ void ctf_score(const float* __restrict__ amplitude, const float* __restrict__ weight,
                                     const float* __restrict__ base, const float* __restrict__ slope,
                                     const float* __restrict__ cos2, const float* __restrict__ sin2, int count,
                                     const float4* __restrict__ candidates, const double* __restrict__ norm, double* out) {
    const long long image = blockIdx.y;
    const long long at = image * gridDim.x + blockIdx.x;
    const float4 c = candidates[at];  // mean defocus, a, b, phase shift
    const float* own = amplitude + image * count;
    const float* own_base = base + image * count;
    float cross = 0.0f, energy = 0.0f;
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const float u = own_base[k] + c.w + slope[k] * (c.x + c.y * cos2[k] + c.z * sin2[k]);
        const float s = sinpif(u - rintf(u));
        cross += own[k] * fabsf(s);
        energy += weight[k] * s * s;
    }
    const double total = block_sum((double)cross);
    const double size = block_sum((double)energy);
    if (threadIdx.x == 0) {
        const double scale = sqrt(norm[image] * size);
        out[at] = scale > 0.0 ? total / scale : 0.0;
    }
}
