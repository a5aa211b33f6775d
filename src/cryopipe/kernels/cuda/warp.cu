// Cubic B-spline coefficients of a frame, and its warp added to several sums. Float arithmetic as on the CPU.
#define POLE (-0.26794919243112270647f)
#define START 16

__device__ __forceinline__ int mirrored(int i, int n) {
    i = i < 0 ? -i : i;
    return i >= n ? 2 * n - 2 - i : i;
}

// One thread a line of n samples, `step` apart; lines begin `pitch` apart. Coefficients replace the samples.
extern "C" __global__ void filter_lines(float* image, int lines, int n, long long pitch, long long step) {
    const long long line = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (line >= lines) return;
    float* const at = image + line * pitch;
    float total = 0.0f, power = 1.0f;
    for (int k = 0; k < START; ++k) {
        const int m = k % (2 * n - 2);
        total += power * at[mirrored(m, n) * step];
        power *= POLE;
    }
    float previous = 6.0f * total;
    at[0] = previous;
    for (int i = 1; i < n; ++i) {
        previous = 6.0f * at[i * step] + POLE * previous;
        at[i * step] = previous;
    }
    previous = POLE / (POLE * POLE - 1.0f) * (POLE * at[(n - 2) * step] + at[(n - 1) * step]);
    at[(n - 1) * step] = previous;
    for (int i = n - 2; i >= 0; --i) {
        previous = POLE * (previous - at[i * step]);
        at[i * step] = previous;
    }
}

__device__ __forceinline__ void taps(float f, float* w) {
    const float g = 1.0f - f;
    w[0] = g * g * g * (1.0f / 6.0f);
    w[3] = f * f * f * (1.0f / 6.0f);
    w[1] = 2.0f / 3.0f - f * f * (1.0f - 0.5f * f);
    w[2] = 1.0f - w[0] - w[1] - w[3];
}

// One thread an output pixel, which it alone writes.
extern "C" __global__ void accumulate(const float* __restrict__ coefficients, int ny, int nx, const float* __restrict__ shifts,
                                      int gy, int gx, int spacing, const float* __restrict__ weights, int n_sums, float fill,
                                      float* sums) {
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long count = (long long)ny * nx;
    if (at >= count) return;
    const int y = (int)(at / nx), x = (int)(at % nx);
    const int j = y / spacing, i = x / spacing;
    const float fy = (float)(y - j * spacing) / spacing, fx = (float)(x - i * spacing) / spacing;
    float shift[2];
    for (int axis = 0; axis < 2; ++axis) {
        const float* s = shifts + ((long long)axis * gy + j) * gx + i;
        const float left = s[0] + fy * (s[gx] - s[0]), right = s[1] + fy * (s[gx + 1] - s[1]);
        shift[axis] = left + fx * (right - left);
    }
    const float u = x - shift[0], v = y - shift[1];
    float value = fill;
    if (u >= 0.0f && v >= 0.0f && u <= nx - 1 && v <= ny - 1) {
        const int p = (int)u, q = (int)v;
        float a[4], b[4];
        taps(u - p, a);
        taps(v - q, b);
        value = 0.0f;
        for (int dy = 0; dy < 4; ++dy) {
            const float* row = coefficients + (long long)mirrored(q + dy - 1, ny) * nx;
            float line = 0.0f;
            for (int dx = 0; dx < 4; ++dx) line += a[dx] * row[mirrored(p + dx - 1, nx)];
            value += b[dy] * line;
        }
    }
    for (int r = 0; r < n_sums; ++r) sums[r * count + at] += weights[r] * value;
}
