// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_cublas/fake_cublas.hpp"

#include <cublas_v2.h>

#include <bragg/error.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/runtime/blas.hpp"
#include "kernels/runtime/runtime.hpp"
#include "tests/simt/memory.hpp"
#include "tests/simt/shadow.hpp"

namespace simt = bragg::detail::simt;

struct cublasContext {
  bool has_stream = false;
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
};

namespace {

struct World {
  std::mutex mutex;
  std::set<cublasHandle_t> handles;
  int made = 0;
  int calls = 0;
  int major_version = CUBLAS_VER_MAJOR;
  bool refuses = false;
};
World& world() {
  static World* const made = new World;
  return *made;
}

/// What the real cuBLAS answers with anything: no result, an error later, or the right one by chance.
[[noreturn]] void fail(const std::string& what) { throw simt::Failure("cuBLAS: " + what); }

void expect_live(cublasHandle_t handle) {
  const std::lock_guard lock(world().mutex);
  if (world().handles.count(handle) == 0) fail("a handle that does not exist");
}

void expect_device_memory(const void* p, std::size_t bytes, const char* what) {
  if (simt::allocation_of(p, bytes).base == nullptr) {
    fail(std::string(what) + " leaves device memory: " + simt::describe_address(p));
  }
}

/// A matrix of each of a batch, columns one behind the other.
struct Matrices {
  const double* data;
  int rows;
  int columns;
  int ld;
  long long stride;
  int count;

