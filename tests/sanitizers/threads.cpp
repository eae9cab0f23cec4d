// Kernels and packed weights used by several threads at once; the results must be those of one thread, bit for bit.
// Built with the thread sanitizer by test_threads.py.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "common/packed.h"
#include "graph_conv/graph_conv.h"
#include "st_block/st_block.h"
#include "temporal_conv/temporal_conv.h"

namespace {

using namespace stgcn_fast;
using Index = std::int64_t;
using Floats = std::vector<float>;

constexpr int kThreads = 4;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "threads: %s\n", what);
  std::exit(1);
}

void check(bool ok, const char* what) {
  if (!ok) fail(what);
}

void in_threads(const std::function<void(int)>& run) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(run, i);
  for (std::thread& thread : threads) thread.join();
}

Floats numbers(std::size_t count, std::uint32_t seed) {
  Floats values(count);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / (1 << 23) - 1;
  }
  return values;
}

st_block::Operand operand(const Floats& values, Index a, Index b, Index c) {
  return {values.data(), Dtype::kFloat32, {a, b, c}, static_cast<Index>(values.size() * sizeof(float))};
}

// A whole block: every thread computes every clip, in pieces, from weights that all of them look up.
struct Block {
  static constexpr Index kBatch = 3, kFrames = 20, kJoints = 5, kInputs = 18, kOutputs = 35, kPartitions = 2, kTaps = 9;

  Floats graph = numbers(kPartitions * kOutputs * kInputs, 1), adjacency = numbers(kPartitions * kJoints * kJoints, 2),
         scale = numbers(kOutputs, 3), temporal = numbers(kOutputs * kOutputs * kTaps, 4),
         residual = numbers(kOutputs * kInputs, 5), x = numbers(kBatch * kFrames * kJoints * kInputs, 6);

  std::shared_ptr<const void> packed(const st_block::Kernels& kernels, const st_block::Problem& p) const {
    return packed_weights("threads.block", {p.fast}, {{graph.data(), graph.size() * 4}, {temporal.data(), 4}},
                          static_cast<std::size_t>(kernels.packed_bytes(p)), [&](void* to) { kernels.pack(p, to); });
  }

  // In pieces of so many groups of frames; all at once where there are none.
  void run(bool fast, Floats& out, Index groups) const {
    const st_block::Kernels& kernels = STGCN_FAST_SELECT_KERNELS(st_block_kernels).float32;
    st_block::Problem p{};
    p.batch = kBatch;
    p.frames = p.out_frames = kFrames;
    p.sources = p.targets = kJoints;
    p.inputs = kInputs;
    p.outputs = kOutputs;
    p.partitions = kPartitions;
    p.kernel_size = kTaps;
    p.stride = 1;
    p.fast = fast;
    p.group = temporal_longest_block(kTaps, p.stride);
    p.residual = st_block::Residual::kConvolution;
    p.graph_weight = operand(graph, kOutputs * kInputs, kInputs, 1);
    p.adjacency = operand(adjacency, kJoints * kJoints, kJoints, 1);
    p.scale1 = operand(scale, 1, 0, 0);
    p.temporal_weight = operand(temporal, kOutputs * kTaps, kTaps, 1);
    p.residual_weight = operand(residual, kInputs, 1, 0);
    p.x = {x.data(), Dtype::kFloat32, kInputs, 1};
    p.x_batch = kFrames * kJoints * kInputs;
    p.out = {out.data(), Dtype::kFloat32, kOutputs, 1};
    p.out_batch = kFrames * kJoints * kOutputs;
    const Index piece = groups > 0 ? groups * p.group : kFrames;
    std::vector<st_block::Segment> segments;
    for (Index n = 0; n < kBatch; ++n) {
      for (Index t = 0; t < kFrames; t += piece) {
        segments.push_back({n, t, t + piece < kFrames ? t + piece : kFrames, false});
      }
    }
    const auto weights = packed(kernels, p);
    kernels.run(p, weights.get(), segments.data(), segments.data() + segments.size());
  }
};

void test_blocks() {
  const Block block;
  for (bool fast : {false, true}) {
    const std::size_t size = Block::kBatch * Block::kFrames * Block::kJoints * Block::kOutputs;
    Floats expected(size);
    block.run(fast, expected, 0);
    packed_clear();
    in_threads([&](int thread) {
      for (int repeat = 0; repeat < 3; ++repeat) {
        Floats out(size);
        block.run(fast, out, 1 + (thread + repeat) % 4);
        check(std::memcmp(out.data(), expected.data(), size * 4) == 0, "a block depends on its threads");
      }
    });
  }
}

