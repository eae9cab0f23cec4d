#include <cstring>
#include <type_traits>

#include "packed.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block {
namespace {

inline Index smaller(Index a, Index b) { return a < b ? a : b; }
inline Index larger(Index a, Index b) { return a > b ? a : b; }

template <typename M>
M sample_of(M matrix, Index batch_stride, Index n) {
  matrix.data =
      const_cast<char*>(static_cast<const char*>(matrix.data)) + n * batch_stride * graph_conv::bytes_of(matrix.dtype);
  return matrix;
}

// Output frames that go through together: the window of h that they read stays in the second-level cache beside what
// the temporal convolution keeps there. Whole groups.
template <typename H>
Index chunk_frames(const Problem& p, Index row, Index frames) {
  constexpr Index kWindowBytes = Index{448} << 10;
  constexpr Index kLeast = 24;
  const Index held = kWindowBytes / (p.targets * row * static_cast<Index>(sizeof(H)));
  const Index most = larger(kLeast, (held - p.kernel_size + 1) / p.stride) / p.group * p.group;
  // Evenly, rather than a sliver at the end that reads all weights again.
  const Index groups = (frames + p.group - 1) / p.group, pieces = (frames + most - 1) / most;
  return (groups + pieces - 1) / pieces * p.group;
}

// Frames of h, of type H, that successive output frames read: a window that slides along one sample.
template <typename E, typename H>
class Window {
 public:
  Window(const Problem& p, const GraphOperand<E>& graph, const ConstMatrix& x, Index capacity, Index row)
      : p_(p),
        graph_(graph),
        x_(x),
        frame_(p.targets * row),
        row_(row),
        data_(scratch<H>(Slot::kAggregate, capacity * frame_)) {
    // Row kernels may read whole vectors, or pairs, of channels.
    if (row != p.outputs)
      std::memset(static_cast<void*>(data_), 0, static_cast<std::size_t>(capacity * frame_) * sizeof(H));
  }

  // Starts at frame `first`, which may lie before the clip.
  void open(Index first) {
    base_ = filled_ = first;
    if (first < 0) zero_to(0);
  }

  // Makes frames [first, last) available and returns them; frames from `end` on are not wanted later either, so that
  // nothing is computed in vain.
  const H* slide(Index first, Index last, Index end) {
    if (first > base_) {
      const Index kept = larger(0, filled_ - first);
      if (kept > 0) {
        std::memmove(static_cast<void*>(data_), data_ + (first - base_) * frame_,
                     static_cast<std::size_t>(kept * frame_) * sizeof(H));
      }
      base_ = first;
      filled_ = larger(filled_, first);
    }
    if (filled_ < smaller(last, p_.frames)) {
      // Whole tiles of frames where the end allows.
      const Index wanted = smaller(last, p_.frames) - filled_;
      const Index frames = smaller((wanted + kTileRows - 1) / kTileRows * kTileRows, smaller(end, p_.frames) - filled_);
      const graph_conv::Rows<E> rows =
          graph_conv::rows_of<E>(Slot::kInput, x_, filled_ * p_.sources, frames * p_.sources, p_.inputs);
      graph_rows(graph_, rows.data, rows.row, frames, data_ + (filled_ - base_) * frame_, row_, true);
      filled_ += frames;
    }
    zero_to(last);
    return data_;
  }

 private:
  void zero_to(Index last) {
    if (filled_ >= last) return;
    std::memset(static_cast<void*>(data_ + (filled_ - base_) * frame_), 0,
                static_cast<std::size_t>((last - filled_) * frame_) * sizeof(H));
    filled_ = last;
  }

