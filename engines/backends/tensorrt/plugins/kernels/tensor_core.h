// The matrix instructions of sm_80 and later, a warp at a time.
#pragma once

// acc[16, 8] += a[16, 16] * b[16, 8]; bfloat16 operands, float32 sums.
// Lane 4g + t holds acc rows g and g + 8, columns 2t and 2t + 1; a likewise, in pairs along its
// second axis: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); b (2t, g), (2t + 8, g).
// So the accumulators of two products side by side are a third one's `a`.
__device__ __forceinline__ void multiply_add(float (&acc)[4], const unsigned (&a)[4], unsigned b0,
                                             unsigned b1) {
#ifdef NEMOTRT_EMULATED
  emulator::multiply_add(acc, a, b0, b1);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four 8 x 8 matrices from shared memory; lanes 8i to 8i + 7 name the rows of matrix i. A lane gets
// a pair of row lane / 4; transposed, a pair of column lane / 4.
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const bf16* row) {
#ifdef NEMOTRT_EMULATED
  emulator::load_matrices(to, row, false);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
#endif
}

__device__ __forceinline__ void load_transposed(unsigned (&to)[4], const bf16* row) {
#ifdef NEMOTRT_EMULATED
  emulator::load_matrices(to, row, true);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
#endif
}
