// LibTorch's process groups (c10d, on Gloo) as plain C functions: joining one, collectives over its ranks, those that
// gradients pass through, batch normalisation over all ranks, and the averaging of gradients.
//
// Before every collective the ranks compare what they are about to do: Gloo ends the process where shapes differ, and
// waits for ever where calls do. Once something failed, a group does nothing more and gives the first failure again.
// What stands inside a graph has no way to return an error, so there it is kept: see sse_group_failure.

#define USE_C10D_GLOO

#include <ATen/core/Tensor.h>
#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Logging.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "shim.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>

namespace {

using namespace shim;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What ranks are about to do together. The numbers are compared, the names are told.
enum class Act : int64_t { Gather, Sum, Max, Broadcast, Norm, Gradients, Bytes };
constexpr size_t ACTS = 7;

// A process's place among others. Held by every graph that communicates in its backward pass.
struct Group : torch::CustomClassHolder {
  int64_t rank;
  int64_t size;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  c10::intrusive_ptr<c10d::ProcessGroup> processes;

  std::mutex mutex;
  std::string failure;

  // What this rank gave to collectives so far: of each act how many, and their bytes. The comparisons before them are not
  // counted.
  struct Given {
    int64_t times = 0;
    int64_t bytes = 0;
  };
  std::array<Given, ACTS> given;

  void count(Act act, int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    ++given[static_cast<size_t>(act)].times;
    given[static_cast<size_t>(act)].bytes += bytes;
  }

  // Runs `body` unless something failed before; keeps what fails now.
  template <typename F>
  void attempt(F&& body) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (!failure.empty()) refuse(failure);
    }
    char* error = guarded(body);
    if (error == nullptr) return;
    std::string text = error;
    free(error);
    {
      std::lock_guard<std::mutex> lock(mutex);
      // What failed in a graph may end the pass through it, too.
      if (failure.empty()) failure = text;
      text = failure;
    }
    refuse(text);
  }

  // The same inside a graph: nothing is thrown, and whether it worked is told.
  template <typename F>
  bool attempt_in_graph(F&& body) {
    char* error = guarded([&] { attempt(body); });
    free(error);
    return error == nullptr;
  }
};

using Held = c10::intrusive_ptr<Group>;
using Optional = std::optional<at::Tensor>;

// The handle that the caller has.
struct Handle {
  Held group;
};

const char* name_of(int64_t act) {
  static const char* names[] = {"gather", "sum", "take the maximum of", "broadcast", "normalise", "average gradients of",
                                "exchange"};
  return act >= 0 && act < static_cast<int64_t>(ACTS) ? names[act] : "do something with";
}

// [act, tensors, hash of all kinds and shapes, kind, dimensions, sizes ..] of which the last are the first tensor's.
constexpr int64_t HEADER = 13;
constexpr int64_t SHOWN = HEADER - 5;

std::string tell(const int64_t* header) {
  std::ostringstream out;
  out << "would " << name_of(header[0]) << ' ';
  if (header[1] != 1) out << header[1] << " tensors, the first ";
  if (header[1] == 0) return out.str();
  out << static_cast<at::ScalarType>(header[3]) << " [";
  for (int64_t d = 0; d < std::min(header[4], SHOWN); ++d) out << (d ? ", " : "") << header[5 + d];
  out << ']';
  return out.str();
}

void wait(const c10::intrusive_ptr<c10d::Work>& work) { work->wait(); }

// Of one dense CPU tensor per rank, [..] -> [W, ..]. The shapes must be equal.
at::Tensor gather_dense(Group& group, const at::Tensor& x) {
  std::vector<int64_t> sizes{group.size};
  sizes.insert(sizes.end(), x.sizes().begin(), x.sizes().end());
  at::Tensor out = at::empty(sizes, x.options());
  at::Tensor flat_out = out.view({-1}), flat = x.reshape({-1});
  if (flat.numel() > 0) wait(group.gloo->_allgather_base(flat_out, flat));
  return out;
}

