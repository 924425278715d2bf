// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_nccl/fake_nccl.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/runtime/runtime.hpp"
#include "tests/simt/memory.hpp"

namespace cuda = bragg::detail::cuda;

namespace {

constexpr std::size_t most_operations = 2048;

struct Operation {
  bool sends = false;
  const void* from = nullptr;
  void* to = nullptr;
  std::size_t bytes = 0;
  int peer = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  int group = 0;
  bool done = false;
};
using Posted = std::shared_ptr<Operation>;

/// One for all jobs of the program.
struct World {
  std::mutex mutex;
  std::map<cudaStream_t, std::vector<Posted>> under_way;
  std::vector<std::string> defects;
};
World& world() {
  static World* const made = new World;
  return *made;
}

struct Group {
  int depth = 0;
  std::vector<Operation> operations;

  ~Group() {
    if (depth == 0) return;
    const std::lock_guard lock(world().mutex);
    world().defects.push_back("a group is open where a thread ends");
  }
};
thread_local Group group;
thread_local ncclComm_t last_used = nullptr;  // whose an empty group is

}  // namespace

struct ncclComm {
  std::map<std::pair<int, int>, std::deque<Posted>>* sent = nullptr;  // [from, to]
  int rank = 0;
  int ranks = 0;
  bool aborted = false;
  bool nonblocking = false;
  int turns = 0;  // that it is ncclInProgress for
  std::vector<std::size_t> groups = {};
  int hangs_from = std::numeric_limits<int>::max();
  int fails_from = std::numeric_limits<int>::max();
  ncclResult_t failure = ncclSuccess;
  ncclResult_t error = ncclSuccess;
};

