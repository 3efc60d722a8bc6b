"""Requirements of all methods, for every subset of the modalities; then of single methods."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import pytest
import torch
from factories import assert_close, changed, on_meta, random_batch, widths
from torch import Tensor, nn

from mer_bench import testing
from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS, base
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.guided import GuidedAttention
from mer_bench.fusion.mmtm import TransferModule
from mer_bench.fusion.msaf import SplitAttention
from mer_bench.fusion.sdt import SDTNetwork
from mer_bench.fusion.sync_tva import FUSIONS
from mer_bench.fusion.utterance import TokenEncoder
from mer_bench.modalities import MODALITIES
from mer_bench.records import Training
from mer_bench.testing import CLASSES, logits
from mer_bench.training.cost import count_flops

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)]
#: Smaller options for speed, and windows shorter than the dialogues; other methods have their defaults.
SMALL: dict[str, dict[str, Any]] = {
    "tensor_fusion": {"hidden": 8},
    "mult": {"layers": 1},
    "cfn_sr": {"layers": 2, "hidden": 32},
    "tacfn": {"layers": 2},
    "sync_tva": {"hidden": 32, "window_past": 1, "window_future": 2},
    "bc_lstm": {"hidden": 32},
    "ef_lstm": {"hidden": 32, "steps": 6},
    "compact_bilinear": {"hidden": 32, "sketch": 256},
    "mfn": {"hidden": 16, "memory": 16, "inner": 16, "steps": 5},
    "graph_mfn": {"hidden": 16, "vertex": 16, "memory": 16, "inner": 16, "steps": 5},
    "mctn": {"hidden": 16, "steps": 5},
    "mmtm": {"hidden": 32},
    "msaf": {"hidden": 32, "block": 8},
    "sdt": {"hidden": 32},
    "m3net": {"hidden": 32, "turns": 3},
    "graph_smile": {"hidden": 32, "layers": 3, "window_past": 1, "window_future": 2, "shift_window": 2},
    "cross_attention": {"hidden": 32, "heads": 2},
    "bottleneck": {"hidden": 32},
    "perceiver": {"hidden": 32, "latents": 4, "layers": 1},
    "misa": {"hidden": 32, "ffn": 64},
    "mmim": {"hidden": 32, "fusion": 32},
    "lmf_mult": {"layers": 1},
    "pmr": {"layers": 2},
    "lmr_cbt": {"layers": 1},
    "mmgcn": {"hidden": 32, "graph": 16, "layers": 2},
    "dialogue_gcn": {"hidden": 32, "window_past": 1, "window_future": 2},
    "dialogue_rnn": {"hidden": 16, "global_dim": 16, "party_dim": 16, "emotion_dim": 16, "head_dim": 16},
    "mm_dfn": {"hidden": 32, "graph": 16, "layers": 4},
    "cogmen": {"hidden": 20, "window_past": 1, "window_future": 2},
    "mmin": {"hidden": 16, "latent": 8, "blocks": 2, "head": 16},
    "gcnet": {"hidden": 16, "graph": 8},
    "multiemo": {"hidden": 16, "layers": 2, "heads": 2, "ffn": 32},
    "telme": {"hidden": 16},
    "corect": {"hidden": 20, "graph_heads": 2, "window_past": 1, "window_future": 2},
    "dmd": {"hidden": 16, "heads": 2, "layers": 1},
    "ccf_agcn": {"hidden": 32, "window_past": 1, "window_future": 2},
}
CASES = [(name, subset) for name, method in METHODS.items() for subset in method.accepted_modalities()]
REFUSED = [(name, subset) for name in METHODS for subset in SUBSETS if (name, subset) not in CASES]

each_case = pytest.mark.parametrize(("name", "subset"), CASES)
each_method = pytest.mark.parametrize("name", METHODS)


def case(name: str, subset: tuple[str, ...], **options: Any) -> testing.Case:
    return testing.Case(METHODS[name], subset, {**SMALL.get(name, {}), **options})


def build(name: str, subset: tuple[str, ...], **options: Any) -> FusionModule:
    return case(name, subset, **options).build()


def widest(name: str) -> tuple[str, ...]:
    return max(METHODS[name].accepted_modalities(), key=len)


def batch_for(name: str, subset: tuple[str, ...], **settings: Any) -> Batch:
    return case(name, subset).batch(**settings)


# All methods


@pytest.mark.parametrize("check", testing.EACH)
@each_case
def test_each_check_holds_on_every_set_of_modalities(
    check: Callable[[testing.Case], None], name: str, subset: tuple[str, ...]
) -> None:
    if name == "mctn" and check is testing.use:  # its other modalities teach it in training
        testing.use(case(name, subset), (build(name, subset).source,))
    else:
        check(case(name, subset))


@pytest.mark.parametrize("check", testing.ONCE)
@each_method
def test_each_check_holds_on_the_largest_set(check: Callable[[testing.Case], None], name: str) -> None:
    check(case(name, widest(name)))


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_reaches_every_parameter_of_the_defaults(name: str) -> None:
    defaults = testing.Case(METHODS[name], widest(name))
    batch = defaults.batch(dialogues=(3, 2), times=(6, 12))
    testing.every_parameter_learns(defaults.build(), batch, defaults)


def test_neither_the_optimizer_nor_the_test_waits_for_the_device() -> None:
    """All methods share these."""
    batch = batch_for("early_concat", widest("early_concat")).to("meta")
    module = build("early_concat", widest("early_concat")).to("meta").train()
    module.training_options = Training(precision="bf16-mixed")  # torch has no fused optimizer for this device
    module.test_predictions = base.PredictionTable(100, module.num_classes).to("meta")
    with testing.deterministic():
        module.training_step(batch, 0).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        module.adamw().step()
        with torch.no_grad():
            module.eval().test_step(batch, 0)


def test_the_optimizer_takes_one_pass_except_in_mixed_precision() -> None:
    module = build("early_concat", widest("early_concat"))
    for precision, fused in (("32-true", True), ("tf32", True), ("bf16-mixed", False), ("16-mixed", False)):
        module.training_options = Training(precision=precision)
        assert bool(module.adamw().defaults["fused"]) == fused, precision


def test_a_feature_set_of_one_frame_per_utterance_has_one_weight_per_value_and_counts_so() -> None:
    module = METHODS["unimodal"]({"text": Width(300, 300)}, 4, hidden=32).eval()
    assert module.encoder_parameters == 300 * 32 + 32 + 2 * 32
    batch = random_batch(module.dims, context="utterance", times=(1, 1))
    assert count_flops(module, batch) == 2 * (300 * 32 + 32 * 4)


@each_method
def test_a_method_is_a_file_of_its_name(name: str) -> None:
    assert METHODS[name].__module__ == f"mer_bench.fusion.{name}"
    docstring = importlib.import_module(METHODS[name].__module__).__doc__ or ""
    assert docstring.startswith(f"{METHODS[name].title}: ")
    assert METHODS[name].provenance == "baseline" or METHODS[name].paper


def test_refusals_are_those_of_the_papers() -> None:
    singles, pairs = SUBSETS[:3], SUBSETS[3:]
    least_two = {(name, subset) for name in ("cfn_sr", "tacfn", "sync_tva", "mctn") for subset in singles}
    assert least_two <= set(REFUSED)
    assert {("unimodal", subset) for subset in pairs} <= set(REFUSED)
    assert not {subset for name, subset in REFUSED if name in ("early_concat", "late_average", "mult") and subset}


@pytest.mark.parametrize(("name", "dims"), [("early_concat", widths(text=6, smell=3)), ("unimodal", widths(smell=3))])
def test_a_modality_of_any_name_is_read_and_not_dropped(name: str, dims: dict[str, Width]) -> None:
    assert METHODS[name](dims, CLASSES).dims == dims


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cfn_sr", {"guide": "smell"}),
        ("tacfn", {"encoder": "projektion"}),
        ("tacfn", {"directions": "both"}),
        ("sync_tva", {"graph": "pairwize"}),
        ("sync_tva", {"fusion": "concatenate"}),
        ("sync_tva", {"heads": 5}),
        *((name, {"heads": 7}) for name in ("cfn_sr", "tacfn", "mult", "lmf_mult", "pmr", "lmr_cbt", "misa", "sdt")),
        *((name, {"heads": 7}) for name in ("cross_attention", "bottleneck", "perceiver", "cogmen", "corect")),
        *((name, {"hidden": 33}) for name in ("m3net", "mmgcn", "mm_dfn")),
        ("multiplicative", {"beta": -0.5}),
        ("msaf", {"block": 12}),
        ("mctn", {"source": "smell"}),
        ("sdt", {"temperature": 0}),
        ("m3net", {"hypergraph_layers": 0, "frequency_layers": 0}),
        ("graph_smile", {"sentiments": "pnz"}),
        ("graph_smile", {"shift_window": 0}),
        ("graph_smile", {"window_past": -1}),
        ("cross_attention", {"form": "atention"}),
        ("bottleneck", {"fusion_layer": 5}),
        ("bottleneck", {"bottlenecks": 0}),
        ("bottleneck", {"layers": 0, "fusion_layer": 0}),
        ("tacfn", {"layers": 0}),
        ("lmf_mult", {"direction": "from_fused"}),
        ("lmr_cbt", {"target": "smell"}),
        ("lmr_cbt", {"attention": "tokens"}),
        ("dialogue_gcn", {"rnn": "grue"}),
        ("dialogue_gcn", {"relations": "pair"}),
        ("dialogue_rnn", {"attention": "genral"}),
        ("dialogue_rnn", {"global_dim": 17, "attention": "dot"}),
        ("cogmen", {"relations": "pair"}),
        ("corect", {"edges": "temporl"}),
    ],
)
def test_unknown_option_values_are_refused(name: str, options: Mapping[str, Any]) -> None:
    with pytest.raises((Misuse, ValueError), match=str(next(iter(options.values())))):
        build(name, widest(name), **options)


# Single methods

ABLATIONS: list[tuple[str, dict[str, Any]]] = [
    *(("cfn_sr", {switch: False}) for switch in ("cross_modal", "self_attention", "residual")),
    ("cfn_sr", {"scale": True}),
    ("cfn_sr", {"guide": "text"}),
    ("cfn_sr", {"self_attention": False, "residual": False, "scale": True}),
    *(("tacfn", {switch: False}) for switch in ("self_attention", "splice", "residual")),
    ("tacfn", {"scale": True}),
    *(("tacfn", {"directions": directions}) for directions in ("all", "reverse", "none")),
    ("tacfn", {"encoder": "convolution"}),
    ("tacfn", {"self_attention": False, "splice": False, "residual": False}),
    ("sync_tva", {"enhancement": False}),
    *(("sync_tva", {"graph": graph}) for graph in ("pairwise", "same_utterance", "full", "joint", "within", "none")),
    *(("sync_tva", {"fusion": fusion}) for fusion in FUSIONS),
    ("sync_tva", {"enhancement": False, "graph": "none", "fusion": "concat"}),
    ("mmgcn", {"speaker_embedding": False}),
    ("mmgcn", {"across_weight": 0.5}),
    ("dialogue_gcn", {"rnn": "lstm"}),
    ("dialogue_gcn", {"relations": "same_other"}),
    ("dialogue_rnn", {"attention": "simple"}),
    *(("dialogue_rnn", {switch: False}) for switch in ("bidirectional", "emotion_attention")),
    ("dialogue_rnn", {"listener": True}),
    ("dialogue_rnn", {"bidirectional": False, "emotion_attention": False, "attention": "simple", "listener": True}),
    ("mm_dfn", {"dynamic": False}),
    ("mm_dfn", {"text_speaker": 0.0, "audio_speaker": 0.0}),
    ("mm_dfn", {"vision_speaker": 0.5}),
    ("cogmen", {"graph": False}),
    ("cogmen", {"relations": "same_other"}),
    ("cogmen", {"graph_heads": 3}),
    *(("corect", {switch: False}) for switch in ("graph", "cross_modal")),
    ("corect", {"graph": False, "cross_modal": False}),
    *(("corect", {"edges": edges}) for edges in ("temporal", "multimodal")),
    ("mult", {"causal": False}),
    ("mult", {"stride": 2, "kernel": 3}),
    ("ef_lstm", {"layers": 2}),
    ("mmtm", {"double": True}),
    ("msaf", {"lowest": 0.5}),
    *((name, {"sites": 1}) for name in ("mmtm", "msaf")),
    *((name, {"steps": 3}) for name in ("ef_lstm", "mfn", "graph_mfn", "mctn")),
    ("sdt", {"learned_gates": False}),
    *(("m3net", {branch: 0}) for branch in ("hypergraph_layers", "frequency_layers")),
    ("cross_attention", {"form": "transformer"}),
    ("cross_attention", {"scale": True}),
    *(("bottleneck", {"fusion_layer": layer}) for layer in (0, 2, 3)),
    ("perceiver", {"blocks": 1}),
    *(("lmf_mult", {"direction": direction}) for direction in ("to_modality", "to_fused")),
    ("lmf_mult", {"steps": 3}),
    ("lmf_mult", {"stride": 2, "kernel": 3}),
    *(("pmr", {switch: False}) for switch in ("gate", "progressive")),
    ("pmr", {"stride": 2, "kernel": 3}),
    ("lmr_cbt", {"attention": "time"}),
    ("lmr_cbt", {"stride": 2}),
]


@pytest.mark.parametrize("subset", [("text", "audio", "vision"), ("text", "vision"), ("audio", "vision")])
@pytest.mark.parametrize(("name", "options"), ABLATIONS)
def test_an_ablation_trains_every_parameter_it_has(name: str, options: dict[str, Any], subset: tuple[str, ...]) -> None:
    if options.get("guide", subset[0]) not in subset:
        options = {"guide": subset[0]}
    own = case(name, subset, **options)
    batch, module = own.batch(times=(6, 12)), own.build()
    assert logits(module, batch).shape == (len(batch), CLASSES)
    testing.every_parameter_learns(module, batch, own)


@pytest.mark.parametrize(("name", "options"), [case for case in ABLATIONS if case[1] != {"graph": "pairwise"}])
def test_an_ablation_changes_the_method(name: str, options: dict[str, Any]) -> None:
    subset = ("audio", "vision") if "directions" in options else widest(name)
    plain, ablated = build(name, subset), build(name, subset, **options)
    if options == {"fusion": "cross_attention"}:
        assert torch.equal(logits(plain, batch_for(name, subset)), logits(ablated, batch_for(name, subset)))
        return
    own = ablated.state_dict()
    shared = {key: value for key, value in plain.state_dict().items() if key in own and value.shape == own[key].shape}
    ablated.load_state_dict(shared, strict=False)  # so that no fresh weights make the difference
    with_options = logits(ablated, case(name, subset, **options).batch())  # it may read what the default does not
    assert float((logits(plain, batch_for(name, subset)) - with_options).abs().max()) > 1e-6


#: The 3D ResNeXt-50 and the MFCC CNN of the MSAF and CFN-SR authors, with their heads for 8 emotions.
STREAMS = 25_865_664 + 20_704 + 16_392 + 13_320


#: Widths of the MOSEI and IEMOCAP features in several papers.
WIDTHS = widths(text=300, audio=74, vision=35)
PARAMETERS: list[tuple[nn.Module, int, str]] = [
    (METHODS["tensor_fusion"](widths(audio=40, vision=136), 8), 196_680, "TFN, our sizes"),
    (METHODS["low_rank"](widths(audio=40, vision=136), 8), 83_404, "LMF, our sizes"),
    (METHODS["bc_lstm"](widths(text=384, audio=47), 6), 806_206, "bc-LSTM, our sizes"),
    (METHODS["tacfn"](WIDTHS, 8), 342_531, "TACFN, our reconstruction on IEMOCAP; the paper prints 0.34M"),
    (METHODS["mult"](WIDTHS, 1), 1_073_731, "MulT, the authors' code with one output"),
    (
        METHODS["mult"](WIDTHS, 6, dim=50, heads=10, layers=4, kernel=5),
        2_477_056,
        "MulT, the code of MMSA at these sizes with six outputs",
    ),
    (METHODS["lmr_cbt"](WIDTHS, 1, attention="time"), 406_523, "LMR-CBT, the authors' code with one output"),
    (METHODS["lmr_cbt"](WIDTHS, 8, attention="time"), 407_370, "LMR-CBT, the authors' code with eight outputs"),
    (METHODS["lmr_cbt"](WIDTHS, 8), 407_370 - 2 * 41, "LMR-CBT without the layers that the authors' code never calls"),
    (
        nn.ModuleList([TransferModule((1024, 32)), TransferModule((2048, 64))]),
        31_496_512 - STREAMS,
        "MMTM, the authors' module at two sites of the RAVDESS streams: 31.50M with them",
    ),
    (
        nn.ModuleList([SplitAttention((1024, 32), 16), SplitAttention((2048, 64), 32)]),
        25_940_724 - STREAMS,
        "MSAF, the authors' code: their full RAVDESS network without its streams",
    ),
    (
        on_meta(lambda: SDTNetwork({"text": 1024, "audio": 1582, "vision": 342}, 6, speakers=2)),
        79_687_704 - 19_456,
        "SDT, 79.7M in the authors' code on IEMOCAP, 19,456 of which are never trained",
    ),
    (
        on_meta(lambda: SDTNetwork({"text": 1024, "audio": 300, "vision": 342}, 7, speakers=9)),
        78_386_204 - 19_456,
        "SDT, 78.4M in the authors' code on MELD, 19,456 of which are never trained",
    ),
]


@pytest.mark.parametrize(("module", "count", "source"), PARAMETERS, ids=[source[:6] for *_, source in PARAMETERS])
def test_parameter_counts_are_the_stated_ones(module: nn.Module, count: int, source: str) -> None:
    assert sum(p.numel() for p in module.parameters()) == count, source


def test_num_parameters_counts_what_trains() -> None:
    module = build("early_concat", ("audio",))
    every = sum(p.numel() for p in module.parameters())
    assert module.num_parameters == every
    module.head[0].requires_grad_(False)
    assert module.num_parameters == every - sum(p.numel() for p in module.head[0].parameters())


#: The majority class has no parameters; the others concatenate the modalities before their first layer.
WITHOUT_ENCODERS = ("majority", "linear", "ef_lstm")


@each_method
def test_unimodal_encoders_read_one_modality_each(name: str) -> None:
    whole = build(name, widest(name))
    assert set(whole.unimodal_encoders) <= set(dict(whole.named_modules()))
    assert (whole.encoder_parameters == 0) == (name in WITHOUT_ENCODERS)
    module = build(name, widest(name)[:2]).train()
    batch = changed(batch_for(name, widest(name)[:2], times=(6, 12)), Tensor.requires_grad_)
    frames = {modality: x.values for modality, x in batch.frames.items()}
    inputs = [[each[modality] for each in (batch.functionals, frames) if each] for modality in module.dims]
    outputs: list[Tensor] = []

    def collect(_: nn.Module, __: Any, output: Any) -> None:
        outputs.extend((output[0] if isinstance(output, tuple) else output).chunk(2, -1))  # MFN's encoders side by side

    token_encoders = [encoder for encoder in module.modules() if isinstance(encoder, TokenEncoder)]
    pooling = {layer for encoder in token_encoders for layer in (encoder.movement, encoder.norm)}
    modules = dict(module.named_modules())
    for encoder in (modules[key] for key in module.unimodal_encoders if key in modules):
        for layer in set(encoder.modules()) - pooling:
            if next(layer.parameters(recurse=False), None) is not None:
                layer.register_forward_hook(collect)
    module.losses(batch)
    assert bool(outputs) == (name not in WITHOUT_ENCODERS)
    for output in outputs:
        read = 0
        for own in inputs:
            gradients = torch.autograd.grad(output.square().sum(), own, retain_graph=True, allow_unused=True)
            read += any(gradient is not None and bool(gradient.any()) for gradient in gradients)
        assert read == 1


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("early_concat", 3 * (64 + 2 * 64) + 64 * 7 * 15),
        ("mult", 30 * 15),
        ("mfn", 4 * 16 * (15 + 3) + 3 * 16 * 4 * 16),
        ("mctn", 16 * (6 + 1) + 16 * (4 + 1)),
        ("tacfn", 40 * 15),
    ],
)
def test_parameters_of_unimodal_encoders(name: str, count: int) -> None:
    assert build(name, MODALITIES).encoder_parameters == count


def test_majority_has_no_parameters_and_predicts_the_most_frequent_class() -> None:
    module = build("majority", MODALITIES)
    module.class_counts.copy_(torch.tensor([3.0, 0.0, 9.0, 5.0]))
    assert module.num_parameters == 0
    assert logits(module, random_batch()).argmax(1).tolist() == [2] * 9
    assert "class_counts" in module.state_dict()


@pytest.mark.parametrize(("scale", "measure"), [(True, "mean"), (False, "sum")])
def test_guided_attention_weights_average_or_sum_to_one_over_real_tokens(scale: bool, measure: str) -> None:
    mask = torch.arange(7) < torch.tensor([7, 4, 1, 0])[:, None]
    values = torch.randn(4, 7, 3)
    values[..., 0] = 1  # so that the first output is the weight itself
    attend = GuidedAttention(3, 5, 6, residual=False, scale=scale)
    weights = attend(PaddedSequence(values * mask[..., None], mask), torch.randn(4, 5)).values[..., 0].detach()
    assert float(weights[0].std()) > 1e-4
    for row in range(3):
        assert float(getattr(weights[row][mask[row]], measure)()) == pytest.approx(1, abs=1e-5)
    assert not weights[~mask].any()


def test_cfn_sr_without_cross_modal_is_encoders_and_concatenation() -> None:
    module = build("cfn_sr", ("audio", "vision"), cross_modal=False).eval()
    batch = batch_for("cfn_sr", ("audio", "vision"))
    vectors = [module.encoders[m](batch) for m in ("audio", "vision")]
    assert_close(logits(module, batch), module.head(torch.cat(vectors, -1)).detach())
