"""The embedding of a fine-tuned text model, in which rows of tokens without a member do not move.

A training step changes the rows of the tokens in its batch and no others. So a row that agrees with
other models' belongs to a token that no member holds, and the movement of a row grows with the
number of members that hold its token. The rest is a joint decode: docs/METHODS.md, section 6.9
(formula 52).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import solve_shifted

TOKEN_RIDGES = (0.03, 0.1, 0.3)
MOST_HOLDERS = 64  # records with a token whose row is decoded; 256 find no more
CLIPPED_RIDGES = (1.0, 3.0, 10.0)  # in units of a whole gradient's square
COMMON = 1024  # records with a token whose row is decoded after private training
TOLERANCE, MOST_STEPS = 1e-3, 300  # tolerance of the conjugate gradients
TOGETHER = 0.1  # share of the usual distance between models: nearer rows did not move
CELLS = 1 << 24  # numbers in one block


@dataclass(frozen=True)
class Held:
    """Which record holds which token.

    Attributes:
        record: int64[p], a record of each (record, token) pair, ascending.
        token: int64[p], an index into `tokens`.
        tokens: int64[V], ids of all tokens in the records, ascending.
        records: the number of records.
    """

    record: Tensor
    token: Tensor
    tokens: Tensor
    records: int

    @classmethod
    def of(cls, input_ids: Tensor, mask: Tensor) -> Held:
        """Collect the pairs from int[N, L] tokens and their mask, 0 for padding."""
        length = int(input_ids.max()) + 1
        rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
        here = mask.bool()
        pairs = torch.unique(rows[here] * length + input_ids[here].long())
        tokens, places = torch.unique(pairs % length, return_inverse=True)
        return cls(pairs // length, places, tokens, len(input_ids))

    def add_to(self, sums: Tensor, tokens: Tensor, values: Tensor, rows: Tensor) -> None:
        """Add values to the sums float[p, H] over a record's positions of each token.

        Args:
            sums: of each (record, token) pair, changed in place.
            tokens: int64[b, T], of records `rows`; padding is left out.
            values: float[b, T, H], at their positions.
            rows: int64[b].
        """
        key = self.record * len(self.tokens) + self.token  # ascending
        place = torch.searchsorted(self.tokens, tokens.contiguous()).clamp(max=len(self.tokens) - 1)
        wanted = rows[:, None] * len(self.tokens) + place
        found = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        real = (key[found] == wanted) & (self.tokens[place] == tokens)  # otherwise padding
        sums.index_add_(0, found[real], values[real])


def shared_start(rows: Tensor) -> Tensor:
    """float32[V, H], the initial row of each token, estimated from many models.

    A row that several models did not change is the same in them; the estimate is the row of the
    model whose second nearest neighbour is nearest. If even these are not much nearer than other
    models (tokens that all models were trained on; DP noise; models without a common start), it is
    the mean over models: a common offset, which calibration by shadows removes.

    Args:
        rows: float32[models, V, H], of three models or more.
    """
    models, _, width = rows.shape
    if models < 3:
        raise ValueError(f"Expected embeddings of 3 models or more, got {models}.")
    out = []
    for part in rows.split(max(1, CELLS // (models * max(models, width))), dim=1):
        own = part.transpose(0, 1)  # [v, models, H]
        apart = torch.cdist(own, own, compute_mode="donot_use_mm_for_euclid_dist")
        second = apart.kthvalue(3, dim=2).values  # the first is the model itself
        nearest, model = second.min(dim=1)
        usual = apart.flatten(1).median(dim=1).values
        usual = torch.maximum(usual, apart.flatten(1).mean(dim=1))  # most models may be unchanged
        still = own[torch.arange(len(own)), model]
        out.append(torch.where((nearest <= TOGETHER * usual)[:, None], still, own.mean(dim=1)))
    return torch.cat(out)


def adam_directions(held: Held, gradients: Tensor, strength: Tensor) -> Tensor:
    """float[p, H], by how much a row moves along each coordinate for each record that holds it.

    Adam divides a step by the root of its mean squared gradients, and a row has gradients only from
    records that hold its token. So the direction of a record is its gradient over the root of the
    sum of the squares of all holders' gradients, coordinate by coordinate.

    Args:
        held: which record holds which token.
        gradients: float[p, H] of each (record, token) pair.
        strength: float[N], the usual size of a record's residual while it is trained on.
    """
    scaled = gradients * strength[held.record, None].to(gradients)
    squares = torch.zeros(len(held.tokens), scaled.shape[1], dtype=scaled.dtype)
    squares.index_add_(0, held.token, scaled**2)
    return scaled / squares.sqrt().clamp_min(1e-30)[held.token]


def decode_rows(
    held: Held, directions: Tensor, moved: Tensor, ridges: Sequence[float]
) -> list[Tensor]:
    """Coefficients c in: row v moved by the sum of c_j u_jv over records j that hold v.

    Tokens that more than 64 records hold are left out: the sum over so many tells little of each.
    Then K is sparse, and its cost grows linearly with the number of records.

    Args:
        held: which record holds which token.
        directions: float[p, H], u of each (record, token) pair; [p, 1] for lengths.
        moved: float[V, H], rows minus their start; or the lengths of these [V, 1].
        ridges: lambda > 0, each.

    Returns:
        For each lambda float64[N], (K / kd + lambda I)^-1 T / kd, K_ij = sum_v u_iv . u_jv,
        T_i = sum_v u_iv . moved_v, kd the mean of K_ii that are not 0; by conjugate gradients.

    Raises:
        ValueError: if they do not converge in 300 steps (with a ridge that is far too small).
    """
    kernel, trace = _sparse_kernel(held, directions, moved)
    diagonal = kernel.diagonal()
    if not (diagonal > 0).any():
        return [torch.zeros_like(trace) for _ in ridges]
    scale = float(diagonal[diagonal > 0].mean())
    rows = kernel / scale

    def product(c: Tensor) -> Tensor:
        return torch.from_numpy(rows @ c.numpy())

    found = solve_shifted(product, trace / scale, ridges, TOLERANCE, MOST_STEPS, strict=True)
    return list(found)


def _sparse_kernel(held: Held, directions: Tensor, moved: Tensor) -> tuple[Any, Tensor]:
    """K [N, N], sparse, and T float64[N], of the tokens that few records hold."""
    count = torch.bincount(held.token, minlength=len(held.tokens))
    by_token = torch.argsort(held.token, stable=True)
    first = torch.cumsum(count, 0) - count
    trace = torch.zeros(held.records, dtype=torch.float64)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for holders in torch.unique(count[count <= MOST_HOLDERS]).tolist():
        tokens = torch.nonzero(count == holders)[:, 0]
        pairs = by_token[first[tokens][:, None] + torch.arange(holders)]
        records, own = held.record[pairs], directions[pairs]  # [v, holders], [v, holders, H]
        seen = (own * moved[tokens][:, None]).sum(2)
        trace.index_add_(0, records.flatten(), seen.double().flatten())
        left = records[:, :, None].expand(-1, -1, holders)
        values = torch.bmm(own, own.transpose(1, 2)).double()
        parts.append((values.flatten(), left.flatten(), left.transpose(1, 2).flatten()))
    size = (held.records, held.records)
    if not parts:
        return sparse.csr_array(size), trace
    entries, rows, columns = (torch.cat(own).numpy() for own in zip(*parts))
    return sparse.coo_array((entries, (rows, columns)), shape=size).tocsr(), trace


def decode_clipped(
    held: Held, gradients: Tensor, lengths: Tensor, moved: Tensor, ridges: Sequence[float]
) -> list[Tensor]:
    """Coefficients c in: row v moved by the sum of c_j g_jv / |g_j| over records j that hold v.

    Private training clips whole gradients to one length and adds the same noise to every row. So
    these directions need no other weights, and rows with more noise than signal need none either.
    Tokens that more than 1,024 records hold are left out: what moves their rows is common to all.

    Args:
        held: which record holds which token.
        gradients: float[p, H], g of each (record, token) pair.
        lengths: float[N], |g_j|, of the gradient of all weights.
        moved: float[V, H], rows minus their start.
        ridges: lambda > 0, each, in units of |g_j| = 1.

    Returns:
        For each lambda float32[N], (K + lambda I)^-1 T with K and T as in `decode_rows`, K by its
        factors; by conjugate gradients.

    Raises:
        ValueError: if they do not converge in 300 steps.
    """
    count = torch.bincount(held.token, minlength=len(held.tokens))
    kept = (count <= COMMON)[held.token]
    record, token = held.record[kept], held.token[kept]
    unit = gradients[kept] / lengths.clamp_min(1e-30)[record, None]

    def seen(rows: Tensor) -> Tensor:
        zero = torch.zeros(held.records, dtype=unit.dtype)
        return zero.index_add_(0, record, (unit * rows[token]).sum(1))

    def product(c: Tensor) -> Tensor:
        rows = torch.zeros(len(held.tokens), unit.shape[1], dtype=unit.dtype)
        return seen(rows.index_add_(0, token, unit * c[record, None]))

    return list(solve_shifted(product, seen(moved), ridges, TOLERANCE, MOST_STEPS, strict=True))


def least_movement(held: Held, lengths: Tensor) -> Tensor:
    """float64[N], the log of the least movement among a record's tokens.

    Args:
        lengths: float[V], how far each row moved; a floor of a hundredth of the median keeps
            logarithms finite.
    """
    floor = 0.01 * lengths.double().median().clamp(min=1e-12)
    logs = (lengths.double() + floor).log()
    out = torch.full((held.records,), float(logs.max()), dtype=torch.float64, device=logs.device)
    return out.scatter_reduce_(0, held.record, logs[held.token], "amin")


def token_signals(
    held: Held, gradients: Tensor, moved: Tensor, strength: Tensor, lengths: Tensor
) -> dict[str, dict[float, Tensor]]:
    """Family -> ridge (0 where there is none) -> float64[N], all signals of the embedding's rows.

    Args:
        held: which record holds which token.
        gradients: float[p, H] of each (record, token) pair.
        moved: float[V, H], rows minus their start.
        strength: float[N], as in `adam_directions`.
        lengths: float[N], as in `decode_clipped`.
    """
    movement = moved.norm(dim=1, keepdim=True)
    holders = torch.bincount(held.token, minlength=len(held.tokens))
    equal = holders.float().rsqrt()[held.token, None]
    by_length = decode_rows(held, equal, movement, TOKEN_RIDGES)
    along = decode_rows(held, adam_directions(held, gradients, strength), moved, TOKEN_RIDGES)
    clipped = decode_clipped(held, gradients, lengths, moved, CLIPPED_RIDGES)
    return {
        "tokens movement": dict(zip(TOKEN_RIDGES, by_length)),
        "tokens direction": dict(zip(TOKEN_RIDGES, along)),
        "tokens clipped": dict(zip(CLIPPED_RIDGES, clipped)),
        "tokens least": {0.0: least_movement(held, movement[:, 0])},
    }