namespace {

std::string name(const ncclComm& comm) { return "rank " + std::to_string(comm.rank); }

/// The world is locked.
ncclResult_t defect(const std::string& what) {
  world().defects.push_back(what);
  return ncclInvalidUsage;
}

bool is_there(const ncclComm_t comm, const char* call) {
  if (!comm->aborted) return true;
  defect(name(*comm) + ": " + call + " after ncclCommAbort");
  return false;
}

ncclResult_t add(Operation operation, const char* call) {
  const std::lock_guard lock(world().mutex);
  if (!is_there(operation.comm, call)) return ncclInvalidUsage;
  if (group.depth == 0) return defect(name(*operation.comm) + ": " + call + " outside a group");
  if (operation.peer < 0 || operation.peer >= operation.comm->ranks || operation.peer == operation.comm->rank)
    return defect(name(*operation.comm) + ": " + call + " with rank " + std::to_string(operation.peer));
  const void* const memory = operation.sends ? operation.from : operation.to;
  if (bragg::detail::simt::allocation_of(memory, operation.bytes).base == nullptr)
    return defect(name(*operation.comm) + ": " + call + " of what is not device memory");
  group.operations.push_back(operation);
  return operation.comm->nonblocking ? ncclInProgress : ncclSuccess;
}

/// Moves what a stream receives, as far as it is sent.
void progress(const Posted& mine) {
  ncclComm& comm = *mine->comm;
  if (mine->done || mine->sends || comm.hangs_from <= mine->group) return;
  std::deque<Posted>& box = (*comm.sent)[{mine->peer, comm.rank}];
  if (box.empty()) return;
  const Posted other = box.front();
  const auto disagree = [&](const std::string& what) {
    defect(name(*other->comm) + " to " + name(comm) + ": " + what);
    other->comm->error = comm.error = ncclInvalidArgument;
  };
  if (other->group != mine->group) {
    return disagree("group " + std::to_string(other->group) + " of the sender meets group " +
                    std::to_string(mine->group) + " of the receiver");
  }
  if (other->bytes != mine->bytes) {
    return disagree(std::to_string(other->bytes) + " bytes are sent, " + std::to_string(mine->bytes) +
                    " received");
  }
  cuda::copy_on_device(mine->to, other->from, mine->bytes, nullptr);
  box.pop_front();
  mine->done = other->done = true;
}

}  // namespace

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->ranks;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
ncclResult_t ncclCommCuDevice(const ncclComm_t, int* device) {
  *device = 0;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(world().mutex);
  if (!is_there(comm, "ncclCommGetAsyncError")) return ncclInvalidUsage;
  if (static_cast<int>(comm->groups.size()) >= comm->fails_from) comm->error = comm->failure;
  *error = comm->error;
  if (comm->error == ncclSuccess && comm->turns > 0) {
    --comm->turns;
    *error = ncclInProgress;
  }
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const std::lock_guard lock(world().mutex);
  if (!is_there(comm, "ncclCommAbort")) return ncclInvalidUsage;
  comm->aborted = true;
  for (auto& [stream, posted] : world().under_way)
    std::erase_if(posted, [&](const Posted& one) { return one->comm == comm; });
  for (auto& [ranks, box] : *comm->sent)
    std::erase_if(box, [&](const Posted& one) { return one->comm == comm; });
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const std::lock_guard lock(world().mutex);
  if (group.depth == 0) return defect("ncclGroupEnd without ncclGroupStart");
  if (--group.depth > 0) return ncclSuccess;
  const std::vector<Operation> operations = std::exchange(group.operations, {});
  if (operations.size() > most_operations)
    return defect(name(*operations[0].comm) + ": " + std::to_string(operations.size()) +
                  " operations in a group");
  if (operations.empty()) {
    if (last_used != nullptr) last_used->groups.push_back(0);
    return ncclSuccess;
  }
  last_used = operations[0].comm;
  ncclComm& comm = *operations[0].comm;
  const auto number = static_cast<int>(comm.groups.size());
  comm.groups.push_back(operations.size());
  for (const Operation& each : operations) {
    const auto posted = std::make_shared<Operation>(each);
    posted->group = number;
    world().under_way[each.stream].push_back(posted);
    if (each.sends && comm.hangs_from > number) (*comm.sent)[{comm.rank, each.peer}].push_back(posted);
  }
  if (!comm.nonblocking) return ncclSuccess;
  comm.turns = 3;
  return ncclInProgress;
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({.sends = true, .from = from, .bytes = count, .peer = peer, .comm = comm, .stream = stream},
             "ncclSend");
}
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({.to = to, .bytes = count, .peer = peer, .comm = comm, .stream = stream}, "ncclRecv");
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSystemError   ? "unhandled system error"
         : result == ncclRemoteError ? "remote process exited or there was a network error"
                                     : "invalid usage";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorUnknown; }
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = cuda::allocate(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  cuda::release(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  {
    const std::lock_guard lock(world().mutex);
    const std::vector<Posted>& posted = world().under_way[stream];
    if (std::any_of(posted.begin(), posted.end(), [](const Posted& one) { return !one->done; }))
      defect("a copy waits for peers, and knows no timeout");
  }
  if (kind == cudaMemcpyHostToDevice) cuda::copy_to_device(to, from, bytes, stream);
  if (kind == cudaMemcpyDeviceToHost) cuda::copy_to_host(to, from, bytes, stream);
  if (kind == cudaMemcpyDeviceToDevice) cuda::copy_on_device(to, from, bytes, stream);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  const bool there = bragg::detail::simt::allocation_of(memory, 1).base != nullptr;
  attributes->type = there ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = cuda::create_stream();
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(world().mutex);
  world().under_way.erase(stream);
  cuda::destroy_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const std::lock_guard lock(world().mutex);
  std::vector<Posted>& posted = world().under_way[stream];
  for (const Posted& one : posted) progress(one);
  std::erase_if(posted, [](const Posted& one) { return one->done; });
  return posted.empty() ? cudaSuccess : cudaErrorNotReady;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "unknown error";
}

namespace bragg::test {

struct FakeNccl::Impl {
  std::map<std::pair<int, int>, std::deque<Posted>> sent;
  std::deque<ncclComm> comms;
};

FakeNccl::FakeNccl(int ranks) : impl_(std::make_unique<Impl>()) {
  for (int rank = 0; rank < ranks; ++rank)
    impl_->comms.push_back({.sent = &impl_->sent, .rank = rank, .ranks = ranks});
  const std::lock_guard lock(world().mutex);
  world().defects.clear();
}
FakeNccl::~FakeNccl() { last_used = nullptr; }

ncclComm_t FakeNccl::comm(int rank) { return last_used = &impl_->comms[static_cast<std::size_t>(rank)]; }
void FakeNccl::be_nonblocking() {
  for (ncclComm& comm : impl_->comms) comm.nonblocking = true;
}
void FakeNccl::hang(int rank, int group_number) { comm(rank)->hangs_from = group_number; }
void FakeNccl::fail(int rank, int groups, ncclResult_t error) {
  comm(rank)->fails_from = groups;
  comm(rank)->failure = error;
}
std::vector<std::size_t> FakeNccl::groups(int rank) const {
  const std::lock_guard lock(world().mutex);
  return impl_->comms[static_cast<std::size_t>(rank)].groups;
}
bool FakeNccl::is_aborted(int rank) const {
  const std::lock_guard lock(world().mutex);
  return impl_->comms[static_cast<std::size_t>(rank)].aborted;
}
std::vector<std::string> FakeNccl::defects() const {
  const std::lock_guard lock(world().mutex);
  std::vector<std::string> found = world().defects;
  for (const auto& [ranks, box] : impl_->sent) {
    if (!box.empty())
      found.push_back("rank " + std::to_string(ranks.second) + " did not take what rank " +
                      std::to_string(ranks.first) + " sent");
  }
  return found;
}

}  // namespace bragg::test
