// SPDX-License-Identifier: Apache-2.0
// Ranks that have an NCCL communicator. Header-only: it is compiled with the NCCL and the CUDA runtime that
// the program is linked with (CMake: `find_package(bragg COMPONENTS nccl)`, bragg::nccl). libbragg itself
// knows no NCCL.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <bragg/communicator.hpp>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

namespace bragg::nccl {

/// Moves bytes of device memory over NCCL, and those of host memory by way of the device, on a stream of its
/// own. The device is comm's, and so is that of plans. Bytes go from rank to rank directly, by ncclSend and
/// ncclRecv: NCCL's collectives have ranks pass others' bytes on. The ncclComm_t is the program's; between
/// bragg's calls the program may use it, in the same order on all ranks. Calls come from one thread at a
/// time.
///
/// What NCCL or CUDA reports, and a peer that lets `timeout` pass, is an Error of status `communication`. The
/// ncclComm_t is aborted then (ncclCommAbort), since a kernel may be waiting on it: `aborted` says so, and
/// nobody may use or destroy it any more. Of a communicator that blocks, NCCL's own first connection to a
/// peer knows no timeout; one of ncclConfig_t::blocking = 0 keeps to it there too.
class Communicator final : public bragg::Communicator {
 public:
  /// Not collective. `comm` outlives it. The stream and the memory are of comm's device.
  /// @throws Error communication.
  explicit Communicator(ncclComm_t comm, std::chrono::milliseconds timeout = std::chrono::minutes(10))
      : comm_(comm), timeout_(timeout) {
    // Here nothing is under way, and the ncclComm_t stays as it is.
    need(ncclCommUserRank(comm_, &rank_), "ncclCommUserRank");
    need(ncclCommCount(comm_, &size_), "ncclCommCount");
    need(ncclCommCuDevice(comm_, &device_), "ncclCommCuDevice");
    const OnDevice on(device_);
    need(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~Communicator() override {
    cudaFree(staged_);
    cudaStreamDestroy(stream_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  bool moves_device_memory() const noexcept override { return true; }
  /// After an Error: the ncclComm_t is gone.
  bool aborted() const noexcept { return aborted_; }

  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    const std::vector<std::size_t> from = starts(send_bytes);
    const std::vector<std::size_t> to = starts(receive_bytes);
    through_device(
        {send, from.back()}, {receive, to.back()}, [&](const std::byte* source, std::byte* target) {
          exchange(
              [&](int peer) {
                return Piece<const std::byte>{source + from[at(peer)], from[at(peer) + 1] - from[at(peer)]};
              },
              [&](int peer) {
                return Piece<std::byte>{target + to[at(peer)], to[at(peer) + 1] - to[at(peer)]};
              });
        });
  }

  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    const std::vector<std::size_t> to = starts(bytes);
    const std::size_t own = to[at(rank_) + 1] - to[at(rank_)];
    through_device({send, own}, {receive, to.back()}, [&](const std::byte* source, std::byte* target) {
      exchange(
          [&](int) {
            return Piece<const std::byte>{source, own};
          },
          [&](int peer) {
            return Piece<std::byte>{target + to[at(peer)], to[at(peer) + 1] - to[at(peer)]};
          });
    });
  }

 private:
  template <class ByteT>
  struct Piece {
    ByteT* data;
    std::size_t bytes;
  };

  /// Makes a device the current one of this thread.
  class OnDevice {
   public:
    explicit OnDevice(int device) {
      if (cudaGetDevice(&before_) != cudaSuccess || before_ == device) return;
      changed_ = cudaSetDevice(device) == cudaSuccess;
    }
    ~OnDevice() {
      if (changed_) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

   private:
    int before_ = 0;
    bool changed_ = false;
  };

  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

  /// Where each rank's bytes begin, and where the last's end.
  static std::vector<std::size_t> starts(std::span<const std::int64_t> bytes) {
    std::vector<std::size_t> found{0};
    for (const std::int64_t each : bytes) found.push_back(found.back() + static_cast<std::size_t>(each));
    return found;
  }

  bool is_on_device(const void* memory) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
    return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  }

  /// move(from, to), on the device: of what lies in host memory, of copies.
  template <class MoveF>
  void through_device(Piece<const std::byte> send, Piece<std::byte> receive, MoveF move) {
    if (aborted_) throw Error(Status::communication, "the ncclComm_t was aborted after an earlier failure");
    const OnDevice on(device_);
    const void* const some = receive.bytes > 0 ? receive.data : send.data;
    if (some == nullptr || is_on_device(some)) {
      move(send.data, receive.data);
      wait();
      return;
    }
    const std::size_t begin = (send.bytes + 255) / 256 * 256;
    std::byte* const staged = at_least(begin + receive.bytes);
    copy(staged, send.data, send.bytes, cudaMemcpyHostToDevice);
    move(staged, staged + begin);
    wait();  // a copy to pageable memory would wait for peers, and know no timeout
    copy(receive.data, staged + begin, receive.bytes, cudaMemcpyDeviceToHost);
    wait();
  }

  std::byte* at_least(std::size_t bytes) {
    if (bytes <= staged_bytes_) return staged_;
    check(cudaFree(staged_), "cudaFree");
    staged_ = nullptr;
    staged_bytes_ = 0;
    void* made = nullptr;
    check(cudaMalloc(&made, bytes), "cudaMalloc");
    staged_ = static_cast<std::byte*>(made);
    staged_bytes_ = bytes;
    return staged_;
  }

  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0 && to != from) check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
  }

