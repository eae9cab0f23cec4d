"""How a matrix is cut: laws for any size, and a time left that can be believed."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast.dtw import tiles
from stgcn_fast.dtw._progress import Bar
from stgcn_fast.dtw.sequences import Band
from stgcn_fast.dtw.tiles import CondensedTiles, Piece, RectangleTiles, SquareTiles

sizes = st.integers(1, 40)


def covered(pieces: list[Piece], rows: int, columns: int) -> np.ndarray:
    """[rows, columns], how often each pair (i, j) is computed; a triangle counts where i <= j."""
    count = np.zeros((rows, columns), dtype=int)
    for piece in pieces:
        (a, b), other = piece.rows, piece.columns
        if other is None:
            count[a:b, a:b] += np.triu(np.ones((b - a, b - a), dtype=int))
        else:
            count[a:b, other[0] : other[1]] += 1
    return count


@given(n=sizes, side=sizes, most=sizes)
def test_square_tiles_compute_every_pair_once_and_fill_every_cell_once(n, side, most):
    tiling = SquareTiles(n, side)
    whole = [tiling.pieces(t) for t in range(len(tiling))]
    np.testing.assert_array_equal(
        covered(list(itertools.chain(*whole)), n, n), np.triu(np.ones((n, n), dtype=int))
    )
    cells, chunks = np.zeros((n, n), dtype=int), []
    for t, pieces in enumerate(whole):
        split = [part for piece in pieces for part in piece.split(most)]
        assert all(span[1] - span[0] <= most for p in split for span in (p.rows, p.columns or p.rows))
        np.testing.assert_array_equal(covered(split, n, n), covered(pieces, n, n))
        assert tiling.pairs(t) == covered(pieces, n, n).sum()
        (a, b), (c, d) = tiling.box(t)
        cells[a:b, c:d] += 1
        if tiling.mirrored(t):
            cells[c:d, a:b] += 1
        chunks += tiling.chunks(t)
    assert (cells == 1).all()
    blocks = -(-n // min(n, side))
    assert sorted(chunks) == [(i, j) for i in range(blocks) for j in range(blocks)]


@given(n=sizes, m=sizes, side=sizes, most=sizes)
def test_rectangle_tiles_compute_every_pair_once(n, m, side, most):
    tiling = RectangleTiles(n, m, side)
    parts = [p for t in range(len(tiling)) for piece in tiling.pieces(t) for p in piece.split(most)]
    assert (covered(parts, n, m) == 1).all()
    assert sum(tiling.pairs(t) for t in range(len(tiling))) == n * m
    assert len({tuple(tiling.chunks(t)[0]) for t in range(len(tiling))}) == len(tiling)


@given(n=sizes, run=st.integers(1, 300), most=sizes)
def test_condensed_tiles_are_runs_of_the_pairs_above_the_diagonal(n, run, most):
    tiling = CondensedTiles(n, run)
    rows, columns = np.triu_indices(n, 1)
    assert tiling.shape == (len(rows),)
    ends = []
    for t in range(len(tiling)):
        ((first, end),) = tiling.box(t)
        ends.append((first, end))
        want = np.zeros((n, n), dtype=int)
        want[rows[first:end], columns[first:end]] = 1
        parts = [p for piece in tiling.pieces(t) for p in piece.split(most)]
        got = covered(parts, n, n)
        np.testing.assert_array_equal(np.triu(got, 1), want)
        assert not np.tril(got, -1).any()
        assert tiling.pairs(t) == want.sum()
    assert [e for _, e in ends[:-1]] == [f for f, _ in ends[1:]]


@given(
    n=sizes,
    m=sizes,
    side=st.integers(1, 9),
    most=st.integers(1, 5),
    kind=st.sampled_from(["square", "rectangle", "condensed"]),
    dear=st.sampled_from([1.0, 0.4 * tiles._TILE_WORK, 2 * tiles._TILE_WORK]),
    data=st.data(),
)
def test_groups_are_neighbours_in_a_row_and_hold_every_tile_once(n, m, side, most, kind, dear, data):
    made = {"square": lambda: SquareTiles(n, side), "rectangle": lambda: RectangleTiles(n, m, side)}
    tiling = made.get(kind, lambda: CondensedTiles(n + 1, side))()
    count = len(tiling)
    left = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    costs = np.where(np.arange(count) % 3, dear, dear / 2)
    groups = tiles.join(tiling, left, costs, most)
    assert sorted(itertools.chain(*groups)) == left
    for group in groups:
        assert len(group) == 1 or (len(group) <= most and costs[group].sum() <= tiles._TILE_WORK)
        boxes = [tiling.box(tile) for tile in group]
        for tile, before, box in zip(group[1:], boxes, boxes[1:]):
            assert before[0] == box[0]
            assert before[1][1] == box[1][0]
            assert not any(piece.columns is None for piece in tiling.pieces(tile))
    if groups:
        assert costs[groups[-1]].sum() == min(costs[group].sum() for group in groups)


@given(
    longest=st.integers(1, 400),
    features=st.integers(1, 6400),
    side=st.sampled_from([16, 64, 512]),
    memory=st.one_of(st.none(), st.integers(1, 1 << 32)),
)
def test_as_many_tiles_side_by_side_as_memory_holds(longest, features, side, memory):
    count = tiles.tiles_at_once(memory, (side, side), longest, features, 4, 2)
    assert count in (1, 2, 4, 8)
    taken = tiles._TILE_COPIES * count * side**2 * 4 + tiles._packed(count * side, longest, features, 4)
    within = (memory or tiles.DEFAULT_MEMORY) - tiles._scratch(longest, 2)
    assert count == 1 or taken <= within
    assert tiles.tiles_at_once(memory, (side,), longest, features, 4, 2) == 1


@given(costs=st.lists(st.floats(0, 1e9), max_size=60))
def test_the_order_is_a_permutation(costs):
    order = tiles.balanced_order(np.array(costs))
    assert sorted(order.tolist()) == list(range(len(costs)))


@given(
    n=st.integers(1, 3000),
    longest=st.integers(1, 4000),
    features=st.integers(1, 6400),
    memory=st.integers(1, 1 << 31),
    condensed=st.booleans(),
)
def test_the_tile_fits_into_memory_or_the_message_says_what_would(n, longest, features, memory, condensed):
    lengths = np.random.default_rng(n).integers(1, longest + 1, n)

    def choose(memory):
        tile = tiles.choose_tile((lengths, lengths), Band(10, 0.0), features, 4, memory, 2, condensed, "f")
        size = tile if condensed else tile**2
        return tile, tiles.sequences_at_once(memory, size * 4, int(lengths.max()), features, 4, 2, "f")

    try:
        tile, most = choose(memory)
    except ValueError as error:
        least = int(str(error).split("at least ")[1].split()[0])
        assert least > memory
        tile, most = choose(least)
    assert tile >= 1
    assert most >= 1


@pytest.mark.parametrize("band", [Band(1 << 30, 0.0), Band(7, 0.0), Band(0, 0.1)])
def test_costs_follow_the_lengths(band):
    lengths = np.random.default_rng(0).integers(20, 200, 300)
    exact = tiles.cost_of(lengths[:, None], lengths[None], band, 5)
    for tiling in (SquareTiles(300, 64), CondensedTiles(300, 5000)):
        got = tiles.tile_costs(tiling, lengths, lengths, band, 5)
        want = [(exact * covered(tiling.pieces(t), 300, 300)).sum() for t in range(len(tiling))]
        np.testing.assert_allclose(got, want, rtol=0.1)
        np.testing.assert_allclose(got.sum(), np.sum(want), rtol=0.03)


@pytest.mark.parametrize("together", [1, 8])
@pytest.mark.parametrize("lengths", ["sorted", "mixed"])
def test_the_time_left_is_right_after_a_twentieth_of_the_work(lengths, together):
    # True times differ from the estimates: by a tile's size, by a third on the diagonal, by chance.
    rng = np.random.default_rng(3)
    length = rng.integers(20, 300, 5000)
    if lengths == "sorted":
        length = np.sort(length)
    tiling = SquareTiles(len(length), 512 if together == 1 else 256)
    costs = tiles.tile_costs(tiling, length, length, Band(30, 0.0), 75)
    diagonal = np.array([not tiling.mirrored(t) for t in range(len(tiling))])
    seconds = 0.02 + costs / 1e11 * np.where(diagonal, 1.5, 1.0) * rng.uniform(0.8, 1.25, len(costs))
    seconds *= np.where(costs < np.median(costs), 1.4, 1.0)
    clock, now, seen = [0.0], (0, 0.0), 0
    bar = Bar("", len(length), float(costs.sum()), stream=io.StringIO(), clock=lambda: clock[0])
    groups = tiles.join(tiling, list(range(len(costs))), costs, together)
    assert (len(groups) < len(costs)) == (together > 1)
    for group in groups:
        clock[0] += seconds[group].sum()
        now = (now[0] + sum(map(tiling.pairs, group)), now[1] + costs[group].sum())
        bar.update(*now)
        if 0.05 <= now[1] / costs.sum() < 0.9:
            seen += 1
            assert bar.remaining() == pytest.approx(seconds.sum() - clock[0], rel=0.2)
    assert seen > 20


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_speaks_of_this_run_only():
    clock, screen = [0.0], Terminal()
    bar = Bar("DTW", 1000, 50.0, (500, 25.0), screen, lambda: clock[0])
    assert bar.remaining() is None
    assert "time left unknown" in bar.text()
    clock[0] = 10.0
    bar.update(600, 30.0)
    assert screen.getvalue().startswith(
        "\rDTW  60.0 %  [##############..........]  10 pairs/s  0:10 spent  0:40 left"
    )
    bar.close()
    assert screen.getvalue().endswith("\r")
    log = io.StringIO()
    quiet = Bar("DTW", 1000, 50.0, stream=log, clock=lambda: clock[0])
    for clock[0] in range(10, 200):
        quiet.update(clock[0], clock[0] / 10)
    quiet.close()
    assert log.getvalue().count("\n") == 3
    assert "\r" not in log.getvalue()
