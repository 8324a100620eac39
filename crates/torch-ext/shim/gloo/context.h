// What LibTorch's ProcessGroupGloo.hpp must know of gloo to be read. LibTorch ships that header and the compiled gloo,
// but not gloo's own headers. The process group holds these types behind shared pointers only, so neither its size nor
// its virtual table depends on them; nothing here is ever instantiated.
#pragma once

#include <chrono>
#include <memory>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds);
};
}  // namespace gloo
