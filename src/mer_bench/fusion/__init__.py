"""Fusion methods, one paper a file. ``METHODS[name](dims, num_classes, **options)`` builds one."""

from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.fusion.late_average import LateAverage
from mer_bench.fusion.majority import Majority
from mer_bench.fusion.unimodal import Unimodal

METHODS: dict[str, type[FusionModule]] = {
    "majority": Majority,
    "unimodal": Unimodal,
    "early_concat": EarlyConcat,
    "late_average": LateAverage,
}
