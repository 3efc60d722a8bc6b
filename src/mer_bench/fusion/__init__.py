"""Fusion methods, one paper a file. ``METHODS[name](dims, num_classes, **options)`` builds one."""

from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.bc_lstm import BCLSTM
from mer_bench.fusion.bottleneck import Bottleneck
from mer_bench.fusion.cfn_sr import CFNSR
from mer_bench.fusion.compact_bilinear import CompactBilinear
from mer_bench.fusion.cross_attention import CrossAttention
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.fusion.ef_lstm import EFLSTM
from mer_bench.fusion.gated import Gated
from mer_bench.fusion.graph_mfn import GraphMFN
from mer_bench.fusion.graph_smile import GraphSmile
from mer_bench.fusion.late_average import LateAverage
from mer_bench.fusion.late_product import LateProduct
from mer_bench.fusion.lmf_mult import LMFMulT
from mer_bench.fusion.lmr_cbt import LMRCBT
from mer_bench.fusion.low_rank import LowRank
from mer_bench.fusion.m3net import M3Net
from mer_bench.fusion.majority import Majority
from mer_bench.fusion.mctn import MCTN
from mer_bench.fusion.mfn import MFN
from mer_bench.fusion.misa import MISA
from mer_bench.fusion.mmim import MMIM
from mer_bench.fusion.mmtm import MMTM
from mer_bench.fusion.msaf import MSAF
from mer_bench.fusion.mult import MulT
from mer_bench.fusion.multiplicative import Multiplicative
from mer_bench.fusion.perceiver import Perceiver
from mer_bench.fusion.pmr import PMR
from mer_bench.fusion.sdt import SDT
from mer_bench.fusion.sync_tva import SyncTVA
from mer_bench.fusion.tacfn import TACFN
from mer_bench.fusion.tensor_fusion import TensorFusion
from mer_bench.fusion.unimodal import Unimodal

METHODS: dict[str, type[FusionModule]] = {
    "majority": Majority,
    "unimodal": Unimodal,
    "early_concat": EarlyConcat,
    "late_average": LateAverage,
    "tensor_fusion": TensorFusion,
    "low_rank": LowRank,
    "mult": MulT,
    "cfn_sr": CFNSR,
    "tacfn": TACFN,
    "bc_lstm": BCLSTM,
    "sync_tva": SyncTVA,
    "late_product": LateProduct,
    "multiplicative": Multiplicative,
    "gated": Gated,
    "ef_lstm": EFLSTM,
    "compact_bilinear": CompactBilinear,
    "mfn": MFN,
    "graph_mfn": GraphMFN,
    "mctn": MCTN,
    "mmtm": MMTM,
    "msaf": MSAF,
    "sdt": SDT,
    "m3net": M3Net,
    "graph_smile": GraphSmile,
    "cross_attention": CrossAttention,
    "bottleneck": Bottleneck,
    "perceiver": Perceiver,
    "misa": MISA,
    "mmim": MMIM,
    "lmf_mult": LMFMulT,
    "pmr": PMR,
    "lmr_cbt": LMRCBT,
}
