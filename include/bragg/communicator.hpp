// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace bragg {
inline namespace v0 {

/// How the ranks of a job move bytes between their memories. It only moves them: nothing is added up by
/// it, so that no result depends on it. All ranks make the same calls in the same order.
///
/// Bytes lie in host memory; where moves_device_memory(), also in that of a CUDA device, the plan's, and all
/// of a call's on one side. Then the device has written what is sent before the call, and what is received is
/// there when it returns.
///
/// Where AllReduceOptions::replicas compare what ranks compute, no rank passes others' bytes on.
///
/// <bragg/mpi.hpp> has one for MPI, <bragg/nccl.hpp> one for NCCL; of other transports a few lines make one.
class BRAGG_API Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator();

  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  /// Whether addresses may be on a CUDA device. Of those that cannot, a plan on a device moves its rows
  /// through host memory.
  virtual bool moves_device_memory() const noexcept { return false; }

  /// Every rank sends `send_bytes[k]` bytes to each rank k, itself included: they lie in `send` behind those
  /// for the ranks before k. Those from rank k come to lie in `receive` in the same way; each rank knows how
  /// many. @throws Error communication: a peer failed, or nothing came in time.
  virtual void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                          std::span<const std::int64_t> receive_bytes) = 0;

  /// Every rank sends `bytes[rank()]` bytes to all; `receive` has those of all ranks, one behind the other.
  /// `send` may be the rank's own place there. @throws Error communication, as all_to_all.
  virtual void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) = 0;
};

}  // namespace v0
}  // namespace bragg
