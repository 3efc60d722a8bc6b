"""What can be known of a simulated corpus: how its information is divided, and the best scores that can be reached.

All of it follows from the distribution of the symbols that modalities show given the emotion, by exact sums. Only the
dialogue track's rates are means over a sample of dialogues, each with its exact posterior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mer_bench.datasets.simulated_model import (
    FORMS,
    Dials,
    Floats,
    Form,
    Integers,
    draw_absent,
    draw_emotions,
    draw_speakers,
    draw_symbols,
)
from mer_bench.metrics import accuracy, weighted_f1

ORDERS, REPEATS = 48, 24  #: of the dialogue sample: orders of speakers, and dialogues of each


def symbol_tables(dials: Dials) -> Floats:
    """p(symbols | emotion, way), [way, emotion, symbol, symbol, ...]: an axis a modality, "nothing" last on each.

    Ways are those of ``dials.ways`` and, last, showing nothing.
    """
    emotions, pad, modalities = len(FORMS[dials.form].counts), dials.pad, len(dials.modalities)
    size = emotions + pad + 1
    wrong = dials.noise / (emotions - 1)
    shown = np.where(np.eye(emotions, dtype=bool), 1 - dials.noise, wrong)  # [emotion, emotion shown]
    tables = np.zeros((len(dials.ways) + 1, emotions, *(size,) * modalities))
    nothing: tuple[Any, ...] = (-1, slice(None), *(-1,) * modalities)
    tables[nothing] = 1
    for number, (columns, shares) in enumerate(dials.ways):
        free = len(columns) - 1 if shares else 0
        for emotion, parts in product(range(emotions), product(range(pad), repeat=free)):
            values = (
                [emotions + v for v in (*parts, (emotion - sum(parts)) % pad)] if shares else [emotion] * len(columns)
            )
            place: list[Any] = [number, slice(None), *nothing[2:]]
            for column, value in zip(columns, values, strict=True):
                place[2 + column] = value
            tables[tuple(place)] += shown[:, emotion] / pad**free
    random = np.zeros((size, size))  # what an unreliable modality shows for each symbol
    random[:emotions, :emotions], random[emotions:-1, emotions:-1], random[-1, -1] = 1 / emotions, 1 / pad, 1
    for column, name in enumerate(dials.modalities):
        chance = dials.unreliable.get(name, 0.0)
        if chance:
            channel = (1 - chance) * np.eye(size) + chance * random
            tables = np.moveaxis(np.tensordot(tables, channel, axes=(column + 2, 0)), -1, column + 2)
    return tables


def seen(table: Floats, columns: Sequence[int], first: int = 1) -> Floats:
    """Marginal over the modalities not in ``columns``, the others flattened into one axis; modality 0 is axis first."""
    lost = tuple(axis for axis in range(first, table.ndim) if axis - first not in columns)
    return table.sum(lost).reshape(*table.shape[:first], -1)


def information(joint: Floats) -> float:
    """Mutual information in bits between the first axis and all others of a joint distribution."""
    flat = joint.reshape(len(joint), -1)
    independent = flat.sum(1, keepdims=True) * flat.sum(0)
    positive = flat > 1e-200  # less tells nothing and its product with p(target) may vanish
    return float((flat[positive] * np.log2(flat[positive] / independent[positive])).sum())


class Atoms(NamedTuple):
    """Information about a target that two sources share, that one has alone, and that only both together have; bits."""

    redundant: float
    unique_first: float
    unique_second: float
    synergistic: float


def decompose(joint: Floats, *, steps: int = 300, tolerance: float = 1e-8) -> Atoms:
    """Partial information decomposition of p(target, first, second) [target, first, second] after Bertschinger et al.

    Unique information is the least that q tells with one source beyond the other, over all q with the pairwise
    marginals q(target, source) of p (Bertschinger, Rauh, Olbrich, Jost and Ay, "Quantifying Unique Information",
    Entropy 2014; the measure that Liang et al., NeurIPS 2023, use on multimodal data). The least total information is
    found by alternating projections (Csiszár and Tusnády 1984; both sets are convex): r <- sum_t p(t) q(. | t), then
    each q(. | t) <- the closest distribution to r with the marginals of p, by iterative scaling. A step is the mirror
    descent of rate 1; larger rates are tried as long as they descend.
    """
    both = information(joint)
    joint = _merge(_merge(joint).swapaxes(1, 2)).swapaxes(1, 2)  # leaves each source's information alone
    target = joint.sum((1, 2))
    joint, target = joint[target > 0], target[target > 0]
    rows, columns = joint.sum(2) / target[:, None], joint.sum(1) / target[:, None]  # p(source | target)
    coupling = rows[:, :, None] * columns[:, None, :]
    total, rate = information(target[:, None, None] * coupling), 1.0
    for _ in range(steps):
        center = np.tensordot(target, coupling, 1)
        ratio = np.divide(center, coupling, out=np.ones_like(coupling), where=coupling > 1e-100)
        trial = coupling * np.clip(ratio, 1e-9, 1e9) ** rate
        for _ in range(40):
            trial *= _scale(rows, trial.sum(2))[:, :, None]
            trial *= _scale(columns, trial.sum(1))[:, None, :]
        # scaling is slow near the border: what is missing from the marginals after it is put back as a product
        trial *= np.minimum(1, _scale(rows, trial.sum(2)))[:, :, None]
        short = np.maximum(rows - trial.sum(2), 0), np.maximum(columns - trial.sum(1), 0)
        trial += short[0][:, :, None] * short[1][:, None, :] / np.maximum(short[0].sum(1), 1e-100)[:, None, None]
        gained = total - information(target[:, None, None] * trial)
        if gained > tolerance:
            coupling, total, rate = trial, total - gained, min(1.5 * rate, 16.0)
        elif rate > 1:
            rate = max(1.0, rate / 3)
        else:
            break
    one, two = information(joint.sum(2)), information(joint.sum(1))
    return Atoms(one + two - total, total - two, total - one, both - total)


def rates(joint: Floats, steps: int = 40) -> dict[str, float]:
    """Best expected accuracy and weighted F1 of deciding for a class from p(class, observation) [class, observation].

    Accuracy has its maximum at the class of largest posterior. Weighted F1 has it elsewhere, often at a rule that
    draws lots where it knows nothing. It is the F1 of the expected confusion matrix, which is linear in the rule; so
    it is climbed by steps towards the rule that its gradient prefers (Frank and Wolfe), from the largest posterior and
    from guessing by the classes' shares. The value is attainable and at least those rules'.
    """
    joint = joint / joint.sum()
    support = joint.sum(1)
    matrix = _decided(joint, joint)
    best = {"accuracy": float(accuracy(matrix)), "weighted_f1": 0.0}
    share = np.linspace(0, 1, 41)[:, None, None]
    for start in (matrix, np.outer(support, support)):
        matrix = start
        for _ in range(steps):
            # sum_c support_c 2 hits_c / (support_c + predicted_c)
            predicted = np.maximum(support + matrix.sum(0), 1e-300)
            gain = 2 * support / predicted
            cost = gain * matrix.diagonal() / predicted
            mixed = (1 - share) * matrix + share * _decided(joint, gain[:, None] * joint - cost[:, None] * joint.sum(0))
            scores = np.round(weighted_f1(mixed), 12)
            matrix = mixed[scores.argmax()]
            if scores.argmax() == 0:
                break
        best["weighted_f1"] = max(best["weighted_f1"], float(weighted_f1(matrix)))
    return best


def _decided(joint: Floats, value: Floats) -> Floats:
    """Expected confusion matrix of the class of largest ``value`` [class, observation]; the first wins a tie."""
    chosen = np.round(value, 15).argmax(0)  # rounded, so that a tie is a tie on every machine
    return np.stack([np.bincount(chosen, each, len(joint)) for each in joint])


def subsets(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every subset but the empty one, small ones first."""
    return (part for size in range(1, len(items) + 1) for part in combinations(items, size))


