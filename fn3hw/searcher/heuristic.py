"""Algorithm 1 of the paper under measured cost: K trajectories walk from the full network to the smallest.

Each rung lowers the charged cost by a fixed share. From every trajectory, candidates walk down to the rung's cost; C
per trajectory are evaluated, and the K most accurate states that meet the rung go on. Half of the evaluations descend,
the other half refine: at costs spread over the whole range, the more of them the steeper accuracy falls there, the best
states known are partly undone and walk down again; what a surrogate likes best of that is varied for a few generations.
Half of a rung's candidates are drawn at random, as the paper does; the others are the ones that a surrogate,
fitted on all evaluations so far, draws as best (Thompson sampling). Where several levels move, the search first looks
at each level by itself, all of its gates a third, two thirds, and all of the way down: what one level has to give away
at once, such as full precision in every layer, single moves rarely find. What earlier searches left in the archive
shortens the descent: where they evaluated as many, all that is left to do is to refine.

With ``guided=0`` and ``refined=0`` this is the paper's plain form; charged by ``"blocks"`` it counts as the paper does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from fn3hw.errors import InputError
from fn3hw.searcher.candidates import Walker
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.ports import Books, FloatArray, IntArray
from fn3hw.searcher.surrogate import Scales, Surrogate, loss_of

_MIN_TO_FIT = 8
_EPSILON = 1e-9
_GRID = 64
_STEEP = 0.5
"""Share of refinement that goes where the front is steep."""
_PARENTS = 4
_FAVOURITES = 6
_UNDONE = (0.02, 0.2)
"""Share of the moves that a generation undoes, drawn anew for each."""
_LOWERED = (1 / 3, 2 / 3, 1.0)
"""How far down its ladders a level is looked at by itself."""

OnRung = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heuristic:
    """Settings of the search.

    Args:
        evaluations: the most subnets that are evaluated.
        seed: equal seeds, equal searches.
        trajectories: K, the states that go on from a rung.
        candidates: C, evaluated per trajectory and rung.
        window: Δp, the share of a gate's blocks that the sliding window of random candidates spans.
        guided: share of a rung's candidates that the surrogate chooses.
        refined: share of the evaluations that are spent on refinement.
        pool: proposals per trajectory and kind, of which the surrogate chooses.
        generations: in refinement, how often what the surrogate likes best of them is varied again.
        rungs: from the full network to the smallest; by default as many as C candidates per trajectory leave.
        exact: further proposals per target, solved as a knapsack (`fn3hw.searcher.knapsack`).
        race: standard errors behind a rival at which a candidate is given up before it has seen all images
            (`fn3hw.searcher.racing`), or None to evaluate every candidate on all of them.
    """

    evaluations: int = 300
    seed: int = 0
    trajectories: int = 3
    candidates: int = 4
    window: float = 0.25
    guided: float = 0.5
    refined: float = 0.5
    pool: int = 6
    generations: int = 2
    rungs: int | None = None
    exact: int = 0
    race: float | None = 1.0

    def __post_init__(self) -> None:
        if self.evaluations < 2:
            raise InputError(f"A search needs at least 2 evaluations, not {self.evaluations}.")
        if self.trajectories < 1 or self.candidates < 1 or self.pool < 1 or min(self.exact, self.generations) < 0:
            raise InputError(
                "A search needs at least one trajectory, one candidate and one proposal; exact and generations are at "
                "least 0."
            )
        if self.rungs is not None and self.rungs < 1:
            raise InputError(f"A search needs at least one rung, not {self.rungs}.")
        if not 0 < self.window <= 1 or not 0 <= self.guided <= 1 or not 0 <= self.refined <= 1:
            raise InputError("The window lies within (0, 1], the shares guided and refined within [0, 1].")
        if self.race is not None and not self.race > 0:
            raise InputError(f"A candidate is given up at a positive number of standard errors, not {self.race}.")

    @classmethod
    def plain(cls, *, evaluations: int = 300, seed: int = 0) -> Heuristic:
        """The paper's form: candidates at random, no refinement, all on all images."""
        return cls(evaluations=evaluations, seed=seed, guided=0.0, refined=0.0, race=None)

    def identity(self, charge: Charge) -> str:
        """Digest of the settings and of what is charged: names the search in the archive."""
        document = {**asdict(self), **charge.identity()}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]

    def run(self, charge: Charge, ledger: Books, on_rung: OnRung = lambda rung, n_rungs: None) -> None:
        """Search until the budget of the ledger is spent or nothing new can be found.

        Args:
            charge: what is charged.
            ledger: where states are evaluated and remembered.
            on_rung: called with the number of the rung, from 1, and the number of rungs.
        """
        with threadpool_limits(1):  # on matrices as small as these, threads cost more than they spare
            _Run(self, charge, ledger, on_rung).run()