// The gradient by a weight: threads share its operands and write sums of their own.
void test_weight_gradient() {
  constexpr Index kBatch = 2, kFrames = 16, kJoints = 5, kInputs = 18, kOutputs = 35, kTaps = 3, kParts = 8;
  const TemporalConvKernels::Typed& kernels = STGCN_FAST_SELECT_KERNELS(temporal_conv_kernels).float32;
  const Floats x = numbers(kBatch * kFrames * kJoints * kInputs, 7),
               grad = numbers(kBatch * kFrames * kJoints * kOutputs, 8);
  for (bool fast : {false, true}) {
    Floats out[2];
    for (Floats& result : out) {
      const bool threaded = &result == &out[1];
      result.resize(kOutputs * kInputs * kTaps);
      WeightGradient q{};
      q.x = {x.data(), Dtype::kFloat32, kInputs, 1};
      q.grad = {grad.data(), Dtype::kFloat32, kOutputs, 1};
      q.x_batch = kFrames * kJoints * kInputs;
      q.grad_batch = kFrames * kJoints * kOutputs;
      q.batch = kBatch;
      q.joints = kJoints;
      q.x_channels = kInputs;
      q.grad_channels = kOutputs;
      q.x_frames = q.grad_frames = kFrames;
      q.kernel_size = kTaps;
      q.stride = q.padding = q.dilation = 1;
      q.fast = fast;
      q.pieces = kParts / kBatch;
      q.parts = kParts;
      q.groups = 1;
      std::vector<char> partial(static_cast<std::size_t>(kParts * kernels.sum_bytes(q)) + 64);
      q.partial = partial.data();
      q.out = result.data();
      std::atomic<Index> next{0};
      const auto work = [&](int) {
        for (Index part = next++; part < kParts; part = next++) kernels.accumulate(q, part, part + 1);
      };
      if (threaded) {
        in_threads(work);
      } else {
        work(0);
      }
      const Index tasks = (kOutputs + kernels.panel - 1) / kernels.panel * kInputs;
      kernels.reduce(q, 0, tasks);
    }
    check(out[0] == out[1], "a gradient depends on its threads");
  }
}

// The steps of one call, whose tasks and partitions all threads take from a counter, as graph_conv/cpu.cpp runs them.
std::vector<char> graph_steps(const graph_conv::Steps& steps, const graph_conv::Problem& p, bool threaded, void* out) {
  graph_conv::Prepared made{};
  steps.size(p, made);
  std::vector<char> weights(static_cast<std::size_t>(made.weights_bytes) + 64),
      edges(static_cast<std::size_t>(made.edges_bytes) + 64), map(static_cast<std::size_t>(made.bias_bytes) + 64),
      partials(static_cast<std::size_t>(made.partial_bytes) + 64);
  if (steps.pack != nullptr) steps.pack(p, weights.data());
  made.weights = weights.data();
  made.edges = edges.data();
  made.bias_map = map.data();
  made.partials = partials.data();
  if (steps.prepare != nullptr) steps.prepare(p, made);
  const auto share = [&](Index tasks, const auto& work) {
    std::atomic<Index> next{0};
    const auto take = [&](int) {
      for (Index task = next++; task < tasks; task = next++) work(task);
    };
    threaded ? in_threads(take) : take(0);
  };
  share(steps.finish == nullptr ? p.batch * p.pieces : p.slots, [&](Index i) { steps.run(p, made, i, i + 1); });
  if (steps.finish != nullptr) {
    share(p.partitions, [&](Index k) { steps.finish(p, made, out, k, k + 1); });
  }
  return partials;
}

