// Sums over orbits of voxels and rotated copies of centred half cubes. Conventions: cryopipe/kernels/orbits.py.
#include "common.cuh"

// One thread a voxel (a, b, c), at work where a >= b >= c: its 24 images belong to no other thread, so nothing is atomic.
extern "C" __global__ void sum_over_orbits(float2* numerator, float* weight, int radius, const long long* __restrict__ steps,
                                           const long long* __restrict__ first_axis, const float* __restrict__ conjugate,
                                           int order, long long limit) {
    const long long width = radius + 1, side = 2 * radius + 1;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width * width * width) return;
    const long long k[3] = {i / (width * width), (i / width) % width, i % width};
    if (k[1] > k[0] || k[2] > k[1] || k[0] * k[0] + k[1] * k[1] + k[2] * k[2] > limit) return;
    const long long origin = (radius * side + radius) * width;
    float2 sums[24];  // all is read before anything is written: where a = b or c = 0, orbits coincide
    float masses[24];
    for (int orbit = 0; orbit < 24 / order; ++orbit) {
        double real = 0.0, imag = 0.0, mass = 0.0;
        for (int e = orbit * order; e < (orbit + 1) * order; ++e) {
            const long long at = origin + k[0] * steps[3 * e] + k[1] * steps[3 * e + 1] + k[2] * steps[3 * e + 2];
            const float2 v = numerator[at];
            real += v.x;
            imag += conjugate[e] * v.y;
            mass += weight[at];
        }
        sums[orbit] = make_float2((float)real, (float)imag);
        masses[orbit] = (float)mass;
    }
    for (int e = 0; e < 24; ++e) {
        const long long at = origin + k[0] * steps[3 * e] + k[1] * steps[3 * e + 1] + k[2] * steps[3 * e + 2];
        const float2 sum = make_float2(sums[e / order].x, conjugate[e] * sums[e / order].y);
        numerator[at] = sum;
        weight[at] = masses[e / order];
        const long long first = first_axis[e] == 0 ? k[0] : first_axis[e] == 1 ? k[1] : k[2];
        if (first == 0) {  // both mates of the plane kx = 0 are stored
            numerator[2 * origin - at] = make_float2(sum.x, -sum.y);
            weight[2 * origin - at] = masses[e / order];
        }
    }
}

// Gather, one thread a voxel, operators in order: reproducible.
extern "C" __global__ void add_rotated(const float2* __restrict__ numerator, const float* __restrict__ weight, int radius,
                                       const float* __restrict__ operators, int count, float limit, float2* total,
                                       float* total_weight) {
    const long long width = radius + 1, side = 2 * radius + 1;
    const long long voxel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (voxel >= side * side * width) return;
    const float kx = (float)(voxel % width);
    const float ky = (float)((voxel / width) % side - radius);
    const float kz = (float)(voxel / (width * side) - radius);
    if (kx * kx + ky * ky + kz * kz >= limit * limit) return;
    float real = 0.0f, imag = 0.0f, mass = 0.0f;
    for (int m = 0; m < count; ++m) {
        const float* c = operators + 9 * m;
        float x = c[0] * kx + c[1] * ky + c[2] * kz;
        float y = c[3] * kx + c[4] * ky + c[5] * kz;
        float z = c[6] * kx + c[7] * ky + c[8] * kz;
        float sign = 1.0f;
        if (x < 0.0f) { x = -x; y = -y; z = -z; sign = -1.0f; }
        const float x0 = floorf(x), y0 = floorf(y), z0 = floorf(z);
        const float fx = x - x0, fy = y - y0, fz = z - z0;
        const long long corner = (((long long)z0 + radius) * side + (long long)y0 + radius) * width + (long long)x0;
        for (int dz = 0; dz < 2; ++dz) {
            for (int dy = 0; dy < 2; ++dy) {
                const long long at = corner + (dz * side + dy) * width;
                const float share = (dy ? fy : 1.0f - fy) * (dz ? fz : 1.0f - fz);
                const float2 v = mix(numerator[at], numerator[at + 1], fx);
                real += share * v.x;
                imag += sign * share * v.y;
                mass += share * (weight[at] + fx * (weight[at + 1] - weight[at]));
            }
        }
    }
    total[voxel].x += real;
    total[voxel].y += imag;
    total_weight[voxel] += mass;
}
