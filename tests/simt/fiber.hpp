// SPDX-License-Identifier: Apache-2.0
// Threads of a kernel as fibers: each has a stack, and they switch to each other directly.
#pragma once

#include <cstddef>

#if !defined(BRAGG_SIMT_UCONTEXT) && !(defined(__x86_64__) && defined(__GNUC__) && defined(__ELF__))
#define BRAGG_SIMT_UCONTEXT
#endif
#if defined(BRAGG_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace bragg::detail::simt {

class Fiber {
 public:
  /// The host thread that is running: it has a stack already.
  Fiber() = default;
  /// With a stack of its own, a page that no one may touch below it.
  static constexpr std::size_t stack_bytes = 256 * 1024;
  struct WithStack {};
  explicit Fiber(WithStack);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next switch to this fiber calls entry, which must not return. What it was doing is forgotten.
  void start(void (*entry)());

  bool on_stack(const void* p) const {
    return static_cast<std::size_t>(static_cast<const char*>(p) - static_cast<const char*>(bottom_)) < bytes_;
  }

  /// Leaves `from`, which runs now, for `to`. `ends`: nothing will switch back to `from`.
  static void switch_to(Fiber& from, Fiber& to, bool ends);

 private:
  static void begin();
  void arrived();

  void (*entry_)() = nullptr;
  bool ended_ = false;
  char* mapping_ = nullptr;       // the guard page, then the stack
  const void* bottom_ = nullptr;  // the stack's lowest address and its size
  std::size_t bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
#if defined(BRAGG_SIMT_UCONTEXT)
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace bragg::detail::simt
