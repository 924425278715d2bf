// SPDX-License-Identifier: Apache-2.0
// The only device facilities that kernels use, beside plain C++. Compiled by nvcc they are CUDA's; compiled
// by a C++ compiler they are those of the executor in tests/simt, which runs the same kernels on a CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/runtime/check.hpp"
#include "kernels/runtime/launch.hpp"

/// A kernel for blocks of at most max_threads (one-dimensional), min_blocks of them resident at a time.
#define BRAGG_KERNEL(max_threads, min_blocks) __global__ void __launch_bounds__(max_threads, min_blocks)
#define BRAGG_DEVICE __device__ __forceinline__
/// A function of its caller's registers alone, whose accesses need not be checked where the kernels' are.
#define BRAGG_DEVICE_REGISTERS BRAGG_DEVICE
#define BRAGG_GRID_CONSTANT const __grid_constant__
/// BRAGG_SHARED(float, tile, [2][N]): static shared memory.
#define BRAGG_SHARED(type, name, dims) __shared__ __align__(16) type name dims
#define BRAGG_UNROLL _Pragma("unroll")
#define BRAGG_ROLLED _Pragma("unroll 1")  // where copies would take registers from what matters

namespace bragg::detail::simt {

using Stream = cudaStream_t;

BRAGG_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
BRAGG_DEVICE int block() { return static_cast<int>(blockIdx.x); }
BRAGG_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
BRAGG_DEVICE int threads() { return static_cast<int>(blockDim.x); }
BRAGG_DEVICE int blocks() { return static_cast<int>(gridDim.x); }
BRAGG_DEVICE int lane() { return static_cast<int>(threadIdx.x & 31); }
BRAGG_DEVICE int warp() { return static_cast<int>(threadIdx.x >> 5); }

/// x, unknown to the compiler: what is computed from it is computed here, not earlier for several branches.
BRAGG_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

BRAGG_DEVICE void sync_threads() { __syncthreads(); }
BRAGG_DEVICE bool sync_threads_or(bool p) { return __syncthreads_or(p) != 0; }
BRAGG_DEVICE void sync_warp() { __syncwarp(); }
/// Of whole warps: every lane takes part.
template <class T>
BRAGG_DEVICE T shuffle_xor(T v, int lanes) {
  return __shfl_xor_sync(~0u, v, lanes);
}
BRAGG_DEVICE unsigned ballot(bool p) { return __ballot_sync(~0u, p); }
BRAGG_DEVICE bool any(bool p) { return __any_sync(~0u, p) != 0; }
BRAGG_DEVICE int popcount(unsigned bits) { return __popc(bits); }

/// Integers only: sums of floating-point numbers would depend on the order of arrival.
BRAGG_DEVICE unsigned atomic_add(unsigned* p, unsigned v) { return atomicAdd(p, v); }
BRAGG_DEVICE unsigned long long atomic_add(unsigned long long* p, unsigned long long v) {
  return atomicAdd(p, v);
}
BRAGG_DEVICE unsigned long long atomic_max(unsigned long long* p, unsigned long long v) {
  return atomicMax(p, v);
}

/// 16 bytes of an aligned address. Streaming: the data is not wanted again.
BRAGG_DEVICE uint4 load16(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }
BRAGG_DEVICE uint2 load8(const void* p) { return __ldcs(static_cast<const uint2*>(p)); }
BRAGG_DEVICE std::uint32_t load4(const void* p) { return __ldcs(static_cast<const unsigned*>(p)); }
BRAGG_DEVICE std::uint16_t load2(const void* p) { return __ldcs(static_cast<const unsigned short*>(p)); }
/// The same of global memory that others want too: it stays in the caches.
BRAGG_DEVICE uint4 load16_kept(const void* p) {
  __builtin_assume(__isGlobal(p));
  return *static_cast<const uint4*>(p);
}
BRAGG_DEVICE uint2 load8_kept(const void* p) {
  __builtin_assume(__isGlobal(p));
  return *static_cast<const uint2*>(p);
}
BRAGG_DEVICE std::uint32_t load4_kept(const void* p) {
  __builtin_assume(__isGlobal(p));
  return *static_cast<const std::uint32_t*>(p);
}
BRAGG_DEVICE std::uint16_t load2_kept(const void* p) {
  __builtin_assume(__isGlobal(p));
  return *static_cast<const std::uint16_t*>(p);
}
BRAGG_DEVICE void store16(void* p, uint4 v) { __stcs(static_cast<uint4*>(p), v); }
BRAGG_DEVICE void store8(void* p, uint2 v) { __stcs(static_cast<uint2*>(p), v); }

/// Asks for the 128 bytes of global memory that p lies in, aligned to as many, to be brought to L2, and goes
/// on.
BRAGG_DEVICE void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(p)) : "memory");
}