void agree(Group& group, Act act, const std::vector<at::Tensor>& xs) {
  std::vector<int64_t> header(HEADER, 0);
  uint64_t hash = 0xcbf29ce484222325;
  auto mix = [&](int64_t x) { hash = (hash ^ static_cast<uint64_t>(x)) * 0x100000001b3; };
  int64_t bytes = 0;
  for (const auto& x : xs) {
    bytes += x.numel() * x.element_size();
    mix(static_cast<int64_t>(x.scalar_type()));
    mix(x.dim());
    for (int64_t size : x.sizes()) mix(size);
  }
  header[0] = static_cast<int64_t>(act);
  header[1] = static_cast<int64_t>(xs.size());
  header[2] = static_cast<int64_t>(hash);
  if (!xs.empty()) {
    header[3] = static_cast<int64_t>(xs[0].scalar_type());
    header[4] = xs[0].dim();
    for (int64_t d = 0; d < std::min(xs[0].dim(), SHOWN); ++d) header[5 + d] = xs[0].size(d);
  }
  at::Tensor all = gather_dense(group, at::from_blob(header.data(), {HEADER}, at::kLong));
  const int64_t* rows = all.const_data_ptr<int64_t>();
  for (int64_t other = 0; other < group.size; ++other) {
    const int64_t* row = rows + other * HEADER;
    if (!std::equal(row, row + HEADER, header.begin())) {
      refuse("the processes do not do the same: rank ", group.rank, " ", tell(header.data()), ", rank ", other, " ",
             tell(row));
    }
  }
  group.count(act, bytes);
}

// Gloo is given dense tensors in the CPU's memory.
at::Tensor staged(const at::Tensor& x) { return x.detach().to(at::kCPU).contiguous(); }

// [n, ..] of each rank -> [W n, ..], rank by rank.
at::Tensor gather(Group& group, const at::Tensor& x) {
  if (!x.defined() || x.dim() == 0) refuse("a scalar cannot be gathered: give it a dimension");
  agree(group, Act::Gather, {x});
  return gather_dense(group, staged(x)).flatten(0, 1).to(x.device());
}

void reduce_dense(Group& group, at::Tensor x, c10d::ReduceOp::RedOpType op) {
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  std::vector<at::Tensor> list{x};
  if (x.numel() > 0) wait(group.gloo->allreduce(list, options));
}

at::Tensor sum(Group& group, const at::Tensor& x, Act act = Act::Sum) {
  agree(group, act, {x});
  at::Tensor out = staged(x).clone();
  reduce_dense(group, out, c10d::ReduceOp::SUM);
  return out.to(x.device());
}

// Runs `act` on a dense copy of all tensors of each kind, and copies the results back.
template <typename F>
void coalesced(const std::vector<at::Tensor>& xs, F&& act) {
  std::map<at::ScalarType, std::vector<at::Tensor>> kinds;
  for (const auto& x : xs) kinds[x.scalar_type()].push_back(x);
  for (auto& [kind, list] : kinds) {
    std::vector<at::Tensor> parts;
    for (const auto& x : list) parts.push_back(staged(x).reshape({-1}));
    at::Tensor flat = at::cat(parts);
    act(flat);
    int64_t from = 0;
    for (auto& x : list) {
      x.copy_(flat.narrow(0, from, x.numel()).view(x.sizes()));
      from += x.numel();
    }
  }
}

Held held(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Group>(context->saved_data["group"].toCapsule());
}

// Every rank computes the same loss of the gathered rows. What a rank's own rows mean for the sum of those losses is W
// times what they mean for one of them.
struct Gather : torch::autograd::Function<Gather> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Held& group) {
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    context->saved_data["rows"] = x.size(0);
    at::Tensor out;
    if (group->attempt_in_graph([&] { out = gather(*group, x); })) return out;
    return at::cat(std::vector<at::Tensor>(group->size, x));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto group = held(context);
    const int64_t rows = context->saved_data["rows"].toInt();
    return {grads[0].narrow(0, group->rank * rows, rows) * static_cast<double>(group->size), at::Tensor()};
  }
};

struct Sum : torch::autograd::Function<Sum> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Held& group) {
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    at::Tensor out;
    if (group->attempt_in_graph([&] { out = sum(*group, x); })) return out;
    return x.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto group = held(context);
    at::Tensor out = grads[0];
    group->attempt_in_graph([&] { out = sum(*group, grads[0]); });
    return {out, at::Tensor()};
  }
};

