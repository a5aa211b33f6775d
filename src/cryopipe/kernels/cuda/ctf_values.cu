// CTF values: one thread a (row, Fourier pixel); threads of a warp share a row, so its coefficients come from cache
// and the stores are coalesced. The phase is summed and reduced to half turns in float64, as on the CPU.
extern "C" __global__ void ctf_values(const double* __restrict__ turns,     // [n, 5], coefficients of chi / 2 pi
                                      const double* __restrict__ scale,     // [n]
                                      const double* __restrict__ b_factor,  // [n], A^2
                                      const double* __restrict__ kx,        // [count], 1/A
                                      const double* __restrict__ ky,
                                      const long long count, const int absolute,
                                      float* __restrict__ result)           // [n, count]
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long row = blockIdx.y;
    if (i >= count) return;
    const double* c = turns + 5 * row;
    const double x = kx[i], y = ky[i];
    const double x2 = x * x, y2 = y * y, k2 = x2 + y2;
    const double turn = c[0] + k2 * (c[1] + c[4] * k2) + c[2] * (x2 - y2) + c[3] * (2.0 * x * y);
    const double halves = rint(2.0 * turn);
    // sinpi(2 t) = sin(2 pi t) for |t| <= 1/4, with the sign of the half turns taken off.
    const double sign = 1.0 - 2.0 * fabs(halves - 2.0 * rint(0.5 * halves));
    float value = (float)(scale[row] * sign) * sinpif((float)(2.0 * turn - halves));
    const double damping = b_factor[row];
    if (damping != 0.0) value *= expf((float)(-0.25 * damping * k2));
    result[row * count + i] = absolute ? fabsf(value) : value;
}
