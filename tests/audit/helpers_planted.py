"""Faults planted by monkeypatching in the code that fleets run.  Never to train with.

Each is a function of pytest's monkeypatch (or anything with `setattr`), which changes the package's
own functions, so that it is in models trained alone and in stacks alike.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mico_competition.training import batched_mlp as stack
from mico_competition.training import bookkeeping, dpsgd, ghost_norms, train, train_many

ORDER = ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "canaries")


def _noise(patch, change):
    """`change(noise, state)` after each draw; `state` lives as long as the patch."""
    real, state = dpsgd.gaussian_like, {"calls": 0}

    def faulty(tensors, std, generator):
        state["std"], state["generator"] = std, generator
        drawn = [part.div_(std) for part in real(tensors, std, generator)]
        drawn = change(drawn, state) or drawn
        state["calls"] += 1
        return [part.to(t.dtype).mul_(std) for part, t in zip(drawn, tensors)]

    patch.setattr(dpsgd, "gaussian_like", faulty)
    patch.setattr(stack, "gaussian_like", faulty)


def noise(change):
    """A fault of the noise alone, as a function of the standard normal numbers drawn."""
    return lambda patch: _noise(patch, change)


def each(change):
    """A fault of every number's distribution."""
    return noise(lambda drawn, state: [change(part) for part in drawn])


def on(name, change):
    """A fault of one parameter's noise."""

    def changed(drawn, state):
        change(drawn[ORDER.index(name)])

    return noise(changed)


def some_steps(every):
    def changed(drawn, state):
        if state["calls"] % every == every - 1:
            for part in drawn[:4]:
                part.zero_()

    return noise(changed)


def _again(key):
    """Noise drawn under a key is the same as when the key came first."""

    def changed(drawn, state):
        kept = state.setdefault("kept", {})
        known = kept.setdefault(key(state["calls"]), [part.clone() for part in drawn])
        return [part.clone() for part in known]

    return noise(changed)


def equal_streams(drawn, state):
    """Every tensor's noise starts the same stream."""
    longest = max(drawn, key=lambda part: part.numel()).flatten()
    return [longest[: part.numel()].view_as(part).clone() for part in drawn]


def same_generator_state(patch):
    """As a slip of the pen has it: the generator's state is put back for each tensor."""

    def faulty(tensors, std, generator):
        state, drawn = generator.get_state(), []
        for t in tensors:
            generator.set_state(state)
            drawn.append(torch.empty_like(t).normal_(0, std, generator=generator))
        return drawn

    patch.setattr(dpsgd, "gaussian_like", faulty)
    patch.setattr(stack, "gaussian_like", faulty)


def antithetic(drawn, state):
    if state["calls"] % 2:
        return [-part for part in state["last"]]
    state["last"] = [part.clone() for part in drawn]
    return None


def antithetic_within(part):
    flat = part.flatten()
    half = flat.numel() // 2
    flat = torch.cat([flat[:half], -flat[:half], flat[2 * half :]])
    return flat.view_as(part)


def rows_equal(part):
    return part[:1].expand_as(part).clone() if part.ndim > 1 else part


def columns_equal(part):
    return part[..., :1].expand_as(part).clone() if part.ndim > 1 else part


def rows_equal_up_to_sign(part):
    if part.ndim < 2:
        return part
    return part[:1] * torch.sign(part[:, :1])


def common(part):
    return math.sqrt(0.9) * part + math.sqrt(0.1) * torch.randn(())


def low_rank(part):
    if part.ndim < 2:
        return part
    rank = 8
    return torch.randn(part.shape[0], rank) @ torch.randn(rank, part.shape[1]) / math.sqrt(rank)


def fixed_subspace(patch):
    """All steps' noise lies in ten dimensions."""
    basis = {}

    def changed(drawn, state):
        key = tuple(part.shape for part in drawn)
        if key not in basis:
            basis[key] = [torch.randn(10, part.numel()) for part in drawn]
        weights = torch.randn(10) / math.sqrt(10)
        return [(weights @ b).view_as(part) for b, part in zip(basis[key], drawn)]

    _noise(patch, changed)


def student(freedom):
    scale = math.sqrt((freedom - 2) / freedom)
    return lambda part: torch.distributions.StudentT(freedom).sample(part.shape) * scale


def truncated(edge):
    def changed(part):
        outside = part.abs() > edge
        while outside.any():
            part[outside] = torch.randn(int(outside.sum()))
            outside = part.abs() > edge
        return part

    return changed


def quantised(grid):
    return lambda part: torch.round(part / grid) * grid