def truth(dials: Dials) -> dict[str, Any]:
    """What is known about the corpus of ``dials``; keys join modalities by ``+``, numbers are rounded to 5 digits.

    ``information``: bits about the class of the first label set that each set of modalities carries together.
    ``evidence``: the same of all modalities, divided by the ways of ``dials.evidence``; adds up to the whole.
    ``decomposition``: redundant, unique and synergistic bits (:func:`decompose`) of two modalities, and where there are
    three also of each against the two others.
    ``attainable``: label set -> track -> modalities -> the Bayes rates (:func:`rates`).
    """
    form = FORMS[dials.form]
    tables, chances = symbol_tables(dials), np.array(dials.chances)
    table = np.tensordot(chances, tables, 1)
    given = form.classes(next(iter(form.labels))) * form.share[:, None]
    prior = (given / given.sum()).T  # [class, emotion]
    joint = np.tensordot(prior, table, 1)
    column = {name: number for number, name in enumerate(dials.modalities)}
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((a,), (b,)) for a, b in combinations(dials.modalities, 2)]
    if len(dials.modalities) > 2:
        pairs += [((m,), tuple(other for other in dials.modalities if other != m)) for m in dials.modalities]
    return _rounded({
        "information": {
            "+".join(part): information(seen(joint, [column[name] for name in part]))
            for part in subsets(dials.modalities)
        },
        "evidence": {
            way: chance * information(np.tensordot(prior, each, 1))
            for way, chance, each in zip(dials.evidence, chances, tables, strict=False)
        },
        "decomposition": {
            f"{'+'.join(first)} | {'+'.join(second)}": decompose(
                _two(joint, [column[name] for name in first], [column[name] for name in second])
            )._asdict()
            for first, second in pairs
        },
        "attainable": _attainable(dials, form, table),
    })  # fmt: skip