class _Run:
    def __init__(self, settings: Heuristic, charge: Charge, ledger: Books, on_rung: OnRung) -> None:
        self.settings = settings
        self.charge = charge
        self.ledger = ledger
        self.on_rung = on_rung
        self.walker = Walker(charge)
        self.rng = np.random.default_rng(settings.seed)
        self.proportion = 1.0 - settings.window
        self.scales: Scales | None = None

    def run(self) -> None:
        ends = np.stack([self.charge.sizes, self.charge.lowest])
        self.ledger.evaluate(ends)
        high, low = self.charge.of(np.stack([self.charge.sizes, self.charge.bottom]))
        if not low < high * (1 - _EPSILON):
            return
        if self.settings.guided:
            self._look_at_levels()
        self._descend(float(high), float(low))
        self._refine(float(high), float(low))

    def _look_at_levels(self) -> None:
        """Evaluate states that lower the gates of one level and no other."""
        ladders = list(zip(self.charge.space.gates, self.charge.ladders, strict=True))
        moving = sorted({gate.level for gate, ladder in ladders if len(ladder) > 1})
        states = [
            [ladder[round(share * (len(ladder) - 1)) if gate.level == level else 0] for gate, ladder in ladders]
            for level in moving
            for share in _LOWERED
        ]
        if len(moving) > 1:
            self.ledger.evaluate(np.array(states, dtype=np.int64))

    def _descend(self, high: float, low: float) -> None:
        """Rung by rung from the full network to the smallest."""
        per_rung = self.settings.trajectories * self.settings.candidates
        budget = round(self.ledger.left * (1 - self.settings.refined))
        if self.settings.guided:
            budget -= len(self.ledger.states) - self.ledger.spent
        if budget <= 0 < self.settings.refined:
            return
        n_rungs = self.settings.rungs or max(1, budget // per_rung)
        # The last rung above the smallest: there is nothing to choose at the smallest itself.
        targets = [self._between(high, low, place) for place in np.linspace(1, 0, n_rungs + 2)[1:-1]]
        trajectories, spent = self.charge.sizes[None], self.ledger.spent
        for number, target in enumerate(targets, 1):
            self.on_rung(number, n_rungs)
            left = budget - (self.ledger.spent - spent)
            share = max(1, round(left / (n_rungs - number + 1)))
            chosen = self._candidates(trajectories, target, share)
            if len(chosen):
                chosen = self._filled(chosen)
                self.ledger.evaluate(chosen)
            trajectories = self._survivors(np.concatenate([chosen, trajectories]), target)
            if not len(trajectories) or self.ledger.left <= 0:
                return

    def _filled(self, states: IntArray) -> IntArray:
        """States without what could be had for nothing left out; the paper's plain form leaves them as they are."""
        free = self.settings.guided and self.charge.by != "blocks" and len(states)
        return self.walker.filled(states, self.rng) if free else states

    def _candidates(self, trajectories: IntArray, target: float, n: int) -> IntArray:
        """Up to ``n`` new states that meet the target: first those of the surrogate, then random ones."""
        surrogate = self._fit() if self.settings.guided else None
        starts = np.repeat(trajectories, max(self.settings.pool, -(-2 * n // len(trajectories))), axis=0)
        random = self._random_walks(starts, target, n)
        if surrogate is None:
            return self._new(random)[:n] if self.settings.guided else self._spread(random, n)
        guided = self.walker.guided(starts, target, surrogate, self.rng)
        exact = self.walker.exact(starts[: self.settings.exact], target, surrogate, self.rng)
        pool = self._new(np.concatenate([exact, guided, random]))
        picked = self._thompson(pool, surrogate, round(n * self.settings.guided))
        rest = self._new(np.concatenate([picked, random]))[len(picked) :]
        return np.concatenate([picked, self._spread(rest, n - len(picked))])

    def _random_walks(self, starts: IntArray, target: float, n: int) -> IntArray:
        """Random walks within the window, which slides down until one of them reaches the target.

        Where that leaves fewer than ``n`` new states, those of wider windows follow; not so in the plain form.
        """
        while True:
            found = self.walker.random(starts, target, self._floor(self.proportion), self.rng)
            if len(self._new(found)) or self.proportion <= 0:
                break
            self.proportion = max(0.0, self.proportion - self.settings.window)
        wider = self.proportion
        while self.settings.guided and wider > 0 and len(self._new(found)) < n:
            wider = max(0.0, wider - self.settings.window)
            found = np.concatenate([found, self.walker.random(starts, target, self._floor(wider), self.rng)])
        return found

    def _floor(self, proportion: float) -> IntArray:
        """The count that each gate keeps at this place of the window; a window holds at least one block."""
        kept = np.minimum(np.ceil(proportion * self.charge.sizes), self.charge.sizes - 1).astype(np.int64)
        return np.asarray(np.maximum(kept, self.charge.lowest), dtype=np.int64)

    def _survivors(self, of_rung: IntArray, target: float) -> IntArray:
        """The K most accurate states that meet the target: of all known ones or, in the plain form, of this rung."""
        states, accuracy = self.ledger.states, self.ledger.accuracies
        cost = self.charge.of(states)
        eligible = cost <= target * (1 + _EPSILON)
        if not self.settings.guided:
            keys = {state.tobytes() for state in of_rung}
            eligible &= np.array([state.tobytes() in keys for state in states], dtype=bool)
        rows = np.flatnonzero(eligible)
        best = rows[np.lexsort((cost[rows], -accuracy[rows]))]
        return states[best[: self.settings.trajectories]]

    def _refine(self, high: float, low: float) -> None:
        """Spend what is left at costs spread over the range, one new state each."""
        batch = 8
        for number in range(4 * self.ledger.budget // batch + 4):
            if self.ledger.left <= 0 or not self.settings.refined:
                return
            surrogate = self._fit()
            if surrogate is None:
                return
            self.on_rung(number + 1, number + 1 + -(-self.ledger.left // batch))
            found = [self._refined(target, surrogate) for target in self._targets(high, low, batch)]
            new = self._new(self._filled(np.concatenate(found)))
            if len(new):
                self.ledger.evaluate(new)

    def _targets(self, high: float, low: float, n: int) -> FloatArray:
        """Costs spread over the range, half of them evenly, and half where the front known so far is steep."""
        grid = np.array([self._between(high, low, place) for place in np.linspace(0, 1, _GRID)])
        meets = self.charge.of(self.ledger.states) <= grid[:, None] * (1 + _EPSILON)
        front = loss_of(np.where(meets, self.ledger.accuracies, 0.0).max(axis=1))
        falls = np.maximum(front[:-1] - front[1:], 0.0)
        density = (1 - _STEEP) / len(falls) + _STEEP * falls / max(float(falls.sum()), _EPSILON)
        passed = np.concatenate([[0.0], density.cumsum() / density.sum()])
        places = (np.arange(n) + self.rng.random(n)) / n
        return np.asarray(np.interp(places, passed, grid))

    def _between(self, high: float, low: float, place: float) -> float:
        """Cost between the lowest (place 0) and the highest (1): in equal ratios; blocks, down to none, in steps."""
        if self.charge.by == "blocks":
            return float(low + (high - low) * place)
        return float(low * (high / low) ** place)

    def _refined(self, target: float, surrogate: Surrogate) -> IntArray:
        """One new state near the target cost, walked to from the best states known there, partly undone."""
        states, accuracy = self.ledger.states, self.ledger.accuracies
        cost = self.charge.of(states)
        rows = np.flatnonzero(cost <= 1.1 * target)
        best = rows[np.argsort(-accuracy[rows], kind="stable")][:_PARENTS]
        parents = states[np.concatenate([best, [0]])] if len(best) else states[:1]
        around = np.repeat(parents, self.settings.pool, axis=0)
        starts = self.walker.raised(around, self.rng, float(self.rng.uniform(0.05, 0.5)))
        guided = self.walker.guided(starts, target, surrogate, self.rng, around=around)
        random = self.walker.random(starts[::4], target, self.charge.bottom, self.rng)
        exact = self.walker.exact(parents[: self.settings.exact], target, surrogate, self.rng)
        pool = self._bred(self._new(np.concatenate([exact, guided, random])), target, surrogate)
        near = pool[self.charge.of(pool) >= 0.9 * target] if len(pool) else pool
        return self._thompson(near if len(near) else pool, surrogate, 1)

    def _bred(self, pool: IntArray, target: float, surrogate: Surrogate) -> IntArray:
        """What several generations make of a pool: its favourites, a little undone, walk down again."""
        for _ in range(self.settings.generations):
            favourites = self._thompson(pool, surrogate, _FAVOURITES)
            around = np.repeat(favourites, self.settings.pool, axis=0)
            starts = self.walker.raised(around, self.rng, float(self.rng.uniform(*_UNDONE)))
            bred = self.walker.guided(starts, target, surrogate, self.rng, around=around, spread=1.0)
            pool = self._new(np.concatenate([favourites, bred]))
        return pool

    def _fit(self) -> Surrogate | None:
        accuracy = self.ledger.accuracies
        if len(accuracy) < _MIN_TO_FIT:
            return None
        removed = self.walker.removed(self.ledger.states)
        surrogate = Surrogate(removed, accuracy, near=self.scales)
        self.scales = surrogate.scales
        return surrogate

    def _thompson(self, pool: IntArray, surrogate: Surrogate, n: int) -> IntArray:
        """Up to ``n`` states of the pool, each the best of one draw from the surrogate's posterior."""
        if not len(pool) or n < 1:
            return pool[:0]
        draws = surrogate.sample(self.walker.removed(pool), self.rng, 4 * n)
        picked = list(dict.fromkeys(int(i) for i in draws.argmin(axis=1)))
        return pool[picked[:n]]

    def _spread(self, states: IntArray, n: int) -> IntArray:
        """Up to ``n`` of the new states, evenly over their order, so that every trajectory has its share."""
        new = self._new(states)
        if len(new) <= n:
            return new
        return np.asarray(new[np.linspace(0, len(new) - 1, n).round().astype(int)])

    def _new(self, states: IntArray) -> IntArray:
        return np.asarray(states[np.array(self.ledger.is_new(states), dtype=bool)]) if len(states) else states
