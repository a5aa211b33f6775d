// Fused residuals, analytic derivatives and scores of poses. Model, parameters and signs: cryopipe/kernels/poses.py.
// Threads stride over the Fourier pixels of one image (coalesced), keep float32 sums of some hundred terms and reduce in float64.
#include "common.cuh"

#define N_SUMS 31
#define SHIFTS 9  // shifts scored from one interpolation

// exp(2 pi i turns)
__device__ __forceinline__ float2 unit(float turns) {
    float s, c;
    sincospif(2.0f * turns, &s, &c);
    return make_float2(c, s);
}

__device__ __forceinline__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

__device__ __forceinline__ float dot(float2 a, float2 b) { return a.x * b.x + a.y * b.y; }

// Places of the sums: as in cryopipe/kernels/cpu/poses.py (_assemble).
__device__ void assemble(const double* s, double kappa, int with_scale, int with_defocus, int p, double* h, double* g) {
    h[0] = s[0]; h[1] = -s[1]; h[p + 1] = s[2];
    h[2] = -s[3]; h[p + 2] = s[4]; h[2 * p + 2] = s[5];
    h[3] = -kappa * s[11]; h[4] = -kappa * s[12];
    h[p + 3] = kappa * s[10]; h[p + 4] = kappa * s[11];
    h[2 * p + 3] = kappa * s[13]; h[2 * p + 4] = kappa * s[14];
    h[3 * p + 3] = kappa * kappa * s[15]; h[3 * p + 4] = kappa * kappa * s[16]; h[4 * p + 4] = kappa * kappa * s[17];
    g[0] = s[6]; g[1] = -s[7]; g[2] = -s[8]; g[3] = -kappa * s[18]; g[4] = -kappa * s[19];
    int at = 5;
    if (with_scale) {
        h[at] = -s[20]; h[p + at] = s[21]; h[2 * p + at] = s[22]; h[3 * p + at] = 0.0; h[4 * p + at] = 0.0;
        h[at * p + at] = s[23]; g[at] = -s[24];
        ++at;
    }
    if (with_defocus) {
        h[at] = -s[25]; h[p + at] = s[26]; h[2 * p + at] = s[27]; h[3 * p + at] = 0.0; h[4 * p + at] = 0.0;
        h[at * p + at] = s[28]; g[at] = -s[29];
        if (with_scale) h[5 * p + at] = s[30];
    }
    for (int i = 0; i < p; ++i)
        for (int j = 0; j < i; ++j) h[i * p + j] = h[j * p + i];
}

// One block an image.
extern "C" __global__ void normal_equations(const float2* __restrict__ cube, int radius, const float2* __restrict__ data,
                                            const float* __restrict__ ctf, const float* __restrict__ slope,
                                            const float* __restrict__ inverse_variance, int own_variance,
                                            const float* __restrict__ rotations, const double* __restrict__ shifts,
                                            const float* __restrict__ scales, const int* __restrict__ kx,
                                            const int* __restrict__ ky, int count, float padding, double box, int with_scale,
                                            int with_defocus, double* hessian, double* gradient, double* value) {
    const long long n = blockIdx.x;
    __shared__ float a[9];
    __shared__ double totals[N_SUMS];
    if (threadIdx.x < 9) a[threadIdx.x] = padding * rotations[9 * n + threadIdx.x];
    __syncthreads();
    const float tx = (float)(shifts[2 * n] / box), ty = (float)(shifts[2 * n + 1] / box);
    const float scale = scales[n];
    const float* variance = inverse_variance + (own_variance ? n * count : 0);
    const long long dy = radius + 1, dz = dy * (2 * radius + 1);
    float sum[N_SUMS];
#pragma unroll
    for (int i = 0; i < N_SUMS; ++i) sum[i] = 0.0f;

    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const float x = (float)kx[k], y = (float)ky[k];
        const float root = sqrtf(variance[k]);
        const Cell c = locate(a, x, y, radius);
        const float2* p = cube + c.corner;
        const float2 v000 = p[0], v001 = p[1], v010 = p[dy], v011 = p[dy + 1];
        const float2 v100 = p[dz], v101 = p[dz + 1], v110 = p[dz + dy], v111 = p[dz + dy + 1];
        const float2 l0 = mix(v000, v001, c.fx), l1 = mix(v010, v011, c.fx);
        const float2 h0 = mix(v100, v101, c.fx), h1 = mix(v110, v111, c.fx);
        const float2 low = mix(l0, l1, c.fy), high = mix(h0, h1, c.fy);
        const float2 here = mix(low, high, c.fz);
        const float2 gz = minus(high, low);
        const float2 gy = mix(minus(l1, l0), minus(h1, h0), c.fz);
        const float2 gx = mix(mix(minus(v001, v000), minus(v011, v010), c.fy), mix(minus(v101, v100), minus(v111, v110), c.fy), c.fz);
        // at -q the value is the conjugate, and its gradient by q is minus the conjugate gradient
        const float gain = ctf[n * count + k] * root, tilted = gain * scale;
        const float ex = y * a[0] - x * a[3], ey = y * a[1] - x * a[4], ez = y * a[2] - x * a[5];
        const float2 u = make_float2(c.sign * tilted * (gx.x * a[6] + gy.x * a[7] + gz.x * a[8]),
                                     tilted * (gx.y * a[6] + gy.y * a[7] + gz.y * a[8]));
        const float2 v = make_float2(c.sign * tilted * (gx.x * ex + gy.x * ey + gz.x * ez),
                                     tilted * (gx.y * ex + gy.y * ey + gz.y * ez));
        const float2 s = make_float2(gain * here.x, c.sign * gain * here.y);
        const float2 seen = data[n * count + k];
        const float2 e = times(make_float2(root * seen.x, root * seen.y), unit(-(x * tx + y * ty)));
        const float2 r = make_float2(e.x - scale * s.x, e.y - scale * s.y);
        const float2 w = make_float2(-scale * s.y, scale * s.x);
        const float uu = dot(u, u), uv = dot(u, v), ue = dot(u, r), uw = dot(u, w), vw = dot(v, w), ww = dot(w, w);
        // the model's own part of the residual is orthogonal to w = i M, so the data alone counts
        const float we = dot(w, e);
        sum[0] += uu * y * y; sum[1] += uu * x * y; sum[2] += uu * x * x;
        sum[3] += uv * y; sum[4] += uv * x; sum[5] += dot(v, v);
        sum[6] += ue * y; sum[7] += ue * x; sum[8] += dot(v, r); sum[9] += dot(r, r);
        sum[10] += uw * x * x; sum[11] += uw * x * y; sum[12] += uw * y * y;
        sum[13] += vw * x; sum[14] += vw * y;
        sum[15] += ww * x * x; sum[16] += ww * x * y; sum[17] += ww * y * y;
        sum[18] += we * x; sum[19] += we * y;
        if (with_scale) {
            const float us = dot(u, s);
            sum[20] += us * y; sum[21] += us * x; sum[22] += dot(v, s); sum[23] += dot(s, s); sum[24] += dot(s, r);
        }
        if (with_defocus) {
            const float change = slope[n * count + k] * root * scale;
            const float2 f = make_float2(change * here.x, c.sign * change * here.y);
            const float uf = dot(u, f);
            sum[25] += uf * y; sum[26] += uf * x; sum[27] += dot(v, f);
            sum[28] += dot(f, f); sum[29] += dot(f, r); sum[30] += dot(s, f);
        }
    }
