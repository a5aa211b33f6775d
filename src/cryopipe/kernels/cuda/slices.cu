// Trilinear central slices of a centred half cube, and their adjoint. Conventions: cryopipe/kernels/slices.py.
// Grid: x = image, y = block of samples; neighbouring threads hold neighbouring samples, so values are read and written coalesced.
#include "common.cuh"

__device__ __forceinline__ void load_pose(const float* rotations, float padding, float* a) {
    if (threadIdx.x < 9) a[threadIdx.x] = padding * rotations[9LL * blockIdx.x + threadIdx.x];
    __syncthreads();
}

extern "C" __global__ void extract_slices(const float2* __restrict__ cube, int radius, const float* __restrict__ rotations,
                                          const int* __restrict__ kx, const int* __restrict__ ky, int count, float padding,
                                          float2* __restrict__ out) {
    __shared__ float a[9];
    load_pose(rotations, padding, a);
    const int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (k >= count) return;
    const Cell c = locate(a, (float)kx[k], (float)ky[k], radius);
    const long long dy = radius + 1, dz = dy * (2 * radius + 1);
    const float2* p = cube + c.corner;
    const float2 low = mix(mix(p[0], p[1], c.fx), mix(p[dy], p[dy + 1], c.fx), c.fy);
    const float2 high = mix(mix(p[dz], p[dz + 1], c.fx), mix(p[dz + dy], p[dz + dy + 1], c.fx), c.fy);
    float2 v = mix(low, high, c.fz);
    v.y *= c.sign;
    out[(long long)blockIdx.x * count + k] = v;
}

__device__ __forceinline__ void add(float* numerator, float* weight, long long at, float share, float real, float imag, float w) {
    atomicAdd(numerator + 2 * at, share * real);
    atomicAdd(numerator + 2 * at + 1, share * imag);
    atomicAdd(weight + at, share * w);
}

// Scatter with atomic additions: fast, the order of additions is open. Block x is pose x of all; an image has `copies` of them.
extern "C" __global__ void insert_slices(float* numerator, float* weight, int radius, const float* __restrict__ rotations, int copies,
                                         const float2* __restrict__ values, const float* __restrict__ weights,
                                         const int* __restrict__ kx, const int* __restrict__ ky, int count, float padding) {
    __shared__ float a[9];
    load_pose(rotations, padding, a);
    const int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (k >= count) return;
    const long long at = (long long)(blockIdx.x / copies) * count + k;
    const float w = weights[at];
    if (w == 0.0f) return;
    const Cell c = locate(a, (float)kx[k], (float)ky[k], radius);
    const float real = values[at].x, imag = c.sign * values[at].y;
    const long long side = 2 * radius + 1, width = radius + 1;
    for (int dz = 0; dz < 2; ++dz) {
        const float wz = dz ? c.fz : 1.0f - c.fz;
        for (int dy = 0; dy < 2; ++dy) {
            const float wyz = wz * (dy ? c.fy : 1.0f - c.fy);
            const long long voxel = c.corner + (dz * side + dy) * width;
            add(numerator, weight, voxel, wyz * (1.0f - c.fx), real, imag, w);
            if (c.x == 0) {  // the mate of a voxel of the plane kx = 0 is stored too
                const long long mate = ((radius - c.z - dz) * side + radius - c.y - dy) * width;
                add(numerator, weight, mate, wyz * (1.0f - c.fx), real, -imag, w);
            }
            add(numerator, weight, voxel + 1, wyz * c.fx, real, imag, w);
        }
    }
}

__device__ __forceinline__ int sample_at(const int* position, int k_max, int kx, int ky) {
    if (kx < 0 || kx > k_max || ky < -k_max || ky > k_max) return -1;
    return position[(ky + k_max) * (k_max + 1) + kx];
}

// Gather, one thread a voxel, poses in order, on top of what the voxel holds: bit-reproducible, however images are cut into launches.
// position [2 k_max + 1, k_max + 1] finds a frequency's sample or -1.
// A sample reaches a voxel only from within sqrt(3) grid steps, so few frequencies of each image are looked at.
extern "C" __global__ void insert_slices_ordered(float2* numerator, float* weight, int radius,
                                                 const float* __restrict__ rotations, int poses, int copies,
                                                 const float2* __restrict__ values, const float* __restrict__ weights,
                                                 const int* __restrict__ position, int k_max, int count, float padding) {
    const long long side = 2 * radius + 1, width = radius + 1;
    const long long voxel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (voxel >= side * side * width) return;
    const float x = (float)(voxel % width);
    const float y = (float)((voxel / width) % side - radius);
    const float z = (float)(voxel / (width * side) - radius);
    const float reach = 1.7320509f / padding + 1e-3f;
    float real = numerator[voxel].x, imag = numerator[voxel].y, total = weight[voxel];
    for (int n = 0; n < poses; ++n) {
        const float* a = rotations + 9LL * n;
        if (fabsf(a[6] * x + a[7] * y + a[8] * z) > 1.74f) continue;  // too far from the slice's plane
        const float u = (a[0] * x + a[1] * y + a[2] * z) / padding;
        const float v = (a[3] * x + a[4] * y + a[5] * z) / padding;
        for (int qy = (int)ceilf(v - reach); qy <= (int)floorf(v + reach); ++qy) {
            for (int qx = (int)ceilf(u - reach); qx <= (int)floorf(u + reach); ++qx) {
                const float sx = fmaxf(0.0f, 1.0f - fabsf(padding * (a[0] * qx + a[3] * qy) - x));
                const float sy = fmaxf(0.0f, 1.0f - fabsf(padding * (a[1] * qx + a[4] * qy) - y));
                const float sz = fmaxf(0.0f, 1.0f - fabsf(padding * (a[2] * qx + a[5] * qy) - z));
                const float share = sx * sy * sz;
                if (share == 0.0f) continue;
                for (int side_of_plane = 0; side_of_plane < 2; ++side_of_plane) {  // the sample itself, then a mate
                    const float sign = side_of_plane ? -1.0f : 1.0f;
                    const int k = side_of_plane ? sample_at(position, k_max, -qx, -qy) : sample_at(position, k_max, qx, qy);
                    if (k < 0) continue;
                    const long long at = (long long)(n / copies) * count + k;
                    const float w = weights[at];
                    if (w == 0.0f) continue;
                    real += share * values[at].x;
                    imag += share * sign * values[at].y;
                    total += share * w;
                }
            }
        }
    }
    numerator[voxel] = make_float2(real, imag);
    weight[voxel] = total;
}
