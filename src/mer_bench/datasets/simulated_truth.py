"""Known properties of a simulated corpus: its information decomposition and the best attainable scores (Bayes rates).

All follow by exact sums from the distribution of the symbols that modalities show given the emotion. Only the rates of
the dialogue track are means over a sample of dialogues, each with its exact posterior.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mer_bench.datasets.simulated_model import (
    FORMS,
    Floats,
    Form,
    Integers,
    SimulationConfig,
    draw_absent,
    draw_emotions,
    draw_speakers,
    draw_symbols,
)
from mer_bench.metrics import accuracy, weighted_f1

SPEAKER_ORDERS, DIALOGUES_PER_ORDER = 48, 24  #: size of the sample of dialogues


def symbol_tables(config: SimulationConfig) -> Floats:
    """Return p(symbols | emotion, way) as [way, emotion, symbol, symbol, ...], with one axis per modality.

    The ways are ``config.ways`` and, last, showing nothing. The last symbol on each axis is "nothing".
    """
    emotions, pad, modalities = len(FORMS[config.form].counts), config.pad, len(config.modalities)
    size = emotions + pad + 1
    wrong = config.noise / (emotions - 1)
    shown = np.where(np.eye(emotions, dtype=bool), 1 - config.noise, wrong)  # [emotion, emotion shown]
    tables = np.zeros((len(config.ways) + 1, emotions, *(size,) * modalities))
    nothing: tuple[Any, ...] = (-1, slice(None), *(-1,) * modalities)
    tables[nothing] = 1
    for number, (columns, shares) in enumerate(config.ways):
        free = len(columns) - 1 if shares else 0
        for emotion, parts in product(range(emotions), product(range(pad), repeat=free)):
            values = (
                [emotions + v for v in (*parts, (emotion - sum(parts)) % pad)] if shares else [emotion] * len(columns)
            )
            index: list[Any] = [number, slice(None), *nothing[2:]]
            for column, value in zip(columns, values, strict=True):
                index[2 + column] = value
            tables[tuple(index)] += shown[:, emotion] / pad**free
    random = np.zeros((size, size))  # what an unreliable modality shows for each symbol
    random[:emotions, :emotions], random[emotions:-1, emotions:-1], random[-1, -1] = 1 / emotions, 1 / pad, 1
    for column, name in enumerate(config.modalities):
        chance = config.unreliable.get(name, 0.0)
        if chance:
            channel = (1 - chance) * np.eye(size) + chance * random
            tables = np.moveaxis(np.tensordot(tables, channel, axes=(column + 2, 0)), -1, column + 2)
    return tables


def observed_table(config: SimulationConfig) -> Floats:
    """Return p(symbols | emotion) [emotion, symbol, symbol, ...], where a last symbol on each axis is "missing"."""
    whole = np.tensordot(np.array(config.probabilities), symbol_tables(config), 1)
    table = np.pad((1 - config.missing) * whole, [(0, 0), *[(0, 1)] * len(config.modalities)])
    for axis in range(1, whole.ndim):  # at most one modality is missing
        here: list[slice] = [slice(None), *[slice(-1)] * len(config.modalities)]
        here[axis] = slice(-1, None)
        table[tuple(here)] += config.missing / len(config.modalities) * whole.sum(axis, keepdims=True)
    return table


def marginal(table: Floats, columns: Sequence[int]) -> Floats:
    """Sum over the modalities not in ``columns`` and flatten the others; the axis of modality 0 is 1."""
    others = tuple(axis for axis in range(1, table.ndim) if axis - 1 not in columns)
    return table.sum(others).reshape(len(table), -1)


def mutual_information(joint: Floats) -> float:
    """Mutual information in bits between the first axis and all others of a joint distribution."""
    flat = joint.reshape(len(joint), -1)
    independent = flat.sum(1, keepdims=True) * flat.sum(0)
    positive = flat > 1e-200  # smaller values do not count, and their product with p(target) may be 0
    return float((flat[positive] * np.log2(flat[positive] / independent[positive])).sum())


class Atoms(NamedTuple):
    """Bits about a target that two sources share, that only one has, and that only both together have."""

    redundant: float
    unique_first: float
    unique_second: float
    synergistic: float


def decompose(joint: Floats, *, steps: int = 300, tolerance: float = 1e-8) -> Atoms:
    """Partial information decomposition of p(target, first, second) [target, first, second].

    Unique information is the minimum, over all q with the pairwise marginals q(target, source) of p, of the information
    that one source adds to the other (Bertschinger, Rauh, Olbrich, Jost and Ay, "Quantifying Unique Information",
    Entropy 2014; Liang et al., NeurIPS 2023, use it on multimodal data). It is found by minimising the total
    information with alternating projections (Csiszár and Tusnády 1984; both sets are convex): r <- sum_t p(t) q(. | t),
    then each q(. | t) <- the distribution closest to r with the marginals of p, by iterative scaling. One step is
    mirror descent with rate 1; larger rates are used as long as the information decreases.
    """
    both = mutual_information(joint)
    # merging keeps the information of each source
    joint = _merge_equivalent(_merge_equivalent(joint).swapaxes(1, 2)).swapaxes(1, 2)
    target = joint.sum((1, 2))
    joint, target = joint[target > 0], target[target > 0]
    rows, columns = joint.sum(2) / target[:, None], joint.sum(1) / target[:, None]  # p(source | target)
    coupling = rows[:, :, None] * columns[:, None, :]
    total, rate = mutual_information(target[:, None, None] * coupling), 1.0
    for _ in range(steps):
        center = np.tensordot(target, coupling, 1)
        ratio = np.divide(center, coupling, out=np.ones_like(coupling), where=coupling > 1e-100)
        trial = coupling * np.clip(ratio, 1e-9, 1e9) ** rate
        for _ in range(40):
            trial *= _scale(rows, trial.sum(2))[:, :, None]
            trial *= _scale(columns, trial.sum(1))[:, None, :]
        # scaling converges slowly near zeros: add what the marginals still lack as a product
        trial *= np.minimum(1, _scale(rows, trial.sum(2)))[:, :, None]
        short = np.maximum(rows - trial.sum(2), 0), np.maximum(columns - trial.sum(1), 0)
        trial += short[0][:, :, None] * short[1][:, None, :] / np.maximum(short[0].sum(1), 1e-100)[:, None, None]
        gained = total - mutual_information(target[:, None, None] * trial)
        if gained > tolerance:
            coupling, total, rate = trial, total - gained, min(1.5 * rate, 16.0)
        elif rate > 1:
            rate = max(1.0, rate / 3)
        else:
            break
    one, two = mutual_information(joint.sum(2)), mutual_information(joint.sum(1))
    return Atoms(one + two - total, total - two, total - one, both - total)


def bayes_rates(joint: Floats, steps: int = 40) -> dict[str, float]:
    """Best expected accuracy and weighted F1 of a classifier, given p(class, observation) [class, observation].

    The class of the largest posterior maximises accuracy. Another rule maximises weighted F1, often one that guesses at
    random where it has no information. Weighted F1 is computed from the expected confusion matrix, which is linear in
    the rule, and maximised with the algorithm of Frank and Wolfe, which starts once at the largest posterior and once
    at guesses by the frequency of the classes. The result is attainable, and at least as high as at both starts.
    """
    joint = joint / joint.sum()
    support = joint.sum(1)
    matrix = _expected_confusion(joint, joint)
    best = {"accuracy": float(accuracy(matrix)), "weighted_f1": 0.0}
    share = np.linspace(0, 1, 41)[:, None, None]
    for start in (matrix, np.outer(support, support)):
        matrix = start
        for _ in range(steps):
            # sum_c support_c 2 hits_c / (support_c + predicted_c)
            predicted = np.maximum(support + matrix.sum(0), 1e-300)
            gain = 2 * support / predicted
            cost = gain * matrix.diagonal() / predicted
            mixed = (1 - share) * matrix + share * _expected_confusion(
                joint, gain[:, None] * joint - cost[:, None] * joint.sum(0)
            )
            scores = np.round(weighted_f1(mixed), 12)
            matrix = mixed[scores.argmax()]
            if scores.argmax() == 0:
                break
        best["weighted_f1"] = max(best["weighted_f1"], float(weighted_f1(matrix)))
    return best


def _expected_confusion(joint: Floats, value: Floats) -> Floats:
    """Confusion matrix expected if the class of the largest ``value`` [class, observation] is predicted."""
    chosen = np.round(value, 15).argmax(0)  # rounded, so that ties are the same on every machine
    return np.stack([np.bincount(chosen, each, len(joint)) for each in joint])


def subsets(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every subset except the empty one, smaller ones first."""
    return (part for size in range(1, len(items) + 1) for part in combinations(items, size))


