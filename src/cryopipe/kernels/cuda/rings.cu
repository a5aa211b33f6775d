// Sums over rings in float64. Grid: x = image, y = block of CHUNK pixels; a block sums in shared memory where the rings fit there
// (``shared`` = 1), then adds to the result. Additions are atomic: results differ by float64 rounding from run to run.
#define CHUNK 8192

__device__ __forceinline__ void clear(double* bins, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) bins[i] = 0.0;
    __syncthreads();
}

__device__ __forceinline__ void flush(const double* bins, int n, double* out) {
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (bins[i] != 0.0) atomicAdd(out + i, bins[i]);
}

extern "C" __global__ void ring_sums(const float* __restrict__ values, const int* __restrict__ ring, long long count, int n_rings,
                                     int shared, double* out) {
    extern __shared__ double bins[];
    double* own = out + (long long)blockIdx.x * n_rings;
    double* target = shared ? bins : own;
    if (shared) clear(bins, n_rings);
    const long long begin = (long long)blockIdx.y * CHUNK;
    const long long end = begin + CHUNK < count ? begin + CHUNK : count;
    for (long long k = begin + threadIdx.x; k < end; k += blockDim.x) {
        const int r = ring[k];
        if (r >= 0 && r < n_rings) atomicAdd(target + r, (double)values[blockIdx.x * count + k]);
    }
    if (shared) flush(bins, n_rings, own);
}

extern "C" __global__ void spread_sums(const float* __restrict__ values, const float* __restrict__ position, int own_position,
                                       long long count, int n_rings, int shared, double* sums, double* weights) {
    extern __shared__ double bins[];  // sums, then weights
    double* own = sums + (long long)blockIdx.x * n_rings;
    double* own_weights = weights + (long long)blockIdx.x * n_rings;
    double* target = shared ? bins : own;
    double* target_weights = shared ? bins + n_rings : own_weights;
    if (shared) clear(bins, 2 * n_rings);
    const long long begin = (long long)blockIdx.y * CHUNK;
    const long long end = begin + CHUNK < count ? begin + CHUNK : count;
    for (long long k = begin + threadIdx.x; k < end; k += blockDim.x) {
        const float at = position[(own_position ? blockIdx.x * count : 0) + k];
        if (!(at >= 0.0f && at < (float)n_rings)) continue;  // NaN is left out too
        const int lower = (int)at;
        const double share = (double)at - lower, value = values[blockIdx.x * count + k];
        atomicAdd(target + lower, (1.0 - share) * value);
        atomicAdd(target_weights + lower, 1.0 - share);
        if (lower + 1 < n_rings) {
            atomicAdd(target + lower + 1, share * value);
            atomicAdd(target_weights + lower + 1, share);
        }
    }
    if (shared) {
        flush(bins, n_rings, own);
        flush(bins + n_rings, n_rings, own_weights);
    }
}