/// c += a·b, float64. Volatile: all lanes of a warp are in it, and no compiler may move it to where some are
/// not. With g = lane/4 and t = lane%4: a (16 × 16): a[2i+h] = A[g+8h][t+4i]; b (16 × 8): b[i]
/// = B[t+4i][g]; c (16 × 8): c[2h+i] = C[g+8h][2t+i].
BRAGG_DEVICE void mma_16x8x16(double (&c)[4], const double (&a)[8], const double (&b)[4]) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, {%4,%5,%6,%7,%8,%9,%10,%11}, "
      "{%12,%13,%14,%15}, {%16,%17,%18,%19};"
      : "=d"(c[0]), "=d"(c[1]), "=d"(c[2]), "=d"(c[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]), "d"(a[7]), "d"(b[0]),
        "d"(b[1]), "d"(b[2]), "d"(b[3]), "d"(c[0]), "d"(c[1]), "d"(c[2]), "d"(c[3]));
#else
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) {
    BRAGG_UNROLL
    for (int h = 0; h < 2; ++h) {
      asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%4,%5};"
                   : "=d"(c[2 * h]), "=d"(c[2 * h + 1])
                   : "d"(a[2 * i + h]), "d"(b[i]), "d"(c[2 * h]), "d"(c[2 * h + 1]));
    }
  }
#endif
}