def truth(config: SimulationConfig) -> dict[str, Any]:
    """Compute the known properties of a corpus. Keys join modalities by ``+``; numbers are rounded to 5 digits.

    ``information``: bits about the class of the first label set in each set of modalities, any of which may be missing.
    ``evidence``: bits in all modalities together, as a sum over the keys of ``config.evidence``.
    ``decomposition``: redundant, unique and synergistic bits (:func:`decompose`) of two modalities, and, if there are
    three, of each against the two others.
    ``attainable``: label set -> track -> modalities -> Bayes rates (:func:`bayes_rates`).
    """
    form = FORMS[config.form]
    table = observed_table(config)
    given = form.classes(next(iter(form.labels))) * form.share[:, None]
    prior = (given / given.sum()).T  # [class, emotion]
    joint = np.tensordot(prior, table, 1)
    column = {name: number for number, name in enumerate(config.modalities)}
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((a,), (b,)) for a, b in combinations(config.modalities, 2)]
    if len(config.modalities) > 2:
        pairs += [((m,), tuple(other for other in config.modalities if other != m)) for m in config.modalities]
    return _rounded({
        "information": {
            "+".join(part): mutual_information(marginal(joint, [column[name] for name in part]))
            for part in subsets(config.modalities)
        },
        "evidence": {
            way: chance * mutual_information(np.tensordot(prior, _only(way, config), 1))
            for way, chance in config.evidence.items()
        },
        "decomposition": {
            f"{'+'.join(first)} | {'+'.join(second)}": decompose(
                _joint_of_two(joint, [column[name] for name in first], [column[name] for name in second])
            )._asdict()
            for first, second in pairs
        },
        "attainable": _attainable(config, form, table),
    })  # fmt: skip


