/* A blocked matrix product, c = a * b in f32, row-major. The block sizes come from the command line of the compiler. */

#define PRAGMA(text) _Pragma(#text)
#define UNROLL_LOOP(times) PRAGMA(GCC unroll times)

#if N % BI || N % BJ || N % BK
#error "the blocks must divide the matrix"
#endif

void matmul(const float *restrict a, const float *restrict b, float *restrict c) {
  for (int i = 0; i < N * N; ++i) c[i] = 0.0f;
  for (int i0 = 0; i0 < N; i0 += BI)
    for (int k0 = 0; k0 < N; k0 += BK)
      for (int j0 = 0; j0 < N; j0 += BJ)
        for (int i = i0; i < i0 + BI; ++i)
          for (int k = k0; k < k0 + BK; ++k) {
            const float scale = a[i * N + k];
            UNROLL_LOOP(UNROLL)
            for (int j = j0; j < j0 + BJ; ++j) c[i * N + j] += scale * b[k * N + j];
          }
}