// The mean and the biased variance of each channel of x over all ranks, in f64, [C] each, and the number of values.
std::tuple<at::Tensor, at::Tensor, double> moments(Group& group, const at::Tensor& x, at::ScalarType wide) {
  const int64_t channels = x.size(1);
  // The kernel of one process. The running moments that it moves say how wide it adds, and here are nobody's.
  at::Tensor unmoved = at::zeros({channels}, x.options().dtype(wide));
  auto [mean, var] = at::batch_norm_update_stats(x, unmoved, unmoved, /*momentum=*/0.0);
  const double count = static_cast<double>(x.numel() / channels);
  at::Tensor own = at::cat({mean.to(at::kDouble), var.to(at::kDouble), at::full({1}, count, mean.options().dtype(at::kDouble))});
  agree(group, Act::Norm, {own});
  at::Tensor all = gather_dense(group, staged(own)); // [W, 2 C + 1]
  at::Tensor n = all.narrow(1, 2 * channels, 1);     // [W, 1]
  at::Tensor means = all.narrow(1, 0, channels), vars = all.narrow(1, channels, channels);
  const double total = n.sum().item<double>();
  at::Tensor m = (means * n).sum(0) / total;
  at::Tensor v = ((vars + (means - m).square()) * n).sum(0) / total;
  return {m.to(x.device()), v.to(x.device()), total};
}

// y = (x - mean) / sqrt(var + eps) weight + bias with the moments of all ranks. Sums over the batch in its gradient are
// over all ranks, too.
struct BatchNorm : torch::autograd::Function<BatchNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Optional& weight, const Optional& bias,
                            const Optional& running_mean, const Optional& running_var, double momentum, double eps,
                            const Held& group) {
    const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor mean, var;
    double total = 0;
    const bool known = group->attempt_in_graph([&] { std::tie(mean, var, total) = moments(*group, x, wide); });
    if (!known) {
      mean = at::zeros({x.size(1)}, x.options().dtype(wide));
      var = at::ones({x.size(1)}, x.options().dtype(wide));
    } else if (running_mean) {
      running_mean->mul_(1 - momentum).add_(mean, momentum);
      running_var->mul_(1 - momentum).add_(var, momentum * total / std::max(total - 1, 1.0));
    }
    mean = mean.to(wide);
    var = var.to(wide);
    context->save_for_backward({x, weight.value_or(at::Tensor()), mean, (var + eps).rsqrt()});
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    context->saved_data["total"] = total;
    return std::get<0>(at::native_batch_norm(x, weight, bias, mean, var, /*training=*/false, 0.0, eps));
  }

  // With g = dL/dy, z = (x - mean) scale and k = weight scale, where scale = 1 / sqrt(var + eps), and sums over all N
  // values of a channel:
  //     dL/dx = k (g - sum(g) / N - z sum(g z) / N).
  // The kernel of one process gives it with the sums and the number of this rank's own values. What is missing then is
  // linear in x.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto group = held(context);
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &scale = saved[3];
    const int64_t channels = x.size(1);
    auto [of_x, of_weight, of_bias] = at::native_batch_norm_backward(
        grads[0].contiguous(x.suggest_memory_format()), x, weight, {}, {}, mean, scale, /*train=*/true, /*eps=*/0.0,
        {true, true, true});
    const at::Tensor own = at::cat({of_weight, of_bias}); // sum(g z), sum(g): [2 C]
    const double total = context->saved_data["total"].toDouble(), count = static_cast<double>(x.numel() / channels);
    group->attempt_in_graph([&] {
      const at::Tensor missing = own / count - sum(*group, own, Act::Norm) / total;
      const at::Tensor k = weight.defined() ? scale * weight.detach() : scale;
      // (x - mean) slope + level, in one pass.
      const at::Tensor slope = k * scale * missing.narrow(0, 0, channels);
      const at::Tensor level = k * missing.narrow(0, channels, channels);
      of_x.add_(std::get<0>(
          at::native_batch_norm(x, slope, level, mean, at::ones_like(mean), /*training=*/false, 0.0, /*eps=*/0.0)));
    });
    at::Tensor none;
    return {of_x, weight.defined() ? of_weight : none, weight.defined() ? of_bias : none, none, none, none, none, none};
  }
};