  const Problem& p_;
  const GraphOperand<E>& graph_;
  ConstMatrix x_;
  Index frame_, row_;
  H* data_;
  Index base_ = 0, filled_ = 0;
};

// What is added to output frames [first, last): rows of x, or of their 1x1 convolution, which goes into `out`.
template <typename E>
graph_conv::Rows<E> residual_rows(const Problem& p, const Block<E>& block, const ConstMatrix& x, Index first,
                                  Index last, E* out, Index out_row) {
  if (p.residual == Residual::kNone) return {nullptr, 0};
  const Index begin = first * p.stride, frames = (last - 1) * p.stride + 1 - begin;
  const graph_conv::Rows<E> rows =
      graph_conv::rows_of<E>(Slot::kExtra, x, begin * p.sources, frames * p.sources, p.inputs);
  if (p.residual == Residual::kIdentity) return rows;
  temporal_rows(block.residual, rows.data, rows.row, last - first, static_cast<const E*>(nullptr), Index{0}, false, out,
                out_row);
  return {out, out_row};
}

template <typename E, typename H>
void compute(const Problem& p, const Block<E>& block, const TemporalOperand<H>& temporal, const Segment& segment) {
  const ConstMatrix x = sample_of(p.x, p.x_batch, segment.sample);
  const Matrix out = sample_of(p.out, p.out_batch, segment.sample);
  const Index W = p.targets, padding = p.kernel_size / 2, row = graph_conv::padded<E>(p.outputs);
  const Index chunk = chunk_frames<H>(p, row, segment.last - segment.first);
  const Index end = segment.last * p.stride - p.stride + padding + 1;
  const bool direct = out.dtype == graph_conv::kComputed<E> && out.channel == 1;
  Window<E, H> window(p, block.graph, x, temporal_window_frames(temporal, chunk) + kTileRows, row);
  window.open(segment.first * p.stride - padding);
  for (Index first = segment.first; first < segment.last; first += chunk) {
    const Index last = smaller(first + chunk, segment.last), begin = first * p.stride - padding;
    const H* h = window.slide(begin, begin + temporal_window_frames(temporal, last - first), end);
    const Index out_row = direct ? out.row : row;
    E* to = direct ? static_cast<E*>(out.data) + first * W * out.row : scratch<E>(Slot::kOutput, chunk * W * row);
    const graph_conv::Rows<E> add = residual_rows(p, block, x, first, last, to, out_row);
    temporal_rows(temporal, h, row, last - first, add.data, add.row, true, to, out_row);
    if (!direct) {
      Matrix target = out;
      target.data = static_cast<char*>(out.data) + first * W * out.row * graph_conv::bytes_of(out.dtype);
      graph_conv::scatter_rows(target, to, (last - first) * W, p.outputs);
    }
  }
}

void copy(const Problem& p, const Segment& segment) {
  const Matrix out = sample_of(p.out, p.out_batch, segment.sample);
  const Index size = graph_conv::bytes_of(out.dtype);
  const Index first = segment.first * p.targets, rows = (segment.last - segment.first) * p.targets;
  char* to = static_cast<char*>(out.data) + first * out.row * size;
  const char* from = static_cast<const char*>(p.rest.data) + first * p.rest.row * size;
  if (out.channel == 1 && p.rest.channel == 1 && out.row == p.outputs && p.rest.row == p.outputs) {
    std::memcpy(to, from, static_cast<std::size_t>(rows * p.outputs * size));
    return;
  }
  for (Index o = 0; o < p.outputs; ++o) {
    char* target = to + o * out.channel * size;
    const char* source = from + o * p.rest.channel * size;
    if (out.row == 1 && p.rest.row == 1) {
      std::memcpy(target, source, static_cast<std::size_t>(rows * size));
      continue;
    }
    for (Index r = 0; r < rows; ++r) {
      std::memcpy(target + r * out.row * size, source + r * p.rest.row * size, static_cast<std::size_t>(size));
    }
  }
}

template <typename E>
void run(const Problem& p, const void* packed, const Segment* begin, const Segment* end) {
  const Block<E> block = block_in<E>(p, const_cast<void*>(packed));
  for (const Segment* segment = begin; segment != end; ++segment) {
    if (segment->known) {
      copy(p, *segment);
    } else if (block.fast) {
      compute(p, block, block.transformed, *segment);
    } else {
      compute(p, block, block.direct, *segment);
    }
  }
}

template <typename E>
constexpr Kernels kernels() {
  return {&packed_bytes<E>, &pack<E>, &run<E>};
}

}  // namespace
}  // namespace st_block

const ::stgcn_fast::st_block::Table& st_block_kernels() {
#if defined(__AVX512BF16__)
  constexpr st_block::Kernels narrow = st_block::kernels<BFloat16>();
#else
  constexpr st_block::Kernels narrow{};
#endif
  static constexpr ::stgcn_fast::st_block::Table table{st_block::kernels<float>(), st_block::kernels<double>(), narrow};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
