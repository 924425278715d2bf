// SPDX-License-Identifier: Apache-2.0
// A job whose ranks are threads that have an NCCL communicator each. Messages move when sender and receiver
// have both posted them and the receiver's stream is looked at, from the memory they are in then. Whatever
// NCCL would answer with a hang or with nonsense is a defect, told by name.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bragg::test {

class FakeNccl {
 public:
  explicit FakeNccl(int ranks);
  ~FakeNccl();
  FakeNccl(const FakeNccl&) = delete;
  FakeNccl& operator=(const FakeNccl&) = delete;

  /// To be asked for by the thread that is the rank.
  ncclComm_t comm(int rank);

  // Before ranks begin:

  /// Groups and their parts return ncclInProgress, and are so for some calls of ncclCommGetAsyncError.
  void be_nonblocking();
  /// Nothing moves of a rank's groups from that number on.
  void hang(int rank, int group);
  /// A rank's ncclCommGetAsyncError says so from when it has ended that many groups.
  void fail(int rank, int groups, ncclResult_t error);

  // When they are done:

  /// Operations of each group that a rank ended.
  std::vector<std::size_t> groups(int rank) const;
  bool is_aborted(int rank) const;
  /// What went wrong, groups that threads left open, and messages that nobody took.
  std::vector<std::string> defects() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bragg::test
