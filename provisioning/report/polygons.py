"""Squares of a grid → polygons that are valid by OGC 06-103r4, 6.1.11: simple rings, holes inside, no shared edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Vertex = tuple[int, int]
"""Column and row of a grid line; rows count from the north."""
Ring = list[Vertex]
"""Corners, the first one not repeated. Shells run counterclockwise, holes clockwise (RFC 7946, 3.1.6)."""


def polygons_of(cells: Iterable[Vertex]) -> Iterator[list[Ring]]:
    """Yield the polygons that cover exactly `cells` (column, row), each as its shell and then its holes.

    Each is one group of squares that share sides; groups that meet in corners alone are polygons of their own.
    """
    for group in _groups(set(cells)):
        rings = [part for ring in _traced(group) for part in _split(ring)]
        shell = max(rings, key=_area)
        yield [_corners(shell), *(_corners(ring) for ring in rings if ring is not shell)]


def _groups(left: set[Vertex]) -> Iterator[set[Vertex]]:
    """Yield groups of squares that share sides, in the order of their north-western squares."""
    for start in sorted(left, key=lambda cell: (cell[1], cell[0])):
        if start not in left:
            continue
        group, edge = {start}, [start]
        left.discard(start)
        while edge:
            x, y = edge.pop()
            for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                if near in left:
                    left.discard(near)
                    group.add(near)
                    edge.append(near)
        yield group


def _traced(group: set[Vertex]) -> Iterator[Ring]:
    """Yield closed walks along the border, the squares to the left; a walk may pass through a corner twice."""
    following: dict[Vertex, list[Vertex]] = {}
    for x, y in sorted(group):
        for neighbour, start, end in (
            ((x, y + 1), (x, y + 1), (x + 1, y + 1)),
            ((x + 1, y), (x + 1, y + 1), (x + 1, y)),
            ((x, y - 1), (x + 1, y), (x, y)),
            ((x - 1, y), (x, y), (x, y + 1)),
        ):
            if neighbour not in group:
                following.setdefault(start, []).append(end)
    while following:
        at = start = min(following)
        walk: Ring = []
        while at in following:
            walk.append(at)
            ends = following[at]
            after = ends.pop()
            if not ends:
                del following[at]
            at = after
        assert at == start
        yield walk


def _split(walk: Ring) -> Iterator[Ring]:
    """Yield the simple rings of a walk: it is cut wherever it comes to a corner again."""
    path: Ring = []
    seen: dict[Vertex, int] = {}
    for vertex in walk:
        if vertex in seen:
            first = seen[vertex]
            yield path[first:]
            for gone in path[first:]:
                del seen[gone]
            del path[first:]
        seen[vertex] = len(path)
        path.append(vertex)
    yield path


def _area(ring: Ring) -> int:
    """Return twice the area, positive for a shell (rows count southwards)."""
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum(x2 * y1 - x1 * y2 for (x1, y1), (x2, y2) in pairs)


def _corners(ring: Ring) -> Ring:
    """Return a ring without the vertices at which it goes straight on, from its first corner on."""
    neighbours = zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True)
    return [at for before, at, after in neighbours if (before[0] == at[0]) != (at[0] == after[0])]
