// Local maxima of a map: 1 where no neighbour is higher and no earlier neighbour (raster order) is equal. One thread a pixel.
extern "C" __global__ void local_maxima(const float* __restrict__ response, int height, int width, double threshold, int border,
                                        bool* out) {
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)height * width) return;
    const int y = (int)(at / width), x = (int)(at % width);
    const float value = response[at];
    bool highest = value > threshold && y >= border && x >= border && y < height - border && x < width - border;
    for (int dy = -1; dy <= 1 && highest; ++dy) {
        for (int dx = -1; dx <= 1; ++dx) {
            const int v = y + dy, u = x + dx;
            if ((dy == 0 && dx == 0) || v < 0 || u < 0 || v >= height || u >= width) continue;
            const float other = response[(long long)v * width + u];
            const bool earlier = dy < 0 || (dy == 0 && dx < 0);
            if (other > value || (earlier && other == value)) highest = false;
        }
    }
    out[at] = highest;
}
