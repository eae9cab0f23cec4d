// Between torch tensors and CUDA kernels: checks, layouts, the current stream, working memory.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>

#include "../check.h"
#include "../tensor.h"
#include "pack.cuh"
#include "precision.h"
#include "tile.cuh"

#if !defined(STGCN_FAST_EMULATION)
// In libtorch_cuda; null where the torch that is loaded has none.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

#if defined(STGCN_FAST_EMULATION)
#define STGCN_FAST_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(stgcn_fast_emulated, CPU, m)
#else
#define STGCN_FAST_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CUDA, m)
#endif

namespace stgcn_fast {
namespace cuda {

// One call of an op: on the device of its first argument, on torch's current stream.
class Call {
 public:
  Call(const char* op, const Tensor& x) : op_(op), index_(x.get_device_index()) {
#if !defined(STGCN_FAST_EMULATION)
    check(x.is_cuda(), op, "x", "on a CUDA device", "another");
    guard_.emplace(index_);
    // This library's CUDA runtime is its own: it follows torch to the device.
    check_call(cudaSetDevice(index_), "choosing the device");
    if (aoti_torch_get_current_cuda_stream == nullptr) {
      throw std::runtime_error(std::string(op) + ": the CUDA kernels were built against a torch without CUDA");
    }
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
#endif
    device_ = device_of(index_);
  }

  const char* op() const { return op_; }
  const Device& device() const { return device_; }
  cudaStream_t stream() const { return stream_; }

  void check_device(const char* argument, const Tensor& tensor) const {
#if defined(STGCN_FAST_EMULATION)
    check(!tensor.is_cuda(), op_, argument, "on x's device", "another");
#else
    check(tensor.is_cuda() && tensor.get_device_index() == index_, op_, argument,
          "on x's device cuda:" + std::to_string(index_),
          tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : std::string("another"));
#endif
  }

  template <typename... Parameters, typename... Arguments>
  void run(void (*kernel)(Parameters...), Index blocks, int threads, int shared_bytes,
           const Arguments&... arguments) const {
    run_grid(kernel, blocks, 1, threads, shared_bytes, arguments...);
  }

  template <typename... Parameters, typename... Arguments>
  void run_grid(void (*kernel)(Parameters...), Index blocks, Index rows, int threads, int shared_bytes,
                const Arguments&... arguments) const {
    check(blocks <= std::numeric_limits<std::int32_t>::max(), op_, "x", "small enough for 2^31 - 1 blocks", blocks);
    check(shared_bytes <= device_.shared_bytes, op_, "x",
          "of a dtype for which this device has " + std::to_string(shared_bytes) + " bytes of shared memory a block",
          device_.shared_bytes);
    launch(kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows)), threads,
           static_cast<std::size_t>(shared_bytes), stream_, arguments...);
  }

  // A kernel whose threads go round `count` items.
  template <typename... Parameters, typename... Arguments>
  void run_small(void (*kernel)(Parameters...), Index count, const Arguments&... arguments) const {
    if (count > 0) launch(kernel, small_grid(count), kSmallThreads, 0, stream_, arguments...);
  }

 private:
  const char* op_;
  std::int32_t index_;
  Device device_{};
  cudaStream_t stream_ = nullptr;
#if !defined(STGCN_FAST_EMULATION)
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
#endif
};

// Device memory for `values` of a type, from torch's caching allocator: freed to the stream, safe while it is captured.
template <typename T>
class Workspace {
 public:
  Workspace(const Tensor& like, Index values) {
    const std::array<Index, 1> size{values * static_cast<Index>(sizeof(T)) + kAlign};
    tensor_.emplace(torch::stable::empty({size.data(), size.size()}, ScalarType::Byte, std::nullopt, like.device()));
    const auto address = reinterpret_cast<std::uintptr_t>(tensor_->mutable_data_ptr());
    data_ = reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
  }
  T* get() const { return data_; }

 private:
  static constexpr Index kAlign = 16;
  std::optional<Tensor> tensor_;
  T* data_ = nullptr;
};

// x [N, C, T, V] in channels_last memory, copied there if it lies otherwise.
struct Operand {
  Tensor tensor;
  Index samples, frames;
  int channels, joints;

  template <typename E>
  Rows<E> rows() const {
    const void* data = tensor.const_data_ptr();
    return {static_cast<const E*>(data), channels,
            channels % kVector<E> == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0, channels};
  }
};

constexpr int kMostJoints = 128;

