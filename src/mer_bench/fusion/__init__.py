"""Fusion methods, one paper a file. ``METHODS[name](dims, num_classes, **options)`` builds one."""

from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.bc_lstm import BCLSTM
from mer_bench.fusion.cfn_sr import CFNSR
from mer_bench.fusion.cogmen import COGMEN
from mer_bench.fusion.corect import CORECT
from mer_bench.fusion.dialogue_gcn import DialogueGCN
from mer_bench.fusion.dialogue_rnn import DialogueRNN
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.fusion.late_average import LateAverage
from mer_bench.fusion.low_rank import LowRank
from mer_bench.fusion.majority import Majority
from mer_bench.fusion.mm_dfn import MMDFN
from mer_bench.fusion.mmgcn import MMGCN
from mer_bench.fusion.mult import MulT
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
    "mmgcn": MMGCN,
    "dialogue_gcn": DialogueGCN,
    "dialogue_rnn": DialogueRNN,
    "mm_dfn": MMDFN,
    "cogmen": COGMEN,
    "corect": CORECT,
}