  /// In step s a rank sends to the s-th after it, and receives from the s-th before it, so that the groups of
  /// all ranks match. NCCL takes 2048 operations a group.
  template <class SendF, class ReceiveF>
  void exchange(SendF send_to, ReceiveF receive_from) {
    constexpr int together = 1024;
    copy(receive_from(rank_).data, send_to(rank_).data, send_to(rank_).bytes, cudaMemcpyDeviceToDevice);
    for (int first = 1; first < size_; first += together) {
      check(ncclGroupStart(), "ncclGroupStart");
      for (int step = first; step < std::min(first + together, size_); ++step) {
        const int to = (rank_ + step) % size_;
        const int from = (rank_ - step + size_) % size_;
        const Piece<const std::byte> sent = send_to(to);
        const Piece<std::byte> received = receive_from(from);
        if (sent.bytes > 0)
          in_group(ncclSend(sent.data, sent.bytes, ncclUint8, to, comm_, stream_), "ncclSend");
        if (received.bytes > 0)
          in_group(ncclRecv(received.data, received.bytes, ncclUint8, from, comm_, stream_), "ncclRecv");
      }
      const ncclResult_t ended = ncclGroupEnd();
      if (ended == ncclInProgress) {
        wait_until([&] { return state() == ncclSuccess; });
      } else {
        check(ended, "ncclGroupEnd");
      }
    }
  }

  /// ncclSuccess, or ncclInProgress.
  ncclResult_t state() {
    ncclResult_t found = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &found), "ncclCommGetAsyncError");
    if (found != ncclInProgress) check(found, "ncclCommGetAsyncError");
    return found;
  }

  /// All that was enqueued is done.
  void wait() {
    wait_until([&] {
      const cudaError_t found = cudaStreamQuery(stream_);
      if (found != cudaErrorNotReady) check(found, "cudaStreamQuery");
      return found == cudaSuccess;
    });
  }

  template <class IsOverF>
  void wait_until(IsOverF is_over) {
    const auto begin = std::chrono::steady_clock::now();
    for (int turn = 0;; ++turn) {
      const bool over = is_over();
      state();
      if (over) return;
      if (std::chrono::steady_clock::now() - begin > timeout_)
        fail("NCCL: no answer from a rank in " + std::to_string(timeout_.count()) + " ms");
      if (turn < 100) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }

  static void need(cudaError_t code, const char* call) {
    if (code != cudaSuccess)
      throw Error(Status::communication, std::string(call) + ": " + cudaGetErrorString(code));
  }
  static void need(ncclResult_t code, const char* call) {
    if (code != ncclSuccess)
      throw Error(Status::communication, std::string(call) + ": " + ncclGetErrorString(code));
  }
  void check(cudaError_t code, const char* call) {
    if (code != cudaSuccess) fail(std::string(call) + ": " + cudaGetErrorString(code));
  }
  void check(ncclResult_t code, const char* call) {
    if (code != ncclSuccess) fail(std::string(call) + ": " + ncclGetErrorString(code));
  }
  /// The group is closed, or a later one would have what is left of it.
  void in_group(ncclResult_t code, const char* call) {
    if (code != ncclSuccess && code != ncclInProgress) {
      ncclGroupEnd();
      check(code, call);
    }
  }
  [[noreturn]] void fail(const std::string& what) {
    if (!aborted_) ncclCommAbort(comm_);
    aborted_ = true;
    throw Error(Status::communication, what);
  }

  ncclComm_t comm_;
  std::chrono::milliseconds timeout_;
  int rank_ = 0;
  int size_ = 1;
  int device_ = 0;
  bool aborted_ = false;
  cudaStream_t stream_ = nullptr;
  std::byte* staged_ = nullptr;
  std::size_t staged_bytes_ = 0;
};

}  // namespace bragg::nccl