  std::size_t elements() const {
    return static_cast<std::size_t>((count - 1) * stride + static_cast<long long>(columns - 1) * ld + rows);
  }
  bool overlaps(const void* p, std::size_t bytes) const {
    const auto here = reinterpret_cast<std::uintptr_t>(data);
    const auto there = reinterpret_cast<std::uintptr_t>(p);
    return here < there + bytes && there < here + elements() * sizeof(double);
  }
};

/// Elements that are not 0 are among the first so many of each column.
int used_rows(const Matrices& all, int batch) {
  int used = 0;
  for (int c = 0; c < all.columns; ++c) {
    const double* const column = all.data + batch * all.stride + static_cast<long long>(c) * all.ld;
    for (int r = all.rows; r > used; --r) {
      if (column[r - 1] != 0) used = r;
    }
  }
  return used;
}

/// Σ a[k]·b[k] in one of four orders.
double sum_of_products(const double* a, const double* b, int depth, int used, unsigned order) {
  if (order == 0) {
    double sum = 0;
    for (int k = 0; k < used; ++k) sum = std::fma(a[k], b[k], sum);
    return sum;
  }
  if (order == 1) {
    double sum = 0;
    for (int k = used; k-- > 0;) sum = std::fma(a[k], b[k], sum);
    return sum;
  }
  // Parts by themselves: halves of the depth, or every fourth.
  double parts[4] = {};
  for (int k = 0; k < used; ++k) {
    double& part = parts[order == 2 ? 2 * k / depth : k % 4];
    part = std::fma(a[k], b[k], part);
  }
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

void multiply(const Matrices& a, const Matrices& b, double* c, int ldc, long long stride_c) {
  constexpr int tile = 8;
  for (int batch = 0; batch < a.count; ++batch) {
    const int used = used_rows(a, batch);
    for (int j = 0; j < b.columns; ++j) {
      for (int i = 0; i < a.columns; ++i) {
        const auto order = static_cast<unsigned>(i / tile * 7 + j / tile * 5 + a.columns + a.count) % 4;
        c[batch * stride_c + static_cast<long long>(j) * ldc + i] = sum_of_products(
            a.data + batch * a.stride + static_cast<long long>(i) * a.ld,
            b.data + batch * b.stride + static_cast<long long>(j) * b.ld, a.rows, used, order);
      }
    }
  }
}

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const std::lock_guard lock(world().mutex);
  if (std::exchange(world().refuses, false)) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  world().handles.insert(*handle);
  ++world().made;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const std::lock_guard lock(world().mutex);
  if (world().handles.erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  expect_live(handle);
  handle->math_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  expect_live(handle);
  bragg::detail::cuda::is_capturing(stream);  // throws where there is none
  handle->has_stream = true;
  handle->stream = stream;
  handle->workspace = nullptr;  // "unconditionally resets the cuBLAS library workspace"
  handle->workspace_bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, unsigned long bytes) {
  expect_live(handle);
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  expect_device_memory(workspace, bytes, "the workspace");
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
  const std::lock_guard lock(world().mutex);
  *value = type == MAJOR_VERSION ? world().major_version : type == MINOR_VERSION ? CUBLAS_VER_MINOR : 0;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_INVALID_VALUE     ? "CUBLAS_STATUS_INVALID_VALUE"
         : status == CUBLAS_STATUS_NOT_INITIALIZED ? "CUBLAS_STATUS_NOT_INITIALIZED"
                                                   : "a status";
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa,
                                         cublasOperation_t transb, int m, int n, int k, const double* alpha,
                                         const double* a, int lda, long long stride_a, const double* b,
                                         int ldb, long long stride_b, const double* beta, double* c, int ldc,
                                         long long stride_c, int count) {
  expect_live(handle);
  if (m < 0 || n < 0 || k < 0 || count < 0 || alpha == nullptr || beta == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (transa != CUBLAS_OP_T || transb != CUBLAS_OP_N || *alpha != 1 || *beta != 0) {
    fail("this double multiplies a transposed matrix with one that is not, and adds nothing");
  }
  if (lda < k || ldb < k || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
  if (count > 1 && stride_c < static_cast<long long>(ldc) * (n - 1) + m) fail("products of a batch overlap");
  if (!handle->has_stream) fail("no stream was set: work would go to the default one");
  // Where none is set, cuBLAS takes memory of its own, and a graph that is captured would hold it.
  const std::size_t advised =
      (bragg::detail::cuda::compute_capability(0) == 90 ? std::size_t{32} : std::size_t{4}) << 20;
  if (handle->workspace_bytes < advised) fail("a workspace of fewer bytes than NVIDIA advises, or none");
  if (handle->math_mode != CUBLAS_PEDANTIC_MATH) fail("arithmetic need not be standard");
  const Matrices left{a, k, m, lda, stride_a, count};
  const Matrices right{b, k, n, ldb, stride_b, count};
  const Matrices to{c, m, n, ldc, stride_c, count};
  for (const Matrices* const matrices : {&left, &right, &to}) {
    const std::size_t bytes = matrices->elements() * sizeof(double);
    if (reinterpret_cast<std::uintptr_t>(matrices->data) % sizeof(double) != 0) fail("a misaligned matrix");
    expect_device_memory(matrices->data, bytes, "a matrix");
    if (matrices->overlaps(handle->workspace, handle->workspace_bytes)) fail("a matrix in the workspace");
    if (matrices != &to && to.overlaps(matrices->data, bytes)) fail("the products overlap what they are of");
    if (matrices != &to && simt::shadow::initialised_bytes(matrices->data, bytes) < bytes) {
      fail("a matrix that nothing has written: " + simt::describe_address(matrices->data));
    }
  }
  const simt::GlobalAccess access;
  constexpr std::size_t used_workspace = 4096;  // of a kernel that adds parts up later
  simt::fill_with_poison(handle->workspace, used_workspace);
  simt::shadow::initialise(handle->workspace, used_workspace);
  multiply(left, right, c, ldc, stride_c);
  simt::shadow::initialise(c, to.elements() * sizeof(double));
  const std::lock_guard lock(world().mutex);
  ++world().calls;
  return CUBLAS_STATUS_SUCCESS;
}

namespace bragg::detail::cuda {

void* cublas_function(const char* name) {
  struct Function {
    std::string_view name;
    void* address;
  };
  const Function functions[] = {
      {"cublasCreate_v2", reinterpret_cast<void*>(&cublasCreate_v2)},
      {"cublasDestroy_v2", reinterpret_cast<void*>(&cublasDestroy_v2)},
      {"cublasSetMathMode", reinterpret_cast<void*>(&cublasSetMathMode)},
      {"cublasSetStream_v2", reinterpret_cast<void*>(&cublasSetStream_v2)},
      {"cublasSetWorkspace_v2", reinterpret_cast<void*>(&cublasSetWorkspace_v2)},
      {"cublasGetProperty", reinterpret_cast<void*>(&cublasGetProperty)},
      {"cublasGetStatusString", reinterpret_cast<void*>(&cublasGetStatusString)},
      {"cublasDgemmStridedBatched", reinterpret_cast<void*>(&cublasDgemmStridedBatched)},
  };
  for (const Function& one : functions) {
    if (one.name == name) return one.address;
  }
  throw Error(Status::unsupported, std::string("BRAGG_GRAM=cublas: ") + name);
}

}  // namespace bragg::detail::cuda

namespace bragg::test::fake_cublas {

int handles_made() {
  const std::lock_guard lock(world().mutex);
  return world().made;
}
int handles_there() {
  const std::lock_guard lock(world().mutex);
  return static_cast<int>(world().handles.size());
}
int calls() {
  const std::lock_guard lock(world().mutex);
  return world().calls;
}
void set_major_version(int version) {
  const std::lock_guard lock(world().mutex);
  world().major_version = version;
}
void refuse_next_handle() {
  const std::lock_guard lock(world().mutex);
  world().refuses = true;
}

}  // namespace bragg::test::fake_cublas
