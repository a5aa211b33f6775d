// Fused residuals, analytic derivatives and scores of poses. Model, parameters and signs: cryopipe/kernels/poses.py.
// Threads stride over the Fourier pixels of one image (coalesced), keep float32 sums of some hundred terms and reduce in float64.
#include "common.cuh"

#define BASE 20   // sums of rotation, shift and residual
#define EACH 7    // sums of each further column with those; behind them, those of the columns among each other
#define DEFOCI 8  // defocus changes scored from one interpolation

// exp(2 pi i turns)
__device__ __forceinline__ float2 unit(float turns) {
    float s, c;
    sincospif(2.0f * turns, &s, &c);
    return make_float2(c, s);
}

// The same for many turns: the whole ones go in float64.
__device__ __forceinline__ float2 unit_folded(double turns) { return unit((float)(turns - rint(turns))); }

__device__ __forceinline__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

__device__ __forceinline__ float2 scaled(float f, float2 a) { return make_float2(f * a.x, f * a.y); }

__device__ __forceinline__ float dot(float2 a, float2 b) { return a.x * b.x + a.y * b.y; }

// chi in turns from its five terms
__device__ __forceinline__ double phase_turns(const double* p, double change, float kx, float ky) {
    const double x = kx, y = ky, x2 = x * x, y2 = y * y, k2 = x2 + y2;
    return p[0] + k2 * (p[1] + change + p[4] * k2) + p[2] * (x2 - y2) + p[3] * (2.0 * x * y);
}

// Places of the sums: as in cryopipe/kernels/cpu/poses.py (assemble).
template <int EXTRA>
__device__ void assemble(const double* s, double kappa, double* h, double* g) {
    const int p = 5 + EXTRA;
    h[0] = s[0]; h[1] = -s[1]; h[p + 1] = s[2];
    h[2] = -s[3]; h[p + 2] = s[4]; h[2 * p + 2] = s[5];
    h[3] = -kappa * s[11]; h[4] = -kappa * s[12];
    h[p + 3] = kappa * s[10]; h[p + 4] = kappa * s[11];
    h[2 * p + 3] = kappa * s[13]; h[2 * p + 4] = kappa * s[14];
    h[3 * p + 3] = kappa * kappa * s[15]; h[3 * p + 4] = kappa * kappa * s[16]; h[4 * p + 4] = kappa * kappa * s[17];
    g[0] = s[6]; g[1] = -s[7]; g[2] = -s[8]; g[3] = -kappa * s[18]; g[4] = -kappa * s[19];
    for (int e = 0; e < EXTRA; ++e) {
        const double* own = s + BASE + EACH * e;
        const int at = 5 + e;
        h[at] = -own[0]; h[p + at] = own[1]; h[2 * p + at] = own[2]; h[3 * p + at] = kappa * own[3]; h[4 * p + at] = kappa * own[4];
        g[at] = -own[5]; h[at * p + at] = own[6];
        for (int f = 0; f < e; ++f) h[(5 + f) * p + at] = s[BASE + EACH * EXTRA + e * (e - 1) / 2 + f];
    }
    for (int i = 0; i < p; ++i)
        for (int j = 0; j < i; ++j) h[i * p + j] = h[j * p + i];
}

