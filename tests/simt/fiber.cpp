// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/fiber.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace bragg::detail::simt {
namespace {

constexpr std::size_t guard_bytes = 4096;
constexpr std::size_t last_frames_bytes = 16 * 1024;  // more than `begin` and what it calls to end a fiber

// Who runs, and who ran before the last switch.
thread_local Fiber* current = nullptr;
thread_local Fiber* previous = nullptr;

}  // namespace

#if !defined(BRAGG_SIMT_UCONTEXT)
// Keeps what a call must preserve on the stack that is left, and takes it from the one that is entered.
extern "C" void bragg_simt_switch(void** save, void* load);
asm(R"(
.text
.type bragg_simt_switch,@function
bragg_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size bragg_simt_switch,.-bragg_simt_switch
)");
#endif

Fiber::Fiber(WithStack) {
  void* const p = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(p);
  mprotect(mapping_, guard_bytes, PROT_NONE);
  bottom_ = mapping_ + guard_bytes;
  bytes_ = stack_bytes;
}

Fiber::~Fiber() {
  if (mapping_ != nullptr) munmap(mapping_, guard_bytes + stack_bytes);
}

void Fiber::start(void (*entry)()) {
  entry_ = entry;
  fake_stack_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  // Frames that were never left are still marked as such: the last ones, or all where the fiber did not end.
  const std::size_t marked = ended_ ? last_frames_bytes : bytes_;
  ASAN_UNPOISON_MEMORY_REGION(mapping_ + guard_bytes + bytes_ - marked, marked);
#endif
  ended_ = false;
#if defined(BRAGG_SIMT_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = mapping_ + guard_bytes;
  context_.uc_stack.ss_size = stack_bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::begin, 0);
#else
  // As bragg_simt_switch leaves a stack: six registers, the return address; `begin` has nowhere to return to.
  void** top = reinterpret_cast<void**>(mapping_ + guard_bytes + stack_bytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::begin);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#endif
}

void Fiber::begin() {
  current->arrived();
  current->entry_();
  std::abort();
}

void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  // The host's stack is learnt when it is left.
  __sanitizer_finish_switch_fiber(fake_stack_, &previous->bottom_, &previous->bytes_);
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to, bool ends) {
  from.ended_ = ends;
  previous = &from;
  current = &to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack_, to.bottom_, to.bytes_);
#endif
#if defined(BRAGG_SIMT_UCONTEXT)
  swapcontext(&from.context_, &to.context_);
#else
  bragg_simt_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
  from.arrived();
}

}  // namespace bragg::detail::simt
