// SPDX-License-Identifier: Apache-2.0
#include "kernels/runtime/blas.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <cstdlib>
#include <string_view>

#include "kernels/runtime/runtime.hpp"

#if defined(BRAGG_HAS_CUBLAS)
#include <cublas_v2.h>
#endif

namespace bragg::detail::cuda {

#if defined(BRAGG_HAS_CUBLAS)

namespace {

/// What is called of cuBLAS, by way of its library: no program needs it to start.
struct Cublas {
  decltype(&cublasCreate_v2) create;
  decltype(&cublasDestroy_v2) destroy;
  decltype(&cublasSetMathMode) set_math_mode;
  decltype(&cublasSetStream_v2) set_stream;
  decltype(&cublasSetWorkspace_v2) set_workspace;
  decltype(&cublasGetProperty) get_property;
  decltype(&cublasGetStatusString) status_string;
  decltype(&cublasDgemmStridedBatched) dgemm_strided_batched;
};
template <class F>
void find(F*& function, const char* name) {
  function = reinterpret_cast<F*>(cublas_function(name));
}
const Cublas& cublas() {
  static const Cublas library = [] {
    Cublas c{};
    find(c.create, "cublasCreate_v2");
    find(c.destroy, "cublasDestroy_v2");
    find(c.set_math_mode, "cublasSetMathMode");
    find(c.set_stream, "cublasSetStream_v2");
    find(c.set_workspace, "cublasSetWorkspace_v2");
    find(c.get_property, "cublasGetProperty");
    find(c.status_string, "cublasGetStatusString");
    find(c.dgemm_strided_batched, "cublasDgemmStridedBatched");
    return c;
  }();
  return library;
}

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(status == CUBLAS_STATUS_ALLOC_FAILED      ? Status::out_of_memory
              : status == CUBLAS_STATUS_NOT_INITIALIZED ? Status::unsupported
              : status == CUBLAS_STATUS_ARCH_MISMATCH   ? Status::unsupported
                                                        : Status::internal,
              fmt::format("cuBLAS: {} from {}", cublas().status_string(status), call));
}

int property(libraryPropertyType type) {
  int value = 0;
  check(cublas().get_property(type, &value), "cublasGetProperty");
  return value;
}

/// cuBLAS would take f64 products in fixed point then, which do not keep the bound of docs/numerics.md.
void refuse_emulation() {
  const char* const text = std::getenv("CUBLAS_EMULATE_DOUBLE_PRECISION");
  if (text == nullptr || std::string_view(text).empty() || std::string_view(text) == "0") return;
  throw Error(
      Status::unsupported,
      fmt::format("BRAGG_GRAM=cublas: CUBLAS_EMULATE_DOUBLE_PRECISION={}; products would not keep their "
                  "bound: unset it",
                  text));
}

}  // namespace

Blas::Blas() {
  refuse_emulation();
  if (property(MAJOR_VERSION) != CUBLAS_VER_MAJOR) {
    throw Error(Status::unsupported,
                fmt::format("BRAGG_GRAM=cublas: the library is cuBLAS {}, bragg was built for {}.x",
                            version(), CUBLAS_VER_MAJOR));
  }
  constexpr std::size_t mebibyte = std::size_t{1} << 20;
  workspace_bytes_ = (compute_capability(current_device()) == 90 ? 32 : 4) * mebibyte;
  check(cublas().create(&handle_), "cublasCreate");
  // Standard arithmetic, whatever else a release may take for faster.
  const cublasStatus_t status = cublas().set_math_mode(handle_, CUBLAS_PEDANTIC_MATH);
  if (status != CUBLAS_STATUS_SUCCESS) cublas().destroy(handle_);
  check(status, "cublasSetMathMode");
}

Blas::~Blas() { cublas().destroy(handle_); }

void Blas::make_ready(const BatchedProducts& shape) {
  if (!ready_.insert(shape.n).second) return;
  const auto n = static_cast<std::size_t>(shape.n);
  const auto count = static_cast<std::size_t>(shape.count);
  const DeviceMemory rows(count * n * static_cast<std::size_t>(shape.depth) * sizeof(double));
  const DeviceMemory products(count * n * n * sizeof(double));
  const DeviceMemory workspace(workspace_bytes_);
  const OwnStream stream;
  set_bytes(rows.data(), 0, rows.bytes(), stream.get());
  BatchedProducts batch = shape;
  batch.rows = static_cast<const double*>(rows.data());
  batch.products = static_cast<double*>(products.data());
  batch.workspace = workspace.data();
  enqueue(batch, stream.get());
  synchronize(stream.get());
}

void Blas::enqueue(const BatchedProducts& batch, Stream stream) const {
  check(cublas().set_stream(handle_, stream), "cublasSetStream");
  // A new stream makes cuBLAS forget its workspace.
  check(cublas().set_workspace(handle_, batch.workspace, workspace_bytes_), "cublasSetWorkspace");
  // A row-major matrix is its transpose to cuBLAS.
  const double one = 1;
  const double zero = 0;
  const long long rows = static_cast<long long>(batch.n) * batch.depth;
  const long long products = static_cast<long long>(batch.n) * batch.n;
  check(cublas().dgemm_strided_batched(handle_, CUBLAS_OP_T, CUBLAS_OP_N, batch.n, batch.n, batch.depth, &one,
                                       batch.rows, batch.depth, rows, batch.rows, batch.depth, rows, &zero,
                                       batch.products, batch.n, products, batch.count),
        "cublasDgemmStridedBatched");
}

std::string Blas::version() {
  return fmt::format("{}.{}.{}", property(MAJOR_VERSION), property(MINOR_VERSION), property(PATCH_LEVEL));
}

std::string cublas_of_build() { return fmt::format("{}.{}", CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR); }

#else

namespace {

[[noreturn]] void refuse() {
  throw Error(Status::unsupported,
              "BRAGG_GRAM=cublas: this bragg was built without cuBLAS; build it where its headers are found "
              "(BRAGG_CUBLAS=ON), or take another choice");
}

}  // namespace

Blas::Blas() { refuse(); }
Blas::~Blas() = default;
void Blas::make_ready(const BatchedProducts&) { refuse(); }
void Blas::enqueue(const BatchedProducts&, Stream) const { refuse(); }
std::string Blas::version() { refuse(); }
std::string cublas_of_build() { return ""; }

#endif

}  // namespace bragg::detail::cuda