def _attainable(config: SimulationConfig, form: Form, table: Floats) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label_set in form.labels:
        joint = np.tensordot((form.classes(label_set) * form.share[:, None]).T, table, 1)
        exact = {
            "+".join(part): bayes_rates(marginal(joint, _columns(part, config))) for part in subsets(config.modalities)
        }
        found[label_set] = dict.fromkeys(("utterance", "dialogue"), _monotone(exact))
    if config.has_context:
        sample = DialogueSample.draw(config, form, table)
        for label_set in form.labels:
            found[label_set]["dialogue"] = _monotone(sample.rates(form.classes(label_set), config, form))
    return found


def _monotone(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Raise each weighted F1 to that of every subset of its modalities, where the maximisation ended lower."""
    sets = {part: set(part.split("+")) for part in found}
    return {
        part: {**each, "weighted_f1": max(found[less]["weighted_f1"] for less in found if sets[less] <= sets[part])}
        for part, each in found.items()
    }


def _only(way: str, config: SimulationConfig) -> Floats:
    """:func:`observed_table` of utterances that show their emotion in one way."""
    return observed_table(replace(config, evidence={way: 1.0}))


def _columns(part: Collection[str], config: SimulationConfig) -> list[int]:
    return [number for number, name in enumerate(config.modalities) if name in part]


def _joint_of_two(joint: Floats, first: Sequence[int], second: Sequence[int]) -> Floats:
    """Return p(class, symbols of ``first``, symbols of ``second``) [class, first, second]."""
    columns = [*first, *second]
    others = tuple(axis for axis in range(1, joint.ndim) if axis - 1 not in columns)
    ordered = joint.sum(others).transpose(0, *(1 + sorted(columns).index(column) for column in columns))
    return ordered.reshape(len(joint), -1, int(np.prod(ordered.shape[1 + len(first) :])))


def _merge_equivalent(joint: Floats) -> Floats:
    """Merge the values of the second axis that give the same distribution of the target."""
    marginal = joint.sum(2)
    joint, marginal = joint[:, marginal.sum(0) > 0], marginal[:, marginal.sum(0) > 0]
    _, group = np.unique(np.round(marginal / marginal.sum(0), 9), axis=1, return_inverse=True)
    merged = np.zeros((int(group.max()) + 1, joint.shape[0], joint.shape[2]))
    np.add.at(merged, group.reshape(-1), joint.swapaxes(0, 1))
    return merged.swapaxes(0, 1)


def _scale(wanted: Floats, found: Floats) -> Floats:
    return np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 1e-100)


class DialogueSample(NamedTuple):
    """Dialogues as an ideal observer of each set of modalities sees them; lists have one item per order of speakers."""

    speakers: list[list[int]]
    emotion: list[Integers]  #: [dialogue, turn]
    likelihood: list[Floats]  #: p(symbols | emotion), [set of modalities, dialogue, turn, emotion]
    chance: list[Floats]  #: [dialogue, turn], uniform numbers, which decide the turns that a label set leaves out

    @classmethod
    def draw(cls, config: SimulationConfig, form: Form, table: Floats) -> DialogueSample:
        """Draw ``SPEAKER_ORDERS`` x ``DIALOGUES_PER_ORDER`` dialogues; equal configurations give equal samples."""
        generator = np.random.default_rng(20260729)
        speakers = [draw_speakers(form, generator) for _ in range(SPEAKER_ORDERS)]
        emotion = [
            np.array([draw_emotions(order, form, config, generator) for _ in range(DIALOGUES_PER_ORDER)])
            for order in speakers
        ]
        flat = np.concatenate([each.reshape(-1) for each in emotion])
        symbols = draw_symbols(flat, len(form.counts), config, generator)
        absent = draw_absent(len(flat), config, generator)
        likelihood = np.stack(
            [likelihood_of(symbols, absent, part, table, config) for part in subsets(config.modalities)]
        )
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

    def rates(self, classes: Floats, config: SimulationConfig, form: Form) -> dict[str, dict[str, float]]:
        """Bayes rates of every subset of modalities, with the standard error of the accuracy over orders of speakers.

        The observer knows who speaks at each turn, also at the turns that the label set leaves out, whose features it
        does not see. Methods do not know these turns, so that the rates are an upper bound for them.
        """
        labelled = classes.sum(1)
        posteriors: list[Floats] = []  # one per order: [set of modalities, turn with a label, class]
        for order, emotion, likelihood, chance in zip(*self, strict=True):
            has_label = chance < labelled[emotion]
            posteriors.append(dialogue_posterior(likelihood, classes, order, has_label, form, config))
        parts = ["+".join(part) for part in subsets(config.modalities)]
        return {part: _sampled([each[number] for each in posteriors]) for number, part in enumerate(parts)}


def _sampled(posteriors: Sequence[Floats]) -> dict[str, float]:
    """Bayes rates from the posteriors [turn, class] of each order of speakers, assumed to be independent."""
    best = bayes_rates(np.concatenate(posteriors).T)
    counts = np.array([len(each) for each in posteriors])
    hits = np.array([each.max(1).sum() for each in posteriors])
    error = np.sqrt(((hits - best["accuracy"] * counts) ** 2).sum() * len(counts) / (len(counts) - 1))
    return {**best, "standard_error": float(error / counts.sum())}


def likelihood_of(
    symbols: Integers, absent: npt.NDArray[np.bool_], part: Collection[str], table: Floats, config: SimulationConfig
) -> Floats:
    """Return p(what ``part`` shows | emotion) [utterance, emotion]; ``table`` is :func:`observed_table`."""
    columns = _columns(part, config)
    missing = table.shape[1] - 1
    shown = np.where(absent, missing, symbols % missing)  # -1, nothing, is the symbol before
    conditional = table.sum(tuple(axis for axis in range(1, table.ndim) if axis - 1 not in columns))
    return conditional[:, *shown[:, columns].T].T


def utterance_posterior(likelihood: Floats, classes: Floats, form: Form) -> Floats:
    """Exact posterior of the class of an utterance that has a label.

    Args:
        likelihood: p(observation | emotion), [utterance, emotion].
        classes: Probability [emotion, class] of each class, see :meth:`Form.classes`.
        form: Form of the corpus, with the share of each emotion.

    Returns:
        [utterance, class], summing to 1 over classes.
    """
    joint = likelihood @ (form.share[:, None] * classes)
    return joint / joint.sum(1, keepdims=True)


def dialogue_posterior(
    likelihood: Floats,
    classes: Floats,
    speakers: Sequence[int],
    has_label: npt.NDArray[np.bool_],
    form: Form,
    config: SimulationConfig,
) -> Floats:
    """The same given the whole dialogue, for the turns that have a label.

    That a turn has none is known, and who speaks, but not what it shows.

    Args:
        likelihood: [..., dialogue, turn, emotion].
        classes: As above.
        speakers: Speaker of each turn, the same in all dialogues.
        has_label: [dialogue, turn].
        form: As above.
        config: Configuration with inertia and contagion.

    Returns:
        [..., turn with a label, class].
    """
    labelled = classes.sum(1)  # probability that an utterance has a label, by emotion
    seen = np.where(has_label[..., None], labelled * likelihood, 1 - labelled)
    posterior = smooth(seen.reshape(-1, *seen.shape[-2:]), speakers, form, config).reshape(seen.shape)
    return (posterior @ (classes / np.maximum(labelled, 1e-300)[:, None]))[..., has_label, :]


def chance_of(posterior: Floats, label: Integers) -> Floats:
    """Chance [utterance] that the class of the largest posterior is the true one; of equal ones each is as likely."""
    best = np.round(posterior, 9)
    best = best == best.max(-1, keepdims=True)
    return best[np.arange(len(label)), label] / best.sum(-1)


def smooth(likelihood: Floats, speakers: Sequence[int], form: Form, config: SimulationConfig) -> Floats:
    """Exact posterior of the emotion of every turn given a whole dialogue, by the forward-backward algorithm.

    The state after a turn is the last emotion of every speaker, with one axis per speaker. A turn only changes the axis
    of its speaker.

    Args:
        likelihood: p(observation | emotion), [dialogue, turn, emotion].
        speakers: Speaker of each turn, the same in all dialogues.
        form: Form of the corpus, with the share of each emotion.
        config: Configuration with inertia and contagion.

    Returns:
        [dialogue, turn, emotion], summing to 1 over emotions.
    """
    names = list(dict.fromkeys(speakers))
    axes = [1 + names.index(speaker) for speaker in speakers]
    emotions = len(form.share)

    def along(values: Floats, *state_axes: int) -> Floats:
        """Reshape ``values`` [..., emotion, ...] to these axes of the state; an axis of dialogues stays first."""
        shape = [1] * (1 + len(names))
        for axis in state_axes:
            shape[axis] = emotions
        return values.reshape(values.shape[0] if values.ndim > len(state_axes) else 1, *shape[1:])

    eye = np.eye(emotions)

    def step(turn: int) -> tuple[float, float, float]:
        """Probability to keep the speaker's emotion, to take over that of the turn before, and to draw a new one."""
        keep = config.inertia if axes[turn] in axes[:turn] else 0.0
        take = config.contagion if turn else 0.0
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
    posterior = np.empty_like(likelihood)
    later = np.ones_like(state)
    for turn in reversed(range(len(axes))):
        axis = axes[turn]
        both = forward[turn] * later
        posterior[:, turn] = both.sum(tuple(other for other in range(1, both.ndim) if other != axis))
        keep, take, fresh = step(turn)
        later = later * along(likelihood[:, turn], axis)
        drawn = (along(form.share, axis) * later).sum(axis, keepdims=True)
        if turn and axes[turn - 1] != axis:
            taken = (along(eye, axis, axes[turn - 1]) * later).sum(axis, keepdims=True)
        else:
            taken = later
        later = keep * later + fresh * drawn + take * taken
        later = later / later.max(tuple(range(1, later.ndim)), keepdims=True)
    return posterior / posterior.sum(-1, keepdims=True)


def _rounded(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _rounded(value) if isinstance(value, Mapping) else round(value, 5) + 0.0 for key, value in content.items()
    }
