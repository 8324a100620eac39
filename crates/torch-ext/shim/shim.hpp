// What the files of the shim share: how an error leaves them, and how a list of tensors enters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstring>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace shim {

inline char* message(const char* text) { return strdup(text && *text ? text : "LibTorch failed without a message"); }

template <typename F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return message(error.what());
  } catch (...) {
    return message("LibTorch threw something that is no std::exception");
  }
}

// The sentence that a failed check throws.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  throw std::invalid_argument(out.str());
}

struct List {
  at::Tensor** items;
  size_t count;

  std::vector<at::Tensor> tensors() const {
    std::vector<at::Tensor> out;
    out.reserve(count);
    for (size_t i = 0; i < count; ++i) out.push_back(*items[i]);
    return out;
  }
};

}  // namespace shim
