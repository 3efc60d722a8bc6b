"""Fusion methods, one file per paper; ``METHODS[name](dims, num_classes, **options)`` constructs one."""

from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.bc_lstm import BCLSTM
from mer_bench.fusion.bottleneck import Bottleneck
from mer_bench.fusion.ccf_agcn import CCFAGCN
from mer_bench.fusion.cfn_sr import CFNSR
from mer_bench.fusion.cogmen import COGMEN
from mer_bench.fusion.compact_bilinear import CompactBilinear
from mer_bench.fusion.corect import CORECT
from mer_bench.fusion.cross_attention import CrossAttention
from mer_bench.fusion.dialogue_gcn import DialogueGCN
from mer_bench.fusion.dialogue_rnn import DialogueRNN
from mer_bench.fusion.dmd import DMD
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.fusion.ef_lstm import EFLSTM
from mer_bench.fusion.gated import Gated
from mer_bench.fusion.gcnet import GCNet
from mer_bench.fusion.graph_mfn import GraphMFN
from mer_bench.fusion.graph_smile import GraphSmile
from mer_bench.fusion.late_average import LateAverage
from mer_bench.fusion.late_product import LateProduct
from mer_bench.fusion.linear import Linear
from mer_bench.fusion.lmf_mult import LMFMulT
from mer_bench.fusion.lmr_cbt import LMRCBT
from mer_bench.fusion.low_rank import LowRank
from mer_bench.fusion.m3net import M3Net
from mer_bench.fusion.majority import Majority
from mer_bench.fusion.mctn import MCTN
from mer_bench.fusion.mfn import MFN
from mer_bench.fusion.misa import MISA
from mer_bench.fusion.mm_dfn import MMDFN
from mer_bench.fusion.mmgcn import MMGCN
from mer_bench.fusion.mmim import MMIM
from mer_bench.fusion.mmin import MMIN
from mer_bench.fusion.mmtm import MMTM
from mer_bench.fusion.msaf import MSAF
from mer_bench.fusion.mult import MulT
from mer_bench.fusion.multiemo import MultiEMO
from mer_bench.fusion.multiplicative import Multiplicative
from mer_bench.fusion.perceiver import Perceiver
from mer_bench.fusion.pmr import PMR
from mer_bench.fusion.sdt import SDT
from mer_bench.fusion.simbamm import SimBaMM
from mer_bench.fusion.sync_tva import SyncTVA
from mer_bench.fusion.tacfn import TACFN
from mer_bench.fusion.telme import TelME
from mer_bench.fusion.tensor_fusion import TensorFusion
from mer_bench.fusion.tmc import TMC
from mer_bench.fusion.unimodal import Unimodal

METHODS: dict[str, type[FusionModule]] = {
    # Baselines without fusion
    "majority": Majority,
    "unimodal": Unimodal,
    "linear": Linear,
    # Decision level
    "late_average": LateAverage,
    "late_product": LateProduct,
    "multiplicative": Multiplicative,
    "tmc": TMC,
    # Feature level
    "early_concat": EarlyConcat,
    "ef_lstm": EFLSTM,
    "gated": Gated,
    "tensor_fusion": TensorFusion,
    "low_rank": LowRank,
    "compact_bilinear": CompactBilinear,
    # Model level
    "mfn": MFN,
    "graph_mfn": GraphMFN,
    "mctn": MCTN,
    "mult": MulT,
    "lmf_mult": LMFMulT,
    "pmr": PMR,
    "lmr_cbt": LMRCBT,
    "misa": MISA,
    "mmim": MMIM,
    "mmin": MMIN,
    "dmd": DMD,
    "mmtm": MMTM,
    "msaf": MSAF,
    "cross_attention": CrossAttention,
    "bottleneck": Bottleneck,
    "perceiver": Perceiver,
    "simbamm": SimBaMM,
    "cfn_sr": CFNSR,
    "tacfn": TACFN,
    # Dialogue context
    "bc_lstm": BCLSTM,
    "dialogue_rnn": DialogueRNN,
    "dialogue_gcn": DialogueGCN,
    "mmgcn": MMGCN,
    "mm_dfn": MMDFN,
    "cogmen": COGMEN,
    "corect": CORECT,
    "m3net": M3Net,
    "sdt": SDT,
    "gcnet": GCNet,
    "multiemo": MultiEMO,
    "graph_smile": GraphSmile,
    "telme": TelME,
    "sync_tva": SyncTVA,
    "ccf_agcn": CCFAGCN,
}
