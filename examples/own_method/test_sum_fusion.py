from sum_fusion import SumFusion

from mer_bench.testing import check_method


def test_sum_fusion_holds_what_every_method_must_hold() -> None:
    check_method(SumFusion)