inline Operand read_operand(const Call& call, const char* argument, const Tensor& x) {
  check(x.dim() == 4, call.op(), argument, "[N, C, T, V]", shape_text(x));
  dtype_of(call.op(), argument, x);
  call.check_device(argument, x);
  check(x.size(3) <= kMostJoints, call.op(), argument, "[N, C, T, V] with V <= 128 on CUDA", shape_text(x));
  check(x.size(1) <= 1 << 20, call.op(), argument, "[N, C, T, V] with C <= 2^20 on CUDA", shape_text(x));
  const Tensor held = prefers_channels_last(x) ? x : torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
  return {held, x.size(0), x.size(2), static_cast<int>(x.size(1)), static_cast<int>(x.size(3))};
}

// A new [N, C, T, V] in channels_last memory.
inline Tensor new_output(const Tensor& like, Index samples, Index channels, Index frames, Index joints) {
  const std::array<Index, 4> sizes{samples, channels, frames, joints};
  return torch::stable::empty({sizes.data(), sizes.size()}, like.scalar_type(), std::nullopt, like.device(),
                              std::nullopt, MemoryFormat::ChannelsLast);
}

// In the memory format that follows x.
inline Tensor in_format_of(const Tensor& x, const Tensor& out) {
  return prefers_channels_last(x) ? out : torch::stable::contiguous(out);
}

inline Tensor new_tensor(const Tensor& like, const std::vector<Index>& sizes) {
  return torch::stable::empty({sizes.data(), sizes.size()}, like.scalar_type(), std::nullopt, like.device());
}

template <typename E>
bool is_whole(const void* data, int channels) {
  return channels % kVector<E> == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

// A small operand, [count] or [a, b], in the accumulating type; null for none.
template <typename E>
struct Values {
  std::optional<Tensor> held;
  const Acc<E>* data = nullptr;

  explicit Values(const std::optional<Tensor>& tensor) {
    if (!tensor) return;
    held.emplace(as_operand(*tensor, sizeof(Acc<E>) == 8 ? ScalarType::Double : ScalarType::Float));
    data = static_cast<const Acc<E>*>(held->const_data_ptr());
  }
};

// From so many tall tiles on every multiprocessor has two of them; fewer, and there are more of the small ones.
#if defined(STGCN_FAST_EMULATION)
constexpr Index kManyBlocks = 3;
#else
constexpr Index kManyBlocks = 264;
#endif

template <typename E, bool kTensor>
struct PackedWeights {
  Workspace<E> memory;
  int targets, sources;  // padded

  PackedWeights(const Call& call, const Tensor& like, const WeightView& view)
      : memory(like, padded(view.taps, view)),
        targets(static_cast<int>(round_up(view.targets, Shape<E, kTensor>::kColumns))),
        sources(static_cast<int>(round_up(view.sources, Shape<E, kTensor>::kDepth))) {
    call.run_small(pack_weights<E>, padded(view.taps, view), memory.get(), view, targets, sources);
  }

 private:
  static Index padded(int taps, const WeightView& view) {
    return taps * round_up(view.targets, Shape<E, kTensor>::kColumns) *
           round_up(view.sources, Shape<E, kTensor>::kDepth);
  }
};

// X(E, kTensor) for every pair that `with_element` calls with.
#if defined(STGCN_FAST_FEW_TYPES)
#define STGCN_FAST_ELEMENTS(X) X(BFloat16, true) X(float, false)
#else
#define STGCN_FAST_ELEMENTS(X) X(BFloat16, true) X(float, false) X(float, true) X(double, false) X(Half, true)
#endif

// Calls f(element, how) with a value of the element type and std::true_type where products run on tensor cores.
template <typename F>
void with_element(Dtype dtype, const Call& call, F f) {
  switch (dtype) {
    case Dtype::kBFloat16:
      return f(BFloat16{}, std::true_type{});
    case Dtype::kFloat32:
#if !defined(STGCN_FAST_FEW_TYPES)
      if (call.device().tensor_cores && tf32_allowed()) return f(float{}, std::true_type{});
#endif
      return f(float{}, std::false_type{});
#if !defined(STGCN_FAST_FEW_TYPES)  // for builds that only check accesses
    case Dtype::kFloat64:
      return f(double{}, std::false_type{});
    case Dtype::kFloat16:
      return f(Half{}, std::true_type{});
#else
    default:
      check(false, call.op(), "x", "float32 or bfloat16 in this build", "another");
#endif
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