/// c += a·b, four signed bytes a register, exact modulo 2³²; volatile as above. With g = lane/4, t = lane%4
/// and byte e of a register: a (16 × 32): a[2h+r] = A[g+8r][16h+4t+e]; b (32 × 8): b[h] = B[16h+4t+e][g]; c
/// as above.
BRAGG_DEVICE void mma_16x8x32(int (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Byte k is byte s of a (0 … 3) and b (4 … 7), s being the k-th hexadecimal digit from the right.
BRAGG_DEVICE std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t digits) {
  return __byte_perm(a, b, digits);
}

BRAGG_DEVICE std::uint32_t bits_of(float x) { return __float_as_uint(x); }
BRAGG_DEVICE float float_of(std::uint32_t bits) { return __uint_as_float(bits); }
BRAGG_DEVICE std::uint64_t bits_of(double x) { return static_cast<std::uint64_t>(__double_as_longlong(x)); }
BRAGG_DEVICE double double_of(std::uint64_t bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}
BRAGG_DEVICE float f16_to_float(std::uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
/// Rounded once, ties to even.
BRAGG_DEVICE std::uint16_t double_to_f16(double x) { return __half_as_ushort(__double2half(x)); }
BRAGG_DEVICE std::uint16_t double_to_bf16(double x) { return __bfloat16_as_ushort(__double2bfloat16(x)); }
BRAGG_DEVICE std::uint16_t float_to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }
BRAGG_DEVICE std::uint16_t float_to_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
/// The nearest integer, ties to even; anything where there is none.
BRAGG_DEVICE int round_to_int(float x) { return __float2int_rn(x); }
BRAGG_DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
BRAGG_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

/// Two 16-bit floats in one register: the smaller and the larger of each half; of a number and NaN, the
/// number. Spelled out: the toolkit's functions go through structs, which take the compiler minutes in a
/// large network.
BRAGG_DEVICE std::uint32_t min_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t m;
  asm("min.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}
BRAGG_DEVICE std::uint32_t max_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t m;
  asm("max.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}
BRAGG_DEVICE std::uint32_t min_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t m;
  asm("min.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}
BRAGG_DEVICE std::uint32_t max_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t m;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}

/// `seen` with NaN in each half where v is not finite: v · 0 + seen, on the pipe that minima do not take.
BRAGG_DEVICE std::uint32_t mark_nonfinite_f16x2(std::uint32_t v, std::uint32_t seen) {
  std::uint32_t m;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(m) : "r"(v), "r"(0u), "r"(seen));
  return m;
}
BRAGG_DEVICE std::uint32_t mark_nonfinite_bf16x2(std::uint32_t v, std::uint32_t seen) {
  std::uint32_t m;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(m) : "r"(v), "r"(0u), "r"(seen));
  return m;
}

/// Dynamic shared memory, cut front to back. Every thread takes the same pieces in the same order.
struct DynamicShared {
  unsigned offset = 0;
  template <class T>
  __device__ __forceinline__ T* take(std::size_t count) {
    extern __shared__ __align__(16) unsigned char bragg_dynamic_shared[];
    T* const p = reinterpret_cast<T*>(bragg_dynamic_shared + offset);
    offset += static_cast<unsigned>((count * sizeof(T) + 15) / 16 * 16);
    return p;
  }
  /// Bytes of the launch that are not taken.
  __device__ __forceinline__ std::size_t left() const {
    unsigned all;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(all));
    return all - offset;
  }
};
/// Bytes that `take` of `count` elements needs.
template <class T>
constexpr std::size_t shared_bytes(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

/// Blocks of a kernel that the current device holds at a time: what a grid-stride loop is launched with.
/// @throws Error as `launch`; internal: not one block has room.
template <class... ParametersT>
int resident_blocks(void (*kernel)(ParametersT...), int threads, std::size_t shared) {
  return cuda::resident_blocks(reinterpret_cast<const void*>(kernel), threads, shared);
}

/// Dynamic shared memory that a block of a kernel may have on the current device. @throws Error as `launch`.
template <class... ParametersT>
std::size_t most_dynamic_shared(void (*kernel)(ParametersT...)) {
  return cuda::most_dynamic_shared(reinterpret_cast<const void*>(kernel));
}

/// Until now what the stream had before may still be running (`launch_dependent`): everything that it writes
/// is there from here on, and what comes after may be set up. The first statement of a kernel: before it no
/// global memory is touched, and no thread leaves without it.
BRAGG_DEVICE void grid_dependency_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

template <class... ParametersT, class... ArgumentsT>
void launch_as(bool dependent, void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads,
               std::size_t shared, Stream stream, ArgumentsT&&... arguments) {
  if (blocks_x <= 0 || blocks_y <= 0) return;
  cuda::make_ready(reinterpret_cast<const void*>(kernel));
  if (cuda::is_rehearsal()) return;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks_x), static_cast<unsigned>(blocks_y));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = dependent ? 1 : 0;
  BRAGG_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, ParametersT(arguments)...));
}

/// Launches on `stream`, a grid of blocks_x × blocks_y. Nothing waits, where the kernel was made ready before
/// (kernels/runtime/launch.hpp). In a rehearsal it only is.
/// @throws Error unsupported, out_of_memory, internal: what CUDA says, and where.
template <class... ParametersT, class... ArgumentsT>
void launch(void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads, std::size_t shared,
            Stream stream, ArgumentsT&&... arguments) {
  launch_as(false, kernel, blocks_x, blocks_y, threads, shared, stream, arguments...);
}

/// The same of a kernel that begins with grid_dependency_sync: where makes_dependent_launches(), its blocks
/// are set up as soon as all blocks of the kernel before it run, if that one has that statement too.
template <class... ParametersT, class... ArgumentsT>
void launch_dependent(void (*kernel)(ParametersT...), int blocks_x, int blocks_y, int threads,
                      std::size_t shared, Stream stream, ArgumentsT&&... arguments) {
  launch_as(cuda::makes_dependent_launches(), kernel, blocks_x, blocks_y, threads, shared, stream,
            arguments...);
}

}  // namespace bragg::detail::simt

#else  // test builds only

#include <simt_executor.hpp>

#endif
