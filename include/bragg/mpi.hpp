// SPDX-License-Identifier: Apache-2.0
// Ranks of an MPI job. Header-only: it is compiled with the MPI that the program is linked with (CMake:
// `find_package(bragg COMPONENTS mpi)`, bragg::mpi). libbragg itself knows no MPI.
#pragma once

#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // the C++ bindings that MPI 3 removed
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <algorithm>
#include <bragg/communicator.hpp>
#include <cstring>
#include <string>
#include <vector>

namespace bragg::mpi {

/// Moves bytes of host memory over MPI, on a duplicate of the communicator that it is made with: the
/// program's messages and bragg's never meet. MPI is initialised before, and finalised after the last call;
/// calls come from one thread at a time (MPI_THREAD_FUNNELED will do, where that is the main thread).
///
/// Bytes go from rank to rank without a detour: MPI's own collectives have ranks pass others' bytes on, who
/// could alter all copies that replicas compare.
///
/// What MPI reports is an Error of status `communication`. MPI knows no timeout: it is the launcher that ends
/// a job of which a rank has died, as mpirun does.
class Communicator final : public bragg::Communicator {
 public:
  /// Collective. @throws Error communication.
  explicit Communicator(MPI_Comm comm) {
    check(MPI_Comm_dup(comm, &comm_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  /// Collective, unless MPI was finalised before.
  ~Communicator() override {
    int finalized = 0;
    if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Comm_free(&comm_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  void all_to_all(const std::byte* send, std::span<const std::int64_t> send_bytes, std::byte* receive,
                  std::span<const std::int64_t> receive_bytes) override {
    const std::vector<std::int64_t> from = starts(send_bytes);
    const std::vector<std::int64_t> to = starts(receive_bytes);
    move(
        [&](int peer) {
          return Bytes{send + from[at(peer)], send_bytes[at(peer)]};
        },
        [&](int peer) {
          return Bytes{receive + to[at(peer)], receive_bytes[at(peer)]};
        });
  }

  void all_gather(const std::byte* send, std::byte* receive, std::span<const std::int64_t> bytes) override {
    const std::vector<std::int64_t> to = starts(bytes);
    move(
        [&](int) {
          return Bytes{send, bytes[at(rank_)]};
        },
        [&](int peer) {
          return Bytes{receive + to[at(peer)], bytes[at(peer)]};
        });
  }

 private:
  template <class T>
  struct Span {
    T* data;
    std::int64_t size;
  };
  using Bytes = Span<const std::byte>;

  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

  /// Where each rank's bytes begin, and where the last's end.
  static std::vector<std::int64_t> starts(std::span<const std::int64_t> bytes) {
    std::vector<std::int64_t> found{0};
    for (const std::int64_t each : bytes) found.push_back(found.back() + each);
    return found;
  }

  /// Bytes for, and from, each peer: some peers at a time, in messages whose length an int counts.
  template <class SendF, class ReceiveF>
  void move(SendF send_to, ReceiveF receive_from) {
    constexpr int together = 32;
    constexpr std::int64_t longest = std::int64_t{1} << 30;
    constexpr int tag = 0;
    std::vector<MPI_Request> requests;
    const auto in_messages = [&](std::int64_t bytes, auto post) {
      for (std::int64_t done = 0; done < bytes; done += longest) {
        requests.push_back(MPI_REQUEST_NULL);
        post(done, static_cast<int>(std::min(longest, bytes - done)), &requests.back());
      }
    };
    for (int first = 0; first < size_; first += together) {
      const int last = std::min(first + together, size_);
      requests.clear();
      for (int step = first; step < last; ++step) {
        const int peer = (rank_ - step + size_) % size_;
        const Bytes from = receive_from(peer);
        auto* const to = const_cast<std::byte*>(from.data);  // NOLINT: it is the receiver's memory
        if (peer == rank_) {
          const Bytes own = send_to(peer);
          if (own.size > 0 && own.data != to) std::memmove(to, own.data, at_size(own.size));
          continue;
        }
        in_messages(from.size, [&](std::int64_t done, int bytes, MPI_Request* request) {
          check(MPI_Irecv(to + done, bytes, MPI_BYTE, peer, tag, comm_, request), "MPI_Irecv");
        });
      }
      for (int step = std::max(first, 1); step < last; ++step) {
        const int peer = (rank_ + step) % size_;
        const Bytes own = send_to(peer);
        in_messages(own.size, [&](std::int64_t done, int bytes, MPI_Request* request) {
          check(MPI_Isend(own.data + done, bytes, MPI_BYTE, peer, tag, comm_, request), "MPI_Isend");
        });
      }
      check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
            "MPI_Waitall");
    }
  }
  static std::size_t at_size(std::int64_t bytes) { return static_cast<std::size_t>(bytes); }

  static void check(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(Status::communication, std::string(call) + ": " + text);
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace bragg::mpi