struct Reducer {
  // Outlives the reducer that works in it.
  Held group;
  std::vector<at::Tensor> params;
  std::shared_ptr<c10d::Reducer> reducer;
  // The reducer tells it which passes left a variable out, and does not ask whether there is one.
  std::shared_ptr<c10d::Logger> logger;
};

}  // namespace

extern "C" {

char* sse_group_join(int64_t rank, int64_t size, const char* address, uint16_t port, int64_t join_ms, int64_t timeout_ms,
                     int32_t serve, const char* prefix, Handle** out) {
  return guarded([&] {
    // What goes wrong is returned, so c10d need not print it too, unless it was asked to.
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve != 0;
    options.numWorkers = static_cast<size_t>(size);
    options.waitWorkers = false;
    options.multiTenant = true;
    options.timeout = std::chrono::milliseconds(join_ms);
    auto store = c10::make_intrusive<c10d::PrefixStore>(prefix, c10::make_intrusive<c10d::TCPStore>(address, options));
    auto group = c10::make_intrusive<Group>();
    group->rank = rank;
    group->size = size;
    // Meeting may take another time than working.
    auto gloo = c10d::ProcessGroupGloo::Options::create_default(std::chrono::milliseconds(join_ms));
    group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank), static_cast<int>(size), gloo);
    group->gloo->setTimeout(std::chrono::milliseconds(timeout_ms));
    group->processes = c10::make_intrusive<c10d::ProcessGroup>(store, static_cast<int>(rank), static_cast<int>(size));
    group->processes->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::GLOO, group->gloo);
    group->processes->setDefaultBackend(c10d::ProcessGroup::GLOO);
    *out = new Handle{std::move(group)};
  });
}

void sse_group_leave(Handle* handle) {
  free(guarded([&] { delete handle; }));
}

// The first failure, if there was one.
char* sse_group_failure(const Handle* handle) {
  std::lock_guard<std::mutex> lock(handle->group->mutex);
  return handle->group->failure.empty() ? nullptr : message(handle->group->failure.c_str());
}

// What this rank gave to collectives so far: of each act how many and their bytes, in the order of Act.
void sse_group_given(const Handle* handle, int64_t* times, int64_t* bytes) {
  std::lock_guard<std::mutex> lock(handle->group->mutex);
  for (size_t act = 0; act < ACTS; ++act) {
    times[act] = handle->group->given[act].times;
    bytes[act] = handle->group->given[act].bytes;
  }
}

// op: 0 sum, 1 maximum.
char* sse_group_reduce(const Handle* handle, List list, int32_t op) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group& group = *handle->group;
    const auto xs = list.tensors();
    group.attempt([&] {
      agree(group, op == 0 ? Act::Sum : Act::Max, xs);
      coalesced(xs, [&](at::Tensor& flat) {
        reduce_dense(group, flat, op == 0 ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX);
      });
    });
  });
}

char* sse_group_broadcast(const Handle* handle, List list) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group& group = *handle->group;
    const auto xs = list.tensors();
    group.attempt([&] {
      agree(group, Act::Broadcast, xs);
      coalesced(xs, [&](at::Tensor& flat) {
        std::vector<at::Tensor> tensors{flat};
        if (flat.numel() > 0) wait(group.gloo->broadcast(tensors, c10d::BroadcastOptions()));
      });
    });
  });
}

// Bytes of each rank, of any length: [W, longest] u8, and the lengths, [W] i64.
char* sse_group_exchange(const Handle* handle, const uint8_t* bytes, size_t count, at::Tensor** out, at::Tensor** lengths) {
  return guarded([&] {
    Group& group = *handle->group;
    group.attempt([&] {
      int64_t length = static_cast<int64_t>(count);
      agree(group, Act::Bytes, {});
      at::Tensor all = gather_dense(group, at::from_blob(&length, {1}, at::kLong)).view({-1});
      at::Tensor own = at::zeros({all.max().item<int64_t>()}, at::kByte);
      if (count > 0) std::copy(bytes, bytes + count, own.data_ptr<uint8_t>());
      at::Tensor rows = gather_dense(group, own);
      auto made = std::make_unique<at::Tensor>(all);
      *out = new at::Tensor(rows);
      *lengths = made.release();
    });
  });
}