def _attainable(dials: Dials, form: Form, table: Floats) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label_set in form.labels:
        joint = np.tensordot((form.classes(label_set) * form.share[:, None]).T, table, 1)
        alone = {"+".join(part): rates(_observed(joint, part, dials)) for part in subsets(dials.modalities)}
        found[label_set] = dict.fromkeys(("utterance", "dialogue"), _never_less(alone))
    if form.turns[1] > 1 and (dials.inertia or dials.contagion):
        sample = Sample.draw(dials, form, table)
        for label_set in form.labels:
            found[label_set]["dialogue"] = _never_less(sample.rates(form.classes(label_set), dials, form))
    return found


def _never_less(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Who sees more can also decide like one who sees less: a weighted F1 that was climbed no higher is raised."""
    sets = {part: set(part.split("+")) for part in found}
    return {
        part: {**each, "weighted_f1": max(found[less]["weighted_f1"] for less in found if sets[less] <= sets[part])}
        for part, each in found.items()
    }


def _observed(joint: Floats, part: Sequence[str], dials: Dials) -> Floats:
    """p(class, what an observer of ``part`` sees), where any one modality may be missing; [class, observation]."""
    columns = [dials.modalities.index(name) for name in part]
    lacking = dials.missing / len(dials.modalities)
    whole = (1 - lacking * len(columns)) * seen(joint, columns)
    return np.concatenate([whole, *(lacking * seen(joint, [c for c in columns if c != gone]) for gone in columns)], 1)


def _two(joint: Floats, first: Sequence[int], second: Sequence[int]) -> Floats:
    """p(class, symbols of ``first``, symbols of ``second``) [class, first, second]."""
    kept = [*first, *second]
    lost = tuple(axis for axis in range(1, joint.ndim) if axis - 1 not in kept)
    left = [axis for axis in range(joint.ndim - 1) if axis in kept]
    ordered = joint.sum(lost).transpose(0, *(1 + left.index(axis) for axis in kept))
    return ordered.reshape(len(joint), -1, int(np.prod(ordered.shape[1 + len(first) :])))


def _merge(joint: Floats) -> Floats:
    """Make values of the second axis that, alone, say the same about the target one."""
    marginal = joint.sum(2)
    joint, marginal = joint[:, marginal.sum(0) > 0], marginal[:, marginal.sum(0) > 0]
    _, group = np.unique(np.round(marginal / marginal.sum(0), 9), axis=1, return_inverse=True)
    merged = np.zeros((int(group.max()) + 1, joint.shape[0], joint.shape[2]))
    np.add.at(merged, group.reshape(-1), joint.swapaxes(0, 1))
    return merged.swapaxes(0, 1)


def _scale(wanted: Floats, found: Floats) -> Floats:
    return np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 1e-100)


class Sample(NamedTuple):
    """Dialogues as an ideal observer of each set of modalities sees them, a list over orders of speakers."""

    speakers: list[list[int]]
    emotion: list[Integers]  #: [dialogue, turn]
    likelihood: list[Floats]  #: p(what the modalities show | emotion), [modalities, dialogue, turn, emotion]
    chance: list[Floats]  #: [dialogue, turn], uniform: decides which turns a label set leaves out

    @classmethod
    def draw(cls, dials: Dials, form: Form, table: Floats) -> Sample:
        """``ORDERS`` orders of speakers and ``REPEATS`` dialogues of each; equal dials give equal samples."""
        generator = np.random.default_rng(20260729)
        speakers = [draw_speakers(form, generator) for _ in range(ORDERS)]
        emotion = [
            np.array([draw_emotions(order, form, dials, generator) for _ in range(REPEATS)]) for order in speakers
        ]
        flat = np.concatenate([each.reshape(-1) for each in emotion])
        symbols = draw_symbols(flat, len(form.counts), dials, generator)
        absent = draw_absent(len(flat), dials, generator)
        likelihood = np.stack([_likelihood(symbols, absent, part, table, dials) for part in subsets(dials.modalities)])
        chance = generator.random(len(flat))
        cuts = np.cumsum([each.size for each in emotion])[:-1]
        return cls(
            speakers,
            emotion,
            [
                part.reshape(len(part), *each.shape, -1)
                for part, each in zip(np.split(likelihood, cuts, 1), emotion, strict=True)
            ],
            [part.reshape(each.shape) for part, each in zip(np.split(chance, cuts), emotion, strict=True)],
        )

    def rates(self, classes: Floats, dials: Dials, form: Form) -> dict[str, dict[str, float]]:
        """Bayes rates of every subset of modalities, with the standard error of the accuracy over orders of speakers.

        The observer knows who speaks at each turn, also at those that the label set leaves out, whose features it does
        not see; methods are not told of these turns, so their bound is a little lower still.
        """
        kept = classes.sum(1)
        posteriors: list[Floats] = []  # of each order: [modalities, turn that is kept, class]
        for order, emotion, likelihood, chance in zip(*self, strict=True):
            there = chance < kept[emotion]
            seen = np.where(there[..., None], kept * likelihood, 1 - kept)
            posterior = smooth(seen.reshape(-1, *seen.shape[2:]), order, form, dials).reshape(seen.shape)
            posteriors.append((posterior @ (classes / np.maximum(kept, 1e-300)[:, None]))[:, there])
        parts = ["+".join(part) for part in subsets(dials.modalities)]
        return {part: _sampled([each[number] for each in posteriors]) for number, part in enumerate(parts)}


def _sampled(posteriors: Sequence[Floats]) -> dict[str, float]:
    """Bayes rates from posteriors [turn, class] of each order of speakers, which are taken to be independent."""
    best = rates(np.concatenate(posteriors).T)
    counts = np.array([len(each) for each in posteriors])
    hits = np.array([each.max(1).sum() for each in posteriors])
    error = np.sqrt(((hits - best["accuracy"] * counts) ** 2).sum() * len(counts) / (len(counts) - 1))
    return {**best, "standard_error": float(error / counts.sum())}


def _likelihood(
    symbols: Integers, absent: npt.NDArray[np.bool_], part: Sequence[str], table: Floats, dials: Dials
) -> Floats:
    """p(what ``part`` shows | emotion), [utterance, emotion]; a missing modality says nothing."""
    columns = [dials.modalities.index(name) for name in part]
    found = np.empty((len(symbols), len(table)))
    for gone in (None, *columns):
        left = [column for column in columns if column != gone]
        rows = ~absent[:, columns].any(1) if gone is None else absent[:, gone]
        marginal = table.sum(tuple(axis for axis in range(1, table.ndim) if axis - 1 not in left))
        found[rows] = marginal[:, *symbols[rows][:, left].T].T if left else 1.0
    return found


def smooth(likelihood: Floats, speakers: Sequence[int], form: Form, dials: Dials) -> Floats:
    """Exact posterior of every turn's emotion given a whole dialogue, by forward and backward passes.

    The state after a turn is the last emotion of every speaker, an axis each: a turn changes its speaker's axis alone.

    Args:
        likelihood: p(observation | emotion), [dialogue, turn, emotion].
        speakers: Who speaks at each turn, the same in all dialogues.
        form: Gives the share of each emotion.
        dials: Give inertia and contagion.

    Returns:
        [dialogue, turn, emotion], summing to 1 over emotions.
    """
    names = list(dict.fromkeys(speakers))
    axes = [1 + names.index(speaker) for speaker in speakers]
    emotions = len(form.share)

    def along(values: Floats, *places: int) -> Floats:
        """Values [..., emotion, ...] on the state's axes ``places``; a leading dialogue axis stays."""
        shape = [1] * (1 + len(names))
        for place in places:
            shape[place] = emotions
        return values.reshape(values.shape[0] if values.ndim > len(places) else 1, *shape[1:])

    eye = np.eye(emotions)

    def step(turn: int) -> tuple[float, float, float]:
        """Probability to keep the own emotion, to take over the last one, and to draw afresh."""
        keep = dials.inertia if axes[turn] in axes[:turn] else 0.0
        take = dials.contagion if turn else 0.0
        return keep, take, 1 - keep - take

    state = np.full((len(likelihood), *(emotions,) * len(names)), float(emotions) ** -len(names))
    forward = []
    for turn, axis in enumerate(axes):
        keep, take, fresh = step(turn)
        rest = state.sum(axis, keepdims=True)
        state = keep * state + fresh * along(form.share, axis) * rest + take * (
            0 if not turn else state if axes[turn - 1] == axis else along(eye, axis, axes[turn - 1]) * rest
        )  # fmt: skip
        state = state * along(likelihood[:, turn], axis)
        state /= state.sum(tuple(range(1, state.ndim)), keepdims=True)
        forward.append(state)
    found = np.empty_like(likelihood)
    later = np.ones_like(state)
    for turn in reversed(range(len(axes))):
        axis = axes[turn]
        both = forward[turn] * later
        found[:, turn] = both.sum(tuple(place for place in range(1, both.ndim) if place != axis))
        keep, take, fresh = step(turn)
        later = later * along(likelihood[:, turn], axis)
        drawn = (along(form.share, axis) * later).sum(axis, keepdims=True)
        if turn and axes[turn - 1] != axis:
            taken = (along(eye, axis, axes[turn - 1]) * later).sum(axis, keepdims=True)
        else:
            taken = later
        later = keep * later + fresh * drawn + take * taken
        later = later / later.max(tuple(range(1, later.ndim)), keepdims=True)
    return found / found.sum(-1, keepdims=True)


def _rounded(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _rounded(value) if isinstance(value, Mapping) else round(value, 5) + 0.0 for key, value in content.items()
    }
