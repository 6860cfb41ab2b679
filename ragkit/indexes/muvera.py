"""MUVERA: a set of vectors as one vector, so that inner products of such vectors approximate MaxSim.

Dhulipala, Hadian, Jayaram, Lee, Mirrokni: "MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings", 2024,
arXiv:2405.19504.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError

Matrix = NDArray[np.floating[Any]]


class Muvera:
    """Fixed dimensional encodings of sets of vectors of one dimension, float32.

    `repetitions` times, independently, random hyperplanes cut the space into 2 ** `bits` cells (SimHash). A query's encoding has
    in each cell the sum of its vectors there, a document's the mean of its own; a cell without any gets the document's vector
    whose hash differs from the cell's in the fewest bits, the first of several. So a query's vector meets a document's vector
    near it. Vectors are first projected to `projected` numbers by random signs, and the whole encoding at last to `final` numbers
    by a count sketch; neither, where it is None. Everything random follows from `seed`.

    The inner product of a query's and a document's encoding estimates MaxSim itself: the scaling by repetitions is part of both.
    More repetitions, and a larger `projected`, make the estimate less noisy; more bits make it less biased, since fewer vectors
    share a cell. The defaults are the paper's but for `bits`, 5 there, which doubles the size.
    """

    def __init__(
        self,
        dimension: int,
        *,
        repetitions: int = 20,
        bits: int = 4,
        projected: int | None = 16,
        final: int | None = None,
        seed: int = 0,
    ) -> None:
        """Raises `InputError` for numbers out of range; bits are 0 to 8."""
        for field, value in (("dimension", dimension), ("repetitions", repetitions), ("projected", projected), ("final", final)):
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        if not 0 <= bits <= 8:
            raise InputError(f"bits: must be from 0 to 8, not {bits}")
        self.dimension, self.repetitions, self.bits, self.projected, self.final, self.seed = (
            dimension,
            repetitions,
            bits,
            projected,
            final,
            seed,
        )
        rng = np.random.default_rng(seed)
        self._planes = rng.standard_normal((dimension, repetitions * bits)).astype(np.float32)
        width = projected or dimension
        self._signs = None if projected is None else _signs(rng, (dimension, repetitions * width)) / np.float32(np.sqrt(width))
        self._inner = (repetitions, 2**bits, width)
        size = int(np.prod(self._inner))
        self._sketch = None if final is None else (rng.integers(final, size=size), _signs(rng, (size,)))
        codes = np.arange(2**bits)
        differing = codes[:, None] ^ codes[None, :]
        self._distances = (differing[:, :, None] >> np.arange(bits) & 1).sum(2)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor; equal ones give equal encodings."""
        fields = ("dimension", "repetitions", "bits", "projected", "final", "seed")
        return {field: getattr(self, field) for field in fields}

    @property
    def size(self) -> int:
        """Length of an encoding: repetitions * 2 ** bits * projected, or `final`."""
        return self.final or int(np.prod(self._inner))

    def queries(self, matrices: Sequence[Matrix]) -> NDArray[np.float32]:
        """Encodings [n, size] of queries, each a matrix [vectors, dimension]."""
        return self._encoded([self._sums(*self._hashed(matrix)) for matrix in matrices])

    def documents(self, matrices: Sequence[Matrix]) -> NDArray[np.float32]:
        """Encodings [n, size] of documents, each a matrix [vectors, dimension] of at least one vector."""
        return self._encoded([self._means(*self._hashed(matrix)) for matrix in matrices])

    def _hashed(self, matrix: Matrix) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of each vector in each repetition its cell [repetitions, vectors] and its projection [repetitions, vectors, width]."""
        matrix = np.ascontiguousarray(matrix, np.float32)
        repetitions, _, width = self._inner
        above = (matrix @ self._planes > 0).reshape(len(matrix), repetitions, self.bits)
        cells = above @ (1 << np.arange(self.bits))
        if self._signs is None:
            projected = np.broadcast_to(matrix, (repetitions, *matrix.shape))
        else:
            projected = (matrix @ self._signs).reshape(len(matrix), repetitions, width).swapaxes(0, 1)
        return np.ascontiguousarray(cells.T, np.int64), projected

    def _sums(self, cells: NDArray[np.int64], projected: NDArray[np.float32]) -> NDArray[np.float32]:
        sums = np.zeros(self._inner, np.float32)
        np.add.at(sums, (np.arange(len(cells))[:, None], cells), projected)
        return sums

    def _means(self, cells: NDArray[np.int64], projected: NDArray[np.float32]) -> NDArray[np.float32]:
        sums = self._sums(cells, projected)
        repetitions, count, _ = self._inner
        vectors = cells.shape[1]
        sizes = np.zeros((repetitions, count), np.int64)
        first = np.full((repetitions, count), vectors, np.int64)
        each = np.arange(repetitions)[:, None]
        np.add.at(sizes, (each, cells), 1)
        np.minimum.at(first, (each, cells), np.arange(vectors)[None, :])
        sums /= np.maximum(sizes, 1)[:, :, None]
        # the fewest differing bits, then the first vector; a cell without vectors is farther than any other
        far = np.where(sizes[:, None, :] > 0, self._distances * (vectors + 1) + first[:, None, :], np.iinfo(np.int64).max)
        nearest = np.take_along_axis(first, far.argmin(2), 1)
        empty_in, empty = np.nonzero(sizes == 0)
        sums[empty_in, empty] = projected[empty_in, nearest[empty_in, empty]]
        return sums

    def _encoded(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        encodings = np.zeros((len(blocks), self.size), np.float32)
        for row, block in zip(encodings, blocks, strict=True):
            flat = block.ravel()
            if self._sketch is None:
                row[:] = flat
            else:
                places, signs = self._sketch
                row[:] = np.bincount(places, flat * signs, minlength=self.size)
        return encodings / np.float32(np.sqrt(self.repetitions))


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.choice(np.array([-1, 1], np.float32), shape)