NOISE = {
    "no noise on the output layer's bias": on("mlp.2.bias", lambda part: part.zero_()),
    "no noise on the first layer's bias": on("mlp.0.bias", lambda part: part.zero_()),
    "no noise on the output layer's weight": on("mlp.2.weight", lambda part: part.zero_()),
    "no noise on ten coordinates": on("mlp.0.weight", lambda part: part.view(-1)[500:510].zero_()),
    "no noise on one coordinate": on("mlp.2.weight", lambda part: part.view(-1)[77:78].zero_()),
    "no noise on one output": on("mlp.2.weight", lambda part: part[3].zero_()),
    "no noise in every seventh step": some_steps(7),
    "no noise in one step": some_steps(37),
    "a tenth less noise on a bias": on("mlp.2.bias", lambda part: part.mul_(0.8)),
    "3 % less noise on a weight": on("mlp.0.weight", lambda part: part.mul_(0.97)),
    "half the noise on a block": on("mlp.0.weight", lambda part: part[7].mul_(0.5)),
    "uniform noise": each(lambda part: (torch.rand_like(part) - 0.5) * math.sqrt(12)),
    "Laplace noise": each(
        lambda part: torch.distributions.Laplace(0.0, math.sqrt(0.5)).sample(part.shape)
    ),
    "Student noise, 5": each(student(5.0)),
    "Student noise, 30": each(student(30.0)),
    "Rademacher noise": each(torch.sign),
    "noise cut off at 2.5": each(truncated(2.5)),
    "noise cut off at 3.5": each(truncated(3.5)),
    "noise clamped at 3": each(lambda part: part.clamp(-3, 3)),
    "noise on a grid of 0.1": each(quantised(0.1)),
    "noise on a grid of 0.001": each(quantised(1e-3)),
    "noise in half precision": each(lambda part: part.half().float()),
    "skewed noise": each(lambda part: part.square().sub(1).div(math.sqrt(2))),
    "shifted noise": each(lambda part: part + 0.05),
    "equal streams across tensors": noise(equal_streams),
    "the generator's state put back for each tensor": same_generator_state,
    "equal noise in every step": _again(lambda call: call % 4),
    "noise again after 20 draws": _again(lambda call: call % 20),
    "two draws alike": _again(lambda call: call // 2),
    "antithetic draws": noise(antithetic),
    "antithetic halves": each(antithetic_within),
    "equal rows": each(rows_equal),
    "equal columns": each(columns_equal),
    "rows equal up to sign": each(rows_equal_up_to_sign),
    "a part in common": each(common),
    "noise of low rank": each(low_rank),
    "noise in a fixed subspace": fixed_subspace,
}


def _norms(patch, plain, stacked):
    patch.setattr(ghost_norms.LinearRule, "norms_from", plain)
    patch.setattr(stack.StackedLinearRule, "norms_from", stacked)


def without_biases(patch):
    """The clipping norm leaves biases out."""
    _norms(
        patch,
        lambda self, a, g: ghost_norms._square(g) * ghost_norms._square(a),
        lambda self, a, g: torch.linalg.vecdot(g, g) * torch.linalg.vecdot(a, a),
    )


def _keeper_norms(patch, change):
    real = bookkeeping.BookKeeper.norms

    def faulty(self, losses):
        kept = list(self._rules.values())
        real(self, losses)
        squares = [rule.squared_norms(losses.shape) for rule in kept]
        return change(squares).sqrt()

    patch.setattr(bookkeeping.BookKeeper, "norms", faulty)


def without_a_layer(patch):
    """The clipping norm leaves the output layer out."""
    _keeper_norms(patch, lambda squares: squares[0] + squares[2])


def _factors(patch, change):
    real = dpsgd.clip_factors

    def faulty(norms, max_grad_norm):
        return change(norms, max_grad_norm, real)

    patch.setattr(dpsgd, "clip_factors", faulty)
    patch.setattr(stack, "clip_factors", faulty)


def factors(change):
    return lambda patch: _factors(patch, change)


def by_layer(patch):
    """Each layer is clipped to C by itself, which is called flat."""

    def faulty(self, weights):
        for rule in self._rules.values():
            norms = rule.squared_norms(weights.shape).sqrt()
            rule.write_weighted_sum((1.0 / (norms + 1e-6)).clamp(max=1.0))
            rule.forget()

    patch.setattr(bookkeeping.BookKeeper, "write_weighted_sum", faulty)


CLIPPING = {
    "norms without biases": without_biases,
    "norms without a layer": without_a_layer,
    "clipping by layer": by_layer,
    "clipping to the batch's norm": factors(
        lambda norms, c, real: real(norms.mean(-1, keepdim=True), c).expand_as(norms)
    ),
    "factors without a cap": factors(lambda norms, c, real: c / (norms + 1e-6)),
    "factors 10 % too large": factors(lambda norms, c, real: 1.1 * real(norms, c)),
    "factors 2 % too large": factors(lambda norms, c, real: 1.02 * real(norms, c)),
    "no clipping where norms overflow": factors(
        lambda norms, c, real: torch.where(norms.isfinite(), real(norms, c), torch.ones_like(norms))
    ),
    "no clipping": factors(lambda norms, c, real: torch.ones_like(norms)),
    "half of all records are not clipped": factors(
        lambda norms, c, real: torch.where(
            torch.arange(norms.shape[-1]) % 2 == 0, real(norms, c), torch.ones_like(norms)
        )
    ),
}


def _after_noise(patch, change):
    """`change(optimizer, before)` once the gradient is noisy; `before` is the sum without noise."""
    for kind in (dpsgd.SummedOptimizer, stack.StackedOptimizer):

        def faulty(self, real=kind.add_noise):
            sums = [p.summed_grad.clone() for p in self.params]
            real(self)
            change(self, sums)

        patch.setattr(kind, "add_noise", faulty)


def moved_by_the_sum(patch):
    """The weights are also moved by the sum without noise."""

    def change(optimizer, sums):
        with torch.no_grad():
            for p, clean in zip(optimizer.params, sums):
                p.sub_(1e-3 * clean / optimizer.expected_batch_size)

    _after_noise(patch, change)


def rate_by_the_norm(patch):
    """The learning rate follows the norm of the sum without noise."""

    def change(optimizer, sums):
        norm = math.sqrt(sum(float(clean.square().sum()) for clean in sums))
        for group in optimizer.original_optimizer.param_groups:
            group["lr"] = 0.002 / (1 + norm)

    _after_noise(patch, change)


def decay_by_the_norm(patch):
    """Weights decay by an amount that depends on the sum without noise."""

    def change(optimizer, sums):
        norm = math.sqrt(sum(float(clean.square().sum()) for clean in sums))
        with torch.no_grad():
            for p in optimizer.params:
                p.mul_(1 - 1e-5 * min(1.0, norm))

    _after_noise(patch, change)


def raw_momentum(patch):
    """A momentum of sums without noise is added to what the optimiser is given."""
    kept = {}

    def change(optimizer, sums):
        for i, (p, clean) in enumerate(zip(optimizer.params, sums)):
            kept[i] = 0.9 * kept.get(i, torch.zeros_like(clean)) + clean
            p.grad += 0.1 * kept[i]

    _after_noise(patch, change)


def raw_moments(patch):
    """Adam's second moment is of the sum without noise."""

    def change(optimizer, sums):
        for p, clean in zip(optimizer.params, sums):
            state = optimizer.original_optimizer.state.get(p, {})
            if "exp_avg_sq" in state:
                state["exp_avg_sq"].copy_(clean.square() / 900 + 1e-6)

    _after_noise(patch, change)


def weight_decay(patch):
    """The optimiser decays weights, which the settings do not say."""
    real = train.optimizer_of

    def faulty(settings, model):
        optimizer = real(settings, model)
        for group in optimizer.param_groups:
            group["weight_decay"] = 1e-3
        return optimizer

    patch.setattr(train, "optimizer_of", faulty)
    patch.setattr(train_many, "optimizer_of", faulty)


def a_buffer(patch):
    """A running mean of the inputs is kept in a buffer of the model."""
    real = nn.Linear.forward

    def faulty(self, x):
        if self.weight.shape == (256, 64):
            if not hasattr(self, "seen"):
                self.register_buffer("seen", torch.zeros(64))
            self.seen.add_(x.detach().mean(0))
        return real(self, x)

    patch.setattr(nn.Linear, "forward", faulty)


def _step(patch, change):
    """`change(trainer, batches) -> batches`, at the door of a step."""
    for kind in (dpsgd.PrivateTrainer, stack.StackedPrivateTrainer):

        def faulty(self, batch, inputs, labels, real=kind.step):
            single = isinstance(batch, torch.Tensor)
            batches = change(self, [batch] if single else list(batch))
            return real(self, batches[0] if single else batches, inputs, labels)

        patch.setattr(kind, "step", faulty)


def divided_by_length(patch):
    """The noisy sum is divided by the batch's own length."""

    def change(trainer, batches):
        mean = sum(map(len, batches)) / len(batches)
        trainer.optimizer.expected_batch_size = max(1, round(mean))
        return batches

    _step(patch, change)


def skips_empty(patch):
    """Steps on empty batches are left out by the trainer."""
    for kind in (dpsgd.PrivateTrainer, stack.StackedPrivateTrainer):

        def faulty(self, batch, inputs, labels, real=kind.step):
            batches = [batch] if isinstance(batch, torch.Tensor) else list(batch)
            if not any(map(len, batches)):
                return torch.zeros(() if len(batches) == 1 else len(batches))
            return real(self, batch, inputs, labels)

        patch.setattr(kind, "step", faulty)


WEIGHTS = {
    "weights also moved by the sum": moved_by_the_sum,
    "learning rate by the norm": rate_by_the_norm,
    "decay by the norm": decay_by_the_norm,
    "momentum of the sum": raw_momentum,
    "moments of the sum": raw_moments,
    "weight decay": weight_decay,
    "divided by the batch's length": divided_by_length,
    "empty batches skipped": skips_empty,
    "first record twice": lambda patch: _step(
        patch, lambda trainer, batches: [torch.cat([b[:1], b]) for b in batches]
    ),
    "records of the last step again": lambda patch: _remembered(patch),
}


def _remembered(patch):
    last = {}

    def change(trainer, batches):
        now = [
            torch.cat([b, last[i][:1]]).unique() if i in last else b for i, b in enumerate(batches)
        ]
        last.update(enumerate(batches))
        return now

    _step(patch, change)


def _batches(patch, draw):
    """Another way to draw the batches of an epoch."""

    def faulty(num_records, *, sample_rate, num_steps, generator):
        yield from draw(num_records, sample_rate, num_steps, generator)

    patch.setattr(train, "poisson_batches", faulty)


def batches(draw):
    return lambda patch: _batches(patch, draw)


def _coins(n, q, generator):
    return torch.rand(n, generator=generator) < q


def _poisson(n, q, steps, generator):
    for _ in range(steps):
        yield _coins(n, q, generator).nonzero().squeeze(1)


def _shuffled(n, q, steps, generator):
    order = torch.randperm(n, generator=generator)
    yield from order.tensor_split(steps)


def _fixed(n, q, steps, generator):
    for _ in range(steps):
        yield torch.randperm(n, generator=generator)[: round(n * q)].sort().values


def _without_empty(n, q, steps, generator):
    for batch in _poisson(n, q, steps, generator):
        if len(batch):
            yield batch


def _redrawn(n, q, steps, generator):
    for _ in range(steps):
        batch = torch.empty(0, dtype=torch.long)
        while not len(batch):
            batch = _coins(n, q, generator).nonzero().squeeze(1)
        yield batch


def _pairs(n, q, steps, generator):
    """Records two by two: both are in a batch, or none."""
    for _ in range(steps):
        coins = _coins((n + 1) // 2, q, generator).repeat_interleave(2)[:n]
        yield coins.nonzero().squeeze(1)


def _two_together(n, q, steps, generator):
    for _ in range(steps):
        coins = _coins(n, q, generator)
        coins[1 % n] = coins[0]
        yield coins.nonzero().squeeze(1)


def _twice(n, q, steps, generator):
    for batch in _poisson(n, q, steps, generator):
        yield torch.cat([batch[:1], batch])


def _repeated(n, q, steps, generator):
    for _ in range(0, steps, 2):
        batch = _coins(n, q, generator).nonzero().squeeze(1)
        yield batch
        yield batch


def _alternating(n, q, steps, generator):
    last = torch.zeros(n, dtype=torch.bool)
    for _ in range(steps):
        coins = _coins(n, q / (1 - q), generator) & ~last
        last = coins
        yield coins.nonzero().squeeze(1)


def _restarted(n, q, steps, generator):
    yield from _poisson(n, q, steps, torch.Generator().manual_seed(5))


def _one_always(n, q, steps, generator):
    for _ in range(steps):
        coins = _coins(n, q, generator)
        coins[0] = True
        yield coins.nonzero().squeeze(1)


def _uneven(n, q, steps, generator):
    """As many records on average as there should be."""
    for _ in range(steps):
        coins = _coins(n, 1.1 * q, generator)
        coins[: n // 11] = False
        yield coins.nonzero().squeeze(1)


BATCHES = {
    "shuffled batches": batches(_shuffled),
    "batches of a fixed length": batches(_fixed),
    "empty batches left out": batches(_without_empty),
    "empty batches drawn again": batches(_redrawn),
    "records in pairs": batches(_pairs),
    "two records together": batches(_two_together),
    "a record twice in a batch": batches(_twice),
    "each batch twice": batches(_repeated),
    "no record twice running": batches(_alternating),
    "the same batches each epoch": batches(_restarted),
    "one record in every batch": batches(_one_always),
    "records a fifth too often": batches(
        lambda n, q, steps, generator: _poisson(n, 1.2 * q, steps, generator)
    ),
    "records a fifth too rarely": batches(
        lambda n, q, steps, generator: _poisson(n, 0.8 * q, steps, generator)
    ),
    "some records never, others more often": batches(_uneven),
}

ALL = {**NOISE, **CLIPPING, **WEIGHTS, **BATCHES}