#pragma unroll
    for (int i = 0; i < N_SUMS; ++i) {
        const double total = block_sum((double)sum[i]);
        if (threadIdx.x == 0) totals[i] = total;
    }
    if (threadIdx.x == 0) {
        const int p = 5 + with_scale + with_defocus;
        assemble(totals, 2.0 * 3.14159265358979323846 / box, with_scale, with_defocus, p, hessian + n * p * p, gradient + n * p);
        value[n] = 0.5 * totals[9];
    }
}

// One block a candidate: grid (image, candidate). A slice is interpolated once for SHIFTS shifts and never stored.
extern "C" __global__ void score_poses(const float2* __restrict__ cube, int radius, const float2* __restrict__ data,
                                       const float* __restrict__ ctf, const float* __restrict__ inverse_variance,
                                       int own_variance, const float* __restrict__ rotations,
                                       const double* __restrict__ shifts, int n_shifts, const float* __restrict__ scales,
                                       const int* __restrict__ kx, const int* __restrict__ ky, int count, float padding,
                                       double box, double* out) {
    const long long n = blockIdx.x;
    const long long candidate = n * gridDim.y + blockIdx.y;
    __shared__ float a[9];
    __shared__ float t[2 * SHIFTS];
    if (threadIdx.x < 9) a[threadIdx.x] = padding * rotations[9 * candidate + threadIdx.x];
    const float scale = scales[n];
    const float* variance = inverse_variance + (own_variance ? n * count : 0);
    const long long dy = radius + 1, dz = dy * (2 * radius + 1);
    for (int first = 0; first < n_shifts; first += SHIFTS) {
        __syncthreads();
        if (threadIdx.x < 2 * SHIFTS) {
            const int s = first + threadIdx.x / 2;
            t[threadIdx.x] = s < n_shifts ? (float)(shifts[2 * (candidate * n_shifts + s) + threadIdx.x % 2] / box) : 0.0f;
        }
        __syncthreads();
        float energy = 0.0f;
        float sum[SHIFTS];
#pragma unroll
        for (int s = 0; s < SHIFTS; ++s) sum[s] = 0.0f;
        for (int k = threadIdx.x; k < count; k += blockDim.x) {
            const float x = (float)kx[k], y = (float)ky[k];
            const float root = sqrtf(variance[k]);
            const Cell c = locate(a, x, y, radius);
            const float2* p = cube + c.corner;
            const float2 low = mix(mix(p[0], p[1], c.fx), mix(p[dy], p[dy + 1], c.fx), c.fy);
            const float2 high = mix(mix(p[dz], p[dz + 1], c.fx), mix(p[dz + dy], p[dz + dy + 1], c.fx), c.fy);
            const float2 here = mix(low, high, c.fz);
            const float gain = scale * ctf[n * count + k] * root;
            const float2 m = make_float2(gain * here.x, c.sign * gain * here.y);
            const float2 seen = data[n * count + k];
            const float2 d = make_float2(root * seen.x, root * seen.y);
            energy += dot(m, m) + dot(d, d);
            const float2 cross = times(make_float2(d.x, -d.y), m);
#pragma unroll
            for (int s = 0; s < SHIFTS; ++s) {
                if (first + s >= n_shifts) break;  // the same for the whole block
                const float2 e = unit(x * t[2 * s] + y * t[2 * s + 1]);
                sum[s] += cross.x * e.x - cross.y * e.y;
            }
        }
        const double half = 0.5 * block_sum((double)energy);
#pragma unroll
        for (int s = 0; s < SHIFTS; ++s) {
            if (first + s >= n_shifts) break;
            const double total = block_sum((double)sum[s]);
            if (threadIdx.x == 0) out[candidate * n_shifts + first + s] = total - half;
        }
    }
}
