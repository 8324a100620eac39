// What LibTorch has and tch does not bind, as plain C functions.
//
// Each function that can fail returns null, or an error message that the caller frees with free(). No exception leaves
// this file. A list of tensors is an array of pointers to at::Tensor, as in torch-sys; results are made with `new` and
// belong to the caller.

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/GradMode.h>

#include "shim.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace shim;

at::Device device_of(int32_t index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

// Why two tensors cannot be walked side by side through raw memory; null if they can.
const char* difference(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return "undefined";
  if (a.layout() != at::kStrided || b.layout() != at::kStrided) return "not strided";
  if (a.sizes() != b.sizes()) return "shape";
  if (a.scalar_type() != b.scalar_type()) return "kind";
  if (a.device() != b.device()) return "device";
  for (int64_t d = 0; d < a.dim(); ++d) {
    // The stride of a dimension of size 1 addresses nothing, and LibTorch writes what it likes there.
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return "strides";
  }
  if (!a.is_non_overlapping_and_dense() || !b.is_non_overlapping_and_dense()) return "not dense";
  return nullptr;
}

std::string describe(const at::Tensor& x) {
  if (!x.defined()) return "undefined";
  std::ostringstream out;
  out << x.scalar_type() << x.sizes() << " strides " << x.strides() << " on " << x.device();
  return out.str();
}

// The fused kernels walk raw memory: on lists that do not agree they give wrong numbers and no error.
void agree(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b, const char* a_name, const char* b_name) {
  if (a.size() != b.size()) refuse(a.size(), " ", a_name, " but ", b.size(), " ", b_name);
  for (size_t i = 0; i < a.size(); ++i) {
    if (const char* what = difference(a[i], b[i])) {
      refuse("tensor ", i, " differs between ", a_name, " (", describe(a[i]), ") and ", b_name, " (", describe(b[i]),
             "): ", what);
    }
    if (a[i].device() != a[0].device()) refuse("tensor ", i, " of ", a_name, " lies on another device than the first");
  }
}

}  // namespace

extern "C" {

// ---- autocast

// The state before: bit 0 enabled, the rest the dtype.
char* sse_autocast_enter(int32_t device, int32_t enabled, int32_t* before) {
  return guarded([&] {
    const auto type = device_of(device).type();
    *before = (static_cast<int32_t>(at::autocast::get_autocast_dtype(type)) << 1) |
        static_cast<int32_t>(at::autocast::is_autocast_enabled(type));
    at::autocast::set_autocast_dtype(type, at::kBFloat16);
    at::autocast::set_autocast_enabled(type, enabled != 0);
    at::autocast::increment_nesting();
  });
}

char* sse_autocast_leave(int32_t device, int32_t before) {
  return guarded([&] {
    const auto type = device_of(device).type();
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, (before & 1) != 0);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(before >> 1));
  });
}

// ---- updates over lists

char* sse_difference(const at::Tensor* a, const at::Tensor* b, const char** what) {
  return guarded([&] { *what = difference(*a, *b); });
}

char* sse_sgd(List params, List grads, List buffers, double lr, double momentum, int32_t nesterov, double decay) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto p = params.tensors(), g = grads.tensors(), u = buffers.tensors();
    if (p.empty()) return;
    agree(p, g, "parameters", "gradients");
    if (momentum != 0.0) agree(p, u, "parameters", "momentum buffers");
    if (momentum == 0.0 && !u.empty()) refuse("momentum is 0 but there are ", u.size(), " momentum buffers");
    at::_fused_sgd_(p, g, u, decay, momentum, lr, /*dampening=*/0.0, nesterov != 0, /*maximize=*/false,
                    /*is_first_step=*/false);
  });
}

