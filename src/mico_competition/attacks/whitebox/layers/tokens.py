"""The embedding of a fine-tuned text model, in which rows of tokens without a member do not move.

A training step changes the rows of the tokens in its batch and no others. So a row that agrees with
other models' belongs to a token that no member holds, and the movement of a row grows with the
number of members that hold its token. The rest is a joint decode: docs/METHODS.md, section 6.9
(formula 52).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import solve_shifted

RARE = 0.3  # added to the number of records with a token
TOLERANCE, MOST_STEPS = 1e-6, 300  # tolerance of the conjugate gradients
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

    @property
    def weight(self) -> Tensor:
        """float64[V], of each token's row."""
        held = torch.bincount(self.token, minlength=len(self.tokens)).double()
        return (held + RARE) ** -2

    def sums(self, tokens: Tensor, values: Tensor, rows: Tensor) -> Tensor:
        """float[p, H], sums of values float[b, T, H] over a record's positions of each token.

        Args:
            tokens: int64[b, T], of records `rows`.
            values: at their positions.
            rows: int64[b], ascending and consecutive.

        Returns:
            For the pairs of these records, in order.
        """
        low, high = int(rows[0]), int(rows[-1])
        first = int(torch.searchsorted(self.record, low))
        last = int(torch.searchsorted(self.record, high, right=True))
        key = self.record[first:last] * len(self.tokens) + self.token[first:last]
        place = torch.searchsorted(self.tokens, tokens).clamp(max=len(self.tokens) - 1)
        wanted = rows[:, None] * len(self.tokens) + place
        found = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        real = (key[found] == wanted) & (self.tokens[place] == tokens)  # otherwise padding
        out = torch.zeros(len(key), values.shape[-1], dtype=values.dtype, device=values.device)
        return out.index_add_(0, found[real], values[real])


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


def decode_rows(held: Held, directions: Tensor, moved: Tensor, ridge: float) -> Tensor:
    """float64[N], c in: row v moved by the sum of c_j u_jv over records j that hold v.

    Args:
        held: which record holds which token.
        directions: float[p, H], u of each (record, token) pair; ones [p, 1] for lengths.
        moved: float[V, H], rows minus their start; or the lengths of these [V, 1].
        ridge: lambda > 0; records are scaled so that the kernel's diagonal is 1.

    Returns:
        c with (S K S + lambda I) c = S T, K_ij = sum_v w_v u_iv . u_jv,
        T_i = sum_v w_v u_iv . moved_v, S_ii = K_ii^-1/2; by conjugate gradients, matrix-free.

    Raises:
        ValueError: if they do not converge in 300 steps (with a ridge that is far too small).
    """
    u, moved, weight = directions.double(), moved.double(), held.weight
    by_pair = weight[held.token]

    def to_records(per_pair: Tensor) -> Tensor:
        total = torch.zeros(held.records, dtype=torch.float64, device=u.device)
        return total.index_add_(0, held.record, per_pair)

    diagonal = to_records(by_pair * (u**2).sum(1))
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()

    def against(rows: Tensor) -> Tensor:
        return scale * to_records(by_pair * (u * rows[held.token]).sum(1))

    def product(c: Tensor) -> Tensor:
        rows = torch.zeros(len(held.tokens), u.shape[1], dtype=torch.float64, device=u.device)
        rows.index_add_(0, held.token, u * (scale * c)[held.record, None])
        return against(rows)

    return solve_shifted(product, against(moved), [ridge], TOLERANCE, MOST_STEPS, strict=True)[0]


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
