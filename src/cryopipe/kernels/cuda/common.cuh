// What the kernels share: the cell around a sample of a centred half cube, and sums over a block.
#pragma once

struct Cell {
    long long corner;   // complex index of the lower corner
    float fx, fy, fz;   // position inside the cell
    float sign;         // -1 where the mate at kx < 0 was asked for: conjugate what is read or written
    int x, y, z;        // the corner, y and z from -R
};

// a: the pose matrix times the padding, row-major; (qx, qy): image frequency; the sample lies at a^T (qx, qy, 0).
__device__ __forceinline__ Cell locate(const float* a, float qx, float qy, int radius) {
    Cell c;
    float x = a[0] * qx + a[3] * qy;
    float y = a[1] * qx + a[4] * qy;
    float z = a[2] * qx + a[5] * qy;
    c.sign = 1.0f;
    if (x < 0.0f) { x = -x; y = -y; z = -z; c.sign = -1.0f; }
    const float x0 = floorf(x), y0 = floorf(y), z0 = floorf(z);
    c.fx = x - x0; c.fy = y - y0; c.fz = z - z0;
    c.x = (int)x0; c.y = (int)y0; c.z = (int)z0;
    const long long side = 2 * radius + 1;
    c.corner = ((c.z + radius) * side + c.y + radius) * (radius + 1) + c.x;
    return c;
}

__device__ __forceinline__ float2 mix(float2 a, float2 b, float f) {
    return make_float2(a.x + f * (b.x - a.x), a.y + f * (b.y - a.y));
}

__device__ __forceinline__ float2 minus(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }

// Sum over a block of THREADS (a multiple of 32); the result is valid in thread 0. One order, hence reproducible.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double parts[THREADS / 32];
    for (int step = 16; step > 0; step >>= 1) value += __shfl_down_sync(0xffffffffu, value, step);
    __syncthreads();  // an earlier call may still be read
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = value;
    __syncthreads();
    double total = 0.0;
    if (threadIdx.x == 0)
        for (int i = 0; i < THREADS / 32; ++i) total += parts[i];
    return total;
}