char* sse_group_gather(const Handle* handle, const at::Tensor* x, at::Tensor** out) {
  return guarded([&] {
    if (x->dim() == 0) refuse("a scalar cannot be gathered: give it a dimension");
    *out = new at::Tensor(Gather::apply(*x, handle->group));
  });
}

char* sse_group_sum(const Handle* handle, const at::Tensor* x, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(Sum::apply(*x, handle->group)); });
}

// Null for weight and bias, or for the running moments, means that there are none.
char* sse_group_batch_norm(const Handle* handle, const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias,
                           const at::Tensor* mean, const at::Tensor* var, double momentum, double eps, at::Tensor** out) {
  return guarded([&] {
    auto of = [](const at::Tensor* x) { return x ? Optional(*x) : Optional(); };
    if (x->dim() < 2) refuse("batch normalisation takes [B, C, ..]");
    *out = new at::Tensor(
        BatchNorm::apply(*x, of(weight), of(bias), of(mean), of(var), momentum, eps, handle->group));
  });
}

// Gradients become their means over the ranks. One that no rank has stays undefined; one that some have counts as zeros
// where it is missing.
char* sse_group_average_gradients(const Handle* handle, List list) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group& group = *handle->group;
    const auto params = list.tensors();
    group.attempt([&] {
      agree(group, Act::Gradients, params);
      std::vector<at::Tensor> grads;
      at::Tensor there = at::zeros({static_cast<int64_t>(params.size())}, at::kFloat);
      for (size_t i = 0; i < params.size(); ++i) {
        const bool defined = params[i].grad().defined();
        there.data_ptr<float>()[i] = defined ? 1 : 0;
        grads.push_back(defined ? params[i].grad() : at::zeros_like(params[i]));
      }
      grads.push_back(there);
      coalesced(grads, [&](at::Tensor& flat) {
        reduce_dense(group, flat, c10d::ReduceOp::SUM);
        flat.div_(static_cast<double>(group.size));
      });
      for (size_t i = 0; i < params.size(); ++i) {
        const bool somewhere = there.data_ptr<float>()[i] > 0;
        if (somewhere && !params[i].grad().defined()) params[i].mutable_grad() = grads[i];
      }
    });
  });
}

// For variables in the CPU's memory, in the order in which they are used.
char* sse_reducer_new(const Handle* handle, List list, Reducer** out) {
  return guarded([&] {
    constexpr size_t FIRST = 1 << 20, CAP = 25 << 20; // torch's own sizes of buckets
    auto made = std::make_unique<Reducer>();
    made->group = handle->group;
    made->params = list.tensors();
    handle->group->attempt([&] {
      auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(made->params, {FIRST, CAP});
      // Gradients come in about the reverse order of the parameters.
      std::reverse(buckets.begin(), buckets.end());
      made->reducer = std::make_shared<c10d::Reducer>(
          made->params, buckets, handle->group->processes, std::vector<bool>(made->params.size(), false), CAP,
          /*find_unused_parameters=*/true, /*gradient_as_bucket_view=*/false,
          std::unordered_map<size_t, std::string>(), FIRST, /*skip_all_reduce_unused_params=*/false,
          /*use_python_reducer=*/false, std::vector<int64_t>());
      made->logger = std::make_shared<c10d::Logger>(made->reducer);
      made->reducer->set_logger(made->logger);
    });
    *out = made.release();
  });
}

// The backward pass of a loss, while which gradients become their means over the ranks, bucket by bucket. One that no rank
// has stays undefined; one that some have counts as zeros where it is missing.
char* sse_reducer_backward(Reducer* reducer, const at::Tensor* loss) {
  return guarded([&] {
    if (!loss->requires_grad()) refuse("the loss has no gradient");
    Group& group = *reducer->group;
    group.attempt([&] {
      agree(group, Act::Gradients, reducer->params);
      reducer->reducer->prepare_for_forward();
      reducer->reducer->prepare_for_backward({*loss});
      loss->backward();
    });
  });
}

void sse_reducer_drop(Reducer* reducer) {
  free(guarded([&] { delete reducer; }));
}

}  // extern "C"