// A skeleton's adjacency, a dense one, one a sample and one a group of channels: forward, and every gradient.
void test_graph_convolution() {
  constexpr Index kBatch = 2, kFrames = 20, kJoints = 5, kInputs = 18, kOutputs = 36, kPartitions = 2, kPieces = 4;
  const graph_conv::Kernels& kernels = STGCN_FAST_SELECT_KERNELS(graph_conv_kernels).float32;
  const Floats x = numbers(kBatch * kFrames * kJoints * kInputs, 10),
               grad = numbers(kBatch * kFrames * kJoints * kOutputs, 11),
               weight = numbers(kPartitions * kOutputs * kInputs, 12), bias = numbers(kPartitions * kOutputs, 13);
  enum Form { kSkeleton, kDense, kPerSample, kPerGroup, kForms };
  for (int form = 0; form < kForms; ++form) {
    const Index groups = form == kPerGroup ? 4 : 1, samples = form == kPerSample ? kBatch : 1;
    Floats adjacency = numbers(samples * kPartitions * groups * kJoints * kJoints, 14);
    if (form == kSkeleton) {
      for (std::size_t i = 0; i < adjacency.size(); ++i) adjacency[i] *= i % (kJoints + 1) == 0;
    }
    std::vector<Floats> results[2];
    for (const bool threaded : {false, true}) {
      graph_conv::Problem p{};
      p.batch = kBatch;
      p.frames = kFrames;
      p.sources = p.targets = kJoints;
      p.inputs = kInputs;
      p.outputs = kOutputs;
      p.partitions = kPartitions;
      p.groups = groups;
      p.per_sample = samples != 1;
      p.pieces = kPieces;
      p.x = {x.data(), Dtype::kFloat32, kInputs, 1};
      p.x_batch = kFrames * kJoints * kInputs;
      p.grad = {grad.data(), Dtype::kFloat32, kOutputs, 1};
      p.grad_batch = kFrames * kJoints * kOutputs;
      p.adjacency = adjacency.data();
      p.weight = weight.data();
      p.weight_partition = kOutputs * kInputs;
      p.weight_output = kInputs;
      p.weight_input = 1;
      p.bias = bias.data();
      std::vector<Floats>& found = results[threaded];
      const auto room = [&](std::size_t count) { return found.emplace_back(count).data(); };
      const auto into = [&](Index channels) {
        p.out = {room(kBatch * kFrames * kJoints * channels), Dtype::kFloat32, channels, 1};
        p.out_batch = kFrames * kJoints * channels;
      };
      into(kOutputs);
      graph_steps(kernels.forward, p, threaded, nullptr);
      into(kInputs);
      p.slots = kBatch * kPieces;
      p.by_weight = room(weight.size());
      if (form == kSkeleton) {
        p.support = adjacency.data();
        p.by_adjacency = room(adjacency.size());
        const std::vector<char> joints = graph_steps(kernels.backward, p, threaded, &p);
        kernels.by_bias(p, joints.data(), p.by_adjacency, room(bias.size()));
        continue;
      }
      graph_steps(kernels.grad_weight, p, threaded, p.by_weight);
      if (groups == 1) {
        into(kInputs);
      } else {
        p.out.data = nullptr;
      }
      p.by_adjacency = room(adjacency.size());
      graph_steps(kernels.grad_adjacency, p, threaded, p.by_adjacency);
      const std::vector<char> joints = graph_steps(kernels.joints, p, threaded, &p);
      kernels.by_bias(p, joints.data(), nullptr, room(bias.size()));
    }
    check(results[0].size() == results[1].size() && results[0].size() >= 5, "a gradient is missing");
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      float largest = 0;
      for (float value : results[0][i]) largest = value > largest ? value : largest;
      check(largest > 0, "a graph convolution gives nothing");
      check(results[0][i] == results[1][i], "a graph convolution depends on its threads");
    }
  }
}

// Packed copies stay what they are while they are held, whoever changes, forgets or evicts them meanwhile.
void test_packed_weights() {
  const Floats shared = numbers(1000, 9);
  in_threads([&](int thread) {
    Floats own = numbers(1000, static_cast<std::uint32_t>(thread));
    for (int repeat = 0; repeat < 50; ++repeat) {
      own[static_cast<std::size_t>(repeat)] += 1;
      for (const Floats* weight : {&shared, static_cast<const Floats*>(&own)}) {
        const std::size_t bytes = weight->size() * 4;
        const auto packed = packed_weights("threads.copy", {repeat % 3}, {{weight->data(), bytes}}, bytes,
                                           [&](void* to) { std::memcpy(to, weight->data(), bytes); });
        if (repeat % 7 == thread) packed_clear();
        const Floats before = *weight;
        if (weight == &own) own[0] = -own[0];
        const auto again = packed_weights("threads.copy", {repeat % 3}, {{weight->data(), bytes}}, bytes,
                                          [&](void* to) { std::memcpy(to, weight->data(), bytes); });
        check(std::memcmp(packed.get(), before.data(), bytes) == 0, "held weights were packed over");
        check(std::memcmp(again.get(), weight->data(), bytes) == 0, "weights are stale");
      }
    }
  });
}

void test_eviction() {
  constexpr std::size_t kBytes = std::size_t{24} << 20;
  const float seed = 1;
  const auto get = [&](Index number) {
    return packed_weights("threads.large", {number}, {{&seed, 4}}, kBytes,
                          [&](void* to) { *static_cast<Index*>(to) = number; });
  };
  packed_clear();
  const std::size_t packings = packed_count();
  const auto first = get(0);
  for (Index number = 1; number < 20; ++number) get(number);
  check(packed_bytes() <= std::size_t{256} << 20, "more is kept than may be");
  check(*static_cast<const Index*>(first.get()) == 0, "held weights went with their entry");
  get(19);
  check(packed_count() - packings == 20, "what was used last is gone");
  get(0);
  check(packed_count() - packings == 21, "what was used first is still there");
  packed_clear();
}

}  // namespace

int main() {
  test_blocks();
  test_weight_gradient();
  test_graph_convolution();
  test_packed_weights();
  test_eviction();
  std::puts("threads: the same results, no races");
}