char* sse_adamw(List params, List grads, List means, List squares, List steps, double lr, double beta1, double beta2,
                double eps, double decay) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto p = params.tensors(), g = grads.tensors(), m = means.tensors(), v = squares.tensors();
    const auto t = steps.tensors();
    if (p.empty()) return;
    agree(p, g, "parameters", "gradients");
    agree(p, m, "parameters", "first moments");
    agree(p, v, "parameters", "second moments");
    if (t.size() != p.size()) refuse(p.size(), " parameters but ", t.size(), " step counts");
    for (size_t i = 0; i < t.size(); ++i) {
      if (!t[i].defined() || t[i].numel() != 1 || t[i].scalar_type() != at::kFloat || t[i].device() != p[i].device()) {
        refuse("step count ", i, " is ", describe(t[i]), "; expected one Float on the parameter's device");
      }
    }
    at::_foreach_add_(t, at::Scalar(1));
    at::_fused_adamw_(p, g, m, v, {}, t, lr, beta1, beta2, decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

char* sse_lerp(List targets, List sources, double weight) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto a = targets.tensors(), b = sources.tensors();
    if (a.empty()) return;
    if (a.size() != b.size()) refuse(a.size(), " targets but ", b.size(), " sources");
    at::_foreach_lerp_(a, b, at::Scalar(weight));
  });
}

char* sse_add(List targets, List sources, double alpha) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto a = targets.tensors(), b = sources.tensors();
    if (a.empty()) return;
    if (a.size() != b.size()) refuse(a.size(), " targets but ", b.size(), " sources");
    at::_foreach_add_(a, b, at::Scalar(alpha));
  });
}

char* sse_mul(List targets, List factors) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto a = targets.tensors(), b = factors.tensors();
    if (a.empty()) return;
    if (a.size() != b.size()) refuse(a.size(), " targets but ", b.size(), " factors");
    at::_foreach_mul_(a, b);
  });
}

char* sse_scale(List targets, const at::Tensor* factor) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto a = targets.tensors();
    if (!a.empty()) at::_foreach_mul_(a, *factor);
  });
}

// `out` has room for as many pointers as there are tensors.
char* sse_norms(List list, at::Tensor** out) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto x = list.tensors();
    if (x.empty()) return;
    const auto norms = at::_foreach_norm(x, at::Scalar(2));
    TORCH_CHECK(norms.size() == x.size());
    std::vector<std::unique_ptr<at::Tensor>> made;
    for (const auto& norm : norms) made.push_back(std::make_unique<at::Tensor>(norm));
    for (size_t i = 0; i < made.size(); ++i) out[i] = made[i].release();
  });
}

char* sse_clear_grads(List list) {
  return guarded([&] {
    for (const auto& x : list.tensors()) x.mutable_grad().reset();
  });
}

// ---- random numbers

char* sse_seed(uint64_t seed) {
  return guarded([&] { at::manual_seed(seed); });
}

char* sse_generator_state(int32_t device, at::Tensor** out) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new at::Tensor(generator.get_state());
  });
}

char* sse_set_generator_state(int32_t device, const at::Tensor* state) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

// ---- settings and devices

char* sse_deterministic(int32_t on) {
  return guarded([&] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
    context.setDeterministicCuDNN(on != 0);
    if (on != 0) context.setBenchmarkCuDNN(false);
  });
}

char* sse_tf32(int32_t on) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(on != 0);
    at::globalContext().setAllowTF32CuDNN(on != 0);
  });
}

char* sse_synchronize(int32_t device) {
  return guarded([&] { at::accelerator::synchronizeDevice(static_cast<c10::DeviceIndex>(device)); });
}

char* sse_memory(int32_t device, int64_t* allocated, int64_t* peak) {
  return guarded([&] {
    using c10::CachingAllocator::StatType;
    const auto stats = at::accelerator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    const auto& bytes = stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)];
    *allocated = bytes.current;
    *peak = bytes.peak;
  });
}

char* sse_reset_peak_memory(int32_t device) {
  return guarded([&] { at::accelerator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

}  // extern "C"