// One block an image. Further columns, in this order: scale, one or three defocus terms, offset; EXTRA of them in all.
template <int EXTRA>
__device__ __forceinline__ void equations(
    const float2* __restrict__ cube, int radius, const float2* __restrict__ data, const float* __restrict__ ctf,
    const float* __restrict__ inverse_variance, int own_variance, const float* __restrict__ rotations,
    const double* __restrict__ shifts, const float* __restrict__ scales, const double* __restrict__ phases, int with_phase,
    const float* __restrict__ per_unit, const float* __restrict__ spectrum, int n_spectrum, const float* __restrict__ offsets,
    const int* __restrict__ kx, const int* __restrict__ ky, int count, float padding, double box, int with_scale, int n_defocus,
    double* hessian, double* gradient, double* value) {
    const int N = BASE + EACH * EXTRA + EXTRA * (EXTRA - 1) / 2;
    const long long n = blockIdx.x;
    __shared__ float a[9];
    __shared__ double p[5];
    __shared__ double totals[BASE + 7 * 5 + 10];
    if (threadIdx.x < 9) a[threadIdx.x] = padding * rotations[9 * n + threadIdx.x];
    if (with_phase && threadIdx.x < 5) p[threadIdx.x] = phases[5 * n + threadIdx.x];
    __syncthreads();
    const double tx = shifts[2 * n] / box, ty = shifts[2 * n + 1] / box;
    const float scale = scales[n], slope = per_unit[n], offset = offsets[n];
    const float* variance = inverse_variance + (own_variance ? n * count : 0);
    const long long dy = radius + 1, dz = dy * (2 * radius + 1);
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = 0.0f;

    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const float x = (float)kx[k], y = (float)ky[k];
        const float root = sqrtf(variance[k]);
        const Cell c = locate(a, x, y, radius);
        const float2* q = cube + c.corner;
        const float2 v000 = q[0], v001 = q[1], v010 = q[dy], v011 = q[dy + 1];
        const float2 v100 = q[dz], v101 = q[dz + 1], v110 = q[dz + dy], v111 = q[dz + dy + 1];
        const float2 l0 = mix(v000, v001, c.fx), l1 = mix(v010, v011, c.fx);
        const float2 h0 = mix(v100, v101, c.fx), h1 = mix(v110, v111, c.fx);
        const float2 low = mix(l0, l1, c.fy), high = mix(h0, h1, c.fy);
        const float2 here = mix(low, high, c.fz);
        const float2 gz = minus(high, low);
        const float2 gy = mix(minus(l1, l0), minus(h1, h0), c.fz);
        const float2 gx = mix(mix(minus(v001, v000), minus(v011, v010), c.fy), mix(minus(v101, v100), minus(v111, v110), c.fy), c.fz);
        float gain = ctf[n * count + k] * root, steep = 0.0f;
        if (with_phase) {
            const float2 chi = unit_folded(phase_turns(p, 0.0, x, y));
            steep = gain * chi.x;
            gain *= chi.y;
        }
        // at -q the value is the conjugate, and its gradient by q is minus the conjugate gradient
        const float tilted = gain * scale;
        const float ex = y * a[0] - x * a[3], ey = y * a[1] - x * a[4], ez = y * a[2] - x * a[5];
        const float2 u = make_float2(c.sign * tilted * (gx.x * a[6] + gy.x * a[7] + gz.x * a[8]),
                                     tilted * (gx.y * a[6] + gy.y * a[7] + gz.y * a[8]));
        const float2 v = make_float2(c.sign * tilted * (gx.x * ex + gy.x * ey + gz.x * ez),
                                     tilted * (gx.y * ex + gy.y * ey + gz.y * ez));
        const float2 slice = make_float2(here.x, c.sign * here.y);
        const float2 m = scaled(tilted, slice);
        const float2 turn = unit_folded(-(x * tx + y * ty));
        const float2 o = k < n_spectrum ? scaled(spectrum[k] * root, turn) : make_float2(0.0f, 0.0f);
        const float2 e = minus(times(scaled(root, data[n * count + k]), turn), scaled(offset, o));
        const float2 r = minus(e, m);
        const float2 w = make_float2(-m.y, m.x);
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
        if (EXTRA > 0) {
            const float2 s = scaled(gain, slice), f = scaled(slope * steep * scale, slice);
            const float form[3] = {x * x + y * y, x * x - y * y, 2.0f * x * y};
            float2 d[EXTRA > 0 ? EXTRA : 1];
#pragma unroll
            for (int i = 0; i < EXTRA; ++i) {
                const int term = i - with_scale;
                d[i] = term < 0 ? s : term >= n_defocus ? o : scaled(term == 0 ? form[0] : term == 1 ? form[1] : form[2], f);
            }
#pragma unroll
            for (int i = 0; i < EXTRA; ++i) {
                float* own = sum + BASE + EACH * i;
                const float ud = dot(u, d[i]), wd = dot(w, d[i]);
                own[0] += ud * y; own[1] += ud * x; own[2] += dot(v, d[i]); own[3] += wd * x; own[4] += wd * y;
                own[5] += dot(d[i], r); own[6] += dot(d[i], d[i]);
#pragma unroll
                for (int j = 0; j < i; ++j) sum[BASE + EACH * EXTRA + i * (i - 1) / 2 + j] += dot(d[i], d[j]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const double total = block_sum((double)sum[i]);
        if (threadIdx.x == 0) totals[i] = total;
    }
    if (threadIdx.x == 0) {
        const int size = 5 + EXTRA;
        assemble<EXTRA>(totals, 2.0 * 3.14159265358979323846 / box, hessian + n * size * size, gradient + n * size);
        value[n] = 0.5 * totals[9];
    }
}

#define PARAMETERS                                                                                                              \
    const float2 *__restrict__ cube, int radius, const float2 *__restrict__ data, const float *__restrict__ ctf,                \
        const float *__restrict__ inverse_variance, int own_variance, const float *__restrict__ rotations,                      \
        const double *__restrict__ shifts, const float *__restrict__ scales, const double *__restrict__ phases, int with_phase, \
        const float *__restrict__ per_unit, const float *__restrict__ spectrum, int n_spectrum,                                 \
        const float *__restrict__ offsets, const int *__restrict__ kx, const int *__restrict__ ky, int count, float padding,    \
        double box, int with_scale, int n_defocus, double *hessian, double *gradient, double *value
#define ARGUMENTS                                                                                                               \
    cube, radius, data, ctf, inverse_variance, own_variance, rotations, shifts, scales, phases, with_phase, per_unit, spectrum, \
        n_spectrum, offsets, kx, ky, count, padding, box, with_scale, n_defocus, hessian, gradient, value

// One kernel for each number of further columns: registers hold the sums that are needed and no others.
extern "C" __global__ void normal_equations_0(PARAMETERS) { equations<0>(ARGUMENTS); }
extern "C" __global__ void normal_equations_1(PARAMETERS) { equations<1>(ARGUMENTS); }
extern "C" __global__ void normal_equations_2(PARAMETERS) { equations<2>(ARGUMENTS); }
extern "C" __global__ void normal_equations_3(PARAMETERS) { equations<3>(ARGUMENTS); }
extern "C" __global__ void normal_equations_4(PARAMETERS) { equations<4>(ARGUMENTS); }
extern "C" __global__ void normal_equations_5(PARAMETERS) { equations<5>(ARGUMENTS); }

// One block an image and DEFOCI defocus changes: grid (image, group of changes). C = ctf sin(chi).
extern "C" __global__ void score_defoci(const float2* __restrict__ cube, int radius, const float2* __restrict__ data,
                                        const float* __restrict__ ctf, const float* __restrict__ inverse_variance,
                                        int own_variance, const float* __restrict__ rotations,
                                        const double* __restrict__ shifts, const float* __restrict__ scales,
                                        const double* __restrict__ phases, const float* __restrict__ per_unit,
                                        const float* __restrict__ spectrum, int n_spectrum, const float* __restrict__ offsets,
                                        const int* __restrict__ kx, const int* __restrict__ ky, int count, float padding,
                                        double box, double first, double step, int n_defoci, double* out) {
    const long long n = blockIdx.x;
    const int begin = DEFOCI * blockIdx.y;
    __shared__ float a[9];
    __shared__ double p[5];
    if (threadIdx.x < 9) a[threadIdx.x] = padding * rotations[9 * n + threadIdx.x];
    if (threadIdx.x < 5) p[threadIdx.x] = phases[5 * n + threadIdx.x];
    __syncthreads();
    const double tx = shifts[2 * n] / box, ty = shifts[2 * n + 1] / box;
    const double turns = per_unit[n] / (2.0 * 3.14159265358979323846);  // of chi, for a change of one and k of one
    const float scale = scales[n], offset = offsets[n];
    const float* variance = inverse_variance + (own_variance ? n * count : 0);
    const long long dy = radius + 1, dz = dy * (2 * radius + 1);
    float energy = 0.0f;
    float sum[DEFOCI];
#pragma unroll
    for (int j = 0; j < DEFOCI; ++j) sum[j] = 0.0f;
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const float x = (float)kx[k], y = (float)ky[k];
        const float root = sqrtf(variance[k]);
        const Cell c = locate(a, x, y, radius);
        const float2* q = cube + c.corner;
        const float2 low = mix(mix(q[0], q[1], c.fx), mix(q[dy], q[dy + 1], c.fx), c.fy);
        const float2 high = mix(mix(q[dz], q[dz + 1], c.fx), mix(q[dz + dy], q[dz + dy + 1], c.fx), c.fy);
        const float2 here = mix(low, high, c.fz);
        const float2 m = scaled(scale * ctf[n * count + k] * root, make_float2(here.x, c.sign * here.y));
        const float2 turn = unit_folded(-(x * tx + y * ty));
        const float2 o = k < n_spectrum ? scaled(spectrum[k] * root, turn) : make_float2(0.0f, 0.0f);
        const float2 e = minus(times(scaled(root, data[n * count + k]), turn), scaled(offset, o));
        energy += dot(e, e);
        const float cross = dot(e, m), half = 0.5f * dot(m, m);
        float2 chi = unit_folded(phase_turns(p, turns * (first + step * begin), x, y));
        const float2 next = unit_folded(turns * step * ((double)x * x + (double)y * y));
#pragma unroll
        for (int j = 0; j < DEFOCI; ++j) {
            sum[j] += chi.y * (cross - chi.y * half);
            chi = times(chi, next);
        }
    }
    const double half = 0.5 * block_sum((double)energy);
#pragma unroll
    for (int j = 0; j < DEFOCI; ++j) {
        if (begin + j >= n_defoci) break;  // the same for the whole block
        const double total = block_sum((double)sum[j]);
        if (threadIdx.x == 0) out[n * n_defoci + begin + j] = total - half;
    }
}
